"""Scorers that the user brings: a face embedder for identity, classifiers for attributes, with answers by formula.

A tiny face carries its code in six patterns: pattern 0 is skin, 1 is the smile, 3 to 5 are who it is.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx_files
import pytest
import torch
from onnx import helper
from PIL import Image

from vlbias import report
from vlbias.balance import Balancer, Checks
from vlbias.balance.calibration import _filled
from vlbias.balance.fitting import network_reading, through_tensor
from vlbias.balance.identity import EmbeddingIdentity, IdentityScale, LatentIdentity, fit_scale
from vlbias.balance.poles import Poles
from vlbias.balance.scoring import AttributeScorer, Reading
from vlbias.classify import Classifier, FitSettings
from vlbias.errors import CheckpointError, ConfigError, OutputError, PlanError, UnknownNameError
from vlbias.images import to_tensor, to_uint8
from vlbias.labelling import ClassifierLabeller
from vlbias.networks import FaceInput, FaceNetwork, FaceOutput, load_network
from vlbias.pages.page import percent

pytest.importorskip("onnxruntime", reason="needs the extra 'faces'")

IN_RANGE = {"layout": None, "mean": 127.5, "std": 127.5}
SIGHT = FaceInput(8)


def pixels(x):
    """Each picture of a batch in [-1, 1] as its 8-bit values."""
    return [picture.numpy().tobytes() for picture in to_uint8(x)]


def balancer(editor, **settings):
    return Balancer(editor, **({"target": "smile", "protected": "skin", "chunk_size": 8} | settings))


def run(editor, faces, out, *, limit=None, shard=None, **settings):
    job = balancer(editor, **settings)
    return job.run(faces, job.plan(faces, limit=limit), out, shard=shard, show_progress=False)


def linear_file(path, patterns, rows, scale=1.0, **about):
    """An ONNX file of ``scale * code[rows]``: the pictures times some of the patterns."""
    weight = scale * patterns[rows].T.numpy() / 16
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    onnx_files.write(path, nodes, [("w", weight)])
    path.with_suffix(".json").write_text(json.dumps(IN_RANGE | about))
    return path


@pytest.fixture
def who(tmp_path, editor):
    """A face embedder: the numbers of the code that say who it is."""
    return linear_file(tmp_path / "who.onnx", editor.diffae.patterns, [3, 4, 5])


def skin_network(editor, sure=8.0, **changes):
    """Log-odds of dark skin, from the picture."""

    def look(x):
        code = sure * editor.diffae.encode(x)[:, 0]
        return torch.stack([-code, code], dim=1)

    return replace(FaceNetwork("skin", look, SIGHT, FaceOutput(classes=("light", "dark"))), **changes)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_a_face_network_decides_identity_and_the_report_says_so(editor, faces, tmp_path, who):
    result = run(editor, faces, tmp_path / "out", identity=who)
    assert result.report["edits"]["kept"] == 29
    scores = result.table["score_identity"].dropna()
    assert len(scores) == 29 and scores.min() > 0.9 and scores.max() <= 1
    scorer = result.report["identity_scorer"]
    assert (scorer["kind"], scorer["name"], scorer["sha256"]) == ("face network", "who.onnx", load_network(who).digest)
    # 47 originals in 4 cells: each but the first of a cell with the one before it
    assert scorer["pairs"] == 43 and 0 <= scorer["strangers_pass"] < 0.5 and abs(scorer["strangers"]) < 0.5


def test_edits_that_change_the_person_are_turned_down(tiny, faces, tmp_path, who):
    result = run(tiny.TinyEditor(leak=0.12, drift=8.0), faces, tmp_path / "out", identity=str(who), limit=8)
    assert result.report["edits"]["by_reason"]["identity_lost"] > 10
    kept = result.table["score_identity"].dropna()
    assert len(kept) < 4 and (kept >= 0.4).all()


def test_identity_is_one_for_the_same_face_and_nought_for_strangers(editor, who):
    generator = torch.Generator().manual_seed(5)
    codes = torch.randn(60, 6, generator=generator) * 0.3
    x = editor.diffae._picture(codes)
    cells = ["a"] * 30 + ["b"] * 30
    scale = fit_scale(
        editor, network := load_network(who), LatentIdentity((), 1.0), through_tensor(x, 7), cells, least=0.4
    )
    e = network.embeddings(x, layout="ffhq")
    pairs = [(i - 1, i) for i in range(1, 60) if i != 30]
    cosines = torch.stack([(e[a] * e[b]).sum() for a, b in pairs])
    assert scale.pairs == 58 and scale.strangers == pytest.approx(float(cosines.median()))
    scorer = EmbeddingIdentity(lambda x: network.embeddings(x, layout="ffhq"), scale.strangers)
    assert torch.allclose(scorer(None, x, None, x), torch.ones(60).double())
    strangers = torch.stack([scorer(None, x[a : a + 1], None, x[b : b + 1])[0] for a, b in pairs])
    assert float(strangers.median()) == pytest.approx(0, abs=1e-9)
    assert scale.strangers_pass == pytest.approx(float((strangers >= 0.4).double().mean()), abs=1e-4)
    assert IdentityScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


def test_every_scorer_by_name_is_measured(tiny, faces, tmp_path):
    for kind in ("latent", "clip"):
        result = run(tiny.TinyEditor(), faces, tmp_path / kind, identity=kind, limit=4)
        scorer = result.report["identity_scorer"]
        assert scorer["kind"] == scorer["name"] == kind and scorer["pairs"] == 43
    assert scorer["strangers"] != 0  # CLIP's features of two strangers are not at right angles
    own = run(tiny.TinyEditor(), faces, tmp_path / "own", identity=lambda *_: torch.ones(len(_[0])), limit=4)
    assert own.report["identity_scorer"]["kind"] == "custom" and own.report["identity_scorer"]["pairs"] == 0


class Watching:
    """An identity scorer that notes what it is shown."""

    image_size = 20

    def __init__(self):
        self.seen = []

    def __call__(self, z_donor, x_donor, z_edit, x_edit):
        self.seen.append((x_donor, x_edit))
        return torch.ones(len(z_donor))


def test_a_scorer_may_ask_for_the_written_pictures_at_its_own_size(editor, faces, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for item in faces.ids:
        faces.image(item).resize((24, 24), Image.Resampling.NEAREST).save(root / f"{item}.png")
    large = replace(faces, root=root)
    scorer = Watching()
    result = run(editor, large, tmp_path / "out", identity=scorer, limit=8)
    assert scorer.seen and all(part.shape[1:] == (3, 20, 20) for pair in scorer.seen for part in pair)
    edits = result.table[result.table["origin"] == "edited"]
    written = [to_tensor(Image.open(result.out_dir / name), 20)[0] for name in edits["file_name"]]
    shown = torch.cat([pair[1] for pair in scorer.seen])
    assert all((shown == picture).flatten(1).all(1).any() for picture in written)
    donors = torch.cat([pair[0] for pair in scorer.seen])
    assert all((donors == large.tensor([item], 20)[0]).flatten(1).all(1).any() for item in edits["source_id"])


def test_a_face_network_asks_for_pictures_that_lose_nothing(editor):
    asked = []

    def look(x):
        asked.append(tuple(x.shape[-2:]))
        return x.flatten(1)

    network = FaceNetwork("who", look, FaceInput(16, layout="arcface"))
    sizes = []

    def through(size, function):
        sizes.append(size)
        return function(torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1)

    fit_scale(editor, network, LatentIdentity((), 1.0), through, ["a"] * 4, least=0.4)
    assert sizes == [network.input.picture_size("ffhq")] and set(asked) == {(16, 16)}


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (
            lambda x: torch.ones(len(x), 4),
            "to blind all originals are alike \\(median cosine of two strangers 1.000\\)",
        ),
        (lambda x: torch.full((len(x), 4), float("nan")), "blind gives NaN or no vector for 47 of 47 originals"),
        (lambda x: torch.zeros(len(x), 4), "blind gives NaN or no vector for 47 of 47 originals"),
    ],
)
def test_an_embedder_that_sees_nothing_is_refused_before_the_first_edit(editor, faces, tmp_path, look, message):
    with pytest.raises(PlanError, match=message):
        run(editor, faces, tmp_path / "out", identity=FaceNetwork("blind", look, SIGHT))
    assert editor.diffae.evaluations <= 16  # the plan times one evaluation; no edit was made


def test_nan_for_an_edit_is_no_verdict(editor, faces, tmp_path):
    known = set(pixels(faces.tensor(faces.ids, 8)))

    def look(x):
        codes = editor.diffae.encode(x)[:, 3:]
        edited = torch.tensor([face not in known for face in pixels(x)])
        return torch.where(edited[:, None], float("nan"), codes)

    result = run(editor, faces, tmp_path / "out", identity=FaceNetwork("who", look, SIGHT), limit=6)
    assert result.report["edits"]["kept"] == 0 and result.report["edits"]["by_reason"]["not_finite"] >= 6


def test_warnings_where_strangers_pass_or_mirrored_faces_do_not():
    scale = IdentityScale(LatentIdentity((), 1.0), 0.2, strangers_pass=0.4, mirrored_pass=0.3, pairs=9)
    network = FaceNetwork("who.onnx", lambda x: x, SIGHT)
    strangers, mirrored = scale.warnings(network)
    assert "who.onnx takes 40% of strangers for one person. Raise Checks(identity=...)" in strangers
    assert "who.onnx takes only 30% of faces and their own mirror images for one person" in mirrored
    assert len(scale.warnings("latent")) == 1  # codes say which way a face looks
    assert IdentityScale(LatentIdentity((), 1.0), 0.2, 0.05, 0.99, 9).warnings(network) == []


def test_no_warning_where_identity_is_not_asked_for(editor, faces, tmp_path, who):
    asked = run(editor, faces, tmp_path / "asked", identity=who, limit=2, checks=Checks(identity=0.01))
    assert "who.onnx takes " in asked.report["warnings"][0]
    off = run(editor, faces, tmp_path / "off", identity=who, limit=2, checks=Checks(identity=-9))
    assert off.report["identity_scorer"]["strangers_pass"] == 1 and off.report["warnings"] == []


# -- what is refused at once ------------------------------------------------------------------------------------------


def test_what_is_no_scorer_is_refused_before_anything_starts(editor, tmp_path, who):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="`identity` must be .* got 'face.onnx', and there is no such file"):
        balancer(editor, identity="face.onnx")
    with pytest.raises(CheckpointError, match="has no network"):
        balancer(editor, identity=tmp_path / "empty")
    with pytest.raises(ConfigError, match="`identity`: skin tells classes; a face embedder is needed"):
        balancer(editor, identity=skin_network(editor))
    with pytest.raises(ConfigError, match="what the outputs of who.onnx mean is not known"):
        balancer(editor, scorers={"skin": who})
    with pytest.raises(ConfigError, match="`scorers`: who.onnx is an embedder; say what it tells"):
        balancer(editor, scorers={"skin": load_network(who)})
    with pytest.raises(UnknownNameError, match="Unknown column 'skim' for `scorers`.*Did you mean 'skin'"):
        balancer(editor, scorers={"skim": who})
    with pytest.raises(ConfigError, match="`scorers` of 'skin' must be a file, a Classifier, .* got function"):
        balancer(editor, scorers={"skin": lambda x: x})
    with pytest.raises(ConfigError, match="`scorers` of BalanceSettings must be a mapping"):
        balancer(editor, scorers=["skin.onnx"])


def test_a_classifier_must_know_the_labels_of_its_column(editor, faces):
    wrong = skin_network(editor, output=FaceOutput(classes=("Light", "Dark")))
    with pytest.raises(ConfigError, match="skin tells Light, Dark; 'skin' has light, dark. .* 'light' is missing"):
        balancer(editor, scorers={"skin": wrong}).plan(faces)
    smile = skin_network(editor, output=FaceOutput(classes=("no", "yes")))
    with pytest.raises(ConfigError, match="skin tells no, yes; 'smile' has 0, 1"):
        balancer(editor, scorers={"smile": smile}).plan(faces)


# -- attributes -------------------------------------------------------------------------------------------------------


def test_a_classifier_takes_the_place_of_clip(editor, faces, tmp_path):
    path = linear_file(tmp_path / "skin.onnx", editor.diffae.patterns, [0, 0], classes=["light", "dark"])
    # the second output is the code, the first its opposite
    weight = editor.diffae.patterns[[0, 0]].T.numpy() / 16 * np.array([-8, 8])
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    onnx_files.write(path, nodes, [("w", weight)])
    result = run(editor, faces, tmp_path / "out", scorers={"skin": path})
    assert result.report["edits"]["kept"] == 29 and result.report["warnings"] == []
    scorer = result.report["scorers"]["skin"]
    assert scorer["image"] == {"kind": "classes", "name": "skin.onnx", "balanced_accuracy": 1.0}
    assert scorer["not_asked"]["kind"] == "dipole" and scorer["latent"]["kind"] == "dipole"
    assert "not_asked" not in result.report["scorers"]["smile"]
    stored = json.loads((tmp_path / "out/.state/scorers.json").read_text())
    assert stored["attributes"][1]["image"]["kind"] == "classes"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "skin.onnx" in card


def test_a_number_is_calibrated_by_the_medians_of_the_groups(editor, faces, tmp_path):
    path = linear_file(tmp_path / "tone.onnx", editor.diffae.patterns, [0], scale=100, values=[1], activation="none")
    result = run(editor, faces, tmp_path / "out", scorers={"skin": path})
    assert result.report["edits"]["kept"] == 29
    reading = json.loads((tmp_path / "out/.state/scorers.json").read_text())["attributes"][1]["image"]
    codes = editor.diffae.encode(faces.tensor(faces.ids, 8))[:, 0]
    train = (faces.table["split"] == "train").to_numpy()
    for label, anchor in zip(reading["labels"], reading["anchors"], strict=True):
        group = train & (faces.table["skin"] == label).to_numpy()
        assert anchor == pytest.approx(100 * float(codes[torch.tensor(group)].median()), rel=1e-3)
    assert reading["labels"] == ["light", "dark"] and reading["kind"] == "number"


def test_an_edit_must_pass_the_users_scorer(editor, faces, tmp_path):
    """A scorer that knows the originals by heart and calls every other picture light."""
    labels = dict(zip(pixels(faces.tensor(faces.ids, 8)), faces.table["skin"], strict=True))

    def look(x):
        dark = torch.tensor([labels.get(face, "light") == "dark" for face in pixels(x)]).double()
        return torch.stack([1 - dark, dark], dim=1) * 4

    scorer = FaceNetwork("by heart", look, SIGHT, FaceOutput(classes=("light", "dark")))
    result = run(editor, faces, tmp_path / "out", scorers={"skin": scorer})
    edits = result.table[result.table["origin"] == "edited"]
    assert set(edits["skin"]) == {"light"} and len(edits) == 13
    turned = result.rejected[result.rejected["to"] == "dark"]
    assert "protected_not_reached" in set(turned["reason"]) and len(edits) + result.report["edits"]["unfilled"] == 29


def test_the_target_is_guarded_by_the_users_scorer(tiny, faces, tmp_path):
    """Paths that take the smile along: CLIP and the probes are blind to it, the user's scorer is not."""
    editor = tiny.TinyEditor(leak=1.0)
    scorer = FaceNetwork(
        "smile",
        lambda x: 60 * editor.diffae.encode(x)[:, 1:2],
        SIGHT,
        FaceOutput(classes=("0", "1"), activation="sigmoid"),
    )
    result = run(editor, faces, tmp_path / "out", scorers={"smile": scorer}, limit=8)
    assert "target_changed" in result.report["edits"]["by_reason"]
    assert result.report["scorers"]["smile"]["image"]["name"] == "smile"


