"""``vlbias train``: the networks of an editor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbias.cli.application import Application, app
from vlbias.cli.options import (
    AddressOption,
    CoresOption,
    DatasetArgument,
    EngineKind,
    EngineOption,
    FollowLinksOption,
    PushOption,
    SeedOption,
    WorkersOption,
    engine_of,
    open_faces,
)
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.cli.parsing import names_of
from vlbias.errors import ConfigError
from vlbias.files import make_folder, read_object

if TYPE_CHECKING:
    from vlbias.diffae import DiffAEConfig

#: Of photographs, the image tower sees so many times as many images before the CLIP does, to learn the labels.
TOWER_SHARE = 5

train_app = Application(help="Train the networks of an editor; every run resumes after a kill.", no_args_is_help=True)
app.add_typer(train_app, name="train")

OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the result and the state go.")]
ImagesOption = Annotated[int, typer.Option("--images", min=16, metavar="N", help="Images to show, with repetition.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the state in FOLDER.")]


def _columns(text: str) -> tuple[str, ...]:
    """``--aux``: columns, or none."""
    return tuple(names_of(text, "--aux")) if text.strip() else ()


@train_app.command("editor", epilog="Example: vlbias train editor synthfaces:30000 my-editor --aux age,smile,glasses")
def train_editor(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Editor folder to write.")],
    clip_images: Annotated[
        int,
        typer.Option(min=16, metavar="N", help="Images shown to the CLIP; of photographs, five times as many before."),
    ] = 60_000,
    diffae_images: Annotated[int, typer.Option(min=16, metavar="N", help="Images shown to the autoencoder.")] = 100_000,
    aux: Annotated[str, typer.Option(metavar="COLUMN,...", help="Labels that a linear head is to read in z_sem.")] = "",
    path_names: Annotated[str, typer.Option("--paths", metavar="NAME,...", help="Paths to learn.")] = "age,skin_tone",
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    engine: EngineOption = EngineKind.local,
    workers: WorkersOption = None,
    cores: CoresOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    push_to_hub: PushOption = None,
) -> None:
    """All stages: CLIP, autoencoder, prior, probes, paths. The same command goes on after a kill."""
    from vlbias.recipes import BuildSettings, build_editor

    settings = BuildSettings(
        clip_images=clip_images,
        tower_images=TOWER_SHARE * clip_images,
        diffae_images=diffae_images,
        aux_columns=_columns(aux),
        paths=tuple(names_of(path_names, "--paths")),
    )
    machines = engine_of(engine, workers, cores, address)
    faces = open_faces(dataset, seed, follow_links=follow_links)
    job = {"dataset": dataset, "clip_images": clip_images, "diffae_images": diffae_images, "aux": aux}
    claim_folder(out, "train-editor", {**job, "paths": path_names, "seed": seed}, overwrite=overwrite)
    editor = build_editor(faces, out, settings=settings, seed=seed, engine=machines)
    typer.echo(f"{out}: paths {', '.join(editor.attributes)}")
    if push_to_hub is not None:
        typer.echo(editor.push_to_hub(push_to_hub))


@train_app.command("clip", epilog="Example: vlbias train clip synthfaces:30000 --out clip --images 60000")
def train_clip_command(
    dataset: DatasetArgument,
    out: OutOption,
    images: ImagesOption = 60_000,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """A small CLIP on captions made of the dataset's labels."""
    import torch

    from vlbias.recipes import BuildSettings, build_clip, caption_source, training_images

    faces = open_faces(dataset, seed, follow_links=follow_links).split("train")
    claim_folder(out, "train-clip", {"dataset": dataset, "images": images, "seed": seed}, overwrite=overwrite)
    work = make_folder(out / ".building")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = training_images(faces, 64)
    settings = BuildSettings(clip_images=images, tower_images=TOWER_SHARE * images)
    clip = build_clip(pictures, caption_source(faces, seed=seed), settings, work, seed=seed, device=device)
    clip.save_pretrained(out)
    shutil.rmtree(work)
    typer.echo(out)


