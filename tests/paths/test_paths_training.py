"""Learning, calibrating and measuring paths where the answer is known, and on a real tiny autoencoder and CLIP."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision

from vlbias.errors import (
    CheckpointError,
    ConfigError,
    ShapeError,
    TrainingError,
    UnknownNameError,
)
from vlbias.images import to_float
from vlbias.paths import (
    BackboneConstraint,
    ClipConstraint,
    Dipole,
    EncoderConstraint,
    FeatureConstraint,
    LpipsConstraint,
    PathTrainingSettings,
    Preservation,
    Probes,
    Sight,
    arc_length,
    calibrate,
    drift_matrix,
    extend_paths,
    fit_probes,
    measure_paths,
    train_paths,
)
from vlbias.paths.probes import effect_directions
from vlbias.paths.training import _Faces, _new_paths, _start, _Trainer

# The formulas need no look: perceptual is off. The identity constraint sees every number, so its weight is small.
QUICK = PathTrainingSettings(steps=40, perceptual=0.0, identity=0.1, batch_size=16, calibration_faces=16)


@pytest.fixture(scope="module")
def learned(diffae, clip, dipoles, images):
    two = {name: dipoles[name] for name in ("age", "tone")}
    guards = {name: dipoles[name] for name in ("smile", "glasses")}
    return train_paths(diffae, clip, two, images, guards=guards, settings=QUICK)


def test_paths_point_where_clip_sees_the_attribute(learned, diffae, z_sem):
    for k, own in enumerate((0, 1)):
        direction = learned.direction(learned.to_own_space(z_sem[:50]), k)
        # tone goes with age in these faces; the path of one must not carry the other
        assert float(direction[:, own].median()) > 0.97
        others = [i for i in range(4) if i != own]
        assert float(direction[:, others].abs().median()) < 0.12


def test_strength_one_carries_one_pole_to_the_other(learned, z_sem):
    for k, name in enumerate(learned.names):
        z = learned.to_own_space(z_sem)[:, k]
        for strength, source, other in ((1.0, z < 0, z > 0), (-1.0, z > 0, z < 0)):
            walked = learned.to_own_space(learned.walk(z_sem[source], {name: strength}))[:, k]
            gap = float(z[other].median() - z[source].median())
            assert float(walked.median() - z[other].median()) == pytest.approx(0, abs=0.15 * abs(gap))
        assert learned.calibration[name]["+"]["reached"]


def test_the_same_seed_gives_the_same_paths(learned, diffae, clip, dipoles, images):
    two = {name: dipoles[name] for name in ("age", "tone")}
    guards = {name: dipoles[name] for name in ("smile", "glasses")}
    again = train_paths(diffae, clip, two, images, guards=guards, settings=QUICK)
    for name, value in learned.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert diffae.evaluations > 0


@pytest.mark.parametrize("start", ["regression", "extremes"])
@pytest.mark.parametrize("network", ["rbf", "linear", "affine"])
def test_training_lowers_the_contrast(diffae, clip, dipoles, images, network, start):
    lines = []
    for steps in (0, 80):
        settings = dataclasses.replace(
            QUICK, network=network, start=start, steps=steps, project=False, learning_rate=0.05, calibration_faces=4
        )
        paths = train_paths(diffae, clip, {"smile": dipoles["smile"]}, images, guards={"age": dipoles["age"]},
                            settings=settings)  # fmt: skip
        faces = _Faces.read(diffae, clip, images, {n: dipoles[n] for n in ("smile", "age")})
        trainer = _Trainer(
            diffae,
            clip,
            paths,
            faces,
            {n: dipoles[n] for n in ("smile", "age")},
            torch.tensor([3.0]),
            settings,
            None,
        )
        with torch.no_grad():
            lines.append(float(trainer.terms(trainer.draw(torch.Generator().manual_seed(0)))["contrast"]))
    assert lines[1] < lines[0] or lines[1] < 0.05


def test_regression_holds_the_other_readings():
    generator = torch.Generator().manual_seed(0)
    readings = torch.randn(500, 2, generator=generator)
    readings[:, 1] += 2 * readings[:, 0]
    effects = torch.randn(2, 6, generator=generator)
    z = readings @ effects + 0.01 * torch.randn(500, 6, generator=generator)
    torch.testing.assert_close(effect_directions(z, readings), effects, atol=0.02, rtol=0)


def test_extended_paths_join_a_further_one(learned, diffae, clip, dipoles, images, z_sem):
    probes = fit_probes(clip, diffae, images, dipoles)
    guards = {name: dipoles[name] for name in ("age", "tone", "glasses")}
    paths, all_probes = extend_paths(
        diffae, clip, {"smile": dipoles["smile"]}, images, paths=learned, probes=probes, guards=guards,
        settings=PathTrainingSettings(steps=20, perceptual=0.0, identity=0.1),
    )  # fmt: skip
    assert paths.names == ("age", "tone", "smile")
    assert set(all_probes.names) == set(dipoles)
    report = drift_matrix(paths, all_probes, z_sem)
    assert report.summary.loc["smile +1", "success"] > 0.9
    assert report.changed.loc["smile +1", "age"] < 0.05
    alone, own_probes = extend_paths(
        diffae, clip, {"smile": dipoles["smile"]}, images,
        settings=PathTrainingSettings(steps=0, perceptual=0.0, network="linear"),
    )  # fmt: skip
    assert alone.names == own_probes.names == ("smile",)


def test_probes_may_come_from_given_labels(diffae, dipoles, images, z_sem):
    labels = {"age": (diffae.normalize(z_sem)[:, 0] > 0).float()}
    probes = fit_probes(None, diffae, images, {"age": dipoles["age"]}, labels=labels)
    assert probes.accuracy["age"] > 0.95
    with pytest.raises(ConfigError, match="Without a CLIP every dipole needs labels; tone has none"):
        fit_probes(None, diffae, images, {"tone": dipoles["tone"]})


def test_drift_and_measure(learned, diffae, clip, dipoles, images, z_sem, capsys):
    report = measure_paths(learned, diffae, clip, dipoles, images[:80], num_steps=2)
    assert "walking: 320/320 faces" in capsys.readouterr().err  # inverted, decoded as they are, and along two paths
    assert list(report.summary.index) == ["age +1", "age -1", "tone +1", "tone -1"]
    assert report.summary["success"].min() > 0.85
    assert report.changed.loc["age +1", ["smile", "glasses"]].max() < 0.1
    assert report.moved.loc["age +1", "age"] == pytest.approx(1.0, abs=0.25)
    assert report.moved.loc["age -1", "age"] == pytest.approx(-1.0, abs=0.25)
    with pytest.raises(ShapeError, match=r"must be floating \(n, 3, h, w\)"):
        measure_paths(learned, diffae, clip, dipoles, images[0])


def test_calibration_by_probe_alone_and_by_clip_alone(learned, diffae, clip, dipoles, images, z_sem):
    by_probe = calibrate(learned, z_sem, probes=fit_probes(clip, diffae, images, dipoles)).lengths.clone()
    by_clip = calibrate(learned, z_sem, sight=Sight(diffae, clip, images, num_faces=32)).lengths.clone()
    # Both scorers read the same truth here, so they agree on what a strength of 1 is.
    torch.testing.assert_close(by_probe, by_clip, rtol=0.2, atol=0)
    with pytest.raises(ConfigError, match="Calibration needs `probes`"):
        calibrate(learned, z_sem)
    with pytest.raises(ShapeError, match="must be the same faces"):
        calibrate(learned, z_sem[:5], sight=Sight(diffae, clip, images))


def test_calibration_does_not_depend_on_the_order_of_faces(linear_paths):
    """Files are often sorted by what they show, so the first faces of a pole are its least or its most extreme ones."""
    own = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    z = linear_paths.from_own_space(own)
    probes = Probes.fit(z, {name: (own[:, i] > 0).float() for i, name in enumerate(("age", "tone"))})
    found = []
    for codes in (z, z[own[:, 0].argsort()]):
        linear_paths.lengths[:] = 4.0
        found.append(calibrate(linear_paths, codes, probes=probes).lengths[0].clone())
    torch.testing.assert_close(found[0], found[1], rtol=0.1, atol=0)


def test_a_path_that_goes_nowhere_is_recorded_as_such(linear_paths, z_sem, dipoles):
    linear_paths.field.start_along(torch.eye(8)[6:])
    probes = Probes.fit(z_sem, {n: (z_sem[:, i] > -0.3).float() for i, n in enumerate(("age", "tone"))})
    calibrate(linear_paths, z_sem, probes=probes, longest=1.5)
    assert linear_paths.calibration["age"]["+"]["reached"] is False
    assert float(linear_paths.lengths[0, 0]) == pytest.approx(4.5)


def test_arc_length():
    lengths, readings = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([-1.0, 0.0, 4.0])
    assert arc_length(lengths, readings, 1.0) == pytest.approx(1.5)
    assert arc_length(lengths, readings, -2.0) == 0.0
    assert arc_length(lengths, readings, 5.0) is None


# -- a real tiny autoencoder and CLIP ------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    from vlbias.clip import ClipConfig, Preprocess, create
    from vlbias.diffae import DiffAE, DiffAEConfig

    torch.manual_seed(0)
    config = DiffAEConfig(
        image_size=32, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, embed_channels=8,
        attention_resolutions=(), num_groups=4, enc_channel_mult=(1, 2),
    )  # fmt: skip
    diffae = DiffAE(config).eval().requires_grad_(False)
    for p in diffae.parameters():
        p.data += 0.05 * torch.randn_like(p)  # zero-initialised layers would answer nothing
    tiny = ClipConfig(embed_dim=8, image_size=32, vision_width=4, text_layers=1, text_width=16, text_heads=2)
    clip = create(tiny.model_config(49408), Preprocess(size=(32, 32)), name="tiny")
    clip.tokenizer.context_length = tiny.context_length
    images = torch.randint(0, 256, (20, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    diffae.fit_normalization(images)
    return diffae, clip, images


def trainer_of(real, **settings):
    diffae, clip, images = real
    dipoles = {"age": Dipole("old", "young"), "tone": Dipole("dark", "light")}
    faces = _Faces.read(diffae, clip, images, dipoles)
    options = PathTrainingSettings(batch_size=6, walk_steps=2, **settings)
    if options.space == "raw":
        faces.z = faces.z_sem
    paths = _new_paths(diffae, dipoles, options)
    probes = fit_probes(clip, diffae, images, dipoles)
    distances = _start(paths, faces, probes, list(dipoles), options)
    return _Trainer(diffae, clip, paths, faces, dipoles, distances, options, None)


def gradients(trainer):
    terms = trainer.accumulate(trainer.draw(torch.Generator().manual_seed(1)))
    return terms, [p.grad.clone() for p in trainer.paths.field.parameters()]


def test_micro_batches_and_checkpointing_give_the_same_gradients(real):
    trainer = trainer_of(real)
    trainer.paths.requires_grad_(True)
    terms, plain = gradients(trainer)
    assert set(terms) == {"contrast", "identity", "perceptual", "guard", "overlap"}
    assert all(float(g.abs().sum()) > 0 for g in plain)
    for options in ({"micro_batch": 2}, {"checkpointing": True}, {"micro_batch": 3, "checkpointing": True}):
        other = trainer_of(real, **options)
        other.paths.requires_grad_(True)
        other_terms, grads = gradients(other)
        # Other batch sizes sum in another order, and untrained models turn the picture by next to nothing, which the
        # contrast divides by.
        assert other_terms == pytest.approx(terms, rel=0.02, abs=1e-4)
        for a, b in zip(plain, grads, strict=True):
            assert float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.99


def test_the_published_training_goes_through_the_last_steps_of_a_whole_decode(real):
    """In raw space; gradients of 20 steps and of the last five both move the field, and differ."""
    published = PathTrainingSettings.as_published()
    assert (published.space, published.decode_steps, published.guard, published.project) == ("raw", 20, 0.0, False)
    assert PathTrainingSettings(steps=10, batch_size=4).evaluations == 80
    assert dataclasses.replace(published, steps=10, batch_size=4).evaluations == 1600
    few = {"space": "raw", "start": "extremes", "decode_steps": 4, "guard": 0.0, "overlap": 0.0}
    found = {}
    for last in (1, 4):
        trainer = trainer_of(real, grad_steps=last, **few)
        trainer.paths.requires_grad_(True)
        terms, found[last] = gradients(trainer)
        assert set(terms) == {"contrast", "identity", "perceptual"}
        assert all(float(g.abs().sum()) > 0 for g in found[last])
    assert not torch.allclose(found[1][0], found[4][0])
    diffae, clip, images = real
    dipoles = {"age": Dipole("old", "young")}
    settings = PathTrainingSettings.as_published(steps=1, batch_size=4, decode_steps=2, grad_steps=1, perceptual=0.0)
    paths = train_paths(diffae, clip, dipoles, images, settings=settings)
    z_sem = diffae.encode(to_float(images[:2]))
    assert paths.space == "raw" and not torch.equal(paths.walk(z_sem, {"age": 1.0}), z_sem)
    with pytest.raises(ConfigError, match="`grad_steps` <= `decode_steps`"):
        PathTrainingSettings(grad_steps=2)


def test_weights_of_the_models_are_not_touched(real):
    diffae, clip, images = real
    before = {name: value.clone() for name, value in diffae.state_dict().items()}
    from vlbias.paths import Dipole

    train_paths(diffae, clip, {"age": Dipole("old", "young")}, images,
                settings=PathTrainingSettings(steps=2, batch_size=4, calibration_faces=2))  # fmt: skip
    for name, value in diffae.state_dict().items():
        assert torch.equal(value, before[name]), name


# -- preservation constraints --------------------------------------------


def test_default_constraints(real):
    diffae, clip, images = real
    x = images[:4].float() / 127.5 - 1
    other = x.flip(0)
    for constraint in (EncoderConstraint(diffae), ClipConstraint(clip)):
        assert float(constraint.distance(x, x)) == pytest.approx(0, abs=1e-5)
        moved = other.clone().requires_grad_()
        distance = constraint.distance(x, moved)
        distance.backward()
        assert float(distance.detach()) > 1e-4
        assert float(moved.grad.abs().sum()) > 0
    assert EncoderConstraint(diffae).similarity(x, x).tolist() == pytest.approx([1] * 4, abs=1e-4)


def test_any_function_is_a_constraint(learned, diffae, clip, dipoles, images):
    calls = []

    def features(x):
        calls.append(len(x))
        return x.flatten(1)

    train_paths(diffae, clip, {"age": dipoles["age"]}, images,
                preserve=Preservation(FeatureConstraint(features), FeatureConstraint(features)),
                settings=PathTrainingSettings(steps=1, batch_size=4, calibration_faces=2))  # fmt: skip
    assert calls == [4] * 4


def test_backbone_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(weights=None)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "net.pth")
    constraint = BackboneConstraint("torchvision:squeezenet1_1", tmp_path / "net.pth", size=64)
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    assert float(constraint.distance(x, x)) == pytest.approx(0, abs=1e-5)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="as torchvision:squeezenet1_1 does not fit its architecture, 50 keys"):
        BackboneConstraint("torchvision:squeezenet1_1", tmp_path / "other.pth")
    with pytest.raises(UnknownNameError, match="Unknown backbone 'resnet1' for torchvision"):
        BackboneConstraint("torchvision:resnet1", tmp_path / "net.pth")
    with pytest.raises(ConfigError, match="'timm:NAME' or 'torchvision:NAME'"):
        BackboneConstraint("resnet18", tmp_path / "net.pth")


def test_lpips_needs_weights_on_this_machine(monkeypatch, tmp_path):
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match="LPIPS needs the weights .*alexnet"):
        LpipsConstraint()
    with pytest.raises(UnknownNameError, match="Unknown LPIPS network 'resnet'"):
        LpipsConstraint("resnet")


# -- errors ------------------------------------------------------------


def test_bad_arguments(diffae, clip, dipoles, images):
    with pytest.raises(ConfigError, match="names nothing to learn"):
        train_paths(diffae, clip, {}, images)
    with pytest.raises(ConfigError, match="age cannot be both learned and guarded"):
        train_paths(diffae, clip, {"age": dipoles["age"]}, images, guards={"age": dipoles["age"]})
    with pytest.raises(ShapeError, match="at least 16 faces, better some hundreds; got 15"):
        train_paths(diffae, clip, {"age": dipoles["age"]}, images[:15])
    with pytest.raises(ShapeError, match=r"faces \(n, 3, h, w\)"):
        train_paths(diffae, clip, {"age": dipoles["age"]}, images[0])


def test_nan_stops_training(diffae, clip, dipoles, images):
    class Broken:
        def distance(self, before, after):
            return (after * float("nan")).sum()

    with pytest.raises(TrainingError, match="The loss became NaN"):
        train_paths(diffae, clip, {"age": dipoles["age"]}, images, preserve=Preservation(Broken()), settings=QUICK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": -1}, "`steps` of PathTrainingSettings must be a whole number >= 0"),
        ({"t_min": 900}, "`t_min` <= `t_max` must hold"),
        ({"shortest": 2.0}, "`shortest` <= `longest`"),
        ({"start": "random"}, "`start` of PathTrainingSettings must be one of"),
        ({"temperature": 0.0}, "`temperature` of PathTrainingSettings must be a number > 0"),
        ({"guard": -1.0}, "must be a number >= 0"),
        ({"micro_batch": 0}, "`micro_batch` of PathTrainingSettings must be a whole number >= 1"),
        ({"calibration_faces": 0}, "`calibration_faces` of PathTrainingSettings must be a whole number >= 1"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        PathTrainingSettings(**changes)