def test_a_scorer_that_reads_badly_is_not_used_and_said_so(editor, faces, tmp_path):
    noise = skin_network(editor, name="coin.onnx", run=lambda x: torch.sin(1e4 * x.flatten(1)[:, :2]))
    result = run(editor, faces, tmp_path / "out", scorers={"skin": noise}, limit=4)
    scorer = result.report["scorers"]["skin"]
    assert scorer["image"]["kind"] == "dipole" and scorer["not_asked"]["name"] == "coin.onnx"
    (warning,) = result.report["warnings"]
    assert "the scorer coin.onnx of 'skin' reads only " in warning and "CLIP reads it in its place" in warning
    assert f"warning: {warning}" in result.summary()
    blind = FaceNetwork("flat", lambda x: torch.ones(len(x), 1), SIGHT, FaceOutput(values=(1,), activation="none"))
    result = run(editor, faces, tmp_path / "flat", scorers={"skin": blind}, limit=4)
    assert "flat of 'skin' cannot tell the groups apart at all; CLIP read" in result.report["warnings"][0]


def test_nan_for_originals_is_an_error(editor, faces, tmp_path):
    broken = skin_network(editor, name="nan.onnx", run=lambda x: torch.full((len(x), 2), float("nan")))
    with pytest.raises(PlanError, match="`scorers`: nan.onnx gives NaN for 47 of 47 originals"):
        run(editor, faces, tmp_path / "out", scorers={"skin": broken})


