"""Which folders a page opens: what it was started with, and nothing else."""

from __future__ import annotations

import pytest

from vlbias.app.places import allowed_folder, checked_roots
from vlbias.errors import DatasetError


@pytest.fixture
def roots(tmp_path):
    (tmp_path / "given" / "inner").mkdir(parents=True)
    (tmp_path / "given-too").mkdir()
    (tmp_path / "given" / "link").symlink_to(tmp_path / "given-too")
    return checked_roots([tmp_path / "given"])


def test_what_lies_below_a_root_is_opened(roots):
    assert allowed_folder(str(roots[0]), roots) == roots[0]
    assert allowed_folder(" inner ", roots) == allowed_folder(str(roots[0] / "inner"), roots) == roots[0] / "inner"


@pytest.mark.parametrize(
    "typed", ["/", "/etc", "..", "../given-too", "inner/../../given-too", "link", "nothing", "\0", "~"]
)
def test_what_lies_elsewhere_is_not(roots, typed):
    with pytest.raises(DatasetError, match="not a folder that this page may open.*vlbias app FOLDER"):
        allowed_folder(typed, roots)


def test_without_roots_nothing_is_opened(tmp_path):
    with pytest.raises(DatasetError, match="below: none"):
        allowed_folder(str(tmp_path), ())
    with pytest.raises(DatasetError, match="is not a folder"):
        checked_roots([tmp_path / "none"])
