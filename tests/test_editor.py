"""Editor on a real but tiny autoencoder with random weights: laws, kinds of input, saving, errors."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from doubles import DIPOLES, TINY, TINY_PRIOR, tiny_editor
from PIL import ExifTags, Image

from vlbias import Balancer, Dipole, Editor, PathSet, load_dataset, world
from vlbias.balance import Checks
from vlbias.checkpoints import write_manifest
from vlbias.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigError,
    ImageError,
    OutOfRangeWarning,
    ShapeError,
    UnknownNameError,
)
from vlbias.images import to_pil, to_tensor
from vlbias.paths import Probes
from vlbias.rendering import Renderer, RenderSettings

SIZE, DIM = 16, 16
CONFIG = replace(TINY, prior=TINY_PRIOR)


@pytest.fixture(scope="module")
def editor():
    settings = RenderSettings(invert_steps=3, decode_steps=3, batch_size=2)
    return tiny_editor(CONFIG, lively=True, settings=settings, license="MIT")


@pytest.fixture(scope="module")
def x():
    """Five faces (5, 3, 16, 16) on whole grey levels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 3, SIZE, SIZE), generator=generator).float() / 127.5 - 1


def test_what_goes_in_comes_out(editor, x):
    pictures = to_pil(x)
    array = np.stack([np.asarray(picture) for picture in pictures])
    assert isinstance(editor.edit(pictures[0], age=1.0), Image.Image)
    edited = editor.edit(pictures[:3], age=1.0)
    assert isinstance(edited, list) and len(edited) == 3 and edited[0].size == (SIZE, SIZE)
    assert editor.edit(array, age=1.0).shape == array.shape and editor.edit(array, age=1.0).dtype == np.uint8
    assert editor.edit(array[0], age=1.0).shape == array[0].shape
    tensor = editor.edit(x, age=1.0)
    assert tensor.shape == x.shape and tensor.min() >= -1 and tensor.max() <= 1
    # All four ways see the same faces.
    assert np.array_equal(np.asarray(edited[0]), editor.edit(array, age=1.0)[0])


def test_strength_zero_returns_the_faces_themselves(editor, x):
    assert torch.equal(editor.edit(x, age=0.0), x)
    assert torch.equal(editor.edit(x), x)


def test_a_larger_picture_keeps_its_size_and_its_own_detail(editor, x):
    """48 x 40 pixels: the central square changes by the enlarged difference, the margins not at all."""
    noise = np.random.default_rng(0).integers(60, 190, (40, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    edited = editor.edit(picture, age=1.0)
    assert edited.size == picture.size and edited.mode == "RGB"
    change = np.asarray(edited, dtype=int) - noise
    assert change.any() and not change[:, :4].any() and not change[:, 44:].any()
    small = to_tensor(picture, SIZE)
    expected = (editor.edit(small, age=1.0) - small).abs().mean() * 127.5
    assert np.abs(change[:, 10:38]).mean() == pytest.approx(float(expected), rel=0.5)
    assert editor.edit(picture, age=0.0).tobytes() == picture.tobytes()
    assert editor.edit(noise, age=1.0).shape == noise.shape
    assert [p.size for p in editor.edit([picture, to_pil(x)[0]], age=1.0)] == [(48, 40), (SIZE, SIZE)]
    assert editor.edit(picture, age=1.0, seed=3).size == (SIZE, SIZE)  # drawn anew: no detail of its own


def test_a_picture_that_was_held_upright_is_edited_as_people_see_it(editor):
    upright = Image.fromarray(np.random.default_rng(0).integers(60, 190, (40, 48, 3), dtype=np.uint8))
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[ExifTags.Base.Orientation] = 6
    assert editor.edit(stored, age=1.0).tobytes() == editor.edit(upright, age=1.0).tobytes()


def test_a_face_that_does_not_move_in_a_moving_batch_stays(editor, x):
    code = editor.encode(x)
    strengths = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.5])
    walked = editor.renderer.walk(code.z_sem, {"age": strengths})
    edited = editor.renderer.render(x, code.z_sem, walked, editor.renderer.trace(x, code.z_sem))
    still = strengths == 0
    assert torch.equal(edited[still], x[still])
    assert (edited[~still] != x[~still]).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize(("method", "there", "back"), [("decode", 3, 2), ("difference", 4, 4)])
