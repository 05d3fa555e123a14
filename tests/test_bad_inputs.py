"""A part of benchmarks/bad_inputs.py: wrong values end in sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from doubles import failing, tiny_editor

from vlbias import Balancer, audit, demo, load_dataset
from vlbias.classify import FitSettings
from vlbias.errors import ConfigError
from vlbias.fairness import evaluate, permutation_test, permuted_counts, permuted_groups, person_weights
from vlbias.labelling import separation
from vlbias.paths.training import PathTrainingSettings
from vlbias.search import SearchSettings, TrainSettings

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bad_inputs.py"


@pytest.mark.parametrize(
    "part",
    ["audit.composition", "checkpoints.", "world.", "FaceDataset().tensor", "check_new_path", "vlbias provenance"],
)
def test_wrong_values_end_in_sentences(part, tmp_path):
    words = [sys.executable, str(SCRIPT), "--only", part, "--seconds", "5"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "sentence" in done.stdout and "raw" not in done.stdout


HUGE, CODES, SCORES = 10**9, np.array([0, 1, 0, 1]), pd.Series([0.1, 0.2, 0.3, 0.4] * 2)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("seeds", lambda: audit.measure({"a": None}, target="smile", protected="skin", seeds=HUGE)),
        ("num_seeds", lambda: demo.run_demo("out", editor=None, num_seeds=HUGE)),
        ("num_faces", lambda: demo.biased_faces(HUGE, seed=0)),
        ("bootstrap", lambda: evaluate(CODES, CODES, groups=CODES, bootstrap=HUGE)),
        ("num_permutations", lambda: permutation_test(CODES, CODES, groups=CODES, num_permutations=HUGE)),
        ("num_permutations", lambda: permuted_counts(np.ones((2, 2, 2), int), HUGE, 0)),
        ("num_permutations", lambda: permuted_groups(CODES, CODES, CODES, HUGE, 0)),
        ("num_resamples", lambda: person_weights(CODES, CODES, HUGE, 0)),
        ("num_resamples", lambda: separation(SCORES, SCORES, upper=0.1, lower=0.2, num_resamples=HUGE)),
        ("n_trials", lambda: SearchSettings(n_trials=HUGE)),
        ("batch_size", lambda: TrainSettings(batch_size=HUGE)),
        ("shift_px", lambda: FitSettings(shift_px=HUGE)),
    ],
)
def test_numbers_that_no_memory_has_room_for_are_refused(name, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"`{name}`( of \w+)? must be a whole number.*; got 1000000000"):
        call()
    assert not list(tmp_path.iterdir())


def test_a_seed_is_not_negative(capsys, monkeypatch, tmp_path):
    """NumPy takes none, and a run would learn that in its middle."""
    for call in (
        lambda: load_dataset("synthfaces", n=4, seed=-1),
        lambda: Balancer(tiny_editor(), target="smile", protected="skin", seed=-1),
        lambda: PathTrainingSettings(seed=-1),
    ):
        with pytest.raises(ConfigError, match=r"`seed`.* must be a whole number.*>= 0; got -1"):
            call()
    words = ("balance", "synthfaces:24", tmp_path / "out", "--target", "smile", "--protected", "skin", "--seed", "-1")
    assert "--seed" in failing(monkeypatch, capsys, *words, code=2)