@train_app.command("diffae", epilog="Example: vlbias train diffae photos/ --out diffae --images 100000 --resume")
def train_diffae_command(
    dataset: DatasetArgument,
    out: OutOption,
    images: ImagesOption = 100_000,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="DiffAEConfig as JSON; else the shipped small one.")
    ] = None,
    aux: Annotated[str, typer.Option(metavar="COLUMN,...", help="Labels that a linear head is to read in z_sem.")] = "",
    resume: ResumeOption = False,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """A diffusion autoencoder; FOLDER/model is loadable at any time, FOLDER/samples shows how far it is."""
    from vlbias.recipes import (
        SMALL_DIFFAE,
        BuildSettings,
        build_diffae,
        held_out_images,
        label_features,
        training_images,
    )

    if (out / "state.pt").exists() and not resume:
        raise ConfigError(f"{out} has the state of a run. Add --resume to go on, or choose another folder.")
    architecture = SMALL_DIFFAE if config is None else _described(config)
    columns = _columns(aux)
    faces = open_faces(dataset, seed, follow_links=follow_links)
    # Another budget of images is the same run carried on.
    job = {"dataset": dataset, "config": None if config is None else str(config), "aux": aux, "seed": seed}
    claim_folder(out, "train-diffae", job, overwrite=overwrite)
    train = faces.split("train")
    settings = BuildSettings(diffae_images=images, aux_columns=columns, diffae=architecture)
    features = label_features(train.table, columns) if columns else None
    held_out = held_out_images(faces, architecture.image_size)
    pictures = training_images(train, architecture.image_size)
    build_diffae(pictures, settings, out, held_out=held_out, aux=features, seed=seed)
    typer.echo(out / "model")


def _described(config: Path) -> DiffAEConfig:
    from vlbias.diffae import DiffAEConfig

    try:
        return DiffAEConfig.from_dict(read_object(config))
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error


@train_app.command("prior", epilog="Example: vlbias train prior synthfaces:5000 --diffae diffae/model --out with-prior")
def train_prior_command(
    dataset: DatasetArgument,
    diffae: Annotated[Path, typer.Option("--diffae", metavar="FOLDER", help="A trained autoencoder.")],
    out: OutOption,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """A latent prior for a trained autoencoder, from the codes of a dataset; minutes."""
    from vlbias.diffae import DiffAE
    from vlbias.recipes import build_prior, training_images

    model = DiffAE.from_pretrained(diffae)
    faces = open_faces(dataset, seed, follow_links=follow_links)
    job = {"dataset": dataset, "diffae": str(diffae), "seed": seed}
    claim_folder(out, "train-prior", job, overwrite=overwrite)
    pictures = training_images(faces.split("train"), model.config.image_size)
    build_prior(model, pictures, seed=seed).save_pretrained(out)
    typer.echo(out)


@train_app.command("distill", epilog="Example: vlbias train distill synthfaces-64 synthfaces:5000 quick-editor")
def train_distill_command(
    editor: Annotated[str, typer.Argument(metavar="EDITOR", help="A shipped name, a folder, or a published .ckpt.")],
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the editor with its student.")],
    evaluations: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Network evaluations of an edit there; as many back.")
    ] = 1,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Optimiser steps.")] = 1_000,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """A few-step student: quicker edits by the same editor. The same command goes on after a kill."""
    from vlbias.diffae import DistillationSettings
    from vlbias.editor import Editor
    from vlbias.recipes import build_student

    settings = DistillationSettings(edit_evaluations=evaluations, num_steps=steps, seed=seed)
    faces = open_faces(dataset, seed, follow_links=follow_links)
    teacher = Editor.from_pretrained(editor)
    job = {"editor": editor, "dataset": dataset, **settings.to_dict()}
    claim_folder(out, "train-distill", job, overwrite=overwrite)
    build_student(teacher, faces, out, settings)
    typer.echo(f"{out}: standard edits in {evaluations} + {evaluations} evaluations")


@train_app.command("enlarge", epilog="Example: vlbias train enlarge utkface-64 UTKFace/ utkface-128")
def train_enlarge_command(
    editor: Annotated[str, typer.Argument(metavar="EDITOR", help="A shipped name or a folder.")],
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the editor at twice the size.")],
    images: ImagesOption = 100_000,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """An editor at twice its size: the same codes, paths and judges, a decoder that learns the detail."""
    from vlbias.editor import Editor
    from vlbias.recipes import build_enlarged

    faces = open_faces(dataset, seed, follow_links=follow_links)
    small = Editor.from_pretrained(editor)
    # Another budget of images is the same run carried on.
    job = {"editor": editor, "dataset": dataset, "seed": seed}
    claim_folder(out, "train-enlarge", job, overwrite=overwrite)
    larger = build_enlarged(small, faces, out, diffae_images=images, seed=seed)
    typer.echo(f"{out}: {larger.renderer.image_size} px")