def test_a_face_is_traced_once_for_all_its_walks(editor, x, method, there, back):
    steps = {"invert_steps": 3, "decode_steps": 2, "edit_steps": 6}
    renderer = editor.with_settings(method=method, **steps).renderer
    z_sem = renderer.encode(x)
    traced = renderer.trace(x, z_sem)
    assert renderer.evaluations == there * len(x) == renderer.evaluations_to_open * len(x)
    for strength in (0.5, -1.0):
        before = renderer.evaluations
        renderer.render(x, z_sem, renderer.walk(z_sem, {"age": strength}), traced)
        assert renderer.evaluations - before == back * len(x) == renderer.evaluations_to_render * len(x)
    assert renderer.settings.evaluations_per_edit == there + back


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_an_unedited_code_leads_back_to_the_face(editor, x, solver):
    renderer = editor.with_settings(method="difference", solver=solver).renderer
    z_sem = renderer.encode(x)
    traced = renderer.trace(x, z_sem)
    back = renderer.diffae.retrace(z_sem, traced.x_T, traced.residuals, order=1 if solver == "ddim" else 2)
    # the noisiest step multiplies rounding by a hundred
    torch.testing.assert_close(back, x, rtol=0, atol=5e-3)


@pytest.mark.parametrize("method", ["decode", "difference"])
def test_a_batch_is_its_faces_one_by_one(editor, x, method):
    editor = editor.with_settings(method=method)
    together = editor.edit(x, age=0.7, skin_tone=-0.5)
    apart = torch.cat([editor.edit(face[None], age=0.7, skin_tone=-0.5) for face in x])
    assert (together - apart).abs().max() < 2 / 255


def test_a_quality_says_how_many_evaluations_an_edit_takes(editor, x):
    def evaluations(renderer):
        z_sem, before = renderer.encode(x), renderer.evaluations
        renderer.edit(x, z_sem, {"age": 0.5})
        return (renderer.evaluations - before) / len(x)

    qualities = [evaluations(editor.renderer.at_quality(name)) for name in ("draft", "standard", "exact")]
    assert qualities[0] < qualities[1] < qualities[2] and qualities[1] == 2 * (editor.renderer.settings.edit_steps - 2)
    draft, exact = (editor.edit(x, age=0.5, quality=name) for name in ("draft", "exact"))
    assert torch.equal(editor.edit(x, age=0.5, quality="standard"), editor.edit(x, age=0.5))
    steps = {"edit_steps": 50, "invert_steps": 48, "decode_steps": 48}
    assert torch.equal(exact, editor.with_settings(**steps).edit(x, age=0.5))
    assert torch.equal(draft, editor.at_quality("draft").edit(x, age=0.5))
    with pytest.raises(ConfigError, match="`quality` of Editor.edit must be one of draft, standard, exact; got 'best'"):
        editor.edit(x, age=0.5, quality="best")


def test_a_balancer_edits_at_the_quality_that_it_was_given(editor):
    balancer = Balancer(editor, target="smile", protected="age", quality="draft")
    assert balancer.backend.settings == editor.at_quality("draft").renderer.settings
    assert balancer.changed(mode="amplify", source="real", quality="standard").backend is editor.renderer


def test_an_editor_says_in_its_config_what_its_qualities_are(editor, tmp_path):
    info = editor.renderer.info | {"qualities": {"draft": {"edit_steps": 3}}}
    Editor(editor.renderer.diffae, paths=editor.renderer.paths, info=info).save_pretrained(tmp_path / "tiny")
    again = Editor.from_pretrained(tmp_path / "tiny", device="cpu")
    assert again.at_quality("draft").renderer.settings.edit_steps == 3
    assert again.at_quality("exact").renderer.settings.edit_steps == 50
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    for wrong in ({"sketch": {}}, {"draft": {"edit_steps": 0}}, {"draft": {"steps": 2}}, {"exact": 7}, 5):
        (tmp_path / "tiny" / "config.json").write_text(json.dumps(config | {"qualities": wrong}))
        write_manifest(tmp_path / "tiny")
        with pytest.raises(CheckpointError, match=r"config\.json: "):
            Editor.from_pretrained(tmp_path / "tiny", device="cpu")


