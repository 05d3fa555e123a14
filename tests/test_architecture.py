"""The structure holds: imports point downwards, each foreign library has one home, importing is light."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlbias

PACKAGE = Path(vlbias.__file__).parent

# From the foundations up; rooms of one row do not import each other.
ROWS = [
    ["processors", "seeds", "shown", "version"],
    ["errors"],
    ["arguments"],
    ["attributes", "labels", "settings", "privacy"],
    ["files", "progress", "locks"],
    ["checkpoints"],
    ["hub", "images", "remote", "optim", "augment", "runstore", "sqlite", "iresnet", "engine"],
    ["alignment", "classify", "provenance", "postgres"],
    ["originals", "networks"],
    ["world"],
    ["diffae"],
    ["clip"],
    ["paths"],
    ["types"],
    ["rendering", "given"],
    ["editor_folder"],
    ["editor"],
    ["data"],
    ["labelling", "leak"],
    ["pages"],
    ["balance"],
    ["fairness"],
    ["audit"],
    ["bench", "simulate", "search"],
    ["report", "recipes", "doctor"],
    ["demo", "app"],
    ["cli"],
]
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}

HOMES = {
    "open_clip": {"clip"},
    "diffusers": {"diffae"},
    "timm": {"classify", "search", "paths", "labelling"},
    "optuna": {"search"},
    "pytorch_metric_learning": {"search"},
    "jinja2": {"pages"},
    "typer": {"cli"},
    "gradio": {"app"},
    "c2pa": {"provenance"},
    "fsspec": {"remote"},
    "huggingface_hub": {"hub", "clip"},
    "onnx": {"networks"},
    "onnxruntime": {"networks"},
    "ray": {"engine"},
    "psycopg": {"postgres"},
}

#: Libraries whose package has another name; the installed ones say it themselves.
PACKAGES = {"c2pa": ["c2pa-python"]}

#: Circles inside rooms that are still to be mended; the test also fails when one that is listed is gone.
KNOWN: set[tuple[str, ...]] = set()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Full names of the modules that a file imports, also inside functions and under ``TYPE_CHECKING``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [submodule(node.module, alias.name) for alias in node.names]
    return found


def module_name(path: Path) -> str:
    """The name a file is imported by, such as ``vlbias.paths.losses``."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def group_by_room(modules: dict[str, Path]) -> list[list[str]]:
    rooms: dict[str, list[str]] = {}
    for name, path in modules.items():
        rooms.setdefault(room_of(path), []).append(name)
    return list(rooms.values())


def submodule(module: str, name: str) -> str:
    """``module.name`` if that is a module of ours, else ``module``: both are written ``from module import name``."""
    place = PACKAGE.parent.joinpath(*module.split("."), name)
    is_module = module.split(".")[0] == "vlbias" and (place.is_dir() or place.with_suffix(".py").exists())
    return f"{module}.{name}" if is_module else module


