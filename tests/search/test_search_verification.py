"""Verification: numbers counted by hand, files in their published layouts, intervals, the command."""

from __future__ import annotations

import io
import pickle
import re
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_curve
from torch import nn
from typer.testing import CliRunner

from vlbias.checkpoints import read_plain_pickle
from vlbias.cli import app
from vlbias.data.pairs import FacePairs, load_pairs
from vlbias.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    LabelError,
    ShapeError,
    UnsafeCheckpointError,
)
from vlbias.networks import FaceInput, FaceNetwork
from vlbias.search.verification import fold_thresholds, tar_at_far, verify

# -- files ------------------------------------------------------------------------------------------------------------


def encoded(level, format="JPEG"):
    buffer = io.BytesIO()
    pixels = np.full((12, 12, 3), level, np.uint8)
    Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()


def python2_pickle(items, answers):
    """Protocol 2 as Python 2 writes it: bytes are strings of that language."""
    out = b"\x80\x02]q\x00("
    for item in items:
        out += b"T" + struct.pack("<i", len(item)) + item
    return out + b"e]q\x01(" + b"".join(b"\x88" if answer else b"\x89" for answer in answers) + b"e\x86q\x02."


PICTURES = [encoded(20 * i) for i in range(8)]
ANSWERS = [True, False, True, False]


@pytest.mark.parametrize("protocol", ["python 2", 0, 2, 4, 5])
def test_bin_files_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "lfw.bin"
    if protocol == "python 2":
        path.write_bytes(python2_pickle(PICTURES, ANSWERS))
    else:
        path.write_bytes(pickle.dumps((PICTURES, ANSWERS), protocol=protocol))
    pairs = load_pairs(path)
    assert len(pairs) == 4 and pairs.is_same.tolist() == ANSWERS and pairs.people is None
    assert pairs.first.tolist() == [0, 2, 4, 6] and pairs.second.tolist() == [1, 3, 5, 7]
    x = pairs.pictures.tensor(["0", "7"], 8)
    assert x.shape == (2, 3, 8, 8) and x[1].mean() > x[0].mean()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_bin_files_whose_pictures_are_arrays_of_bytes(tmp_path, protocol):
    path = tmp_path / "calfw.bin"
    arrays = [np.frombuffer(picture, np.uint8) for picture in PICTURES[:4]]
    arrays += [np.array(list(picture), np.uint8) for picture in PICTURES[4:]]  # writeable ones are pickled otherwise
    path.write_bytes(pickle.dumps((arrays, np.array(ANSWERS)), protocol=protocol))
    pairs = load_pairs(path)
    assert pairs.is_same.tolist() == ANSWERS
    assert pairs.pictures.encoded == PICTURES
    path.write_bytes(pickle.dumps({"f": np.asfortranarray([[1.5, 2], [3, 4]]), "o": 7}, protocol=protocol))
    assert read_plain_pickle(path)["f"].values.tolist() == [[1.5, 2], [3, 4]]
    path.write_bytes(pickle.dumps(np.array([{}], dtype=object), protocol=protocol))
    with pytest.raises(UnsafeCheckpointError):
        read_plain_pickle(path)
    path.write_bytes(pickle.dumps(([np.zeros((3, 4, 4), np.uint8)] * 8, ANSWERS), protocol=protocol))
    with pytest.raises(CheckpointError, match="pictures that are not encoded"):
        load_pairs(path)


def test_bin_files_run_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (eval, ("1",))  # not `print`, for which ray puts its own

    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps((PICTURES, [True, False, True, Evil()])))
    with pytest.raises(UnsafeCheckpointError, match="it asks to call builtins.eval"):
        load_pairs(path)
    path.write_bytes(pickle.dumps((PICTURES, ANSWERS))[:-40])
    with pytest.raises(CheckpointError):
        load_pairs(path)
    for content in ((PICTURES[:6], ANSWERS), PICTURES, ([], [])):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match="expected 2n pictures and n answers"):
            load_pairs(path)
    path.write_bytes(pickle.dumps((PICTURES, [1, 0, 7, 0])))
    with pytest.raises(CheckpointError, match="an answer other than true and false"):
        load_pairs(path)
    path.write_bytes(pickle.dumps(([1] * 8, ANSWERS)))
    with pytest.raises(CheckpointError, match="pictures that are not encoded"):
        load_pairs(path)
    path.write_bytes(pickle.dumps({"a": [1, 2.5, None, b"x"]}))
    assert read_plain_pickle(path) == {"a": [1, 2.5, None, b"x"]}