def test_an_editor_says_in_its_config_how_varied_its_edits_are(editor, tmp_path):
    parts = editor.renderer
    assert Balancer(editor, target="smile", protected="age").settings.checks.varied == 0
    asks = Editor(parts.diffae, paths=parts.paths, probes=parts.probes, info=parts.info | {"varied": 0.75})
    asks.save_pretrained(tmp_path / "tiny")
    again = Editor.from_pretrained(tmp_path / "tiny", device="cpu")

    def varied(**changes):
        return Balancer(again, target="smile", protected="age", checks=Checks(**changes)).settings.checks.varied

    assert varied() == varied(goal=0.8) == 0.75 and varied(varied=0) == 0 and varied(varied=1) == 1
    assert Balancer(again, target="smile", protected="age", quality="draft").settings.checks.varied == 0.75
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    for wrong in (-0.1, 1.5, "much", True, None, [1]):
        (tmp_path / "tiny" / "config.json").write_text(json.dumps(config | {"varied": wrong}))
        write_manifest(tmp_path / "tiny")
        with pytest.raises(CheckpointError, match=r"config\.json: `varied` must be a number in 0\.\.1"):
            Editor.from_pretrained(tmp_path / "tiny", device="cpu")


def test_order_of_attributes_does_not_matter(editor, x):
    one, other = editor.edit(x, age=1.0, skin_tone=0.5), editor.edit(x, skin_tone=0.5, age=1.0)
    assert torch.allclose(one, other, atol=1e-4)


def test_encode_then_decode_answers_in_kind_and_seeds_repeat(editor, x):
    code = editor.encode(to_pil(x)[0])
    assert code.z_sem.shape == (1, DIM) and code.x_T.shape == (1, 3, SIZE, SIZE)
    assert isinstance(editor.decode(code), Image.Image)
    assert editor.decode(editor.encode(x)).shape == x.shape
    fresh = editor.edit(x, seed=3, age=1.0)
    assert torch.equal(fresh, editor.edit(x, seed=3, age=1.0)) and not torch.equal(
        fresh, editor.edit(x, seed=4, age=1.0)
    )


def test_samples_depend_on_their_own_seed_alone(editor):
    four, one = editor.sample(4, seed=10), editor.sample(1, seed=12)
    difference = np.asarray(four[2]).astype(int) - np.asarray(one[0]).astype(int)
    assert np.abs(difference).max() <= 1


def test_strip_has_as_many_faces_as_steps(editor, x):
    sheet = editor.strip(to_pil(x)[0], "age", steps=5, scale=1)
    assert sheet.width == 5 * (SIZE + 4) + 4


def test_saved_and_loaded_editors_agree(editor, x, tmp_path):
    editor.save_pretrained(tmp_path / "tiny", dtype=torch.float32)
    again = Editor.from_pretrained(str(tmp_path / "tiny"), device="cpu")
    assert again.name == "tiny" and again.attributes == ["age", "skin_tone"]
    assert again.renderer.settings == editor.renderer.settings
    assert torch.equal(editor.edit(x, age=1.0), again.edit(x, age=1.0))


def test_all_weights_of_a_loaded_editor_are_aligned(editor, tmp_path):
    editor.save_pretrained(tmp_path / "tiny", dtype=torch.float32)
    again = Editor.from_pretrained(str(tmp_path / "tiny"), device="cpu")
    for module in (again.renderer.diffae, again.renderer.paths):
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        assert tensors and {name for name, tensor in tensors.items() if tensor.data_ptr() % 64} == set()


def test_a_checkpoint_with_changed_weights_is_refused(editor, tmp_path):
    editor.save_pretrained(tmp_path / "tiny")
    path = tmp_path / "tiny" / "paths" / "paths.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"paths\.safetensors is not the file that the checkpoint was saved with"):
        Editor.from_pretrained(str(tmp_path / "tiny"))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"paths\.safetensors is missing"):
        Editor.from_pretrained(str(tmp_path / "tiny"))


def test_a_folder_that_is_no_editor_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(CheckpointError, match="is not an editor folder"):
        Editor.from_pretrained(str(tmp_path))
    (tmp_path / "home" / "below").mkdir(parents=True)
    (tmp_path / "home" / "below" / "link.json").symlink_to(tmp_path / "config.json")  # not searched
    with pytest.raises(CheckpointError, match="has no editor .*or a name: .*synthfaces-64"):
        Editor.from_pretrained(str(tmp_path / "home"))
    with pytest.raises(CheckpointNotFoundError, match="No checkpoint 'synthface-64'. Did you mean 'synthfaces-64'"):
        Editor.from_pretrained("synthface-64")
    with pytest.raises(CheckpointNotFoundError, match="No checkpoint 'no-such-editor'"):
        Editor.from_pretrained("no-such-editor")