def test_an_editor_without_clip_can_be_read_by_others(editor, faces, tmp_path):
    smile = FaceNetwork(
        "smile",
        lambda x: 20 * editor.diffae.encode(x)[:, 1:2],
        SIGHT,
        FaceOutput(classes=("0", "1"), activation="sigmoid"),
    )

    def no_clip(*_):
        raise PlanError("no CLIP")

    editor.can_read_pictures, editor.score = False, no_clip
    with pytest.raises(PlanError, match="has no CLIP to read edits with. .* or give `scorers` for smile, skin"):
        run(editor, faces, tmp_path / "out", scorers={"skin": skin_network(editor)})
    result = run(editor, faces, tmp_path / "both", scorers={"skin": skin_network(editor), "smile": smile})
    assert result.report["edits"]["kept"] == 29
    assert result.report["scorers"]["skin"]["not_asked"] is None


def test_classifiers_and_labellers_of_the_library_are_scorers(editor, faces, tmp_path):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(editor.diffae.patterns[:1].T / 16)

        def forward(self, x):
            code = 8 * x.flatten(1) @ self.weight
            return torch.cat([-code, code], dim=1)

    settings = FitSettings(image_size=16)
    object.__setattr__(settings, "image_size", 8)  # smaller than any that is trained
    classifier = Classifier(Module(), ["light", "dark"], settings)
    labeller = ClassifierLabeller(
        lambda x: torch.sigmoid(20 * editor.diffae.encode(x)[:, 1:2] * torch.tensor([-1.0, 1.0])), [0, 1], size=8
    )
    result = run(editor, faces, tmp_path / "out", scorers={"skin": classifier, "smile": labeller})
    assert result.report["edits"]["kept"] == 29
    kinds = {column: scorer["image"]["kind"] for column, scorer in result.report["scorers"].items()}
    assert kinds == {"skin": "classes", "smile": "classes"}


