"""A small job of every command: what must hold for all of them is tried on these."""

from __future__ import annotations

import functools
import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from doubles import people, run_command, tiny_editor
from PIL import ExifTags, Image

import vlbias.app
from vlbias import demo, recipes
from vlbias.bench import run as runs
from vlbias.classify import FitSettings
from vlbias.diffae import DiffAEConfig
from vlbias.editor import Editor

#: An autoencoder that is trained in a moment.
QUICK_DIFFAE = DiffAEConfig(
    image_size=32, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, embed_channels=8, attention_resolutions=(),
    enc_model_channels=8, enc_channel_mult=(1, 2), enc_num_res_blocks=1, num_groups=4, prediction_type="v_prediction",
)  # fmt: skip

#: What a camera and its owner wrote into the pictures that the jobs read: who, by which camera, where.
PRIVATE = (b"Jane Doe", b"SN-4711", b"52.5 degrees north")
#: Commands that write nothing.
SILENT = ("app", "doctor", "paths", "provenance")
#: Commands that want another word the second time.
ONCE = {"train diffae": "--resume", "search evaluate": "--overwrite"}
#: Files that tell how long something took, the state that a training goes on from among them, and the journal of a
#: search, which has the dates of all that was tried.
TIMES = ("timing.csv", "times.jsonl", "state.pt", "study.log")


def make_inputs(folder: Path) -> Path:
    """All that the jobs read: pictures, a labelled set, editors, a finished run, a model, a list of pairs."""
    folder.mkdir()
    Image.linear_gradient("L").convert("RGB").resize((40, 36)).save(folder / "face.png")
    people(folder / "people")
    for picture in (folder / "face.png", *(folder / "people").glob("*.png")):
        note_owner(picture)
    tiny_editor().save_pretrained(folder / "tiny")
    tiny_editor().renderer.diffae.save_pretrained(folder / "diffae")
    (folder / "diffae.json").write_text(json.dumps(QUICK_DIFFAE.to_dict()))
    torch.save({"state_dict": {}}, folder / "last.ckpt")
    pictures = []
    for level in range(8):
        buffer = io.BytesIO()
        Image.fromarray(np.full((12, 12, 3), 30 * level, np.uint8)).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    (folder / "pairs.bin").write_bytes(pickle.dumps((pictures, [True, False, True, False])))
    for name, place in (("train editor", "mine"), ("balance", "finished"), ("search", "study")):
        run_job(name, folder, folder / place)
    return folder


def note_owner(path: Path) -> None:
    """Write :data:`PRIVATE` into a picture, as cameras do."""
    who, camera, where = (word.decode() for word in PRIVATE)
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = who
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = camera
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSAreaInformation] = where.encode()
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, exif=exif)
    assert all(word in path.read_bytes() for word in PRIVATE)


def prepare(name: str, inputs: Path, out: Path) -> None:
    """What a job finds in its folder of results."""
    if name == "review" and not out.exists():
        shutil.copytree(inputs / "finished", out)


def run_job(name: str, inputs: Path, out: Path, *, again: bool = False) -> str:
    """Run a job in this process; what it said. ``again`` with the word that it wants the second time."""
    prepare(name, inputs, out)
    words = [ONCE[name]] if again and name in ONCE else []
    with quickly():
        return run_command(*small_jobs(inputs, out)[name], *words)


