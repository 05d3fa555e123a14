"""How an editor is made of a labelled dataset: CLIP, autoencoder, prior, probes and paths, stage after stage.

Every stage is kept in ``OUT/.building`` when it is done and long stages save their state, so a build that was killed
goes on where it stopped. The shipped checkpoints were made of these stages; ``checkpoints/README.md`` has the commands.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vlbias.arguments import checked_call
from vlbias.attributes import ATTRIBUTES
from vlbias.balance import column_labels, resolve_poles
from vlbias.clip import (
    MILD,
    STRONG,
    CaptionTemplates,
    Clip,
    ClipTrainingSettings,
    TableCaptions,
    TowerTrainingSettings,
    train_clip,
    train_tower,
)
from vlbias.clip import load as load_clip
from vlbias.data import FaceDataset
from vlbias.data.synthfaces import SynthFaces
from vlbias.diffae import (
    DiffAE,
    DiffAEConfig,
    DiffAETrainingSettings,
    DistillationSettings,
    PriorTrainingSettings,
    train_diffae,
    train_prior,
    train_student,
)
from vlbias.diffae.distillation import mixed
from vlbias.diffae.enlarging import enlarge
from vlbias.editor import Editor
from vlbias.editor_folder import editor_card
from vlbias.engine import Engine, gpus_here, run_pieces
from vlbias.errors import ConfigError, DatasetError, LabelError, TrainingError, VlbiasError, unknown
from vlbias.files import AnyPath, make_folder, write_file, write_json
from vlbias.images import load_pixels, to_float
from vlbias.paths import Dipole, PathSet, PathTrainingSettings, Probes, fit_probes, train_paths
from vlbias.rendering import Renderer, RenderSettings
from vlbias.seeds import drawn_places
from vlbias.settings import Settings, number
from vlbias.world import DIPOLES
from vlbias.world.phrases import ADJECTIVES, NOUNS, TAILS

__all__ = [
    "PHOTOGRAPH_DIPOLES",
    "SMALL_DIFFAE",
    "BuildSettings",
    "build_clip",
    "build_diffae",
    "build_editor",
    "build_enlarged",
    "build_paths",
    "build_prior",
    "build_student",
    "caption_source",
    "dipoles_of",
    "held_out_images",
    "label_features",
    "photograph_templates",
    "pole_labels",
    "synthfaces_templates",
    "training_images",
]

#: The autoencoder of the shipped checkpoints: 6.8 million weights, made to train on two cores.
SMALL_DIFFAE = DiffAEConfig(
    image_size=64,
    model_channels=32,
    channel_mult=(1, 2, 4),
    num_res_blocks=1,
    embed_channels=256,
    attention_resolutions=(),
    patch_size=2,
    enc_patch_size=2,
    enc_model_channels=48,
    enc_channel_mult=(1, 2, 2, 2),
    enc_num_res_blocks=1,
    enc_pool="flatten",
    semantic_map=True,
    num_groups=8,
    prediction_type="v_prediction",
)

#: Dipoles for photographs, in the language of :func:`photograph_templates`.
PHOTOGRAPH_DIPOLES: dict[str, Dipole] = {
    "age": Dipole(
        ("a photo of an old person", "a portrait of an elderly person", "a photo of an older person"),
        ("a photo of a young person", "a portrait of a young adult person", "a photo of a young face"),
    ),
    "skin_tone": Dipole(
        ("a photo of a person with dark skin", "a portrait of a person with brown skin"),
        ("a photo of a person with light skin", "a portrait of a person with fair skin"),
    ),
    "gender": Dipole(("a photo of a man", "a portrait of a man"), ("a photo of a woman", "a portrait of a woman")),
}
#: The columns by whose captions a CLIP learns to read each of them.
_TOLD_BY = {"age": ("age", "age_group"), "skin_tone": ("skin",), "gender": ("gender",)}


@dataclass(frozen=True)
class BuildSettings(Settings):
    """How much of everything a build takes; the defaults suit a few hours on two cores at 64 px.

    Attributes:
        clip_images: images shown to the CLIP, with repetition.
        tower_images: of photographs, images shown to the CLIP's image tower before, while it learns the labels (see
            ``vlbias.clip.train_tower``); drawn faces, of which there is no end, need none.
        diffae_images: images shown to the autoencoder, with repetition.
        aux_columns: columns of the table that a linear head must read from z_sem while the autoencoder trains, so
            that z_sem holds small details too; the head is not kept. Empty for none.
        aux_weight: weight of that term.
        high_noise: see ``DiffAETrainingSettings``.
        paths: names of the dipoles that get a path; the others are read and guarded.
        path_faces: faces that paths are learned on.
        probe_faces: faces that probes are fitted on.
        text_steps, prior_steps, path_steps: optimiser steps of the CLIP's text tower before any image, of the latent
            prior, and of the paths.
        diffae: architecture.
    """

    clip_images: int = number(60_000, 16)
    tower_images: int = number(300_000, 16)
    diffae_images: int = number(100_000, 16)
    aux_columns: tuple[str, ...] = ()
    aux_weight: float = number(0.1, 0)
    high_noise: float = number(0.3, 0)
    paths: tuple[str, ...] = ("age", "skin_tone")
    path_faces: int = number(6000, 16)
    probe_faces: int = number(6000, 16)
    text_steps: int = number(350, 0)
    prior_steps: int = number(4000, 1)
    path_steps: int = number(150, 0)
    diffae: DiffAEConfig = SMALL_DIFFAE

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paths:
            raise ConfigError("`paths` is empty; an editor needs at least one path.")


@checked_call
def build_editor(
    dataset: FaceDataset,
    out: AnyPath,
    *,
    name: str | None = None,
    settings: BuildSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    engine: Engine | None = None,
) -> Editor:
    """All stages; the result is an editor folder that ``Editor.from_pretrained`` reads.

    Args:
        dataset: the split "train" is learned from, "val" is looked at on the way.
        out: editor folder.
        name: of the editor; ``None`` for the folder's.
        settings: ``None`` for the defaults.
        seed: of all stages.
        device: where to train; ``None`` for CUDA if there is one.
        engine: whose workers encode the faces; ``None`` for this process.

    Raises:
        DatasetError: too few faces.
        UnknownNameError: a path without a dipole, or an auxiliary column that is not there.
    """
    out, settings = Path(out), settings or BuildSettings()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dipoles = dipoles_of(dataset)
    for path in settings.paths:
        if path not in dipoles:
            raise _no_dipole(path, dipoles, dataset)
    work = out / ".building"
    make_folder(work)
    size = settings.diffae.image_size
    train = dataset.split("train")
    images = training_images(train, size)

    if not (work / "clip").is_dir():
        captions = caption_source(train, seed=seed)
        build_clip(images, captions, settings, work, seed=seed, device=device).save_pretrained(work / "clip")
    clip = load_clip(work / "clip", device=device)

    if not (work / "diffae").is_dir():
        held_out = held_out_images(dataset, size)
        aux = label_features(train.table, settings.aux_columns) if settings.aux_columns else None
        model = build_diffae(images, settings, work / "training", held_out=held_out, aux=aux, seed=seed, device=device)
        model = build_prior(model, images, num_steps=settings.prior_steps, seed=seed, engine=engine)
        model.save_pretrained(work / "diffae")
    diffae = DiffAE.from_pretrained(work / "diffae").to(device)

    labels = pole_labels(train, dipoles)
    paths, probes = build_paths(diffae, clip, images, dipoles, settings, labels=labels, seed=seed)
    info: dict[str, object] = {
        "name": name or out.name,
        "license": dataset.license or "unknown",
        "trained_on": dataset.name,
    }
    if isinstance(dataset, SynthFaces):
        info["varied"] = 1.0  # drawn faces are read without noise, so members look as far apart as they are
    editor = Editor(diffae, clip=clip, paths=paths, probes=probes, info=info)
    editor.save_pretrained(out)
    write_json(out / "build.json", {"dataset": dataset.name, "faces": len(train), "seed": seed, **settings.to_dict()})
    shutil.rmtree(work)
    return editor


@checked_call
def training_images(dataset: FaceDataset, size: int, *, limit: int | None = None, at_least: int = 16) -> torch.Tensor:
    """The pictures of a dataset in memory, in the order of its table: uint8 (n, 3, size, size).

    Args:
        dataset: of which at most ``limit`` are drawn.
        size: of the pictures in pixels.
        limit, at_least: how many.

    Raises:
        DatasetError: fewer than ``at_least`` pictures.
        ImageError: a picture cannot be read.
    """
    ids = (dataset if limit is None else dataset.sample(limit)).ids
    if len(ids) < at_least:
        raise DatasetError(
            f"'{dataset.name}' has {len(ids)} pictures in this split; learning needs at least {at_least}."
        )
    return load_pixels(dataset, ids, size, title="reading")


@checked_call
def held_out_images(dataset: FaceDataset, size: int, *, limit: int = 32) -> torch.Tensor | None:
    """Pictures of the split "val" to look at while training, uint8 (<= limit, 3, size, size); ``None`` without one."""
    if "val" not in set(dataset.table["split"]):
        return None
    return training_images(dataset.split("val"), size, limit=limit, at_least=1)


@checked_call
def caption_source(dataset: FaceDataset, *, seed: int = 0) -> TableCaptions:
    """Sentences about the faces of a dataset, from phrases for its labels: the world's own, or those for photographs.

    Raises:
        LabelError: photographs without any column that captions can speak of, or a value that has no phrase.
    """
    if isinstance(dataset, SynthFaces):
        return TableCaptions(synthfaces_templates(), dataset.table, seed=seed)
    known = ("age", "age_group", "gender", "race", "skin")
    told = [name for name in known if name in dataset.table and dataset.table[name].nunique() > 1]
    if not told:
        raise LabelError(
            f"Captions of photographs use the columns {', '.join(known)}; '{dataset.name}' has none of them with "
            f"two values or more. Its labels: {', '.join(map(str, dataset.attributes)) or 'none'}. "
            "Rename a column, or add one of these."
        )
    present = [name for name in known if name in dataset.table]
    if "age" in told:
        present = [name for name in present if name != "age_group"]  # years say more
    return TableCaptions(photograph_templates(present), dataset.table, seed=seed)


@checked_call
def dipoles_of(dataset: FaceDataset) -> dict[str, Dipole]:
    """The dipoles that a CLIP trained on this dataset's captions can read."""
    if not isinstance(dataset, SynthFaces):
        columns = set(dataset.table.columns)
        return {name: dipole for name, dipole in PHOTOGRAPH_DIPOLES.items() if columns & set(_TOLD_BY[name])}
    return {name: Dipole(positive, negative) for name, (positive, negative) in DIPOLES.items()}


