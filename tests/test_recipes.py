"""An editor built from nothing, at toy size: every stage, its labels and its resumption."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from vlbias import Editor, recipes, world
from vlbias.clip import TableCaptions
from vlbias.data import FaceDataset, load_dataset
from vlbias.diffae import DiffAEConfig
from vlbias.errors import ConfigError, LabelError, UnknownNameError
from vlbias.recipes import (
    BuildSettings,
    build_clip,
    build_editor,
    caption_source,
    dipoles_of,
    held_out_images,
    label_features,
    photograph_templates,
    pole_labels,
    training_images,
)

TINY = DiffAEConfig(
    image_size=32, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, embed_channels=8, attention_resolutions=(),
    enc_model_channels=8, enc_channel_mult=(1, 2), enc_num_res_blocks=1, num_groups=4, prediction_type="v_prediction",
)  # fmt: skip
SETTINGS = BuildSettings(
    clip_images=96, diffae_images=64, path_faces=32, probe_faces=32, text_steps=2, prior_steps=4, path_steps=1,
    aux_columns=("age", "skin"), diffae=TINY,
)  # fmt: skip


@pytest.fixture(scope="module")
def faces():
    return load_dataset("synthfaces", n=64, seed=3, image_size=32)


@pytest.mark.filterwarnings("ignore::vlbias.errors.OutOfRangeWarning")  # probes of a moment's training
def test_a_killed_build_keeps_its_stages_and_ends_with_an_editor(faces, tmp_path, monkeypatch):
    out = tmp_path / "mine"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlbias.recipes.build_paths", killed)
        with pytest.raises(KeyboardInterrupt):
            build_editor(faces, out, settings=SETTINGS, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr("vlbias.recipes.build_clip", killed)
        patch.setattr("vlbias.recipes.build_diffae", killed)
        build_editor(faces, out, settings=SETTINGS, device="cpu")
    assert not (out / ".building").exists()
    editor = Editor.from_pretrained(str(out), device="cpu")
    assert editor.attributes == ["age", "skin_tone"] and set(editor.dipoles) == set(world.DIPOLES)
    assert editor.edit(faces.image(faces.ids[0]), age=1.0).size == (32, 32)
    assert len(editor.sample(1)) == 1


def test_labels_follow_the_poles_of_the_dipoles(faces):
    labels = pole_labels(faces, dipoles_of(faces))
    assert set(labels) == set(world.DIPOLES)
    table = faces.table
    for name, column, positive in (("age", "age_group", "old"), ("skin_tone", "skin", "dark"), ("smile", "smile", 1)):
        assert labels[name].tolist() == (table[column] == positive).astype(float).tolist()


def test_a_missing_label_is_nan(faces):
    table = faces.table.assign(skin=[None, *faces.table["skin"][1:]])
    labels = pole_labels(replace(faces, table=table), dipoles_of(faces))
    assert torch.isnan(labels["skin_tone"]).tolist() == [True] + [False] * (len(faces) - 1)


def test_features_of_labels_have_mean_zero_and_name_a_column_that_is_not_there(faces):
    features = label_features(faces.table, ("age", "skin"))
    assert features.shape == (len(faces), 3) and features.mean(0).abs().max() < 1e-5
    with pytest.raises(UnknownNameError, match="agee"):
        label_features(faces.table, ("agee",))


def test_a_path_without_a_dipole_is_named(faces, tmp_path):
    with pytest.raises(UnknownNameError, match="hat"):
        build_editor(faces, tmp_path, settings=replace(SETTINGS, paths=("hat",)), device="cpu")
    with pytest.raises(ConfigError, match="`paths` is empty"):
        BuildSettings(paths=())


def test_a_dataset_without_a_validation_split_has_nothing_held_out(faces):
    assert held_out_images(faces, 32).shape == (len(faces.split("val")), 3, 32, 32)
    assert held_out_images(faces.split("train"), 32) is None


def photographs(**columns):
    names = [f"{i}.png" for i in range(20)]
    table = pd.DataFrame({"file_name": names, "split": "train", **columns}, index=pd.Index(names, name="id"))
    return FaceDataset("own", table)


def test_captions_of_photographs_speak_of_the_columns_that_there_are(tmp_path):
    genders = ["male", "female"] * 10
    faces = photographs(gender=genders, hat=[0, 1] * 10)
    captions = caption_source(faces)
    assert captions.templates.columns == ["gender"] and set(dipoles_of(faces)) == {"gender"}
    assert any(word in " ".join(captions.draw(0)[0]) for word in ("woman", "female"))
    both = photographs(age_group=["young", "old"] * 10, skin=["dark", None] * 10)
    assert caption_source(both).templates.columns == ["age_group", "skin"]
    assert caption_source(photographs(age=[5, 70] * 10, age_group=["young", "old"] * 10)).templates.columns == ["age"]
    with pytest.raises(LabelError, match="'own' has none of them with two values or more. Its labels: hat, gender"):
        caption_source(photographs(hat=[0, 1] * 10, gender="male"))
    with pytest.raises(LabelError, match="value 'M' of column 'gender'; there are some for: female, male. Rename"):
        caption_source(photographs(gender=["M", "F"] * 10))
    with pytest.raises(LabelError, match="value '30s' of column 'age'. Rename the value"):
        caption_source(photographs(age=["30s", "40s"] * 10))
    with pytest.raises(LabelError, match="'age' is learned by captions on the column 'age', which 'own' lacks"):
        build_editor(faces, tmp_path, settings=SETTINGS, device="cpu")
    with pytest.raises(ConfigError, match="none was given"):
        photograph_templates(["hat"])


def test_the_clip_of_photographs_learns_labels_first(faces, tmp_path, monkeypatch):
    """Killed between the tower and the captions, it does not train the tower again."""
    table = faces.table.assign(race="White")
    captions = TableCaptions(photograph_templates(), table, seed=0)
    settings = replace(SETTINGS, tower_images=64)
    columns = []
    whole = recipes.train_tower

    def watched(*arguments, **named):
        columns.append(arguments[2])
        return whole(*arguments, **named)

    def killed(*_, **named):
        assert named["tower"]
        raise KeyboardInterrupt

    images = training_images(faces, 32)
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "train_tower", watched)
        patch.setattr(recipes, "train_clip", killed)
        with pytest.raises(KeyboardInterrupt):
            build_clip(images, captions, settings, tmp_path, seed=0, device="cpu")
    assert columns == [["gender", "age", "skin"]]  # race has a single value here and nothing to teach
    monkeypatch.setattr("vlbias.clip.tower.LabelTargets.loss", None)  # a finished tower trains no more
    clip = build_clip(images, captions, settings, tmp_path, seed=0, device="cpu")
    assert clip.encode_image(images[:2].float() / 127.5 - 1).shape == (2, 128)


def test_probes_and_paths_look_at_faces_of_the_whole_dataset(monkeypatch):
    """Not at the first ones, and labels stay with their pictures."""
    images = torch.arange(1000, dtype=torch.int32).reshape(1000, 1, 1, 1)
    seen = {}
    monkeypatch.setattr(
        recipes, "fit_probes", lambda clip, diffae, x, dipoles, labels, seed: seen.update(probes=x, labels=labels)
    )
    monkeypatch.setattr(recipes, "train_paths", lambda diffae, clip, learned, x, **named: seen.update(paths=x))
    settings = replace(SETTINGS, probe_faces=100, path_faces=80, paths=("age",))
    recipes.build_paths(
        None, None, images, {"age": None}, settings, labels={"age": torch.arange(1000), "skin": torch.arange(1000)}
    )
    for name, number in (("probes", 100), ("paths", 80)):
        assert len(seen[name].unique()) == number and abs(seen[name].float().mean() - 500) < 120
    assert set(seen["labels"]) == {"age"} and torch.equal(seen["labels"]["age"], seen["probes"].flatten().long())