def small_jobs(inputs: Path, out: Path) -> dict[str, list[str]]:
    """Command => its words; ``out`` is the folder of results."""
    faces, picture, editor = inputs / "people", inputs / "face.png", inputs / "tiny"
    about = ["--target", "smile", "--protected", "gender"]
    tied = ["--target", "smile", "--protected", "skin"]
    jobs: dict[str, list[object]] = {
        "demo": [out, "--faces", 100, "--seeds", 1, "--editor", inputs / "mine"],
        "balance": ["synthfaces:24", out, *tied, "--limit", 2, "--leak-sizes", 32, "--checks", "goal=.01"],
        "review": [out, "train/edit-000000.png"],
        "edit": [picture, out, "--age", 1, "--editor", editor],
        "strip": [picture, out / "age.png", "--path", "age", "--steps", 2, "--editor", editor],
        "provenance": [inputs / "finished", "--json"],
        "learn": ["smile", "--positive", "a smiling person", "--negative", "a person", "--images", "synthfaces:16",
                  "--out", out, "--steps", 1, "--limit", 16, "--editor", inputs / "mine"],
        "paths": [inputs / "mine", "--images", "synthfaces:16"],
        "audit": [faces, *about, "--seeds", 1, "--steps", 1, "--out", out],
        "convert": [inputs / "last.ckpt", out],
        "doctor": [],
        "simulate": [faces, out, *about, "--steps", 1, "--image-size", 16, "--shares", "0,0.5", "--repeats", 1],
        "search": [faces, out, "--protected", "gender", "--epochs", 1, "--refit", 0, "--image-size", 16, "--max-error",
                   1, "--trials", 1],
        "search evaluate": [inputs / "study" / "best", "--pairs", inputs / "pairs.bin", "--out", out / "pairs.csv"],
        "search transfer": [inputs / "study", "--data", faces, "--protected", "smile", "--refit", 1, "--out", out],
        "bench": ["edits", "--tasks", "world-smile-skin-0.7", "--budget", "quick", "--seeds", 1, "--out", out,
                  "--json", out / "table.json"],
        "reproduce fr-nas": [out, "--budget", "tiny", "--refit", 0, "--trials", 1, "--device", "cpu"],
        "reproduce fer": [out, "--budget", "tiny", "--repeats", 1, "--device", "cpu"],
        "train editor": ["synthfaces:64", out, "--clip-images", 96, "--diffae-images", 64],
        "train clip": ["synthfaces:64", "--out", out, "--images", 96],
        "train diffae": ["synthfaces:64", "--out", out, "--images", 64, "--config", inputs / "diffae.json"],
        "train prior": [faces, "--diffae", inputs / "diffae", "--out", out],
        "train distill": [inputs / "mine", faces, out, "--steps", 1],
        "train enlarge": [inputs / "mine", faces, out, "--images", 16],
        "app": [faces],
    }  # fmt: skip
    return {name: [*name.split(), *map(str, words)] for name, words in jobs.items()}


@contextmanager
def quickly() -> Iterator[None]:
    """Within the block, what is measured in hours takes a moment, and the page ends at once."""
    with pytest.MonkeyPatch.context() as patch:
        settings: Callable[..., Any] = functools.partial(
            recipes.BuildSettings, text_steps=2, prior_steps=4, path_steps=1, diffae=QUICK_DIFFAE
        )
        patch.setattr(recipes, "BuildSettings", settings)
        patch.setattr(recipes, "build_prior", functools.partial(recipes.build_prior, num_steps=4))
        patch.setattr(runs, "QUICK_FACES", {"num_training": 40, "num_validation": 40, "num_test": 40})
        patch.setattr(runs, "QUICK_STEPS", 2)
        patch.setitem(runs.CLASSIFIERS, "small", FitSettings(image_size=16, batch_size=8))
        for name, few in {"SMILING_LIGHT": 16, "OTHER_LIGHT": 16, "DARK": 18, "_TEST_FACES": 60}.items():
            patch.setattr(demo, name, few)
        patch.setattr(demo, "run_demo", functools.partial(demo.run_demo, num_steps=1))
        patch.setattr(Editor, "from_pretrained", functools.partial(_opened, Editor.from_pretrained))
        patch.setattr(vlbias.app, "serve", _served)
        yield


def _opened(from_pretrained: Callable[..., Editor], name: str, **options: Any) -> Editor:
    """The shipped editors and those in folders; a published checkpoint of 2 GB has a stand-in."""
    return tiny_editor() if str(name).endswith(".ckpt") else from_pretrained(name, **options)


@contextmanager
def _served(*_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(url="http://here/", wait=lambda: None)