def test_networks_see_the_written_files_at_full_size(editor, faces, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for item in faces.ids:
        faces.image(item).resize((24, 24), Image.Resampling.NEAREST).save(root / f"{item}.png")
    shown = []

    def look(x):
        shown.append(x)
        small = torch.nn.functional.interpolate(x, 8, mode="area")
        code = 8 * editor.diffae.encode(small)[:, 0]
        return torch.stack([-code, code], dim=1)

    scorer = FaceNetwork("skin", look, FaceInput(24), FaceOutput(classes=("light", "dark")))
    result = run(editor, replace(faces, root=root), tmp_path / "out", scorers={"skin": scorer}, limit=6)
    seen = pixels(torch.cat(shown))
    edits = result.table[result.table["origin"] == "edited"]
    assert len(edits) == 6
    for name in edits["file_name"]:
        assert pixels(to_tensor(Image.open(result.out_dir / name)))[0] in seen


def test_prior_mode_asks_the_users_scorers_too(editor, faces, tmp_path, who):
    scorers = {"skin": skin_network(editor)}
    result = run(editor, faces, tmp_path / "out", source="prior", identity=who, scorers=scorers)
    assert result.report["edits"]["kept"] == 29
    job = balancer(editor, source="prior", identity=who, scorers=scorers)
    new = job.run(None, job.plan(None, num_images=16), tmp_path / "new", show_progress=False)
    assert new.report["edits"]["kept"] >= 6 and new.report["identity_scorer"]["pairs"] >= 24
    # its words were the probes', so nothing was measured
    assert new.report["scorers"]["skin"]["image"] == {"kind": "classes", "name": "skin", "balanced_accuracy": None}


def test_the_page_names_them(editor, faces, tmp_path, who):
    result = run(editor, faces, tmp_path / "out", identity=who, scorers={"skin": skin_network(editor)}, limit=6)
    page = report.write(result.out_dir).read_text()
    assert "skin on the picture" in page and "CLIP, not asked" in page
    shares = result.report["identity_scorer"]
    assert f"Identity was read by who.onnx: among originals, {percent(shares['strangers_pass'])} of pairs" in page
    assert "--identity who.onnx --scorer skin=skin" in page


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_another_network_is_another_job(editor, faces, tmp_path, who):
    scorers = {"skin": linear_file(tmp_path / "s.onnx", editor.diffae.patterns, [0], values=[1], activation="none")}
    run(editor, faces, tmp_path / "out", identity=who, scorers=scorers, limit=4)
    again = run(editor, faces, tmp_path / "out", identity=who, scorers=scorers, limit=4)
    assert again.complete
    linear_file(who, editor.diffae.patterns, [3, 4])
    with pytest.raises(OutputError, match="belongs to another job: `.*identity` is 'who.onnx"):
        run(editor, faces, tmp_path / "out", identity=who, scorers=scorers, limit=4)
    linear_file(who, editor.diffae.patterns, [3, 4, 5])
    linear_file(scorers["skin"], editor.diffae.patterns, [0], values=[2], activation="none")
    with pytest.raises(OutputError, match="belongs to another job: `.*skin` is 's.onnx"):
        run(editor, faces, tmp_path / "out", identity=who, scorers=scorers, limit=4)
    with pytest.raises(OutputError, match="belongs to another job: `.*identity` is .* there and 'latent' here"):
        run(editor, faces, tmp_path / "out", scorers=scorers, limit=4)


def test_shards_and_a_whole_run_write_the_same_bytes(editor, faces, tmp_path, who):
    settings = {"identity": who, "scorers": {"skin": skin_network(editor)}}
    run(editor, faces, tmp_path / "whole", **settings)
    for part in range(3):
        run(editor, faces, tmp_path / "parts", shard=(part, 3), **settings)
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(files) > 60
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


# -- readings ---------------------------------------------------------------------------------------------------------


def numbers(values):
    """A network whose number for picture i is ``values[i]``."""
    given = torch.tensor(values, dtype=torch.float64)
    network = FaceNetwork(
        "age",
        lambda x: x.mean(dim=(1, 2, 3))[:, None],
        FaceInput(8, mean=0, std=1),
        FaceOutput(values=(1,), activation="none"),
    )
    x = (given / 127.5 - 1).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return network, through_tensor(x, 4)


def test_groups_are_ordered_by_their_medians():
    network, through = numbers([60, 70, 80, 20, 24, 30, 40, 44, 50])
    labels = ["old"] * 3 + ["young"] * 3 + ["middle"] * 3
    reading = network_reading(network, through, labels, "ffhq", column="band")
    assert reading.labels == ("young", "middle", "old") and reading.anchors == pytest.approx((24, 44, 70), abs=1e-3)
    assert reading.accuracy == 1.0
    raw = torch.tensor([24.0, 34.0, 57.0, 90.0])
    assert reading.margin(raw, ["young", "young", "old", "old"]).tolist() == pytest.approx([1, 0, 0, 33 / 13], abs=1e-3)
    assert Reading.from_dict(reading.to_dict()) == reading


def test_a_group_without_a_face_lies_on_the_line_through_the_others():
    reading = Reading("number", "age", ("child", "adult"), (10.0, 30.0))
    poles = Poles("band", "age", {"child": -1, "adult": 0, "senior": 1})
    assert _filled(reading, poles).anchors == pytest.approx((10, 30, 50))
    assert _filled(reading, Poles("band", "age", {"child": -1, "adult": 0})) == reading
    assert _filled(replace(reading, kind="classes"), poles).labels == ("child", "adult")


def test_one_group_alone_gives_no_number():
    network, through = numbers([60, 70, 80])
    assert network_reading(network, through, ["old"] * 3, "ffhq", column="band") is None


def test_scorers_survive_json_without_their_network(editor):
    network = skin_network(editor)
    clip = Reading("dipole", "skin_tone", ("light", "dark"), (-1.0, 1.0), accuracy=0.8)
    good = Reading("classes", "skin", ("light", "dark"), unit=2.0, accuracy=0.9)
    scorer = AttributeScorer("skin", clip, clip).with_network(network, good, min_skill=0.3)
    assert scorer.image == good and scorer.spare == clip
    assert AttributeScorer.from_dict(json.loads(json.dumps(scorer.to_dict())), network) == scorer
    bad = AttributeScorer("skin", clip, clip).with_network(network, replace(good, accuracy=0.6), min_skill=0.3)
    assert bad.image == clip and bad.spare.name == "skin" and len(bad.warnings()) == 1
    assert Checks().min_skill == 0.3
