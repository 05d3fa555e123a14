"""Folders that somebody with bad intentions hands on, made on the spot: no file of the kind lies in the repository.

Every case is a function that changes a sound folder. ``trap`` is a folder outside of it whose files nobody may open.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from doubles import tiny_editor
from PIL import Image

from vlbias.clip import create
from vlbias.clip.preprocess import Preprocess

__all__ = ["DATASETS", "EDITORS", "NAMES", "RUNS", "SECRET", "Bomb", "bomb", "make_trap", "picture", "sound_editor"]

SECRET = b"TOP-SECRET-9f2c"
#: Names in tables that lead elsewhere, or are none.
NAMES = {
    "parent": "../trap/me.png",
    "parent of a folder": "a/../../trap/me.png",
    "absolute": "{trap}/me.png",
    "backslash": "..\\trap\\me.png",
    "drive": "C:\\trap\\me.png",
    "share": "\\\\host\\share\\me.png",
    "file url": "file://{trap}/me.png",
    "web": "https://example.org/me.png",
    "a bucket": "s3://somebody/me.png",
    "a cached url": "simplecache::file://{trap}/me.png",
    "inside an archive": "zip://me.png::file://{trap}/me.zip",
    "a shell": "$(touch {trap}/new).png",
    "a home of somebody": "~root/me.png",
    "a stream": "me.png:hidden:$DATA",
    "a long way": "a/./.././a/../../trap/me.png",
    "nul": "a/0.png\0/../../trap/me.png",
    "newline": "a/0.png\n../trap/me.png",
    "process": "/proc/self/root{trap}/me.png",
    "home": "~/../../{trap}/me.png",
    "behind a link": "linked/me.png",
}


def picture(path: Path, seed: int = 0) -> Path:
    """A PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def sound_editor(folder: Path) -> Path:
    """A whole editor that can be loaded."""
    editor = tiny_editor()
    editor.renderer.clip = create(_CLIP, Preprocess(size=(16, 16)))
    editor.save_pretrained(folder)
    return folder


def make_trap(folder: Path) -> Path:
    """A folder of private things: a picture, a label table, JSON, a text, each under the names that are looked for."""
    folder.mkdir()
    picture(folder / "me.png", 99)
    (folder / "note.txt").write_bytes(SECRET)
    (folder / "table.csv").write_text(f"file_name,smile\na/0.png,{SECRET.decode()}\n")
    (folder / "facts.json").write_text(json.dumps({"secret": SECRET.decode()}))
    (folder / "empty").mkdir()
    picture(folder / "faces" / "20_1_0_20170116184024662.jpg.chip.jpg", 98)
    return folder


# -- datasets ---------------------------------------------------------------------------------------------------------

Change = Callable[[Path, Path], object]


def _named(name: str) -> Change:
    """A label table that names such a picture beside the sound ones."""

    def change(root: Path, trap: Path) -> None:
        (root / "linked").symlink_to(trap)
        text = io.StringIO()
        rows = [["file_name", "smile"], ["a/0.png", "1"], [name.replace("{trap}", str(trap)), "0"]]
        csv.writer(text).writerows(rows)
        (root / "metadata.csv").write_text(text.getvalue())

    return change


def _table(name: str, target: str = "table.csv") -> Change:
    def change(root: Path, trap: Path) -> None:
        if name == "metadata.schema.json":
            (root / "metadata.csv").write_text("file_name,smile\na/0.png,1\n")
        (root / name).symlink_to(trap / target)

    return change


def _circle(root: Path, trap: Path) -> None:
    for number in range(8):
        (root / "a" / f"over{number}").symlink_to(root / "b")
        (root / "b" / f"back{number}").symlink_to(root / "a")


def _chain(root: Path, trap: Path) -> None:
    (root / "b" / "last.png").symlink_to(trap / "me.png")
    (root / "b" / "next.png").symlink_to("last.png")
    (root / "a" / "first.png").symlink_to("../b/next.png")