def _no_dipole(path: str, dipoles: Mapping[str, Dipole], dataset: FaceDataset) -> VlbiasError:
    if path not in _TOLD_BY or isinstance(dataset, SynthFaces):
        return unknown("dipole", path, dipoles, where=dataset.name)
    return LabelError(
        f"The path '{path}' is learned by captions on the column '{_TOLD_BY[path][0]}', which '{dataset.name}' lacks. "
        f"Add the column, or name other paths: {', '.join(dipoles) or 'there are none for its columns'}."
    )


@checked_call
def label_features(table: pd.DataFrame, columns: Sequence[str]) -> torch.Tensor:
    """Columns as features of mean 0 and deviation 1, float32 (n, f); words become one indicator each, missing is 0.

    Raises:
        ConfigError: no column.
        UnknownNameError: no such column.
    """
    if not columns:
        raise ConfigError("`columns` is empty; features need a column.")
    parts = []
    for column in columns:
        if column not in table:
            raise unknown("column", column, table.columns)
        values = table[column]
        coded = values.astype(float).to_frame() if pd.api.types.is_numeric_dtype(values) else pd.get_dummies(values)
        coded = coded.astype(float)
        coded = ((coded - coded.mean()) / coded.std().clip(lower=1e-6)).where(values.notna(), 0.0)
        parts.append(torch.tensor(coded.to_numpy(), dtype=torch.float32))
    return torch.cat(parts, dim=1)


