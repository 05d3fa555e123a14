"""Two processes that train together end where one ends that has the same batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vlbias.errors import ConfigError
from vlbias.search.team import Order, Team, packed, unpacked

WORKER = Path(__file__).with_name("team_worker.py")


LAUNCHER = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
LAUNCHER += ("--mixed_precision", "no", "--main_process_port", "0")


def _run(folder: Path, *launcher: str, options: tuple[str, ...] = ()) -> tuple[dict, str]:
    folder.mkdir()
    command = [sys.executable, *launcher, str(WORKER), str(folder / "out.pt"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "out.pt", weights_only=True), done.stdout


def test_two_processes_end_where_one_does(tmp_path):
    two, said = _run(tmp_path / "two", *LAUNCHER)
    one, _ = _run(tmp_path / "one")
    assert said.count("the search has ended") == 1  # the second process serves the first and ends with it
    assert two.keys() == one.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_two_processes_in_bfloat16_end_where_one_does(tmp_path):
    two, _ = _run(tmp_path / "two", *LAUNCHER, options=("amp",))
    one, _ = _run(tmp_path / "one", options=("amp",))
    assert two["in bfloat16"] and one["in bfloat16"]
    names = [name.removeprefix("start of ") for name in one if name.startswith("start of ") and "num_b" not in name]

    def flat(states: dict, prefix: str = "") -> torch.Tensor:
        return torch.cat([states[prefix + name].float().flatten() for name in names])

    start, apart = flat(one, "start of "), torch.dist(flat(two), flat(one))
    assert torch.equal(flat(two, "start of "), start)
    # Rounding to 8 bits differs with the parts of a batch; what was learned does not.
    assert apart < 0.1 * torch.dist(flat(one), start)


def test_alone_nothing_is_shared():
    alone = Team(1, None)
    module = nn.Linear(2, 2)
    assert alone.is_first and alone.device is None and alone.wrapped(module) is module
    assert alone.add_up(torch.ones(3)).tolist() == [1, 1, 1]
    alone.give(Order({}, (0,), (0, 1), b""))
    alone.lead()
    alone.lead()


def test_states_come_back(tmp_path):
    states = {"model": nn.Linear(2, 2).state_dict()}
    assert torch.equal(unpacked(packed(states))["model"]["weight"], states["model"]["weight"])


def test_a_batch_is_shared_by_at_most_its_images():
    three = Team(1, None)
    three.size = 3
    parts = []
    for three.rank in range(3):
        parts.append(three.part(np.arange(8)).tolist())
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7]]
    with pytest.raises(ConfigError, match="A batch of 2 images cannot be shared by 3 processes"):
        three.part(np.arange(2))