def test_errors_name_what_is_wrong(editor, x):
    with pytest.raises(UnknownNameError, match=r"Unknown attribute 'aeg' for tiny\. Did you mean 'age'\?"):
        editor.edit(x, aeg=1.0)
    with pytest.raises(ConfigError, match=r"strength of 'age' must lie in \[-4, 4\]; got nan"):
        editor.edit(x, age=float("nan"))
    with pytest.raises(ShapeError, match=r"floating \(b, 3, 16, 16\)"):
        editor.edit(torch.zeros(1, 3, 8, 8), age=1.0)
    with pytest.raises(ShapeError, match=r"values in \[-1, 1\]"):
        editor.edit(x * 3, age=1.0)
    with pytest.raises(ShapeError, match=r"uint8 \(b, h, w, 3\)"):
        editor.edit(np.zeros((1, 3, 16, 16)), age=1.0)
    with pytest.raises(ShapeError, match="got str"):
        editor.edit("face.png", age=1.0)
    with pytest.raises(CheckpointError, match="has no CLIP"):
        editor.renderer.score(x, "age")
    with pytest.raises(UnknownNameError, match="Unknown probe 'age'"):
        editor.renderer.probe(torch.zeros(1, DIM), "age")
    with pytest.raises(ConfigError, match="`n` must be >= 1"):
        editor.sample(0)
    with pytest.raises(ConfigError, match="`steps` must be a whole number in 2..100"):
        editor.strip(to_pil(x)[0], "age", steps=1)
    with pytest.raises(ConfigError, match="has a path 'age' already"):
        editor.learn("age", DIPOLES["age"], x)
    with pytest.raises(ConfigError, match="'quality' is an argument of Editor.edit itself"):
        editor.learn("quality", Dipole("a", "b"), x)
    with pytest.raises(ConfigError, match="usable as an argument name"):
        editor.learn("my beard", Dipole("a", "b"), x)


def test_paths_of_another_autoencoder_are_refused(editor):
    other = PathSet(DIPOLES, DIM + 1, mean=torch.zeros(DIM + 1), std=torch.ones(DIM + 1))
    with pytest.raises(CheckpointError, match="codes of 17 numbers, the autoencoder makes 16"):
        Editor(editor.renderer.diffae, paths=other)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"`decode_steps` of RenderSettings must be a whole number in 1\.\.1000"):
        RenderSettings(decode_steps=0)
    with pytest.raises(ConfigError, match="`method` of RenderSettings must be one of decode, difference"):
        RenderSettings(method="magic")
    assert RenderSettings(invert_steps=20, decode_steps=10, method="decode").evaluations_per_edit == 30
    assert RenderSettings(invert_steps=20, decode_steps=10, edit_steps=4).evaluations_per_edit == 4