def build_clip(
    images: torch.Tensor, captions: TableCaptions, settings: BuildSettings, work: Path, *, seed: int, device: str
) -> Clip:
    """A small CLIP from nothing; resumes from ``work/tower.state`` and ``work/clip.state``.

    Both stay there: remove ``work`` when the result is saved. A CLIP for photographs (captions of
    :func:`photograph_templates`) starts from an image tower that has learned the labels, and is trained under strong
    augmentation.
    """
    columns = captions.templates.columns
    photographs = captions.templates == photograph_templates(columns)
    tower = None
    if photographs:
        tower = train_tower(
            images,
            captions.table,
            [name for name in columns if captions.table[name].nunique() > 1],
            training=TowerTrainingSettings(num_images=settings.tower_images, seed=seed, device=device),
            state_path=work / "tower.state",
        )
    training = ClipTrainingSettings(
        num_images=settings.clip_images,
        batch_size=96,
        text_steps=settings.text_steps,
        augmentation=STRONG if photographs else MILD,
        # a tower that has learned already can meet a text tower that learns along
        freeze_text=0.5 if photographs else 0.6,
        seed=seed,
        device=device,
    )
    state = work / "clip.state"
    return train_clip(images, captions, training=training, tower=tower, state_path=state)


def build_diffae(
    images: torch.Tensor,
    settings: BuildSettings,
    folder: Path,
    *,
    held_out: torch.Tensor | None = None,
    aux: torch.Tensor | None = None,
    seed: int = 0,
    device: str | None = None,
) -> DiffAE:
    """A diffusion autoencoder from nothing; resumes from ``folder/state.pt``.

    Raises:
        TrainingError: it was asked to stop before its budget; the same call goes on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DiffAE(settings.diffae)
    training = DiffAETrainingSettings(
        max_images=settings.diffae_images,
        aux_weight=settings.aux_weight,
        high_noise=settings.high_noise,
        seed=seed,
        device=device,
    )
    result = train_diffae(model, images, training, folder, held_out=held_out, aux_features=aux, resume=True)
    if not result.finished:
        raise TrainingError(f"stopped after {result.images:,} images; the same command goes on from {folder}.")
    return model


@checked_call
def build_prior(
    model: DiffAE, images: torch.Tensor, *, num_steps: int = 4000, seed: int = 0, engine: Engine | None = None
) -> DiffAE:
    """The model with a latent prior fitted to the codes of ``images``, uint8 (n, 3, h, w); ``engine`` encodes them."""
    codes = torch.cat(_encoded(model, images.split(128), engine))
    return train_prior(model, codes, PriorTrainingSettings(num_steps=num_steps, seed=seed))


@dataclass(frozen=True, eq=False)
class _Encoding:
    """Encoding of faces, as work that can be sent."""

    model: DiffAE

    def open(self) -> Callable[[torch.Tensor], np.ndarray]:
        """uint8 (n, 3, h, w) => z_sem (n, d), as a plain value."""
        return lambda images: self.encode(images).cpu().numpy()

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (n, 3, h, w) => z_sem (n, d)."""
        return self.model.encode(to_float(images).to(self.model.device))


