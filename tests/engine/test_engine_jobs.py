"""Fits, cells, refits and encodings by workers: the numbers of one process, whoever is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from vlbias import audit, classify, load_dataset, search, simulate
from vlbias.audit.comparison import fit_engine
from vlbias.diffae import DiffAE, DiffAEConfig
from vlbias.engine import Engine, settings
from vlbias.errors import ConfigError
from vlbias.recipes import build_prior

sys.path.insert(0, str(Path(__file__).parent))
from pieces import Echo, Mortal

TWO = Engine(workers=2, cores=torch.get_num_threads())


@pytest.fixture(params=["local", "ray"])
def two(request):
    """Two workers of this machine, or as many as a cluster of two processors has room for."""
    if request.param == "local":
        return TWO
    request.getfixturevalue("ray")
    return Engine(kind="ray", cores=1)


CELLS = {(1, "light"): 12, (0, "light"): 4, (1, "dark"): 4, (0, "dark"): 8}
TINY = classify.FitSettings(
    backbone_options={"channels": [8, 8, 8, 8], "stem_width": 4}, image_size=16, num_steps=3, batch_size=8, shift_px=1
)


def drawn(split, seed, times=1):
    cells = {("smile", "skin"): {cell: times * count for cell, count in CELLS.items()}}
    faces = load_dataset("synthfaces", cells=cells, seed=seed, image_size=16)
    faces.table["split"] = split
    return faces


def test_cells_of_a_simulation_are_fitted_once_though_a_worker_is_killed(tmp_path, two):
    faces = drawn("train", 0, times=5)
    faces.table["split"] = ["train", "train", "test"] * (len(faces) // 3) + ["train"] * (len(faces) % 3)
    plan = simulate.plan(
        faces, target="smile", protected="skin", focal="dark", shares=(0.2, 0.5), n=20, repeats=2, min_cell=1
    )
    here = simulate.run(plan, faces, model=Echo(plan), storage=None, show_progress=False)
    model, storage = Mortal(plan, tmp_path / "killed"), tmp_path / "sim.log"
    there = simulate.run(plan, faces, model=model, storage=storage, show_progress=False, engine=two)
    assert (tmp_path / "killed").exists() and len(storage.read_text().splitlines()) == 1 + len(plan)
    pd.testing.assert_frame_equal(there.table().drop(columns="seconds"), here.table().drop(columns="seconds"))
    with pytest.raises(ConfigError, match="share their results: give a file or a database as `storage`"):
        simulate.run(plan, faces, model=model, storage=None, engine=two)
    with pytest.raises(ConfigError, match=r"`engine` must be a vlbias.engine.Engine, .* got 'ray'"):
        simulate.run(plan, faces, model=model, storage=storage, engine="ray")


def test_fits_of_an_audit(tmp_path, two):
    options = {"target": "smile", "protected": "skin", "test": drawn("test", 1), "seeds": [3, 4]}
    sets = {"one": drawn("train", 2), "other": drawn("train", 3)}
    here = audit.measure(sets, **options, settings=TINY, show_progress=False)
    there = audit.measure(sets, **options, settings=TINY, engine=two, cache=tmp_path / "fits", show_progress=False)
    assert there.to_dict() == here.to_dict() and len(list((tmp_path / "fits").iterdir())) == 4


def test_workers_are_chosen_for_fits_that_are_long_enough(monkeypatch):
    monkeypatch.setattr(settings, "usable_processors", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    for engine, num_fits, num_steps, workers in [
        (Engine(auto=True), 9, 300, 4),
        (Engine(auto=True), 2, 600, 2),
        (Engine(auto=True), 1, 600, 1),
        (Engine(auto=True), 9, 100, 4),
        (Engine(auto=True), 9, 10, 1),
        (Engine(workers=3), 9, 10, 3),
        (None, 9, 600, 1),  # from Python, unless it is asked for
    ]:
        assert fit_engine(engine, num_fits, num_steps, num_gpus=0).workers == workers


def test_arms_are_tuned_and_fitted():
    options = {"target": "smile", "protected": "skin", "test": drawn("test", 1), "validation": drawn("val", 5)}
    options |= {"arms": ["reweight"], "seeds": [0], "settings": TINY, "show_progress": False}
    options |= {"rate_factors": (1.0, 0.5), "decay_factors": (1.0,)}
    here = audit.compare(drawn("train", 2), **options)
    assert audit.compare(drawn("train", 2), **options, engine=TWO).to_dict() == here.to_dict()


def test_trials_of_a_search(tmp_path, two):
    faces = drawn("train", 4, times=3)
    faces.table["split"] = ["train", "train", "val", "test"] * (len(faces) // 4)
    options = {"task": "classify", "target": "smile", "protected": "skin", "n_trials": 2, "image_size": 16, "eta": None}
    options |= {"fidelity": ("epochs", 1, 1), "sampler": "random", "max_error": 1.0, "show_progress": False}
    skeleton = search.Skeleton(num_init_features=8, k_r=8, groups=4, inc_sec=(4, 4, 4, 4), small=True)
    options["space"] = search.space(["dpn-cell"], ["softmax"], ["adamw"], skeleton=skeleton, embedding_size=16)
    options["training"] = search.TrainSettings(batch_size=16, device="cpu")
    here, there = (
        search.run(faces, **options, storage=tmp_path / name, engine=engine).table().drop(columns="seconds")
        for name, engine in (("here.log", None), ("there.log", two))
    )
    pd.testing.assert_frame_equal(there, here)


def test_faces_are_encoded(two):
    config = DiffAEConfig(
        image_size=32, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, embed_channels=8,
        attention_resolutions=(), enc_model_channels=8, enc_channel_mult=(1, 2), enc_num_res_blocks=1, num_groups=4,
    )  # fmt: skip
    model = DiffAE(config)
    images = torch.randint(0, 256, (130, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    here, there = (build_prior(model, images, num_steps=2, engine=engine) for engine in (None, two))
    for name, value in here.state_dict().items():
        assert torch.equal(there.state_dict()[name], value), name