def _only_links(root: Path, trap: Path) -> None:
    for folder in ("a", "b"):
        shutil.rmtree(root / folder)
        (root / folder).symlink_to(trap)


def _utkface(root: Path, trap: Path) -> None:
    shutil.rmtree(root / "a")
    (root / "UTKFace").symlink_to(trap / "faces")
    for age in range(20, 26):
        picture(root / f"{age}_1_0_20170116184024662.jpg.chip.jpg", age)


def _celebahq(name: str, target: str = "table.csv") -> Change:
    def change(root: Path, trap: Path) -> None:
        home = root / "CelebAMask-HQ"
        (home / "CelebA-HQ-img").mkdir(parents=True)
        for number in range(4):
            picture(home / "CelebA-HQ-img" / f"{number}.jpg", number)
        lines = ["4", "Smiling Young", *(f"{number}.jpg 1 -1" for number in range(4))]
        (home / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines))
        place = root / name
        if place.is_dir():
            os.rename(place, root / "aside")
        elif place.exists():
            place.unlink()
        place.symlink_to(trap / target)

    return change


def _celeba(name: str, target: str) -> Change:
    def change(root: Path, trap: Path) -> None:
        home = root / "celeba"
        for number in range(3):
            picture(home / "Img" / "img_align_celeba" / f"{number:06d}.jpg", number)
        names = [f"{number:06d}.jpg" for number in range(3)]
        (home / "Anno").mkdir()
        (home / "Eval").mkdir()
        (home / "Anno" / "list_attr_celeba.txt").write_text(
            "\n".join(["3", "Smiling Young", *(f"{name} 1 -1" for name in names)])
        )
        (home / "Anno" / "identity_CelebA.txt").write_text("\n".join(f"{name} 7" for name in names))
        (home / "Eval" / "list_eval_partition.txt").write_text("\n".join(f"{name} 0" for name in names))
        aside = shutil.move(root / name, trap.parent / "aside")
        if target:
            (root / name).symlink_to(trap / target)
        else:  # the very same, in another place
            shutil.move(aside, trap / "moved")
            (root / name).symlink_to(trap / "moved")

    return change


def _vggface2(root: Path, trap: Path) -> None:
    picture(root / "n000001" / "0001_01.jpg")
    (trap / "meta").mkdir()
    (trap / "meta" / "identity_meta.csv").write_text('n000001, "A",1,0, m,\n')
    (root / "meta").symlink_to(trap / "meta")


def _records(name: str) -> Change:
    def change(root: Path, trap: Path) -> None:
        (root / "train.idx").write_text("0\t0\n")
        (root / "train.rec").write_bytes(struct.pack("<II", 0xCED7230A, 24) + struct.pack("<IfQQ", 0, 7, 0, 0))
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(trap / "note.txt")

    return change


def _moved(root: Path, trap: Path, name: str) -> None:
    """Put what is there elsewhere, and a link in its place."""
    shutil.move(root / name, trap / "moved")
    (root / name).symlink_to(trap / "moved")


def _affectnet(name: str) -> Change:
    def change(root: Path, trap: Path) -> None:
        for part in ("train_set", "val_set"):
            (root / "AffectNet" / part / "annotations").mkdir(parents=True)
            for number in range(2):
                picture(root / "AffectNet" / part / "images" / f"{number}.jpg", number)
                np.save(root / "AffectNet" / part / "annotations" / f"{number}_exp.npy", np.array("3"))
        _moved(root, trap, name)

    return change


def _rafdb(name: str) -> Change:
    def change(root: Path, trap: Path) -> None:
        home = root / "RAF-DB" / "basic"
        for part in ("train", "test"):
            picture(home / "Image" / "aligned" / f"{part}_0001_aligned.jpg")
        (home / "EmoLabel").mkdir()
        (home / "EmoLabel" / "list_patition_label.txt").write_text("train_0001.jpg 1\ntest_0001.jpg 2\n")
        _moved(root, trap, name)

    return change


