"""The application that commands join, and how it starts and ends."""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vlbias.cli.terminal import safe_terminal
from vlbias.errors import VlbiasError
from vlbias.postgres import without_password
from vlbias.processors import keep_freed_memory, share_processors
from vlbias.shown import printable
from vlbias.version import __version__

__all__ = ["Application", "app", "main", "typed_command"]


#: The call of the command that is running, as Click describes it.
_RUNNING: ContextVar[Any] = ContextVar("_RUNNING")


class _Command(TyperCommand):
    """Runs with safe output, denormal numbers flushed and processors shared. PyTorch is loaded here, not for help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options whose value may be left out (their metavar is in brackets) get an empty one there."""
        share_processors()  # here, for some options load PyTorch while they are read
        bare = {name for parameter in self.params if str(parameter.metavar)[0] == "[" for name in parameter.opts}
        for word in args:
            option, is_set, value = word.partition("=") if word.startswith("--") else ("", "=", word)
            if is_set and not value.strip() and option not in bare:
                # mostly a variable of the shell that is not set; as a path it would be the folder one is in
                raise typer.BadParameter("an argument is empty", param_hint=option or None)
        following = [*args[1:], "--"]
        pairs = zip(args, following, strict=False)
        rest = super().parse_args(ctx, [f"{a}=" if a in bare and b[:1] == "-" else a for a, b in pairs])
        for parameter in self.params:  # Click's ranges let NaN through
            value = ctx.params.get(str(parameter.name))
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"must be a finite number; got {value}", param_hint=parameter.opts[0])
        return rest

    def invoke(self, ctx: Any) -> Any:
        keep_freed_memory()
        from vlbias.optim import flush_denormals

        token = _RUNNING.set(ctx)
        try:
            with safe_terminal(), flush_denormals():
                return super().invoke(ctx)
        finally:
            _RUNNING.reset(token)


class _Group(TyperGroup):
    """Takes two words for a command where one is named so: ``search evaluate`` stands beside ``search DATASET OUT``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = " ".join(args[:2])
        if len(args) > 1 and (command := self.get_command(ctx, name)) is not None:
            return name, command, args[2:]
        return super().resolve_command(ctx, args)


class Application(typer.Typer):
    """A family of commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Register a function as a command, see ``typer.Typer.command``."""
        return super().command(name, cls=_Command, **options)


app = Application(
    name="vlbias",
    cls=_Group,
    help="Measure and mitigate bias in face datasets.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"vlbias {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


#: What a page does not repeat: it would write elsewhere, do a part, or says who worked.
_UNREPEATED = frozenset({"overwrite", "shard", "dry_run", "engine", "workers", "cores", "address", "push_to_hub"})


def typed_command(out: str = "out") -> str:
    """The running command as it can be typed again from the same folder; OUT stands for the folder of results.

    A page may travel, so it does not say where on this disk something lies: a place below the folder that the command
    was started in is written relative to it, of any other its name alone.

    Args:
        out: the parameter that names the results.
    """
    context = _RUNNING.get()
    words = ["vlbias", *str(context.info_name).split()]
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name).name != "COMMANDLINE" or name in _UNREPEATED:
            continue
        value = context.params[name]
        values = value if isinstance(value, list | tuple) else [value]
        texts = ["OUT"] if name == out else [_retyped(item) for item in values]
        if parameter.param_type_name == "argument":
            words += texts
        elif value == "":
            words.append(parameter.opts[0])  # its value may be left out
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += itertools.chain.from_iterable((parameter.opts[0], text) for text in texts)
    return shlex.join(words)


def _retyped(value: object) -> str:
    text = str(value.value if isinstance(value, Enum) else value)
    if re.search(r"://[^/]", text):  # of a host, not of this disk
        return without_password(text)
    # such as folder:/home/..., or COLUMN=/home/...
    before, place = re.fullmatch(r"((?:[^/]*[:=])?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # any text
    if not (os.path.isabs(place) or place.startswith(("~", ".."))):
        return text
    relative = os.path.relpath(os.path.expanduser(place))
    return f"{before}PATH/{Path(place).name}" if relative.startswith("..") else f"{before}{relative}"


def main() -> None:
    """Entry point: errors that vlbias raises on purpose become one or two lines on stderr and exit status 1."""
    with safe_terminal():
        _run()


def _run() -> None:
    try:
        app()
    except VlbiasError as error:
        print(f"vlbias: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("vlbias: stopped; the same command goes on where it was.", file=sys.stderr)
        raise SystemExit(130) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(
            "vlbias: the memory is used up. Smaller or fewer pictures need less (--size, --images, --limit), and so "
            "does an editor of smaller pictures.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except OSError as error:
        # A full disk or a folder without permission, outside the places that name it better.
        place = f" ({error.filename})" if error.filename else ""
        print(f"vlbias: {printable(f'{error.strerror or error}{place}')}", file=sys.stderr)
        raise SystemExit(1) from None


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's own error, that of a graphics card, and what PyTorch raises for the processor."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
