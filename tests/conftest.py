"""Fixtures that all tests share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings

# The same examples for everybody, on a machine of any speed: who sees a test fail can show it to others.
settings.register_profile(
    "vlbias",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("vlbias")

sys.path.insert(0, str(Path(__file__).parent))

REPOSITORY = Path(__file__).resolve().parent.parent

#: Files of few tests that take minutes: they begin first, so that no process is left alone with one of them at the end.
LONG = ("test_docs_run", "test_hostile_fuzz", "test_notebook", "test_engine_jobs", "test_balance_engine", "test_demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Tests leave nothing in the cache of whoever runs them.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLBIAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tests run side by side; tiny models gain nothing from threads that fight each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _commands_put_together_once() -> Iterator[None]:
    # Typer does it anew for each of a thousand calls, a sixth of a second of the processor.
    once = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", once)
        patch.setattr(typer.testing, "_get_command", once)
        yield


@pytest.fixture(autouse=True)
def _ieee_numbers() -> Iterator[None]:
    # Training and the command line flush denormal numbers while they run, and leave the process as they found it.
    yield
    assert torch.tensor(1e-40) > 0


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    # What a test draws must not depend on the tests that its worker happened to run before.
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recorded tensors and real data beside the checkout."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "parity" / "README.md").is_file():
        pytest.skip(f"recorded tensors and real data are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One cluster of two processors for all tests of a file; it listens to this machine alone."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra `ray`")
    from vlbias.engine import Engine
    from vlbias.engine.cluster import connected

    with connected(Engine(kind="ray", workers=2, cores=1)) as ray:
        yield ray


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, driven by playwright."""
    from doubles import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