# -- pictures of another kind ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """The shipped editor of drawn faces."""
    return Editor.from_pretrained("synthfaces-64", device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vlbias.errors.OutOfRangeWarning")  # from pole to pole is far for some of them
def test_the_shipped_editor_edits_a_drawn_face(drawn):
    x = world.render(world.sample(6, seed=77), 64)
    assert (drawn.decode(drawn.encode(x)) - x).abs().mean() < 0.02
    dark = drawn.edit(x, skin_tone=+1.0)
    read = drawn.renderer.score
    reading = read(dark, "skin_tone") - read(drawn.edit(x, skin_tone=-1.0), "skin_tone")
    assert torch.isfinite(dark).all() and (reading > 0.5).float().mean() >= 0.8


def test_the_same_faces_are_seen_once_and_others_anew(drawn, monkeypatch):
    renderer, names = drawn.renderer, ["age", "skin_tone"]
    clip, seen = renderer.clip, []
    encode = clip.model.encode_image
    monkeypatch.setattr(clip.model, "encode_image", lambda x: seen.append(len(x)) or encode(x))
    x = world.render(world.sample(3, seed=78), 64)
    read = [renderer.score(x, name) for name in names]
    assert seen == [3]
    for name, found in zip(names, read, strict=True):
        with torch.enable_grad():  # with gradients nothing is kept
            assert torch.equal(found, clip.zero_shot(x, renderer.dipoles[name].classes)[:, 0])
    assert seen == [3, 3, 3]
    x[0] = x[1]  # in place: the tensor is the same, the faces are not
    again = renderer.score(x, "age")
    assert len(seen) == 4 and torch.equal(again[0], again[1]) and again[0] != read[0][0]
    clip.train(False)  # weights may have changed
    assert torch.equal(renderer.score(x, "age"), again) and len(seen) == 5
    monkeypatch.setattr("vlbias.clip.model.MOST_KEPT", x.numel() - 1)
    assert torch.equal(renderer.score(x, "age"), again) and torch.equal(renderer.score(x, "age"), again)
    assert len(seen) == 7  # too large a batch to be kept


def test_faces_of_its_own_kind_are_rebuilt_and_others_refused(drawn):
    from vlbias import load_dataset

    faces = load_dataset("synthfaces", n=8, seed=5)
    own = [faces.image(item) for item in faces.ids]
    renderer = drawn.renderer
    x_0 = to_tensor(own, 64)
    assert (renderer.rebuild_db(x_0, renderer.encode(x_0)) > renderer.usual_rebuild_db - 3).all()
    assert drawn.edit(own[0], age=0.5).size == own[0].size
    # colours that run across the picture, as in no drawn face
    run = torch.linspace(-1, 1, 64)
    photo = to_pil(torch.stack([run.expand(64, 64), run[:, None].expand(64, 64), torch.zeros(64, 64)])[None])[0]
    text = r"picture 2 of 2 is not of the kind that editor 'synthfaces-64' was made for \(synthfaces\).*utkface-64"
    with pytest.raises(ImageError, match=text):
        drawn.edit([own[0], photo], age=1.0)
    with pytest.raises(ImageError, match="the picture is not of the kind"):
        drawn.strip(photo, "age")
    assert drawn.edit(photo, age=0.0).tobytes() == photo.tobytes()  # nothing is edited
    assert drawn.edit(photo, age=0.5, check=False).size == (64, 64)


def test_what_is_usual_is_saved_with_the_editor_and_measured_for_another_solver(drawn, tmp_path):
    drawn.save_pretrained(tmp_path / "copy")
    saved = json.loads((tmp_path / "copy" / "config.json").read_text())["usual_rebuild_db"]
    assert Editor.from_pretrained(str(tmp_path / "copy")).renderer.usual_rebuild_db == saved
    assert drawn.with_settings(solver="ddim").renderer.usual_rebuild_db != saved
    measured = Renderer(drawn.renderer.diffae, settings=drawn.renderer.settings).usual_rebuild_db
    assert measured == pytest.approx(saved, abs=0.1)


def test_an_editor_without_its_clip_edits_alike(drawn):
    from vlbias import load_dataset

    faces = load_dataset("synthfaces", n=1, seed=3)
    face = faces.image(faces.ids[0])
    light = Editor.from_pretrained("synthfaces-64", device="cpu", clip=False)
    assert light.edit(face, age=0.5).tobytes() == drawn.edit(face, age=0.5).tobytes()
    with pytest.raises(CheckpointError, match="no CLIP"):
        light.learn("smile", Dipole("a smile", "no smile"), [face])


@pytest.mark.parametrize("steps", [3, 7, 9])
def test_the_middle_of_a_strip_is_the_face_itself(editor, steps, monkeypatch):
    face = to_pil(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) * 2 - 1)[0]
    sheets = []
    monkeypatch.setattr(
        "vlbias.editor.contact_sheet", lambda pictures, *_, captions, **__: sheets.append((pictures, captions))
    )
    editor.strip(face, "age", steps=steps, check=False)
    pictures, captions = sheets[0]
    assert captions[steps // 2] == "+0" and captions[0] == "-1" and captions[-1] == "+1"
    assert pictures[steps // 2].tobytes() == face.tobytes()


def test_a_picture_far_from_square_is_no_face_crop(editor):
    wide = Image.new("RGB", (160, 120))
    with pytest.raises(ImageError, match=r"a picture of 160x120 pixels is not a face crop.*align=True"):
        editor.edit(wide, age=1.0)
    with pytest.raises(ImageError, match="is not a face crop"):
        editor.strip(wide, "age")
    assert editor.edit(wide, age=1.0, check=False).size == (160, 120)


def test_strengths_are_numbers(editor, x):
    for wrong in ("1", None, [1.0], True):
        with pytest.raises(ConfigError, match="strength of 'age' must be a number"):
            editor.edit(x, age=wrong)


def test_an_edit_beyond_the_faces_it_knows_is_told(drawn):
    faces = load_dataset("synthfaces", n=60)
    age = faces.table["age"]
    old, young = faces.image(age.idxmax()), faces.image(age.idxmin())
    with pytest.warns(OutOfRangeWarning, match=r"age=\+1 leads this face beyond .* age=\+0\.\d+ stays inside"):
        drawn.edit(old, age=1.0)
    with pytest.warns(OutOfRangeWarning, match=r"age=-1 leads face 2 of 2 beyond"):
        drawn.edit([old, young], age=-1.0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfRangeWarning)
        drawn.edit([old, young], age=0.05)
        drawn.edit(young, age=1.0)
        drawn.edit(old, age=-1.0)


def test_damaged_paths_and_probes_are_named(drawn, tmp_path):
    drawn.renderer.paths.save_pretrained(tmp_path)
    drawn.renderer.probes.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    whole = {name: json.loads((tmp_path / name).read_text()) for name in ("config.json", "probes.json")}
    changes = [("config.json", key, value) for key in whole["config.json"] for value in (None, -3, [1], "x", True)]
    changes += [("probes.json", key, value) for key in whole["probes.json"] for value in (None, [1], "x", True)]
    changes += [("config.json", "dipoles", {"age": [1, 2]}), ("config.json", "dim", 10**30)]
    for name, key, value in changes:
        (tmp_path / name).write_text(json.dumps({**whole[name], key: value}))
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            PathSet.from_pretrained(tmp_path) if name == "config.json" else Probes.from_pretrained(tmp_path)
    del whole["probes.json"]["accuracy"]
    (tmp_path / "probes.json").write_text(json.dumps(whole["probes.json"]))
    with pytest.raises(CheckpointError, match="accuracy"):
        Probes.from_pretrained(tmp_path)


def test_what_a_program_prefers_for_its_own_tensors_is_not_ours(editor, x, tmp_path):
    wanted, code = editor.edit(x[:1], age=1.0), editor.encode(x[:1])
    sampled = np.asarray(editor.sample(1, seed=3)[0])
    editor.save_pretrained(tmp_path / "tiny")
    faces = load_dataset("synthfaces", n=2, seed=0, image_size=32)
    for prefer, usual in ((torch.set_default_dtype, torch.float32), (torch.set_default_device, None)):
        prefer(torch.float64 if usual else "meta")  # a second device, in the place of a GPU
        try:
            found = editor.edit(x[:1], age=1.0)
            assert found.dtype == torch.float32 and torch.equal(found.cpu(), wanted)
            assert np.array_equal(np.asarray(editor.sample(1, seed=3)[0]), sampled)
            assert torch.equal(editor.encode(x[:1]).x_T, code.x_T)
            assert Editor.from_pretrained(str(tmp_path / "tiny")).image_size == SIZE
            picture = faces.tensor(faces.ids, size=32)
            assert picture.dtype == torch.float32 and picture.device.type == "cpu"
            assert torch.zeros(1).dtype == (torch.float64 if usual else torch.float32)
            assert torch.zeros(1).device.type == ("cpu" if usual else "meta")  # the program keeps its own
        finally:
            prefer(usual)


def test_numbers_of_numpy_and_codes_at_a_glance(editor, x):
    assert torch.equal(editor.edit(x[:1], age=np.float32(0.5)), editor.edit(x[:1], age=0.5))
    assert torch.equal(editor.edit(x[:1], age=np.int64(1)), editor.edit(x[:1], age=1))
    with pytest.raises(ConfigError, match="strength of 'age' must be a number; got \\[0.3\\]"):
        editor.edit(x[:1], age=[0.3])
    code = editor.encode(x[:2])
    assert repr(code) == "<Code: 2 faces, z_sem (2, 16), x_T (2, 3, 16, 16)>" and code == code
    with pytest.raises(ShapeError, match="an array or a tensor; got none"):
        editor.edit([], age=1)