def _fer2013(name: str) -> Change:
    def change(root: Path, trap: Path) -> None:
        (root / "fer2013").mkdir()
        pixels = " ".join(["7"] * 48 * 48)
        (root / "fer2013" / "fer2013.csv").write_text(f"emotion,pixels,Usage\n3,{pixels},Training\n")
        _moved(root, trap, name)

    return change


def _people(text: str) -> Change:
    return lambda root, trap: (root / "identities.csv").write_text(text.format(trap=trap))


def _shards(*links: tuple[str, str]) -> Change:
    """A folder of a sound tar shard, some of whose files are links."""

    def change(root: Path, trap: Path) -> None:
        for folder in ("a", "b"):
            shutil.rmtree(root / folder)
        (root / "data").mkdir()
        with tarfile.open(trap / "train.tar", "w") as archive:
            archive.add(trap / "me.png", "0.png")
            archive.add(trap / "facts.json", "0.json")
        picture(root / "0.png")
        (root / "0.json").write_text('{"smile": 1}')
        with tarfile.open(root / "data" / "test.tar", "w") as archive:
            for name in ("0.png", "0.json"):
                archive.add(root / name, name)
                (root / name).unlink()
        for name, target in links:
            (root / name).symlink_to(trap / target)

    return change


DATASETS: dict[str, Change] = {
    "a tar shard": _shards(("data/train.tar", "train.tar")),
    "the index of shards": _shards(("data/index.json", "facts.json")),
    "file, absolute": lambda root, trap: (root / "a" / "me.png").symlink_to(trap / "me.png"),
    "file, relative": lambda root, trap: (root / "a" / "me.png").symlink_to("../../trap/me.png"),
    "folder, absolute": lambda root, trap: (root / "c").symlink_to(trap),
    "folder, relative": lambda root, trap: (root / "a" / "c").symlink_to("../../trap"),
    "a deep folder": lambda root, trap: (root / "a" / "c").symlink_to(trap / "faces"),
    "the parent": lambda root, trap: (root / "a" / "up").symlink_to("../.."),
    "the root of the disk": lambda root, trap: (root / "disk").symlink_to("/"),
    "a circle": _circle,
    "itself": lambda root, trap: (root / "a" / "self.png").symlink_to("self.png"),
    "dangling": lambda root, trap: (root / "a" / "gone.png").symlink_to(trap / "gone.png"),
    "a device": lambda root, trap: (root / "a" / "zero.png").symlink_to("/dev/zero"),
    "a pipe": lambda root, trap: os.mkfifo(root / "a" / "pipe.png"),
    "a chain": _chain,
    "a file of the process": lambda root, trap: (root / "a" / "env.png").symlink_to("/proc/self/environ"),
    "nothing but links": _only_links,
    "metadata.csv": _table("metadata.csv"),
    "metadata.csv, a device": lambda root, trap: (root / "metadata.csv").symlink_to("/dev/zero"),
    "metadata.csv, a pipe": lambda root, trap: os.mkfifo(root / "metadata.csv"),
    "metadata.jsonl": _table("metadata.jsonl", "facts.json"),
    "metadata.parquet": _table("metadata.parquet"),
    "metadata.schema.json": _table("metadata.schema.json", "facts.json"),
    "metadata.csv of a folder": lambda root, trap: (root / "a" / "metadata.csv").symlink_to(trap / "table.csv"),
    "utkface, its own folder": _utkface,
    "celebahq, its own folder": _celebahq("CelebAMask-HQ", "faces"),
    "celebahq, the pictures": _celebahq("CelebAMask-HQ/CelebA-HQ-img", "faces"),
    "celebahq, one picture": _celebahq("CelebAMask-HQ/CelebA-HQ-img/2.jpg", "me.png"),
    "celebahq, the labels": _celebahq("CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt"),
    "celeba, its own folder": _celeba("celeba", ""),
    "celeba, the folder of its lists": _celeba("celeba/Anno", ""),
    "celeba, the folder of its splits": _celeba("celeba/Eval", ""),
    "celeba, the folder around its pictures": _celeba("celeba/Img", ""),
    "celeba, its pictures": _celeba("celeba/Img/img_align_celeba", ""),
    "celeba, one picture": _celeba("celeba/Img/img_align_celeba/000001.jpg", "me.png"),
    "celeba, its people": _celeba("celeba/Anno/identity_CelebA.txt", ""),
    "vggface2, the folder of its list": _vggface2,
    "records": _records("train.rec"),
    "the index of records": _records("train.idx"),
    "what records say of themselves": _records("property"),
    "affectnet, its own folder": _affectnet("AffectNet"),
    "affectnet, the folder of its labels": _affectnet("AffectNet/train_set/annotations"),
    "affectnet, one label": _affectnet("AffectNet/train_set/annotations/0_exp.npy"),
    "affectnet, its pictures": _affectnet("AffectNet/train_set/images"),
    "rafdb, its own folder": _rafdb("RAF-DB"),
    "rafdb, the folder of its list": _rafdb("RAF-DB/basic/EmoLabel"),
    "rafdb, its pictures": _rafdb("RAF-DB/basic/Image"),
    "rafdb, one picture": _rafdb("RAF-DB/basic/Image/aligned/train_0001_aligned.jpg"),
    "fer2013, its own folder": _fer2013("fer2013"),
    "fer2013, its file": _fer2013("fer2013/fer2013.csv"),
    "a list of people": lambda root, trap: (root / "identities.csv").symlink_to(trap / "table.csv"),
    "a list of people elsewhere": _people("path,identity\na/0.png,1\n../trap/me.png,2\n{trap}/me.png,3\n"),
    "celebahq, the mapping": _celebahq("CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"),
    **{f"a name: {kind}": _named(name) for kind, name in NAMES.items()},
}

