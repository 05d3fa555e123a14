"""A part of benchmarks/bad_inputs.py: wrong values end in sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bad_inputs.py"


@pytest.mark.parametrize("part", ["audit.composition", "checkpoints.", "vlbias provenance"])
def test_wrong_values_end_in_sentences(part, tmp_path):
    words = [sys.executable, str(SCRIPT), "--only", part, "--seconds", "5"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "sentence" in done.stdout and "raw" not in done.stdout
