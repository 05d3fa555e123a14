"""Planted traces are found and named, none are found where there are none, and too few pictures give no number."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from planted import picture, write

from vlbias.errors import ConfigError
from vlbias.leak import (
    Auc,
    Cell,
    Leak,
    LeakSettings,
    NetworkReading,
    Reading,
    leak_lines,
    leak_warning,
    measure_leak,
    probe,
)

LABELS = {"target": "smile", "protected": "skin"}


def measured(out, table, **settings):
    return measure_leak(table, out, **LABELS, settings=LeakSettings(**({"sizes": (48,)} | settings)))


@pytest.fixture(autouse=True)
def _folds_drawn_once(monkeypatch):
    """Faster, and no less true of what is planted."""
    monkeypatch.setattr(probe, "REPEATS", 1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    return out, write(out)


def test_edits_that_are_like_originals_are_not_told(plain):
    leak = measured(*plain)
    assert [reading.size for reading in leak.readings] == [None, 48]
    for reading in leak.readings:
        assert reading.edits.low <= 0.5 <= reading.edits.high and reading.donors is not None
        assert reading.apart.low <= 0.5 <= reading.apart.high
        assert 0.5 <= reading.statistic_auc < 0.75
    assert (leak.num_edits, leak.num_originals, leak.network) == (60, 60, None)
    assert leak.cells == (Cell("0", "light", 30, 30), Cell("1", "dark", 30, 30))


@pytest.mark.parametrize(
    ("planted", "named", "at_48_px"),
    [
        ("blur", ("spectrum", "residual", "colour_spectrum"), True),
        ("quality", ("quantisation_luma", "quantisation_chroma"), False),
        ("twice", ("quantisation", "block_edges"), None),
        ("png", ("format_", "quantisation_luma", "colour_subsampling"), False),
        ("size", ("width", "height"), True),
    ],
)
def test_planted_traces_are_found_and_named(tmp_path, planted, named, at_48_px):
    leak = measured(tmp_path, write(tmp_path, planted))
    as_written, at_size = leak.readings
    assert as_written.edits.low > 0.85 and leak.is_warned_of
    assert as_written.statistic.startswith(named) and as_written.statistic_auc > 0.9
    if at_48_px is not None:
        assert (at_size.edits.value > 0.9) == at_48_px
    assert as_written.donors.low < 0.5 < as_written.donors.high
    assert as_written.excess.value == pytest.approx(as_written.edits.value - as_written.donors.value)
    assert as_written.excess.low > 0.1


def test_the_seed_decides_and_values_survive_json(plain):
    first, again = measured(*plain), measured(*plain)
    assert first == again and first != measured(*plain, seed=1)
    values = json.loads(json.dumps(first.to_dict()))
    assert Leak.from_dict(values).to_dict() == values
    with pytest.raises(ConfigError, match="not a measurement of the leak: 'network'"):
        Leak.from_dict({})


def test_at_most_so_many_pictures_are_drawn(plain):
    leak = measured(*plain, max_pictures=20)
    assert (leak.num_edits, leak.num_originals) == (20, 20)
    assert [cell.edits for cell in leak.cells] == [30, 30]


def test_too_few_pictures_give_no_number(plain):
    out, table = plain
    edits = table["origin"] == "edited"
    few = table[~edits | (table.groupby(["smile", "origin"]).cumcount() < 9)]
    leak = measured(out, few)
    assert leak.readings == () and leak.worst is None and not leak.is_warned_of
    assert leak_lines(leak) == [
        "Too few pictures to tell how well edits can be told from originals of the same cell: 0 light (9 edits, 30 "
        "originals), 1 dark (9 edits, 30 originals). It takes 5 of both in a cell and 20 of both in all."
    ]
    assert leak_lines(measured(out, table[~edits])) == ["There is no edit to tell from an original."]


def test_a_cell_with_too_few_is_left_out(plain):
    out, table = plain
    small = (table["smile"] == 1) & (table["skin"] == "dark") & (table["origin"] == "real")
    leak = measured(out, table[~small | (small.cumsum() <= 4)])
    assert leak.num_edits == 30 and [cell.is_enough for cell in leak.cells] == [True, False]
    assert leak.readings[0].apart is None


def test_other_splits_and_unlabelled_rows_are_not_looked_at(plain):
    out, table = plain
    table = table.copy()
    table.loc[table["smile"] == 0, "split"] = "test"
    assert [cell.target for cell in measured(out, table).cells] == ["1"]
    table["skin"] = table["skin"].mask(table["smile"] == 1)
    assert measured(out, table).cells == ()


def test_in_photographs_the_faces_are_compared(plain, tmp_path):
    """What is around the face differs between edits and originals, the faces do not."""
    out, table = plain
    (tmp_path / "train").mkdir()
    for row in table.to_dict("records"):
        photo = Image.new("RGB", (128, 96), "red" if row["origin"] == "edited" else "blue")
        photo.paste(Image.open(out / row["file_name"]), (40, 16))
        photo.save(tmp_path / row["file_name"], format="PNG")
    boxed = table.assign(face_box="40,16,104,80")
    whole, faces = measured(tmp_path, table), measured(tmp_path, boxed)
    assert whole.readings[1].edits.value > 0.95
    assert faces.readings[1] == measured(out, table).readings[1]


def test_sizes_far_above_the_pictures_are_left_out(plain):
    assert [reading.size for reading in measured(*plain, sizes=(96, 128, 224)).readings] == [None, 96]


def test_originals_that_are_not_in_the_folder_are_asked_for(plain):
    out, table = plain
    lacking = table.copy()
    lacking.loc[lacking["origin"] == "real", "file_name"] = None
    with pytest.raises(ConfigError, match="the picture of 'o0-000' is not in"):
        measured(out, lacking)
    leak = measure_leak(
        lacking, out, **LABELS, settings=LeakSettings(sizes=(48,)), original=lambda item: out / f"train/{item}.jpg"
    )
    assert leak == measured(out, table)
    drawn = {item: picture(np.random.default_rng(i)) for i, item in enumerate(lacking["source_id"].unique())}
    leak = measure_leak(lacking, out, **LABELS, original=drawn.__getitem__)
    assert leak.worst.edits.value > 0.95  # drawn pictures count as PNG


def test_donors_that_are_nowhere_are_not_spoken_of(plain):
    out, table = plain
    alone = table[~table["source_id"].str.startswith("d") | (table["origin"] == "edited")]
    for reading in measured(out, alone, max_pictures=40).readings:
        assert reading.donors is None and reading.excess is None


def test_donors_in_a_folder_of_their_own_are_found(plain, tmp_path):
    out, table = plain
    alone = table[~table["source_id"].str.startswith("d") | (table["origin"] == "edited")]
    (tmp_path / "donors").mkdir()
    (tmp_path / "train").symlink_to(out / "train")
    for row in alone[alone["origin"] == "edited"].to_dict("records"):
        stem = row["file_name"].removeprefix("train/").removesuffix(".jpg")
        (tmp_path / f"donors/{stem}.jpg").symlink_to(out / f"train/{row['source_id']}.jpg")
    assert measured(tmp_path, alone) == measured(out, table)


def test_a_network_tells_edits_less_their_donors(tmp_path):
    leak = measured(tmp_path, write(tmp_path, "mark"), probe="network", network_size=16, network_steps=25)
    network = leak.network
    assert network.size == 16 and network.edits.value > 0.9 and network.excess.low > 0
    assert network.donors.low < 0.5 < network.donors.high
    assert network.excess.value == pytest.approx(network.edits.value - network.donors.value)
    assert network.excess.low < network.excess.value < network.excess.high
    assert "By a small network at 16 px" in leak_lines(leak)[-1]
    assert Leak.from_dict(leak.to_dict()).to_dict() == leak.to_dict()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"probe": "eye"}, "`probe` of LeakSettings must be one of low-level, network; got 'eye'"),
        ({"sizes": (128, 8)}, r"`sizes` of LeakSettings must be a list .* whole number in 16..2048"),
        ({"max_pictures": 3}, "`max_pictures` of LeakSettings must be a whole number >= 20; got 3"),
        ({"network_steps": 0}, "`network_steps` of LeakSettings must be a whole number >= 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        LeakSettings(**change)


# -- words ------------------------------------------------------------------------------------------------------------


def leak_of(value=0.9, donors=0.52, statistic="spectrum_16", network=None):
    told, excess = Auc(value, value - 0.05, value + 0.05), Auc(value - donors, 0.1, 0.5)
    reading = Reading(128, told, Auc(donors, 0.45, 0.6), excess, None, None, statistic, 0.8)
    other = Reading(None, Auc(0.6, 0.5, 0.7), None, None, None, None, "width", 0.6)
    return Leak((Cell("1", "dark", 50, 40),), 50, 40, (other, reading), network, LeakSettings())


def test_cells_read_apart_are_spoken_of_where_they_tell_more():
    leak = leak_of(0.6)
    reading = replace(leak.readings[1], apart=Auc(0.7, 0.6, 0.8), donors_apart=Auc(0.69, 0.6, 0.8))
    lines = leak_lines(replace(leak, readings=(reading,)))
    assert lines[2] == "Each cell read in its own way, at 128 px: .70 (.60 to .80), unedited donors .69."
    assert len(leak_lines(replace(leak, readings=(replace(reading, apart=Auc(0.59, 0.5, 0.7)),)))) == 2


def test_lines_hold_the_numbers():
    assert leak_lines(leak_of()) == [
        "Edits told from originals of the same cell by low-level traces, AUC of 50 against 40: as written .60 (.50 to "
        ".70); at 128 px .90 (.85 to .95), unedited donors .52.",
        "Most is given away at 128 px by band 16 of 16 of the spectrum of brightness (0.47 to 0.50 cycles per pixel) "
        "(alone .80).",
    ]
    network = NetworkReading(64, Auc(0.8, 0.7, 0.9), Auc(0.75, 0.7, 0.8), Auc(0.05, -0.01, 0.11))
    assert leak_lines(leak_of(network=network))[2] == (
        "By a small network at 64 px: .80 (.70 to .90), unedited donors .75 (.70 to .80); editing adds +0.05 (-0.01 to "
        "+0.11)."
    )


@pytest.mark.parametrize(
    ("leak", "report", "remedy"),
    [
        (leak_of(), {"size": "own", "source": "real", "originals": "copy"}, "--round-trip"),
        (leak_of(statistic="format_png"), {"size": "own", "originals": "copy"}, "one file format and quality"),
        (leak_of(), {"size": "editor", "source": "real", "originals": "copy"}, r"\(--size own\)"),
        (leak_of(), {"size": "own", "source": "prior"}, "--source real"),
        (leak_of(), {"size": "own", "round_trip": {"passed": 80}}, "passed through the editor already"),
        (leak_of(0.7, 0.68), {"size": "own"}, r"unedited donors are told as well \(.68\)"),
    ],
)
def test_a_warning_names_what_tells_and_the_remedy(leak, report, remedy):
    import re

    text = leak_warning(leak, report)
    assert re.search(remedy, text), text
    assert text.startswith("low-level traces tell edits from originals of the same cell with an AUC of ")


def test_a_warning_says_that_it_may_be_chance():
    leak = leak_of(0.7)
    unsure = replace(leak, readings=(replace(leak.readings[1], edits=Auc(0.7, 0.45, 0.9)),))
    assert "The interval includes chance" in leak_warning(unsure, {}) and "chance" not in leak_warning(leak, {})


def test_at_the_bar_nothing_is_warned_of():
    assert leak_warning(leak_of(0.65), {}) is None and leak_warning(leak_of(0.651), {}) is not None
    assert leak_warning(Leak((), 0, 0, (), None, LeakSettings()), {}) is None


def test_rows_may_hold_numbers_and_several_columns(plain):
    out, table = plain
    several = table.assign(age=30)
    leak = measure_leak(several, out, target="smile", protected=["skin", "age"], settings=LeakSettings(sizes=()))
    assert [cell.group for cell in leak.cells] == ["light & 30", "dark & 30"]
    assert isinstance(several, pd.DataFrame)