def circles(arrows: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Groups of names that reach each other, each sorted."""
    reach = {name: set(targets) for name, targets in arrows.items()}
    for through in arrows:
        for name in arrows:
            if through in reach[name]:
                reach[name] |= reach[through]
    return {
        tuple(sorted(other for other in arrows if other in reach[name] and name in reach[other]))
        for name in arrows
        if name in reach[name]
    }


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_every_room_has_a_row():
    assert {room_of(path) for path in FILES} == set(LEVEL)


def test_imports_point_downwards():
    upward = {
        (str(path.relative_to(PACKAGE)), other)
        for path in FILES
        for module in imports(path)
        if module.startswith("vlbias.")
        for other in [module.split(".")[1]]
        if other != room_of(path) and LEVEL[other] >= LEVEL[room_of(path)]
    }
    assert upward == set(), "a module imports a room that stands above or beside its own"


def test_nobody_imports_the_root_package():
    """Its names are for users; inside, each comes from the room that makes it."""
    assert [str(path.relative_to(PACKAGE)) for path in FILES if "vlbias" in imports(path)] == []


def test_modules_of_a_room_form_no_circle():
    modules = {module_name(path): path for path in FILES if path.parent != PACKAGE and path.name != "__main__.py"}
    arrows = {name: {other for other in imports(path) if other in modules} for name, path in modules.items()}
    # A room's face imports its modules, some of them late: by the table of names that it hands out.
    for name, path in modules.items():
        if path.name == "__init__.py":
            arrows[name] |= {other for other in modules if other.startswith(f"{name}.")}
    rooms = [{n: arrows[n] & set(group) for n in group} for group in group_by_room(modules)]
    assert {circle for room in rooms for circle in circles(room)} == KNOWN


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {("b", "c")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_foreign_libraries_have_one_home(path):
    for module in imports(path):
        library = module.split(".")[0]
        if library in HOMES:
            assert room_of(path) in HOMES[library], f"{library} is imported outside {sorted(HOMES[library])}"


def test_what_is_imported_is_declared(repository):
    """A newcomer's environment holds what setup.cfg names; a library that others happen to bring is no promise."""
    settings = configparser.ConfigParser()
    settings.read(repository / "setup.cfg")
    lines = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    named = [re.match(r"[A-Za-z0-9._-]+", line) for text in lines for line in text.split()]
    declared = {name[0].lower().replace("_", "-") for name in named if name}
    providers = importlib.metadata.packages_distributions()
    used = {module.split(".")[0] for path in FILES for module in imports(path)}
    by_hand = {"gradio"}  # see setup.cfg: it asks for a Pillow that is not safe
    for library in used - set(sys.stdlib_module_names) - by_hand - {"vlbias"}:
        names = {name.lower().replace("_", "-") for name in providers.get(library, PACKAGES.get(library, [library]))}
        assert names & declared, f"{library} is imported, but {sorted(names)} is not in setup.cfg"


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions of a module, and the public methods and constructors of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and (item.name == "__init__" or not item.name.startswith("_")):
                    yield f"{node.name}.{item.name}", item


def is_command(function: ast.FunctionDef) -> bool:
    """What is typed on the command line: its parameters are options, which stand in groups of ``--help``."""
    return any("command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_public_callables_take_eight_parameters_at_most():
    """More belong into a settings object."""
    too_many = {}
    for path in FILES:
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
            if len(names) > 8 and not is_command(function):
                too_many[f"{module_name(path)}.{name}"] = len(names)
    assert too_many == {}


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """Of parameters, returns and assignments."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns


def test_few_annotations_say_any():
    """``Any`` switches a type checker off; ``object`` or a protocol says what is asked of a value."""
    every = [found for path in FILES for found in annotations(ast.parse(path.read_text(encoding="utf-8")))]
    names = [{node.id for node in ast.walk(found) if isinstance(node, ast.Name)} for found in every]
    bare = sum(ast.unparse(found) == "Any" for found in every)
    assert bare / len(every) <= 0.02
    # most of these are objects of JSON files, dict[str, Any]
    assert sum("Any" in part for part in names) / len(every) <= 0.06


def test_importing_vlbias_is_light():
    heavy = ("torch", "diffusers", "open_clip", "timm", "matplotlib", "pandas", "optuna")
    code = f"import sys, vlbias; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]" and result.stderr == ""


def loaded(code: str, libraries: set[str]) -> set[str]:
    """Which of the libraries a fresh Python has loaded after some lines."""
    code += f"\nimport sys; print(' '.join(sorted({libraries!r} & set(sys.modules))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split()) if result.stdout.strip() else set()


def test_an_edit_does_not_open_the_whole_house():
    """Each of these takes as long to import as an edit takes to make, or several times as long."""
    heavy = {"diffusers", "open_clip", "pandas", "scipy", "sklearn", "timm", "torchvision"}
    code = """
from PIL import Image
from vlbias import Editor
face = Image.new("RGB", (64, 64), "tan")
editor = Editor.from_pretrained("synthfaces-64", device="cpu", clip=False)
editor.edit(face, age=1.0, check=False)
editor.renderer.seconds_per_evaluation()
"""
    assert loaded(code, heavy) == set()


@pytest.mark.parametrize("command", [["pages"], ["balance"], ["train", "editor"], ["search"], ["edit"], ["app"]])
def test_help_loads_no_heavy_library(command):
    code = f"""
import sys
from vlbias.cli import app
sys.argv = ["vlbias", *{command!r}, "--help"]
try:
    app()
except SystemExit:
    pass
"""
    assert loaded(code, {"torch", "numpy", "pandas", "PIL", "scipy", "gradio"}) == set()


def test_public_names_exist():
    for name in vlbias.__all__:
        assert getattr(vlbias, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vlbias.nothing