def write_people(root, names, num_images=3):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(1, num_images + 1):
            (root / name / f"{name}_{i:04d}.jpg").write_bytes(encoded(10 * number + i))


def test_lfw_pairs(tmp_path):
    write_people(tmp_path / "lfw", ["Ann_Lee", "Bo", "Cy"])
    text = "2\t2\nAnn_Lee\t1\t2\nBo\t1\t3\nAnn_Lee\t1\tBo\t2\nBo\t1\tCy\t1\n"
    text += "Cy\t1\t2\nCy\t2\t3\nAnn_Lee\t3\tCy\t3\nBo\t9\tCy\t1\nBo\tx\tCy\t1\n"
    (tmp_path / "lfw" / "pairs.txt").write_text(text)
    pairs = load_pairs(tmp_path / "lfw" / "pairs.txt")
    assert pairs.folds.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert pairs.is_same.tolist() == [True, True, False, False, True, True, False]
    assert pairs.people.tolist()[2] == ["Ann_Lee", "Bo"] and pairs.groups.tolist() == ["all"] * 7
    assert {p.file: p.code for p in pairs.problems} == {
        "pairs.txt:9": "missing_image",
        "pairs.txt:10": "malformed_line",
    }
    (tmp_path / "pairs.txt").write_text(text)
    assert len(load_pairs(tmp_path / "pairs.txt", images=tmp_path / "lfw")) == 7


def test_lfw_lists_without_folds_have_both_kinds_in_each_part(tmp_path):
    """pairsDevTest.txt: a single number, all pairs of one person, then those of two."""
    write_people(tmp_path, ["ann", "bo"], num_images=4)
    lines = ["ann\t1\t2", "bo\t1\t2", "ann\t3\t4", "bo\t3\t4", *(f"ann\t{i}\tbo\t{i}" for i in (1, 2, 3, 4))]
    (tmp_path / "pairsDevTest.txt").write_text("\n".join(["4", *lines]))
    pairs = load_pairs(tmp_path / "pairsDevTest.txt")
    assert pairs.folds.tolist() == [0, 2, 5, 7] * 2
    (tmp_path / "plain.txt").write_text("\n".join(lines))
    assert load_pairs(tmp_path / "plain.txt").folds.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_rfw(tmp_path):
    for race in ("African", "Asian"):
        write_people(tmp_path / "test" / "data" / race, [f"m.0{race[:2]}a", f"m.0{race[:2]}b"])
        (tmp_path / "test" / "txts" / race).mkdir(parents=True)
        a, b = f"m.0{race[:2]}a", f"m.0{race[:2]}b"
        lines = [f"{a}\t1\t2", f"{b}\t1\t{a}\t2", f"{b}\t2\t3", f"{a}\t3\t{b}\t3"]
        (tmp_path / "test" / "txts" / race / f"{race}_pairs.txt").write_text("\n".join(lines))
    pairs = load_pairs(tmp_path)
    assert pairs.groups.tolist() == ["African"] * 4 + ["Asian"] * 4
    assert pairs.is_same.tolist() == [True, False] * 4
    told = {p.file: p.detail for p in pairs.problems if p.code == "other_count"}
    assert told["African_pairs.txt"] == "4 pairs; the published list has 6,000" and len(told) == 2
    with pytest.raises(DatasetError, match="has no txts/African/African_pairs.txt"):
        load_pairs(tmp_path / "test" / "data")


def test_a_cell_of_a_megabyte_in_a_list_of_pairs(tmp_path):
    place = tmp_path / "pairs.csv"
    for text in ("first,second,same\n" + "x" * 1_000_000 + ",b,1\n", "x" * 1_000_000 + "\n"):
        place.write_text(text)
        with pytest.raises(DatasetError, match="pairs.csv is not a table"):
            load_pairs(place)
    place.write_text("first,second,same\n" + "x" * 1_000 + ",b,1\n")
    with pytest.raises(DatasetError):
        load_pairs(place)


