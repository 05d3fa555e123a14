"""Images that stay on disk give what images in memory give, whoever decodes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vlbias.data import load_dataset
from vlbias.errors import ImageError
from vlbias.search.metric_table import evaluate
from vlbias.search.spaces import Configuration
from vlbias.search.streaming import IN_MEMORY_BYTES, StoredImages, batches, hold
from vlbias.search.task import make_task
from vlbias.search.trainer import Trainer, TrainSettings, embed

CELL = Configuration("dpn-cell", "cosface", "adamw", 3e-3, cell=(1, 0, 1))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """24 people of 4 pictures each on disk, each a pattern of colours."""
    root = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    rows = ["identity,gender,split"]
    for person in range(24):
        name = f"p{person:02d}"
        rows.append(f"{name},{'fm'[person % 2]},{('train', 'train', 'train', 'val', 'test')[person % 5]}")
        pattern = generator.integers(40, 216, (4, 4, 3))
        (root / name).mkdir()
        for i in range(4):
            pixels = np.kron(pattern, np.ones((6, 6, 1))) + generator.normal(0, 20, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i}.png")
    (root / "identities.csv").write_text("\n".join(rows) + "\n")
    return load_dataset("identities", root)


@pytest.fixture
def train(small_space):
    def trained(task, **settings):
        chosen = TrainSettings(batch_size=16, device="cpu", **settings)
        trainer = Trainer(task, CELL, small_space, max_epochs=2, warmup_epochs=1, seed=(0, 1), settings=chosen)
        losses = []
        trainer.advance(2, on_epoch=lambda _, loss: losses.append(loss))
        return trainer, losses

    return trained


def test_where_images_are_held_follows_their_size(faces):
    task = make_task(faces, protected="gender", image_size=16)
    assert isinstance(task.train.images, torch.Tensor) and task.in_memory_bytes == IN_MEMORY_BYTES
    one_less = task.train.images.numel() - 1
    stored = replace(task, in_memory_bytes=one_less)
    assert isinstance(stored.train.images, StoredImages) and isinstance(stored.val.images, torch.Tensor)
    assert stored.train.images.shape == tuple(task.train.images.shape)
    assert stored.fingerprint() == task.fingerprint()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stored_images_train_the_same_network(faces, train, num_workers):
    task = make_task(faces, protected="gender", image_size=16)
    whole, losses = train(task)
    streamed, same = train(replace(task, in_memory_bytes=0), num_workers=num_workers)
    assert same == losses
    for a, b in zip(whole.model.state_dict().values(), streamed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert whole.evaluate("val").objectives() == streamed.evaluate("val").objectives()


def test_batches_keep_their_order_and_count_through_all_parts(faces):
    ids = faces.ids
    parts = [hold(faces, ids[:40], 16, 0), hold(faces, ids[40:], 16)]
    whole = hold(faces, ids, 16)
    numbers = np.random.default_rng(0).permutation(len(ids))
    chunks = np.array_split(numbers, 7)
    for num_workers in (0, 1, 2):
        found = torch.cat(list(batches(parts, chunks, num_workers)))
        torch.testing.assert_close(found, whole[torch.from_numpy(numbers)], rtol=0, atol=0)
    assert list(batches(parts, [])) == []


def test_a_damaged_image_is_named_from_a_worker_too(faces, tmp_path):
    faces = faces.select(faces.ids[:6])
    broken = replace(faces, table=faces.table.assign(file_name=[*faces.table["file_name"][:5], "gone.png"]))
    stored = hold(broken, broken.ids, 16, 0)
    for num_workers in (0, 1):
        with pytest.raises(ImageError, match=r"gone\.png does not exist"):
            list(batches([stored], [np.arange(6)], num_workers))


def test_amp_learns_and_evaluates_in_float32(faces, train):
    task = make_task(faces, protected="gender", image_size=32)
    trainer, losses = train(task, amp=True)
    _, exact = train(task)
    assert losses != exact and losses[-1] < losses[0]
    assert losses[0] == pytest.approx(exact[0], rel=0.02)
    assert embed(trainer.model, task.val.images).dtype == torch.float32


def test_small_images_stay_in_float32_on_a_processor(faces, train):
    """In bfloat16 some of their gradients are what the memory happened to hold."""
    task = make_task(faces, protected="gender", image_size=16)
    trainer, losses = train(task, amp=True)
    assert losses == train(task)[1]
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.parameters())


def test_a_table_of_metrics_is_the_same_from_disk(faces, train, monkeypatch):
    trainer, _ = train(make_task(faces, protected="gender", image_size=16))
    table = evaluate(trainer.model, faces, "gender", image_size=16)
    monkeypatch.setattr("vlbias.search.metric_table.hold", lambda *given: hold(*given, in_memory_bytes=0))
    assert evaluate(trainer.model, faces, "gender", image_size=16).equals(table)