def _encoded(model: DiffAE, parts: Sequence[torch.Tensor], engine: Engine | None) -> list[torch.Tensor]:
    """Codes of parts of a dataset, here or by workers."""
    num_gpus = gpus_here(model.device.type)
    if engine is None or engine.is_this_process(num_gpus):
        return [_Encoding(model).encode(part) for part in parts]
    # a copy, for a part of a tensor is sent with the whole of it
    answers = dict(run_pieces(engine, _Encoding(model), [part.clone() for part in parts], num_gpus=num_gpus))
    # a cluster's arrays cannot be written to
    return [torch.from_numpy(answers[place].copy()).to(model.device) for place in range(len(parts))]


@checked_call
def build_student(
    editor: Editor, dataset: FaceDataset, out: AnyPath, settings: DistillationSettings | None = None
) -> Editor:
    """The editor with a few-step student that makes its standard edits, as a folder; `docs/diffae.md` says what for.

    Args:
        editor: the teacher; one without paths teaches edits towards other faces.
        dataset: faces to edit, of the split "train".
        out: editor folder. A build that was killed goes on from ``out/.building``.
        settings: ``None`` for the defaults.

    Raises:
        DatasetError: too few faces. See also :func:`vlbias.diffae.train_student`.
    """
    out, settings, renderer = Path(out), settings or DistillationSettings(), editor.renderer
    images = training_images(dataset.split("train"), renderer.image_size)
    work = make_folder(out / ".building")
    walk = partial(_random_walk, renderer) if renderer.attributes else mixed
    student = train_student(renderer.diffae, images, settings, walk=walk, state_path=work / "student.state")
    render = replace(renderer.settings, method="difference", solver="dpm++2m", edit_steps=settings.edit_evaluations + 2)
    terms = _joint_license(renderer.license, "student", dataset.license)
    quick = Editor(
        renderer.diffae,
        clip=renderer.clip,
        paths=renderer.paths,
        probes=renderer.probes,
        settings=render,
        info=renderer.info | {"name": out.name, "license": terms},
        student=student,
    )
    quick.save_pretrained(out)
    write_file(out / "README.md", editor_card(quick.renderer, f"{out.name}/"))
    facts = {"teacher": editor.name, "dataset": dataset.name, "faces": len(images)}
    write_json(out / "distill.json", {**facts, **settings.to_dict()})
    shutil.rmtree(work)
    return quick