def test_own_list_and_groups(tmp_path):
    write_people(tmp_path, ["ann", "bo"])
    rows = ["first,second,same,person_1,person_2,group,fold"]
    rows += ["ann/ann_0001.jpg,ann/ann_0002.jpg,1,ann,ann,f,0", "ann/ann_0001.jpg,bo/bo_0001.jpg,no,ann,bo,m,1"]
    rows += ["gone.jpg,bo/bo_0001.jpg,0,,,m,1", "bo/bo_0001.jpg,bo/bo_0002.jpg,maybe,bo,bo,m,1"]
    rows += ["bo/bo_0001.jpg,bo/bo_0002.jpg,0,bo,bo,m,1", "../x.jpg,bo/bo_0002.jpg,0,bo,bo,m,1"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    pairs = load_pairs(tmp_path / "pairs.csv")
    assert pairs.groups.tolist() == ["f", "m"] and pairs.folds.tolist() == [0, 1]
    assert [p.file for p in pairs.problems] == [f"pairs.csv:{i}" for i in (4, 5, 6, 7)]
    assert pairs.problems[2].detail == "same: '0', but the people are 'bo' and 'bo'"
    (tmp_path / "groups.csv").write_text("group\na\nb\n")
    assert load_pairs(tmp_path / "pairs.csv", groups=tmp_path / "groups.csv").groups.tolist() == ["a", "b"]
    (tmp_path / "groups.csv").write_text("group\na\n")
    with pytest.raises(LabelError, match="must hold one group for each of 2 pairs; got 1"):
        load_pairs(tmp_path / "pairs.csv", groups=tmp_path / "groups.csv")
    (tmp_path / "groups.csv").write_text("identity,group\nann,x\nbo,x\n")
    assert load_pairs(tmp_path / "pairs.csv", groups=tmp_path / "groups.csv").groups.tolist() == ["x", "x"]
    (tmp_path / "groups.csv").write_text("identity,race\nann,x\n")
    with pytest.raises(LabelError, match="lacks the column 'group'"):
        load_pairs(tmp_path / "pairs.csv", groups=tmp_path / "groups.csv")


# -- numbers ----------------------------------------------------------------------------------------------------------


def drawn_pairs(num_people=40, num_pairs=600, seed=0, groups=("a", "b")):
    """Pairs of drawn embeddings: people are directions, images lie around them; group b lies less close."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num_people, 16))
    of_person = np.array([groups[person % len(groups)] for person in range(num_people)], dtype=object)
    noise = np.where(of_person == groups[-1], 1.2, 0.8)
    z = centres[:, None] + noise[:, None, None] * generator.normal(size=(num_people, 4, 16))
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    first = generator.integers(num_people, size=num_pairs)
    is_same = np.arange(num_pairs) % 2 == 0
    step = len(groups) * generator.integers(1, num_people // len(groups), size=num_pairs)
    second = np.where(is_same, first, (first + step) % num_people)
    i = generator.integers(4, size=num_pairs)
    j = (i + generator.integers(1, 4, size=num_pairs)) % 4
    pairs = FacePairs(
        "drawn",
        None,
        tuple(str(k) for k in range(num_people * 4)),
        first * 4 + i,
        second * 4 + j,
        is_same,
        np.arange(num_pairs) % 10,
        of_person[first],
        np.stack([first, second], axis=1).astype(object),
    )
    return z.reshape(-1, 16), pairs


def by_hand(scores, is_same, folds):
    """Ten-fold accuracy with plain loops over every threshold."""
    right = 0
    for fold in np.unique(folds):
        inside, rest = folds == fold, folds != fold
        candidates = np.unique(scores[rest])
        candidates = np.r_[candidates[0] - 1, (candidates[1:] + candidates[:-1]) / 2, candidates[-1] + 1]
        found = [np.mean((scores[rest] > t) == is_same[rest]) for t in candidates]
        best = candidates[np.flatnonzero(np.isclose(found, max(found)))]
        chosen = best[np.argsort(best)][(len(best) - 1) // 2]
        right += np.sum((scores[inside] > chosen) == is_same[inside])
    return right / len(scores)


def test_accuracy_and_rates_equal_plain_loops_and_scikit_learn():
    z, pairs = drawn_pairs()
    scores = (z[pairs.first] * z[pairs.second]).sum(1)
    table = verify(z, pairs, fars=(0.01, 0.1))
    for group in ("a", "b"):
        mine = pairs.groups == group
        expected = by_hand(scores[mine], pairs.is_same[mine], pairs.folds[mine])
        assert table.loc[group, "accuracy"] == pytest.approx(expected, abs=0.011)
        fpr, tpr, _ = roc_curve(pairs.is_same[mine], scores[mine], drop_intermediate=False)
        for far in (0.01, 0.1):
            assert table.loc[group, f"tar_{far:g}"] == pytest.approx(tpr[fpr <= far].max())
            assert table.loc[group, f"far_{far:g}"] <= far
    assert table["pairs"].sum() == 600 and table["people"].tolist() == [20, 20]
    assert (table["accuracy_low"] < table["accuracy"]).all() and (table["accuracy"] < table["accuracy_high"]).all()
    assert table.loc["a", "accuracy"] > table.loc["b", "accuracy"]
    summary = table.attrs["summary"]
    assert summary["accuracy_gap"] == pytest.approx(table["accuracy"].max() - table["accuracy"].min())
    assert 0 <= summary["accuracy_gap_low"] <= summary["accuracy_gap"] <= summary["accuracy_gap_high"]


def test_hand_counted_thresholds():
    scores = np.array([0.9, 0.8, 0.5, 0.5, 0.2])
    is_same = np.array([True, True, True, False, False])
    found = fold_thresholds(scores, is_same, np.array([0, 1, 1, 1, 1]))
    # of fold 1's four others: accept 0.8 alone, or both of 0.5 as well; three are right either way
    assert 0.2 < found[0] < 0.8 and np.isclose(found[1], 0.9, atol=1e-5)
    assert tar_at_far(np.array([3.0, 1.0]), np.array([2.0, 2.0, 0.0, 0.0]), 0.5) == 1.0
    assert tar_at_far(np.array([3.0, 1.0]), np.array([2.0, 2.0, 0.0, 0.0]), 0.25) == 0.5  # 2 is tied
    assert tar_at_far(np.array([5.0]), np.linspace(0, 1, 3000), 1e-3) == 1.0
    assert np.isnan(tar_at_far(np.array([5.0]), np.linspace(0, 1, 3000), 1e-4))


def test_what_cannot_be_seen_is_withheld():
    z, pairs = drawn_pairs()
    table = verify(z, pairs)
    assert table[["tar_0.001", "tar_0.0001", "far_0.001"]].isna().all().all()
    assert table.attrs["notes"][0].startswith("FAR 0.001 needs 1,000 pairs of two people; there are ")
    assert np.isnan(table.attrs["summary"]["tar_0.001_gap"])


def test_further_impostors_show_rarer_accepts():
    z, pairs = drawn_pairs(num_people=40, num_pairs=600)
    table = verify(z, pairs, fars=(1e-3,), num_impostors=20_000)
    assert table["tar_0.001"].notna().all() and table.attrs["notes"] == []
    assert table["accuracy"].equals(verify(z, pairs)["accuracy"]) and table["pairs"].sum() == 600
    # of all pairs of two people of a group, as scikit-learn counts them
    person = np.repeat(np.arange(40), 4)
    for group in ("a", "b"):
        images = np.flatnonzero(person % 2 == "ab".index(group))
        one, other = np.triu_indices(len(images), 1)
        differ = person[images[one]] != person[images[other]]
        everybody = (z[images[one]] * z[images[other]]).sum(1)[differ]
        mine = pairs.is_same & (pairs.groups == group)
        genuine = (z[pairs.first[mine]] * z[pairs.second[mine]]).sum(1)
        expected = tar_at_far(genuine, everybody, 1e-3)
        assert table.loc[group, "tar_0.001_low"] <= expected <= table.loc[group, "tar_0.001_high"]
        assert table.loc[group, "tar_0.001"] == pytest.approx(expected, abs=0.06)
    with pytest.raises(ConfigError, match="only where drawn says who is shown"):
        verify(z, replace(pairs, people=None), num_impostors=10)


def test_a_common_threshold_lets_one_group_pass_more():
    z, pairs = drawn_pairs(num_pairs=2000)
    own = verify(z, pairs, fars=(0.01,))
    common = verify(z, pairs, fars=(0.01,), threshold="common")
    assert own["far_0.01"].max() <= 0.01
    assert common["far_0.01"].max() > 0.01 > common["far_0.01"].min()
    weights = [(pairs.groups[~pairs.is_same] == group).mean() for group in common.index]
    assert np.dot(weights, common["far_0.01"]) == pytest.approx(0.01, abs=0.001)


def test_a_group_without_pairs_of_both_kinds_has_no_accuracy():
    z, pairs = drawn_pairs(num_pairs=600)
    first = int(np.flatnonzero(pairs.groups == "b")[0])
    lonely = np.where(np.arange(len(pairs)) == first, "c", pairs.groups)
    genuine = np.where((pairs.groups == "b") & pairs.is_same, "c", pairs.groups)
    one_fold = np.where((pairs.groups == "b") & (pairs.folds == 3), "c", pairs.groups)
    for groups in (lonely, genuine, one_fold):
        for threshold in ("group", "common"):
            table = verify(z, replace(pairs, groups=groups.astype(object)), fars=(0.05,), threshold=threshold)
            assert table.loc["c", ["accuracy", "accuracy_low", "accuracy_high"]].isna().all()
            assert table.loc["a", "accuracy_low"] < table.loc["a", "accuracy"]
            assert any(note.startswith("The accuracy of c is not known") for note in table.attrs["notes"])
            assert np.isnan(table.attrs["summary"]["accuracy_gap"])


def test_intervals_are_wider_where_pairs_share_people():
    z, pairs = drawn_pairs(num_people=12, num_pairs=1200)
    table = verify(z, pairs, fars=(0.05,))
    strangers = np.arange(2 * len(pairs)).reshape(-1, 2)
    strangers[pairs.is_same, 1] = strangers[pairs.is_same, 0]

    alone = verify(z, replace(pairs, people=strangers.astype(object)), fars=(0.05,))
    assert table["accuracy"].equals(alone["accuracy"])
    for key in ("accuracy", "tar_0.05"):
        width = table[f"{key}_high"] - table[f"{key}_low"]
        alone_width = alone[f"{key}_high"] - alone[f"{key}_low"]
        assert width["b"] > 1.2 * alone_width["b"]  # group a is told apart almost always
    unknown = verify(z, replace(pairs, people=None), fars=(0.05,))
    assert table.attrs["resampled"] == "people" and unknown.attrs["resampled"] == "10 folds"
    assert unknown["people"].isna().all() and unknown["accuracy_low"].notna().all()


def test_bad_embeddings_and_settings():
    z, pairs = drawn_pairs()
    with pytest.raises(ShapeError, match=r"Expected embeddings \(160, d\), one per picture of the pairs; got \(10,"):
        verify(z[:10], pairs)
    with pytest.raises(ShapeError, match="not finite"):
        verify(np.where(z > 0.4, np.nan, z), pairs)
    with pytest.raises(ConfigError, match=r"must lie in \(0, 1\)"):
        verify(z, pairs, fars=(0,))
    with pytest.raises(ConfigError, match="`threshold` must be 'group' or 'common'"):
        verify(z, pairs, threshold="own")
    with pytest.raises(DatasetError, match="pairs of one person and pairs of two"):
        FacePairs("x", None, ("0",), *(np.zeros(2, int),) * 2, np.ones(2, bool), np.arange(2), np.array(["a", "a"]))


# -- models and the command -------------------------------------------------------------------------------------------


class Mean(nn.Module):
    image_size = 8

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def write_bin(path, num_pairs=40):
    generator = np.random.default_rng(0)

    def picture(pattern):
        pixels = np.kron(pattern + generator.integers(-30, 30, pattern.shape), np.ones((8, 8, 1)))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    pictures, answers = [], []
    for i in range(num_pairs):
        one, other = (generator.integers(0, 256, (2, 2, 3)) for _ in range(2))
        pictures += [picture(one), picture(one if i % 2 else other)]
        answers.append(i % 2 == 1)
    path.write_bytes(pickle.dumps((pictures, answers), protocol=2))


def test_modules_and_networks_agree(tmp_path):
    write_bin(tmp_path / "lfw.bin")
    pairs = load_pairs(tmp_path / "lfw.bin")
    module = verify(Mean(), pairs)
    assert module.loc["all", "accuracy"] > 0.9
    network = FaceNetwork("mean", Mean(), FaceInput(size=8, mean=(127.5,) * 3, std=(127.5,) * 3))
    pd.testing.assert_frame_equal(verify(network, pairs), module)


def test_the_command(tmp_path, tiny, small_space):
    from vlbias import search

    study = search.run(
        tiny,
        protected="gender",
        image_size=16,
        space=small_space,
        storage=str(tmp_path / "study.log"),
        n_trials=1,
        fidelity=("epochs", 1, 1),
        max_error=1.0,
        sampler="random",
    )
    study.save(study.trials()[0] if hasattr(study, "trials") else study.best(), tmp_path / "model")
    write_bin(tmp_path / "lfw.bin")
    (tmp_path / "groups.csv").write_text("group\n" + "\n".join("ab"[i // 2 % 2] for i in range(40)))
    arguments = ["search", "evaluate", str(tmp_path / "model"), "--pairs", str(tmp_path / "lfw.bin")]
    arguments += ["--groups", str(tmp_path / "groups.csv"), "--out", str(tmp_path / "new" / "table.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"accuracy_gap: 0\.\d+", result.output) and "10 folds as independent" in result.output
    assert pd.read_csv(tmp_path / "new" / "table.csv")["group"].tolist() == ["a", "b"]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "already exists" in str(again.exception)


def test_a_command_of_two_words_stands_beside_the_one_of_its_first():
    runner = CliRunner()
    assert "--pairs" in runner.invoke(app, ["search", "evaluate", "--help"]).output
    assert "--pairs" not in runner.invoke(app, ["search", "--help"]).output
    assert "DATASET" in runner.invoke(app, ["search", "--help"]).output
