"""The structure holds: imports point downwards, each foreign library has one home, importing is light."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vlbias

PACKAGE = Path(vlbias.__file__).parent

# From the foundations up; rooms of one row do not import each other.
ROWS = [
    ["errors"],
    ["checkpoints", "progress", "locks"],
    ["images"],
    ["alignment", "classify"],
    ["originals", "networks"],
    ["world"],
    ["diffae"],
    ["clip"],
    ["paths"],
    ["editor"],
    ["data"],
    ["labelling", "leak"],
    ["balance"],
    ["fairness"],
    ["audit"],
    ["simulate", "search"],
    ["report", "building", "doctor"],
    ["demo"],
    ["cli"],
]
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}

HOMES = {
    "open_clip": {"clip"},
    "diffusers": {"diffae"},
    "timm": {"classify", "search", "paths", "labelling"},
    "fairlearn": {"fairness"},
    "optuna": {"search"},
    "pytorch_metric_learning": {"search"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "onnx": {"networks"},
    "onnxruntime": {"networks"},
}
#: Names of the package itself, which every room may read.
ROOT_NAMES = {"__version__"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, only for types) of every import of a file, those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typed) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "vlbias":
                names = [alias.name for alias in node.names if alias.name not in ROOT_NAMES]
                found += [(f"vlbias.{name}", id(node) in typed) for name in names]
            else:
                found.append((node.module, id(node) in typed))
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_every_room_has_a_row():
    assert {room_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = room_of(path)
    for module, only_types in imports(path):
        if not module.startswith("vlbias.") or only_types:
            continue
        other = module.split(".")[1]
        assert other == room or LEVEL[other] < LEVEL[room], f"{room} imports {other}, which stands above or beside it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_foreign_libraries_have_one_home(path):
    for module, _ in imports(path):
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
    used = {module.split(".")[0] for path in FILES for module, _ in imports(path)}
    for library in used - set(sys.stdlib_module_names) - {"vlbias"}:
        names = {name.lower().replace("_", "-") for name in providers.get(library, [library])}
        assert names & declared, f"{library} is imported, but {sorted(names)} is not in setup.cfg"


def test_importing_vlbias_is_light():
    heavy = ("torch", "diffusers", "open_clip", "timm", "fairlearn", "matplotlib", "pandas", "optuna")
    code = f"import sys, vlbias; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]" and result.stderr == ""


def test_public_names_exist():
    for name in vlbias.__all__:
        assert getattr(vlbias, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vlbias.nothing