# -- runs -------------------------------------------------------------------------------------------------------------


def _link(name: str, target: str = "") -> Change:
    """Put a link in the place of an entry of OUT."""

    def change(out: Path, trap: Path) -> None:
        place = out / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(trap / target if target else trap)

    return change


def _relative(out: Path, trap: Path) -> None:
    shutil.rmtree(out / ".state/tmp")
    (out / ".state/tmp").symlink_to("../../trap")


def _first(pattern: str, target: str) -> Change:
    def change(out: Path, trap: Path) -> None:
        place = sorted(out.glob(pattern))[0]
        _link(place.relative_to(out).as_posix(), target)(out, trap)

    return change


def _in_json(name: str, edit: Callable[[dict, Path], object]) -> Change:
    """Change what a file of the state says."""

    def change(out: Path, trap: Path) -> None:
        path = out / ".state" / name
        values = json.loads(path.read_text()) if path.is_file() else {"complete": True, "files": {}}
        edit(values, trap)
        path.write_text(json.dumps(values))

    return change


def _of_chunk(edit: Callable[[dict, Path], object]) -> Change:
    return _in_json("chunks/0000/result.json", edit)


def _kept(key: str, value: object) -> Change:
    return _of_chunk(lambda values, trap: values["kept"][0].__setitem__(key, value))


def _rewritten(name: str, content: bytes) -> Change:
    """Change a table of a finished run, and what its list of files says of it."""

    def edit(values: dict, trap: Path) -> None:
        values["files"][name] = hashlib.sha256(content).hexdigest()

    def change(out: Path, trap: Path) -> None:
        (out / name).write_bytes(content)
        _in_json("done.json", edit)(out, trap)

    return change


def _listed(name: str) -> Change:
    """A file elsewhere in the list of what a finished run wrote."""
    return _in_json("done.json", lambda values, trap: values["files"].__setitem__(name.format(trap=trap), "0" * 64))


