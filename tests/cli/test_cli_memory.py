"""A machine that has no memory left says so, and what needs less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlbias.cli import application


def exhaust_numpy():
    np.empty(2**60, np.uint8)


def exhaust_torch():
    torch.empty(2**60, dtype=torch.uint8)


def fail_otherwise():
    raise RuntimeError("something else")


@pytest.mark.parametrize("work", [exhaust_numpy, exhaust_torch])
def test_memory_that_is_used_up_is_a_sentence(work, monkeypatch, capsys):
    monkeypatch.setattr(application, "app", work)
    with pytest.raises(SystemExit) as status:
        application.main()
    assert status.value.code == 1
    assert capsys.readouterr().err.startswith("vlbias: the memory is used up. Smaller or fewer pictures need less")


def test_other_faults_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(application, "app", fail_otherwise)
    with pytest.raises(RuntimeError, match="something else"):
        application.main()