@checked_call
def build_enlarged(
    editor: Editor,
    dataset: FaceDataset,
    out: AnyPath,
    *,
    diffae_images: int = 100_000,
    seed: int = 0,
    device: str | None = None,
) -> Editor:
    """The editor at twice its size: its encoder, CLIP, paths and probes, and its decoder taught the detail.

    Args:
        editor: what knows the faces at half the size; a student of it is left behind.
        dataset: faces, of the split "train"; those of "val" are looked at on the way.
        out: editor folder. A build that was killed goes on from ``out/.building``.
        diffae_images: images shown to the decoder, with repetition.
        seed: of the training.
        device: where to train; ``None`` for CUDA if there is one.

    Raises:
        ConfigError: an editor that cannot be enlarged, see :func:`vlbias.diffae.enlarge`.
        DatasetError: too few faces. TrainingError: it was asked to stop; the same call goes on.
    """
    out, renderer = Path(out), editor.renderer
    size = 2 * renderer.image_size
    images = training_images(dataset.split("train"), size)
    work = make_folder(out / ".building")
    larger = enlarge(renderer.diffae, images[drawn_places(len(images), _MEASURED, seed=seed)])
    settings = DiffAETrainingSettings(
        max_images=diffae_images,
        batch_size=16,
        learning_rate=1e-3,
        ema_decay=0.998,
        train_encoder=False,
        seed=seed,
        device=device,
    )
    held_out = held_out_images(dataset, size)
    result = train_diffae(larger, images, settings, work / "training", held_out=held_out, resume=True)
    if not result.finished:
        raise TrainingError(f"stopped after {result.images:,} images; the same command goes on from {work}.")
    info = {name: value for name, value in renderer.info.items() if name not in _OF_ONE_SIZE}
    render = renderer.settings
    if renderer.student is not None:  # what suffices for a student is too little without it
        render = replace(render, edit_steps=RenderSettings().edit_steps)
    enlarged = Editor(
        larger,
        clip=renderer.clip,
        paths=renderer.paths,
        probes=renderer.probes,
        settings=render,
        info=info | {"name": out.name, "license": _joint_license(renderer.license, "decoder", dataset.license)},
    )
    enlarged.save_pretrained(out)
    write_file(out / "README.md", editor_card(enlarged.renderer, f"{out.name}/"))
    facts = {"editor": editor.name, "dataset": dataset.name, "faces": len(images), "seed": seed}
    write_json(out / "enlarge.json", {**facts, "diffae_images": diffae_images})
    shutil.rmtree(work)
    return enlarged


#: Pictures whose detail says at what scale the decoder of an enlarged editor meets it.
_MEASURED = 1024
#: What an editor's description says that is true at one size alone.
_OF_ONE_SIZE = ("image_size", "usual_rebuild_db", "sha256", "qualities")


def _joint_license(editor: str | None, part: str, faces: str | None) -> str | None:
    """The terms of an editor of which a part learned from faces; ``None``, not stated, where the editor states none."""
    if editor is None or faces is None or faces.startswith(editor):
        return editor
    return f"{editor}; {part}: {faces}"


#: How far a student is taught to follow the paths, and the share of its edits that lead towards other faces instead:
#: corrections, and paths that are learned later, leave the paths of today.
_TAUGHT_STRENGTH, _TAUGHT_MIXED = 1.3, 0.25
#: How often an edit of one attribute moves another as well.
_TAUGHT_TOGETHER = 0.25