RUNS: dict[str, Change] = {
    "the state": _link(".state", "empty"),
    "drafts": _link(".state/tmp"),
    "drafts, relative": _relative,
    "chunks": _link(".state/chunks"),
    "a chunk": _link(".state/chunks/0000"),
    "a chunk's result": _link(".state/chunks/0000/result.json", "facts.json"),
    "a chunk's picture": _first(".state/chunks/*/edit-*.png", "me.png"),
    "what the job is": _link(".state/job.json", "facts.json"),
    "the scorers": _link(".state/scorers.json", "facts.json"),
    "what is done": _link(".state/done.json", "facts.json"),
    "a split": _link("train"),
    "a split, dangling": _link("train", "gone"),
    "another split": _link("test", "empty"),
    "pairs": _link("donors", "empty"),
    "an original": _link("train/0000.png", "me.png"),
    "an edit": _link("train/edit-000000.png", "me.png"),
    "the table": _link("metadata.csv", "table.csv"),
    "the table of a split": _link("train/metadata.parquet", "table.csv"),
    "the types": _link("metadata.schema.json", "facts.json"),
    "the report": _link("report.json", "facts.json"),
    "the page": _link("report.html", "note.txt"),
    "the card": _link("README.md", "note.txt"),
    "the plan": _link("plan.csv", "table.csv"),
    "the rejects": _link("rejected.csv", "table.csv"),
    "labels by a machine": _link("labelling.json", "facts.json"),
    "a draft of the page": _link(".report.html.draft", "note.txt"),
    "the parent": lambda out, trap: (out / "up").symlink_to(".."),
    "a circle": lambda out, trap: (out / "round").symlink_to(out),
    "a device": lambda out, trap: (out / "zero").symlink_to("/dev/zero"),
    "a pipe": lambda out, trap: os.mkfifo(out / "pipe.png"),
    "a pipe in the state": lambda out, trap: (shutil.rmtree(out / ".state/tmp"), os.mkfifo(out / ".state/tmp")),
    "a chunk of another split": _kept("split", "../../x"),
    "a chunk of another ending": _kept("suffix", "/../../../x.png"),
    "a chunk of an ending that is none": _kept("suffix", ".."),
    "a chunk with a donor elsewhere": _kept("donor", "../../trap/me.png"),
    "a chunk of another class": _kept("target", "../../x"),
    "a chunk of another group": _kept("to", "../../x"),
    "a chunk from another group": _kept("from", "../../x"),
    "a chunk with a strength that is none": _kept("strength", "$(touch x)"),
    "a chunk with a slot that is none": _kept("slot", "../x"),
    "a chunk without a seed": _of_chunk(lambda values, trap: values["kept"][0].pop("seed")),
    "a chunk with a file elsewhere": _of_chunk(
        lambda values, trap: values["files"].__setitem__("../../../../trap/me.png", "0" * 64)
    ),
    "a chunk with an absolute file": _of_chunk(
        lambda values, trap: values["files"].__setitem__(str(trap / "me.png"), "0" * 64)
    ),
    "a chunk without its files": _of_chunk(lambda values, trap: values.__setitem__("files", {})),
    "a list with a parent": _listed("../trap/note.txt"),
    "a list with an absolute name": _listed("{trap}/note.txt"),
    "a list with a device": _listed("/dev/zero"),
    "a list of tries that is no table": _rewritten("rejected.csv", b'slot,split\n1,2,3,4\n"'),
    "a list of tries without text": _rewritten("rejected.csv", b"\xff\xfe\0\n"),
    "a list of tries of other types": _rewritten("rejected.csv", b"donor,path,strength,seed\na,b,c,x\n"),
    "a list of edits that is no table": _rewritten("plan.csv", b"slot\n" + b'"\n' * 10),
    "a list of pictures that is no table": _rewritten("metadata.csv", b"\0" * 10),
    "a list with a long way": _listed("train/../../trap/note.txt"),
}

# -- networks ---------------------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that leaves a mark where it is run."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


