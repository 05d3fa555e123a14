"""``vlbias edit`` and ``vlbias strip``: single pictures."""

from __future__ import annotations

from enum import StrEnum
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
    from vlbias.editor import Editor
    from vlbias.originals import Original


class Format(StrEnum):
    """How edits are written."""

    own = "own"
    png = "png"


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
    seed: Annotated[int | None, typer.Option(min=0, metavar="S", help="Draw a fresh stochastic code.")] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Find the face in each photo, edit it and put it back into the whole photo.")
    ] = False,
    face: Annotated[
        str, typer.Option("--face", metavar="only|largest|N", help="With --align: which face, N counted from the left.")
    ] = "only",
    any_picture: AnyPictureOption = False,
    quality: QualityOption = Quality.standard,
    written: Annotated[
        Format, typer.Option("--format", help="own: JPEG and lossy WebP stay what they are, others become PNG.")
    ] = Format.own,
    overwrite: OverwriteOption = False,
) -> None:
    """Edit pictures: one --ATTRIBUTE STRENGTH for each path of the editor (vlbias paths EDITOR lists them)."""
    # Typer hands unknown options and their values over among the arguments, in order.
    files, strengths = _split_strengths([*map(str, paths), *context.args])
    if len(files) < 2:
        raise typer.BadParameter("give at least one picture and the output folder", param_hint="IMAGE... OUT")
    choice = _face_of(face)
    *sources, out = map(Path, files)
    originals = [_to_write(source, written) for source in sources]
    names = _distinct_names([source.stem + one.suffix for source, one in zip(sources, originals, strict=True)])
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
    settings: dict[str, Any] = {"seed": seed, "check": not any_picture, "quality": quality.value, **strengths}
    if align:
        edited = [_edit_photo(model, *item, choice, settings) for item in zip(sources, originals, strict=True)]
    else:
        edited = model.edit(originals, **settings)
    for (target, provenance), one in zip(targets.items(), edited, strict=True):
        write_file(target, one.encode(one.stored, provenance).data)
        typer.echo(printable(target))


def _to_write(source: Path, written: Format) -> Original:
    """A picture with the format in which its edit is written: its own where that loses something, else PNG."""
    from vlbias.originals import Original

    found = Original.read(source)
    is_lossy = found.format == "JPEG" or (found.format == "WEBP" and not found.options["lossless"])
    if found.format == "PNG" or (is_lossy and written == Format.own):
        return found
    return Original.of_picture(found.upright)


def _face_of(text: str) -> int | str:
    """``--face``: only, largest, or a number counted from the left."""
    if text in ("only", "largest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"expected only, largest or a number from 0; got '{text}'", param_hint="--face")


def _edit_photo(model: Editor, source: Path, photo: Original, face: int | str, settings: dict[str, Any]) -> Original:
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


def _distinct_names(names: list[str]) -> list[str]:
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(f"several pictures would be written as {sorted(doubled)[0]}; rename them or edit each alone.")
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
    from vlbias.originals import Original

    if out.suffix.lower() != ".png":
        raise ConfigError(f"the strip is written as PNG, so OUT must end in .png; got {out}.")
    make_folder(out.parent)
    model = open_editor(editor, clip=False)
    provenance = {"synthetic": "true", "editor": model.name, "source": image.name, "path": path}
    provenance |= {"steps": str(steps), "reach": f"{reach:g}"}
    claim_pictures({out: provenance}, [image], overwrite=overwrite)
    model = model.at_quality(quality.value)
    walked = model.strip(open_image(image), path, steps=steps, reach=reach, check=not any_picture)
    write_file(out, Original.of_picture(walked).encode(walked, provenance).data)
    typer.echo(printable(out))