def _random_walk(renderer: Renderer, z_sem: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Codes (b, d) walked along one path or several, both ways."""
    names, n = renderer.attributes, len(z_sem)
    moves = torch.rand(len(names), n, generator=generator) < _TAUGHT_TOGETHER
    moves[torch.randint(len(names), (n,), generator=generator), torch.arange(n)] = True
    lengths = _TAUGHT_STRENGTH * (2 * torch.rand(len(names), n, generator=generator) - 1)
    walked = renderer.walk(z_sem, dict(zip(names, (moves * lengths).to(z_sem.device), strict=True)))
    is_mixed = torch.rand(n, 1, generator=generator) < _TAUGHT_MIXED
    return torch.where(is_mixed.to(z_sem.device), mixed(z_sem, generator), walked)


@checked_call
def pole_labels(dataset: FaceDataset, dipoles: Mapping[str, Dipole]) -> dict[str, torch.Tensor]:
    """For each dipole that a column of the table speaks of: 1 at the positive pole, 0 at the negative one, NaN where
    the label is missing, float32 (n,). Dipoles without a column are left out.

    Raises:
        PlanError: a column is a measurement, not a grouping.
    """
    labels: dict[str, torch.Tensor] = {}
    for column in (column for attribute in ATTRIBUTES.values() for column in attribute.columns):
        if column not in dataset.table or dataset.table[column].isna().all():
            continue
        values = column_labels(dataset.table, column, role="label")
        poles = resolve_poles(column, {value for value in values if value is not None}, dipoles)
        if poles is not None and poles.name not in labels:
            places = [math.nan if value is None else float(poles.positions[value] > 0) for value in values]
            labels[poles.name] = torch.tensor(places)
    return labels


def build_paths(
    diffae: DiffAE,
    clip: Clip,
    images: torch.Tensor,
    dipoles: Mapping[str, Dipole],
    settings: BuildSettings,
    *,
    labels: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> tuple[PathSet, Probes]:
    """Probes of all dipoles, and calibrated paths for those that ``settings.paths`` names.

    Args:
        diffae, clip: of one world.
        images: uint8 (n, 3, h, w).
        dipoles: name => dipole, all that shall be read.
        settings: which get a path, and how many faces are looked at.
        labels: see :func:`pole_labels`; dipoles without one are read by the CLIP.
        seed: of everything drawn.
    """
    seen = drawn_places(len(images), settings.probe_faces, seed=seed)
    given = {name: values[seen] for name, values in (labels or {}).items() if name in dipoles}
    probes = fit_probes(clip, diffae, images[seen], dipoles, labels=given, seed=seed)
    learned = {name: dipoles[name] for name in settings.paths}
    guards = {name: dipole for name, dipole in dipoles.items() if name not in learned}
    paths = train_paths(
        diffae,
        clip,
        learned,
        images[drawn_places(len(images), settings.path_faces, seed=seed)],
        guards=guards,
        probes=probes,
        settings=PathTrainingSettings(steps=settings.path_steps, seed=seed),
    )
    return paths, probes


@checked_call
def photograph_templates(columns: Iterable[str] = ("age", "gender", "race", "skin")) -> CaptionTemplates:
    """Captions for face photographs with columns age (years), gender, race and skin ("light", "dark", or missing).

    Race words and skin words stand in different sentences' places and are drawn independently: a caption may name
    either, both or none, so that a model does not have to take one for the other.

    Args:
        columns: those that the dataset has; ``age_group`` ("young", "old") can stand in for the age.

    Raises:
        ConfigError: none that there are words for.
    """
    everything = CaptionTemplates(
        adjectives={
            "age": _age_adjectives,
            "age_group": {"young": ("young", "young adult"), "old": ("old", "elderly", "older")},
            "race": {
                "White": ("white", "caucasian"),
                "Black": ("black", "african"),
                "Asian": ("asian", "east asian"),
                "Indian": ("indian", "south asian"),
                "Others": ("hispanic or middle eastern",),
            },
        },
        tails={"skin": {"light": ("with light skin", "with fair skin"), "dark": ("with dark skin", "with brown skin")}},
        nouns=("gender", {"male": ("man", "male person"), "female": ("woman", "female person")}),
        mention={"age": 0.65, "age_group": 0.65, "race": 0.25, "skin": 0.5, "gender": 0.6},
    )
    return everything.only(frozenset(columns))


def synthfaces_templates() -> CaptionTemplates:
    """Captions for the table of the embedded world, in the world's own words, which also say what is absent.

    Short captions teach best, and small features need most of them: that is what the mention rates are for.
    """
    return CaptionTemplates(
        adjectives=ADJECTIVES,
        tails=TAILS,
        nouns=("gender", NOUNS),
        mention={
            "age": 0.15, "skin_tone": 0.15, "gender": 0.2, "smile": 0.35, "glasses": 0.15, "beard": 0.2,
            "nose": 0.3, "lips": 0.3, "hair_color": 0.1,
        },
    )  # fmt: skip


def _age_adjectives(age: float) -> Sequence[str]:
    if isinstance(age, str):
        return ()
    for bound, phrases in (
        (3, ("baby", "very young", "infant")),
        (13, ("child", "very young", "little")),
        (20, ("teenage", "young")),
        (35, ("young", "young adult")),
        # the words meet where the datasets draw the line between young and old, at 40 years
        (40, ("adult", "young adult")),
        (50, ("adult", "middle-aged", "older")),
        (60, ("middle-aged", "older", "old")),
    ):
        if age < bound:
            return phrases
    return ("old", "elderly", "very old", "aged")