def bomb(path: Path, mark: Path) -> Path:
    """A file of ``torch.save`` that leaves a mark where it is unpickled without care."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": Bomb(mark), "format": 1, "identity": {}, "parts": {}}, path)
    return path


def _in_config(name: str, edit: Callable[[dict, Path, Path], object]) -> Callable[[Path, Path, Path], None]:
    def change(folder: Path, trap: Path, mark: Path) -> None:
        path = folder / name
        values = json.loads(path.read_text())
        edit(values, bomb(folder / "clip" / "weights.bin", mark), trap)
        path.write_text(json.dumps(values))

    return change


def _of_clip(part: str, **values: object) -> Callable[[Path, Path, Path], None]:
    return _in_config("clip/open_clip_config.json", lambda config, *_: config["model_cfg"][part].update(values))


def _remote_code(folder: Path, trap: Path, mark: Path) -> None:
    """The tokenizer of a local folder with code of its own, which `transformers` runs if it is told to trust it."""
    code = folder / "clip" / "tokenizer"
    code.mkdir()
    names = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["code.T", None]}}
    (code / "tokenizer_config.json").write_text(json.dumps(names))
    (code / "config.json").write_text(json.dumps(names | {"model_type": "x"}))
    (code / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass T: pass\n")
    _of_clip("text_cfg", hf_tokenizer_name=str(code), tokenizer_kwargs={"trust_remote_code": True})(folder, trap, mark)


def _pickled_weights(folder: Path, trap: Path, mark: Path) -> None:
    (folder / "clip" / "open_clip_model.safetensors").unlink()
    for name in ("open_clip_pytorch_model.bin", "pytorch_model.bin", "model.pt"):
        bomb(folder / "clip" / name, mark)


def _pickled_student(folder: Path, trap: Path, mark: Path) -> None:
    bomb(folder / "student" / "unet.safetensors", mark)
    (folder / "student" / "config.json").write_text('{"edit_evaluations": 1}')


def _linked(name: str, target: str) -> Callable[[Path, Path, Path], None]:
    return lambda folder, trap, mark: _link(name, target)(folder, trap)


#: Changes of an editor's folder (folder, trap, mark); its manifest is written anew, so that all hashes are right.
EDITORS: dict[str, Callable[[Path, Path, Path], object]] = {
    "a tokenizer with code": _remote_code,
    "a tokenizer of the hub": _of_clip("text_cfg", hf_tokenizer_name="somebody/tokenizer"),
    "a text tower of the hub": _of_clip("text_cfg", hf_model_name="somebody/model"),
    "an image tower of the hub": _of_clip("vision_cfg", timm_model_name="hf-hub:somebody/model"),
    "an image tower of a folder": _of_clip("vision_cfg", timm_model_name="local-dir:/"),
    "pickled weights": _pickled_weights,
    "pickled paths": lambda folder, trap, mark: bomb(folder / "paths" / "latent_paths_model.pt", mark),
    "a pickle for a picture model": lambda folder, trap, mark: bomb(folder / "diffae" / "model.safetensors", mark),
    "a pickle for a student": _pickled_student,
    "a student elsewhere": lambda folder, trap, mark: (folder / "student").symlink_to(trap),
    "a config elsewhere": _linked("config.json", "facts.json"),
    "a part's config elsewhere": _linked("diffae/config.json", "facts.json"),
    "weights elsewhere": _linked("diffae/model.safetensors", "note.txt"),
    "a part elsewhere": _linked("paths", "empty"),
    "a manifest elsewhere": _linked("manifest.json", "facts.json"),
    "merges elsewhere": _linked("clip/bpe_simple_vocab.txt.gz", "note.txt"),
    "a device for weights": lambda folder, trap, mark: (
        (folder / "diffae/model.safetensors").unlink(),
        (folder / "diffae/model.safetensors").symlink_to("/dev/zero"),
    ),
    "a pipe for a config": lambda folder, trap, mark: (
        (folder / "paths/config.json").unlink(missing_ok=True),
        os.mkfifo(folder / "paths/config.json"),
    ),
}
