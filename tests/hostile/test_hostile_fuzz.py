"""A small part of the fuzz benchmark: every kind of file, its bombs, and a few changed samples."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded and measured as Linux does")
def test_no_file_ends_badly(repository, tmp_path):
    words = [sys.executable, "benchmarks/fuzz.py", "--inputs", "150", "--seed", "1"]
    environment = os.environ | {"PYTHONPATH": str(repository), "VLBIAS_CACHE": str(tmp_path)}
    done = subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert total[0] == "all" and int(total[1]) >= 150 and int(total[2]) >= 10 and int(total[3]) >= 50
