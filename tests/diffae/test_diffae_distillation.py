"""A few-step student learns its teacher's edits, goes on after a kill, and serves where it was trained to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from doubles import TINY, TINY_PRIOR, people, run_command, tiny_editor

from vlbias import Editor
from vlbias.checkpoints import save_tensors, write_manifest
from vlbias.diffae import DistillationSettings, Student, train_student
from vlbias.diffae.distillation import mixed
from vlbias.errors import CheckpointError, ConfigError, TrainingError
from vlbias.files import read_object, write_json
from vlbias.images import to_float
from vlbias.rendering import Renderer, RenderSettings

QUICK = DistillationSettings(num_steps=6, batch_size=4, walks=1, passes=1, teacher_evaluations=2)


@pytest.fixture
def teacher(tiny_config, make_model):
    return make_model(tiny_config)


def student_of(model, images, **changes):
    return train_student(model, images, replace(QUICK, **changes))


def weights(student):
    return dict(student.model.unet.state_dict())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_student_comes_nearer_to_the_edits_of_many_evaluations(tiny_config, make_model, tiny_images):
    teacher = make_model(replace(tiny_config, prediction_type="v_prediction"))  # random noise predictions have no end
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    change = 3 * torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    settings = replace(QUICK, num_steps=40, batch_size=8, passes=8, teacher_evaluations=3, learning_rate=1e-2)
    student = train_student(teacher, tiny_images[:8], settings, walk=lambda z_sem, _: z_sem + change)
    assert same(before, dict(teacher.state_dict())) and student.model.encoder is teacher.encoder
    x_0 = to_float(tiny_images[8:])
    z_sem = teacher.encode(x_0)

    def edited(model, num_steps):
        return model.retrace(z_sem + change, *model.trace(x_0, z_sem, num_steps))

    wanted = edited(teacher, 3)
    by_teacher, by_student = ((edited(model, 1) - wanted).square().mean() for model in (teacher, student.model))
    assert by_student < 0.9 * by_teacher


def test_the_faces_own_code_gives_the_face(teacher, tiny_images):
    model, x_0 = student_of(teacher, tiny_images, edit_evaluations=2).model, to_float(tiny_images)
    z_sem = model.encode(x_0)
    assert (model.retrace(z_sem, *model.trace(x_0, z_sem, 2)) - x_0).abs().max() < 1e-5  # rounding alone


def test_a_killed_run_ends_with_the_same_weights(teacher, tiny_images, tmp_path, monkeypatch):
    monkeypatch.setattr("vlbias.optim.SAVE_INTERVAL_S", -1.0)
    whole, state, calls = student_of(teacher, tiny_images), tmp_path / "state", []

    def killing(z_sem, generator):
        calls.append(1)
        if len(calls) == 6:  # in the second round of four batches
            raise KeyboardInterrupt
        return mixed(z_sem, generator)

    with pytest.raises(KeyboardInterrupt):
        train_student(teacher, tiny_images, QUICK, walk=killing, state_path=state)
    made = []
    resumed = train_student(
        teacher, tiny_images, QUICK, walk=lambda *given: made.append(1) or mixed(*given), state_path=state
    )
    assert same(weights(resumed), weights(whole)) and len(made) == 4  # the first round is not made again
    assert not same(weights(student_of(teacher, tiny_images, seed=1)), weights(whole))


def test_the_state_of_another_teacher_is_refused(teacher, tiny_config, make_model, tiny_images, tmp_path):
    train_student(teacher, tiny_images, QUICK, state_path=tmp_path / "state")
    with pytest.raises(TrainingError, match=r"state of another run: teacher differ"):
        train_student(make_model(tiny_config, seed=1), tiny_images, QUICK, state_path=tmp_path / "state")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), r"must be uint8 \(n, 3, 16, 16\); got torch.uint8 \(4, 3, 8, 8\)"),
        (torch.zeros(4, 3, 16, 16), "must be uint8"),
        (torch.zeros(0, 3, 16, 16, dtype=torch.uint8), "`images` is empty"),
    ],
)
def test_pictures_of_another_kind_are_refused(teacher, images, said):
    with pytest.raises(ConfigError, match=said):
        train_student(teacher, images, QUICK)


def test_a_loss_that_is_no_number_stops(teacher, tiny_images):
    with pytest.raises(TrainingError, match="not finite at step"):
        train_student(teacher, tiny_images, QUICK, walk=lambda z_sem, _: z_sem * torch.nan)


# -- in an editor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def editor(tiny_images):
    """An editor whose student makes the edits of one evaluation each way."""
    base = tiny_editor(replace(TINY, prior=TINY_PRIOR), lively=True, settings=RenderSettings(edit_steps=3))
    r = base.renderer
    student = student_of(r.diffae, tiny_images, learning_rate=1e-2)
    return Editor(r.diffae, paths=r.paths, settings=r.settings, info=r.info, student=student)


def edits_of(renderer, x_0):
    """Each face with the code of the next one."""
    z_sem = renderer.encode(x_0)
    return renderer.render(x_0, z_sem, z_sem.roll(1, dims=0), renderer.trace(x_0, z_sem))


def test_it_serves_edits_of_its_own_number_alone(editor, tiny_images):
    r, x_0 = editor.renderer, to_float(tiny_images[:2])
    teacher = Editor(r.diffae, paths=r.paths, settings=r.settings, info=r.info).renderer
    assert not torch.equal(edits_of(r, x_0), edits_of(teacher, x_0))
    assert r.fingerprint()["weights"] != teacher.fingerprint()["weights"]
    for changes in ({"edit_steps": 6}, {"solver": "ddim"}, {"method": "decode"}):
        ours, theirs = (one.changed(settings=replace(one.settings, **changes)) for one in (r, teacher))
        assert torch.equal(edits_of(ours, x_0), edits_of(theirs, x_0))
        assert ours.fingerprint() == theirs.fingerprint()
    z_sem, noise = r.sample_codes(range(2)), r.noise(range(2))
    assert torch.equal(r.decode(z_sem, noise), teacher.decode(z_sem, noise))


def test_drawn_faces_are_edited_on_its_own_way(editor):
    r = editor.renderer
    z_sem, noise = r.sample_codes(range(2)), r.noise(range(2))
    r.evaluations = 0
    x_0, traced = r.draw(z_sem, noise, num_steps=5)
    assert r.evaluations == 2 * (5 + 1)
    assert torch.allclose(r.diffae.retrace(z_sem, traced.x_T, traced.residuals), x_0) is False
    assert torch.allclose(r.student.model.retrace(z_sem, traced.x_T, traced.residuals), x_0, atol=1e-5)


def test_drawn_faces_are_edited_on_the_way_they_were_drawn_on_where_that_costs_less(editor):
    r = editor.renderer
    quick = r.changed(student=Student(r.student.model, 2), settings=replace(r.settings, edit_steps=4))
    z_sem, noise = r.sample_codes(range(2)), r.noise(range(2))
    x_0, traced = quick.draw(z_sem, noise, num_steps=4)  # two evaluations on that way, four on the student's
    assert traced.on_drawn_way and quick.evaluations == 2 * 4
    edited = quick.render(x_0, z_sem, z_sem.roll(1, dims=0), traced)
    assert quick.evaluations == 2 * (4 + 2)
    teacher = Renderer(r.diffae, paths=r.paths, settings=quick.settings)
    assert torch.equal(edited, teacher.render(x_0, z_sem, z_sem.roll(1, dims=0), traced))
    assert not quick.draw(z_sem, noise, num_steps=6)[1].on_drawn_way
    assert not quick.trace(x_0, z_sem).on_drawn_way


@pytest.mark.parametrize(("num_steps", "has_student"), [(5, True), (5, False), (3, True), (3, False)])
def test_the_price_of_a_drawn_face_and_of_its_edit_is_known(editor, num_steps, has_student):
    r = editor.renderer
    if not has_student:
        r = Editor(r.diffae, paths=r.paths, settings=r.settings, info=r.info).renderer
    z_sem, noise = r.sample_codes(range(2)), r.noise(range(2))
    r.evaluations = 0
    x_0, traced = r.draw(z_sem, noise, num_steps=num_steps)
    drawn = r.evaluations
    if traced.residuals is None:
        r.decode(z_sem.roll(1, dims=0), traced.x_T, num_steps=num_steps)
    else:
        r.render(x_0, z_sem, z_sem.roll(1, dims=0), traced)
    assert r.evaluations_to_draw(num_steps) == (drawn / 2, (r.evaluations - drawn) / 2)


def test_it_is_saved_with_its_editor(editor, tiny_images, tmp_path):
    editor.save_pretrained(tmp_path / "editor", dtype=torch.float32)
    loaded, x_0 = Editor.from_pretrained(f"{tmp_path / 'editor'}/"), to_float(tiny_images[:2])
    assert loaded.renderer.student.edit_evaluations == 1
    assert torch.equal(edits_of(loaded.renderer, x_0), edits_of(editor.renderer, x_0))
    assert loaded.renderer.fingerprint() == editor.renderer.fingerprint()


def test_a_student_of_another_autoencoder_is_refused(editor, teacher):
    with pytest.raises(CheckpointError, match="another architecture"):
        Editor(teacher, student=editor.renderer.student)


def _another_size(folder, model):
    state = dict(model.unet.state_dict())
    state["time_embed.0.weight"] = state["time_embed.0.weight"][:, :-1]
    save_tensors(folder / "unet.safetensors", state)


HOSTILE = {
    "missing": (lambda folder, _: (folder / "unet.safetensors").unlink(), "unet.safetensors does not exist"),
    "cut off": (
        lambda folder, _: (folder / "unet.safetensors").write_bytes((folder / "unet.safetensors").read_bytes()[:999]),
        "damaged or not a safetensors file",
    ),
    "mis-shaped": (_another_size, r"mis-shaped: time_embed.0.weight is \(16, 7\)"),
    "not a number": (
        lambda folder, model: save_tensors(folder / "unet.safetensors", {"norm.weight": torch.tensor([torch.nan])}),
        "NaN or infinite",
    ),
    "no evaluations": (lambda folder, _: write_json(folder / "config.json", {"edit_evaluations": 0}), "in 1..1000"),
    "an unknown key": (
        lambda folder, _: write_json(folder / "config.json", {"edit_evaluations": 1, "steps": 1}), "steps",
    ),
    "no settings": (lambda folder, _: write_json(folder / "config.json", {}), "edit_evaluations"),
    "no config": (lambda folder, _: (folder / "config.json").unlink(), "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_student_that_is_none_is_refused(case, editor, tmp_path):
    editor.save_pretrained(tmp_path / "editor")
    folder = tmp_path / "editor" / "student"
    change, said = HOSTILE[case]
    change(folder, editor.renderer.diffae)
    with pytest.raises(CheckpointError, match="unet.safetensors|config.json"):  # the manifest notices
        Editor.from_pretrained(f"{tmp_path / 'editor'}/")
    write_manifest(tmp_path / "editor")
    with pytest.raises(CheckpointError, match=said):
        Editor.from_pretrained(f"{tmp_path / 'editor'}/")
    with pytest.raises(CheckpointError, match=said):
        Student.from_pretrained(folder, editor.renderer.diffae)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_paths", [True, False])
def test_the_command_writes_an_editor(has_paths, tmp_path):
    base = tiny_editor(license="research only, non-commercial", trained_on="UTKFace")
    if not has_paths:
        base = Editor(base.renderer.diffae, info=base.renderer.info)
    base.save_pretrained(tmp_path / "base")
    out = tmp_path / "quick"
    words = ("train", "distill", f"{tmp_path / 'base'}/", people(tmp_path / "people"), out)
    assert "edits in 1 + 1 evaluations" in run_command(*words, "--steps", 1)
    editor = Editor.from_pretrained(f"{out}/")
    assert editor.renderer.student.edit_evaluations == 1 and editor.renderer.settings.evaluations_per_edit == 2
    assert (editor.name, editor.renderer.license) == ("quick", "research only, non-commercial")
    card = (out / "README.md").read_text()
    assert 'license_name: "research only, non-commercial"' in card and "research-only" in card
    assert "1 network evaluations there and 1 back" in card
    assert read_object(out / "distill.json")["teacher"] == "tiny" and not (out / ".building").exists()
    assert editor.attributes == (["age", "skin_tone"] if has_paths else [])
