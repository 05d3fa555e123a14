"""``vlbias edit`` and ``vlbias strip``: single pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlbias.cli.application import app
from vlbias.cli.options import DEFAULT_EDITOR, EditorOption, Quality, QualityOption, open_editor
from vlbias.cli.outputs import OverwriteOption, claim_pictures
from vlbias.cli.parsing import number_of
from vlbias.errors import ConfigError, ImageError, unknown
from vlbias.files import make_folder, write_file
from vlbias.shown import printable

if TYPE_CHECKING:
    from PIL import Image

    from vlbias.editor import Editor

AnyPictureOption = Annotated[
    bool, typer.Option("--any-picture", help="Also edit pictures of another kind than the editor was made for.")
]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: vlbias edit face.png out/ --age 1 --skin-tone -0.5",
)
def edit(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="IMAGE... OUT", help="Pictures, then the folder for results.")],
    editor: EditorOption = DEFAULT_EDITOR,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Draw a fresh stochastic code.")] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Find the face in each photo, edit it and put it back into the whole photo.")
    ] = False,
    face: Annotated[
        str, typer.Option("--face", metavar="only|largest|N", help="With --align: which face, N counted from the left.")
    ] = "only",
    any_picture: AnyPictureOption = False,
    quality: QualityOption = Quality.standard,
    overwrite: OverwriteOption = False,
) -> None:
    """Edit pictures: one --ATTRIBUTE STRENGTH for each path of the editor (vlbias paths EDITOR lists them)."""
    from vlbias.images import open_image

    # Typer hands unknown options and their values over among the arguments, in order.
    files, strengths = _split_strengths([*map(str, paths), *context.args])
    if len(files) < 2:
        raise typer.BadParameter("give at least one picture and the output folder", param_hint="IMAGE... OUT")
    choice = _face_of(face)
    *sources, out = map(Path, files)
    names = _distinct_names(sources)
    model = open_editor(editor, clip=False)
    if not strengths:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in model.attributes)
        raise typer.BadParameter(
            f"say what to change and how far, such as {options.split(',')[0]} 1; {model.name} moves {options}",
            param_hint="--ATTRIBUTE STRENGTH",
        )
    for attribute in strengths:
        # Options of Python's own edit(), such as --images, are no attributes.
        if attribute not in model.attributes:
            raise unknown("attribute", attribute, model.attributes, where=model.name)
    make_folder(out)
    told = {"edits": str(strengths)} | ({} if seed is None else {"seed": str(seed)})
    targets = {
        out / name: {"synthetic": "true", "editor": model.name, "source": source.name, **told}
        for name, source in zip(names, sources, strict=True)
    }
    claim_pictures(targets, sources, overwrite=overwrite)
    pictures = [open_image(source) for source in sources]
    settings: dict[str, Any] = {"seed": seed, "check": not any_picture, "quality": quality.value, **strengths}
    if align:
        edited = [_edit_photo(model, *item, choice, settings) for item in zip(sources, pictures, strict=True)]
    else:
        edited = model.edit(pictures, **settings)
    for (target, provenance), picture in zip(targets.items(), edited, strict=True):
        _save(picture, target, provenance)
        typer.echo(printable(target))


def _save(picture: Image.Image, target: Path, provenance: dict[str, str]) -> None:
    """A PNG that says how it was made."""
    from vlbias.originals import Original

    write_file(target, Original.of_picture(picture).encode(picture, provenance).data)


def _face_of(text: str) -> int | str:
    """``--face``: only, largest, or a number counted from the left."""
    if text in ("only", "largest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"expected only, largest or a number from 0; got '{text}'", param_hint="--face")


def _edit_photo(
    model: Editor, source: Path, photo: Image.Image, face: int | str, settings: dict[str, Any]
) -> Image.Image:
    try:
        return model.edit(photo, align=True, face=face, **settings)
    except ImageError as error:
        text = str(error).replace("face=0", "--face 0").replace("face='largest'", "--face largest")
        raise ImageError(f"{source}: {text}") from error


def _split_strengths(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Files, and the strength of each ``--ATTRIBUTE``."""
    files: list[str] = []
    strengths: dict[str, Any] = {}
    queue = iter(arguments)
    for argument in queue:
        if not argument.startswith("--"):
            files.append(argument)
            continue
        option, _, value = argument.partition("=")
        name = option[2:].replace("-", "_")
        if name in strengths:
            raise typer.BadParameter("is given twice", param_hint=option)
        strengths[name] = number_of(value or next(queue, ""), option)
    return files, strengths


def _distinct_names(sources: list[Path]) -> list[str]:
    names = [f"{source.stem}.png" for source in sources]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(f"several pictures would be written as {sorted(doubled)[0]}; rename them or edit them apart.")
    return names


@app.command(epilog="Example: vlbias strip face.png age.png --path age --steps 7")
def strip(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of a face.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="Where the strip is written.")],
    path: Annotated[str, typer.Option("--path", metavar="ATTRIBUTE", help="The path to walk.")],
    steps: Annotated[int, typer.Option(min=2, max=25, metavar="N", help="Pictures in the strip.")] = 7,
    reach: Annotated[float, typer.Option(metavar="R", help="Walk from strength -R to +R.")] = 1.0,
    editor: EditorOption = DEFAULT_EDITOR,
    any_picture: AnyPictureOption = False,
    quality: QualityOption = Quality.standard,
    overwrite: OverwriteOption = False,
) -> None:
    """One picture, a path walked: a strip from the negative to the positive pole."""
    from vlbias.images import open_image

    if out.suffix.lower() != ".png":
        raise ConfigError(f"the strip is written as PNG, so OUT must end in .png; got {out}.")
    make_folder(out.parent)
    model = open_editor(editor, clip=False)
    provenance = {"synthetic": "true", "editor": model.name, "source": image.name, "path": path}
    provenance |= {"steps": str(steps), "reach": f"{reach:g}"}
    claim_pictures({out: provenance}, [image], overwrite=overwrite)
    model = model.at_quality(quality.value)
    _save(model.strip(open_image(image), path, steps=steps, reach=reach, check=not any_picture), out, provenance)
    typer.echo(printable(out))
