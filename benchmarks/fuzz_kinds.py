"""What the fuzz benchmark opens: for each kind of file its samples, its bombs, and the way users open it."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from vlbias import Dipole, Editor, clip, report
from vlbias.alignment import DetectedFace
from vlbias.balance.attempt import ChunkResult
from vlbias.balance.calibration import Scorers
from vlbias.balance.identity import IdentityScale, LatentIdentity
from vlbias.balance.run_folder import RunFolder, verify_run
from vlbias.balance.scoring import AttributeScorer, Reading
from vlbias.checkpoints import save_tensors, write_manifest
from vlbias.classify import Classifier, FitSettings, create_backbone
from vlbias.clip.small import ClipConfig, new_clip
from vlbias.data import open_dataset
from vlbias.data.celebahq import ATTRIBUTE_FILE, CELEBA_ATTRIBUTES, MAPPING_FILE, PARTITION_FILE
from vlbias.data.landmarks import Found, LandmarkCache
from vlbias.data.metadata import metadata_files
from vlbias.data.pairs import load_pairs
from vlbias.diffae import DiffAE, DiffAEConfig, PriorConfig
from vlbias.diffae.published import published_name
from vlbias.files import write_json
from vlbias.images import open_image, picture_size
from vlbias.networks import load_network
from vlbias.optim import TrainingState
from vlbias.originals import Encoded, Original, without_private_metadata
from vlbias.paths import PathSet, Probes
from vlbias.provenance import read_provenance
from vlbias.rendering import RenderSettings
from vlbias.runstore import RunStore
from vlbias.search.cell import Skeleton
from vlbias.search.export import load_model
from vlbias.search.spaces import Configuration, Space
from vlbias.search.storage import Storage
from vlbias.search.study import open_study
from vlbias.search.trainer import Embedder
from vlbias.simulate.runs import _decoded, _encode

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: of the kind.
        make: writes samples, one folder each, into a folder.
        open: opens a folder that is like a sample.
        renew: what is done to a folder after one of its files was changed.
        bombs: each writes one input that was thought out by hand.
        share: how many inputs it gets in proportion to others.
    """

    name: str
    make: Callable[[Path], None]
    open: Callable[[Path], Any]
    renew: Callable[[Path], Any] = lambda folder: None
    bombs: tuple[Callable[[Path], Any], ...] = ()
    share: int = 2


CONFIG = DiffAEConfig(
    image_size=16,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    embed_channels=16,
    attention_resolutions=(),
    enc_channel_mult=(1, 2),
    enc_num_res_blocks=1,
    num_groups=4,
    prior=PriorConfig(num_layers=3, hidden_channels=24, skip_layers=(1, 2), time_channels=8),
)


def _noise(size: tuple[int, int] = (16, 16), channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


def _face(size: int = 16) -> Image.Image:
    return Image.fromarray(_noise((size, size)))


# -- checkpoints ------------------------------------------------------------------------------------------------------


def _make_editors(folder: Path) -> None:
    torch.manual_seed(0)
    diffae = DiffAE(CONFIG)
    dipoles = {"age": Dipole("old", "young"), "skin_tone": Dipole("dark", "light")}
    paths = PathSet(dipoles, 16, mean=diffae.z_mean, std=diffae.z_std)
    paths.calibration = {"age": {"success": 0.9}}
    z = torch.randn(20, 16)
    labels = {"age": (z[:, 0] > 0).float(), "skin_tone": (z[:, 1] > 0).float()}
    probes = Probes.fit(z, labels, dipoles=dipoles)
    small = ClipConfig(embed_dim=16, image_size=32, vision_width=8, text_width=16, text_heads=2, context_length=16)
    seeing = new_clip(small, ["a photo of an old person", "a photo of a young person"], seed=0)
    settings = RenderSettings(invert_steps=2, decode_steps=2)
    info = {"name": "tiny", "license": "MIT", "layout": "ffhq"}
    Editor(diffae, paths=paths, probes=probes, clip=seeing, settings=settings, info=info).save_pretrained(folder / "a")


def _open_editor(folder: Path) -> None:
    editor = Editor.from_pretrained(folder)
    editor.encode(_face())
    codes = torch.zeros(1, 16)
    if editor.renderer.paths is not None:
        editor.renderer.paths.walk(codes, dict.fromkeys(editor.renderer.paths.names, 0.5))
    if editor.renderer.probes is not None:
        editor.renderer.probes.logits(codes)


def _open_clip(folder: Path) -> None:
    seeing = clip.load(folder)
    seeing.text_embedding(["a face"])
    seeing.encode_image(torch.zeros(1, 3, 32, 32))


def _make_clips(folder: Path) -> None:
    _make_editors(folder)
    shutil.move(folder / "a" / "clip", folder / "b")
    shutil.rmtree(folder / "a")


def _merges_bomb(folder: Path) -> None:
    (folder / "made").mkdir()
    _make_clips(folder / "made")
    shutil.copytree(folder / "made" / "b", folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "made")
    zeros = gzip.compress(bytes(2**24))
    (folder / "bpe_merges.txt.gz").write_bytes(zeros * 400)


def _published() -> dict[str, Any]:
    """A small checkpoint in the layout of the published ones."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, num_groups=32, model_channels=32)
    state = {"x_T": torch.zeros(1, 3, 16, 16), "conds_mean": torch.zeros(16), "conds_std": torch.ones(16)}
    for key, value in DiffAE(config).state_dict().items():
        if key not in ("z_mean", "z_std"):
            name = "ema_model." + published_name(key, 3)
            shape = (*value.shape, 1) if name.endswith(("qkv.weight", "proj_out.weight")) else value.shape
            state[name] = value.reshape((*shape, 1, 1) if name == "ema_model.encoder.out.3.weight" else shape)
            if ".linear_emb." in name:
                state[name.replace("linear_emb", "cond_layers.1")] = state[name]
    return {"state_dict": state, "hyper_parameters": {"img_size": 16, "T": 1000, "net_ch": 32}}


def _make_checkpoints(folder: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (folder / name).mkdir()
    torch.save(_published(), folder / "a" / "last.ckpt")
    told = {"img_size": 16, "net_ch": 32, "net_ch_mult": (1, 2), "net_num_res_blocks": 1, "net_attn": (16,)}
    told |= {"net_enc_channel_mult": (1, 2), "net_enc_num_res_blocks": 1, "net_beatgans_embed_channels": 16}
    told |= {"net_latent_layers": 3, "net_latent_num_hid_channels": 24, "net_latent_skip_layers": (1, 2)}
    few = {"state_dict": {"ema_model.time_embed.time_embed.0.weight": torch.ones(16, 32)}, "hyper_parameters": told}
    few["state_dict"]["ema_model.input_blocks.0.0.weight"] = torch.ones(32, 3, 3, 3)
    torch.save(few, folder / "b" / "last.ckpt")
    weights = {"L_WGS_SUPPORT_SETS": torch.randn(2, 8), "L_WGS_LOGGAMMA": torch.zeros(2, 8)}
    torch.save(weights, folder / "c" / "latent_paths_model.pt")
    write_json(folder / "c" / "semantic_dipoles.json", [["old", "young"], ["dark", "light"]])
    write_json(folder / "c" / "args.json", {"lwgs": True})
    _training_state(folder / "d").save(step=3, seconds=1.5)


def _training_state(folder: Path) -> TrainingState:
    module = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        optimizer.state[parameter] = {"step": torch.tensor(3.0), "exp_avg": torch.ones_like(parameter)}
    return TrainingState(folder / "state.pt", {"seed": 1}, {"module": module, "optimizer": optimizer})


def _open_checkpoint(folder: Path) -> None:
    if (folder / "last.ckpt").exists():
        DiffAE.from_published(folder / "last.ckpt")
    elif (folder / "state.pt").exists():
        _training_state(folder).load()
    else:
        PathSet.from_published(folder).walk(torch.zeros(1, 4), {})


def _stride_bomb(folder: Path) -> None:
    torch.save({"state_dict": {"ema_model.a": torch.zeros(1).expand(2**29)}}, folder / "last.ckpt")


# -- networks ---------------------------------------------------------------------------------------------------------


def _make_classifiers(folder: Path) -> None:
    torch.manual_seed(0)
    options = {"channels": [8, 8, 8, 8], "stem_width": 8}
    settings = FitSettings(image_size=32, backbone_options=options, class_weights={"female": 1.0, "male": 2.0})
    module = create_backbone("resnet10t", 2, options=options)
    Classifier(module, ["female", "male"], settings, [0.5, 0.1]).save_pretrained(folder / "a")


def _open_classifier(folder: Path) -> None:
    Classifier.from_pretrained(folder, device="cpu").predict(torch.zeros(1, 3, 32, 32))


def _graph(size: int, width: int = 4) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    weights = [("w", np.ones((3, width), dtype="f4")), ("b", np.zeros(width, dtype="f4"))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, size, size))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", width))],
        [numpy_helper.from_array(value, name) for name, value in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _make_networks(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
    (folder / "a" / "net.onnx").write_bytes(_graph(8).SerializeToString())
    said = {"layout": "ffhq", "classes": ["a", "b", "c", None], "channels": "BGR", "mean": [1, 2, 3], "std": 2.0}
    write_json(folder / "a" / "net.json", said)
    beside = _graph(8)
    tensor = beside.graph.initializer[0]
    (folder / "b" / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "48")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "b" / "net.onnx").write_bytes(beside.SerializeToString())
    write_json(folder / "b" / "net.json", {"landmarks": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]})
    options = {"channels": [8, 8, 8, 8], "stem_width": 8}
    save_tensors(folder / "c" / "model.safetensors", create_backbone("resnet10t", 2, options=options).state_dict())
    made = {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"architecture": "resnet10t", "num_classes": 2, "model_args": options, "pretrained_cfg": made}
    write_json(folder / "c" / "config.json", config | {"label_names": ["a", "b"]})


def _computing_bomb(*nodes: onnx.NodeProto) -> Callable[[Path], None]:
    """A graph of some hundred bytes that asks for gigabytes, or for years."""

    def write(folder: Path) -> None:
        model = _graph(8)
        model.graph.node.extend([*nodes, helper.make_node("ReduceMean", ["big"], ["little"], keepdims=0)])
        model.graph.node.append(helper.make_node("Add", ["y", "little"], ["z"]))
        dims = {"dims": np.array([100_000, 100_000]), "side": np.array([5000, 5000])}
        dims |= {"one": np.ones((1, 1), "f4"), "count": np.array(10**15)}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in dims.items())
        model.graph.output[0].name = "z"
        (folder / "net.onnx").write_bytes(model.SerializeToString())
        write_json(folder / "net.json", {"layout": None})

    return write


def _products() -> list[onnx.NodeProto]:
    """Nodes that work for minutes, each within the memory that a graph may take."""
    first = helper.make_node("ConstantOfShape", ["side"], ["a0"])
    more = [helper.make_node("MatMul", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(40)]
    return [first, *more, helper.make_node("Identity", ["a40"], ["big"])]


def _loop() -> onnx.NodeProto:
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "again": TensorProto.BOOL}
    i, go, again = (helper.make_tensor_value_info(name, kind, ()) for name, kind in kinds.items())
    carried, next_one = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1)) for name in "ab")
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "again"), ("a", "b"))]
    body = helper.make_graph(nodes, "body", [i, go, carried], [again, next_one])
    return helper.make_node("Loop", ["count", "", "one"], ["big"], body=body)


def _open_network(folder: Path) -> None:
    network = load_network(folder)
    network.outputs(torch.zeros(1, 3, 32, 32), layout="ffhq")


def _make_found_models(folder: Path) -> None:
    torch.manual_seed(0)
    skeleton = Skeleton(num_init_features=8, k_r=8, groups=2, inc_sec=(2, 2, 2, 2), small=True)
    for name, cell, backbone in (("a", (1, 0, 1), "dpn-cell"), ("b", None, "resnet10t")):
        configuration = Configuration(backbone, "softmax", "adam", 1e-3, cell=cell)
        space = Space((backbone,), ("softmax",), ("adam",), skeleton=skeleton, embedding_size=8)
        state = Embedder(configuration, space, 32).state_dict()
        (folder / name).mkdir()
        save_tensors(folder / name / "model.safetensors", {f"model.{key}": value for key, value in state.items()})
        config = {"format": "vlbias-search-model", "configuration": configuration.to_dict(), "embedding_size": 8}
        config |= {"skeleton": vars(skeleton) | {"inc_sec": list(skeleton.inc_sec)}, "image_size": 32}
        write_json(folder / name / "config.json", config | {"task": {}, "classes": ["a"], "groups": ["b"]})


# -- pictures ---------------------------------------------------------------------------------------------------------


def _make_pictures(folder: Path) -> None:
    picture, deep = _face(24), Image.fromarray(_noise((24, 24))[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "me"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_itxt("synthetic", "true", zip=True)
    second = _face(24).rotate(90)
    saves: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "a.jpg": (picture, {"exif": exif, "icc_profile": profile, "comment": b"{}"}),
        "b.jpg": (picture.convert("CMYK"), {"progressive": True}),
        "c.jpg": (picture, {"format": "MPO", "save_all": True, "append_images": [second]}),
        "a.png": (picture, {"exif": exif, "icc_profile": profile, "pnginfo": text}),
        "b.png": (deep, {}),
        "c.png": (picture.quantize(16), {"transparency": 0}),
        "d.png": (picture, {"save_all": True, "append_images": [second]}),
        "a.gif": (picture.quantize(), {"save_all": True, "append_images": [second.quantize()]}),
        "a.bmp": (picture, {}),
        "a.tif": (picture, {"compression": "tiff_lzw", "exif": exif}),
        "b.tif": (deep, {"compression": "tiff_deflate", "save_all": True, "append_images": [deep]}),
        "c.tif": (picture.convert("F").resize((8, 8)), {}),
        "d.tif": (picture, {"compression": "jpeg"}),
        "a.webp": (picture, {"exif": exif, "icc_profile": profile}),
        "b.webp": (picture.convert("RGBA"), {"lossless": True, "save_all": True, "append_images": [second]}),
    }
    for name, (image, options) in saves.items():
        (folder / name).mkdir()
        image.save(folder / name / name, **options)


def _open_picture(folder: Path) -> None:
    (path,) = folder.iterdir()
    width, height = picture_size(path)
    open_image(path)
    if width * height > 20_000_000:
        return  # what follows takes as much memory again, and longer
    read_provenance(path)
    without_private_metadata(path)
    original = Original.read(path)
    original.encode(original.stored, {"synthetic": "true"})


def _packed_zeros(count: int) -> bytes:
    """What zlib makes of so many zeros, without going through them: one block of a megabyte again and again."""
    whole, rest = divmod(count, 2**20)
    block, end = (zlib.compressobj(9, wbits=-zlib.MAX_WBITS) for _ in range(2))
    repeated = block.compress(bytes(2**20)) + block.flush(zlib.Z_FULL_FLUSH)
    checksum = ((count % 65_521) << 16 | 1).to_bytes(4, "big")  # Adler-32 of zeros
    return b"\x78\xda" + repeated * whole + end.compress(bytes(rest)) + end.flush() + checksum


def _png_bomb(depth: int, colour: int, side: int = 10_000) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        data = _packed_zeros(side * (1 + side * channels * depth // 8))
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)), (b"PLTE", bytes(3))]
        if colour != 3:
            del chunks[1]
        out = b"\x89PNG\r\n\x1a\n"
        for kind, value in [*chunks, (b"IDAT", data), (b"IEND", b"")]:
            out += struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        (folder / "face.png").write_bytes(out)

    return write


def _exif_bomb(folder: Path) -> None:
    """EXIF that ends within its header."""
    _face().save(folder / "face.png", exif=b"Exif\0\0II*\0\1")


def _saved_bomb(suffix: str, mode: str, **options: Any) -> Callable[[Path], None]:
    """A blank picture of 90 megapixels; most formats keep it in kilobytes."""

    def write(folder: Path) -> None:
        Image.new(mode, (10_000, 9_000)).save(folder / f"face{suffix}", **options)

    return write


# -- tables -----------------------------------------------------------------------------------------------------------


def _table() -> pd.DataFrame:
    names = ["train/0.png", "train/1.png", "val/2.png", "test/3.png"]
    table = pd.DataFrame({"file_name": names, "split": ["train", "train", "val", "test"]})
    return table.assign(smile=[1, 0, 1, None], gender=["male", "female", None, "male"], age=[1.5, 2.5, 3.0, 4.0])


def _save_pictures(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_noise(seed=i)).save(folder / name)


def _make_records(folder: Path) -> None:
    """Two people with two pictures each, as InsightFace packs them."""
    data, index = b"", ""
    picture = io.BytesIO()
    _face().save(picture, "JPEG")
    lists = {0: (5.0, 7.0), 5: (1.0, 3.0), 6: (3.0, 5.0)}
    for key in range(7):
        labels = lists.get(key)
        body = struct.pack("<IfQQ", 2 if labels else 0, float(key > 2), key, 0)
        body += struct.pack("<2f", *labels) if labels else picture.getvalue()
        index += f"{key}\t{len(data)}\n"
        data += struct.pack("<II", 0xCED7230A, len(body)) + body + bytes(-len(body) % 4)
    folder.mkdir()
    (folder / "train.rec").write_bytes(data)
    (folder / "train.idx").write_text(index)
    (folder / "property").write_text("2,16,16")


def _make_tables(folder: Path) -> None:
    table = _table()
    for name in ("csv", "typed", "jsonl", "parquet"):
        _save_pictures(folder / name, table["file_name"].tolist())
    table.to_csv(folder / "csv" / "metadata.csv", index=False)
    for name, content in metadata_files(table):
        (folder / "typed" / name).write_bytes(b"".join(content))
    rows = table.assign(boxes=[[[1, 2, 3, 4]]] * 4).to_dict("records")
    lines = "".join(json.dumps(row) + "\n" for row in rows).replace("NaN", "null")
    (folder / "jsonl" / "metadata.jsonl").write_text(lines)
    table.assign(boxes=[[1, 2]] * 4).to_parquet(folder / "parquet" / "metadata.parquet")
    _make_celebahq(folder / "celebahq")
    _make_records(folder / "records")


def _make_celebahq(folder: Path) -> None:
    _save_pictures(folder, [f"CelebA-HQ-img/{i}.jpg" for i in range(3)])
    lines = ["3", " ".join(CELEBA_ATTRIBUTES), *(f"{i}.jpg " + " ".join(["1", "-1"] * 20) for i in range(3))]
    (folder / ATTRIBUTE_FILE).write_text("\n".join(lines))
    mapping = ["idx orig_idx orig_file", *(f"{i} {i} 00000{i}.jpg" for i in range(3))]
    (folder / MAPPING_FILE).write_text("\n".join(mapping))
    (folder / PARTITION_FILE).write_text("\n".join(f"00000{i}.jpg {i}" for i in range(3)))
    fair = "image_name age gender skin_color\n" + "\n".join(f"{i}.jpg {i % 2} 1 {i}" for i in range(3))
    (folder / "fair_face_pseudo_labels.txt").write_text(fair)


def _make_layouts(folder: Path) -> None:
    """Datasets as their publishers hand them out, and pairs of pictures."""
    home = folder / "celeba"
    names = [f"{i:06d}.jpg" for i in range(3)]
    _save_pictures(home, [f"img_align_celeba/{name}" for name in names])
    lines = ["3", " ".join(CELEBA_ATTRIBUTES), *(f"{name} " + " ".join(["1", "-1"] * 20) for name in names)]
    for name, rows in (
        ("list_attr_celeba.txt", lines),
        ("list_eval_partition.txt", [f"{name} {i}" for i, name in enumerate(names)]),
        ("identity_CelebA.txt", [f"{name} {i}" for i, name in enumerate(names)]),
    ):
        (home / name).write_text("\n".join(rows))
    _save_pictures(folder / "vggface2", ["train/n000001/0001_01.jpg", "test/n000002/0001_01.jpg"])
    people = 'Class_ID, Name, Sample_Num, Flag, Gender\nn000001, "A_B",1,1, m,\nn000002, "C, D",1,0, f\n'
    (folder / "vggface2" / "identity_meta.csv").write_text(people)
    home = folder / "affectnet"
    for part in ("train_set", "val_set"):
        _save_pictures(home, [f"{part}/images/{i}.jpg" for i in range(2)])
        (home / part / "annotations").mkdir()
        for i, code in enumerate(("3", "7")):
            np.save(home / part / "annotations" / f"{i}_exp.npy", np.array(code))
    home = folder / "rafdb"
    names = ["train_00001", "train_00002", "test_0001"]
    _save_pictures(home, [f"Image/aligned/{name}_aligned.jpg" for name in names])
    (home / "EmoLabel").mkdir()
    (home / "EmoLabel" / "list_patition_label.txt").write_text("".join(f"{name}.jpg 1\n" for name in names))
    (home / "Annotation" / "manual").mkdir(parents=True)
    for name in names:
        said = "".join(f"{i}.5\t{i}.5\n" for i in range(5)) + "1\n0\n2\n"
        (home / "Annotation" / "manual" / f"{name}_manu_attri.txt").write_text(said)
    (folder / "fer2013").mkdir()
    rows = [f"{i},{' '.join([str(i)] * 48 * 48)},{use}" for i, use in enumerate(("Training", "PublicTest"))]
    (folder / "fer2013" / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows))
    _save_pictures(folder / "people", ["a/0.png", "a/1.png", "b/0.png", "b/1.png"])
    rows = ["path,identity,split,gender", *(f"{who}/{i}.png,{who},train,{who}" for who in "ab" for i in range(2))]
    (folder / "people" / "identities.csv").write_text("\n".join(rows))
    _save_pictures(folder / "lfw", ["A_B/A_B_0001.jpg", "A_B/A_B_0002.jpg", "C_D/C_D_0001.jpg"])
    (folder / "lfw" / "pairs.txt").write_text("2\t1\n" + "A_B\t1\t2\nA_B\t1\tC_D\t1\n" * 2)
    (folder / "lfw" / "groups.csv").write_text("group\nx\ny\nx\ny\n")
    picture = io.BytesIO()
    _face().save(picture, "PNG")
    (folder / "bin").mkdir()
    stored = ([picture.getvalue(), np.frombuffer(picture.getvalue(), np.uint8)] * 2, [True, False])
    (folder / "bin" / "lfw.bin").write_bytes(pickle.dumps(stored, protocol=2))


def _header_bomb(folder: Path) -> None:
    """An annotation of AffectNet whose header never ends."""
    _save_pictures(folder, ["train_set/images/0.jpg"])
    place = folder / "train_set" / "annotations" / "0_exp.npy"
    place.parent.mkdir()
    np.save(place, np.array("3"))
    place.write_bytes(place.read_bytes().replace(b"()", b"(("))


def _open_layout(folder: Path) -> None:
    if found := [*folder.glob("*.bin"), *folder.glob("pairs.txt")]:
        groups = folder / "groups.csv"
        pairs = load_pairs(found[0], groups=groups if groups.is_file() else None)
        pairs.pictures.tensor(pairs.ids[:2], 16)
    else:
        _open_dataset(folder)


def _open_dataset(folder: Path) -> None:
    faces = open_dataset(folder)
    faces.tensor(list(faces.table.index[:2]), 16)
    for name in faces.attributes:
        faces.table[name].value_counts()


def _parquet_bomb(folder: Path) -> None:
    _save_pictures(folder, ["0.png"])
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000_000, dtype=np.int32)), pa.array(["0.png"]))
    pq.write_table(pa.table({"file_name": names}), folder / "metadata.parquet", compression="zstd")


def _line_bomb(folder: Path) -> None:
    _save_pictures(folder, ["0.png"])
    (folder / "metadata.jsonl").write_bytes(b'{"file_name": "0.png", "a": ' + b"[" * 10**6 + b"]" * 10**6 + b"}\n")


# -- stores and journals ----------------------------------------------------------------------------------------------

JOB = {"seed": 1, "plan": {"target": "smile", "shares": [0.1, 0.9]}}


def _store(folder: Path) -> RunStore:
    return RunStore(folder / "store.log", "simulate", JOB, partial(_decoded, num_items=20, num_classes=2))


def _make_stores(folder: Path) -> None:
    (folder / "a").mkdir()
    for key in ("real|0", "edits|1"):
        _store(folder / "a").add(key, {"predicted": _encode(np.arange(20) % 2), "seconds": 1.0})
    shutil.rmtree(folder / "a" / "store.log.files")


def _open_store(folder: Path) -> None:
    store = _store(folder)
    store.read()
    store.claim("real|0")


def _store_bomb(folder: Path) -> None:
    (folder / "made").mkdir()
    _make_stores(folder / "made")
    line = (folder / "made" / "a" / "store.log").read_bytes()
    shutil.rmtree(folder / "made")
    record = {"run": "real|0", "predicted": base64.b64encode(_packed_zeros(1600 * 2**20)).decode()}
    (folder / "store.log").write_bytes(line + json.dumps(record).encode() + b"\n")


def _make_journals(folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    (folder / "a").mkdir()
    header = {"objectives": ["error", "rank_gap"], "rungs": [1, 3], "eta": 3.0, "max_error": 0.9, "seed": 0}
    storage = Storage(folder / "a" / "study.log")
    study = storage.study(2, header)
    for number in range(3):
        trial = study.ask()
        rate = trial.suggest_float("learning_rate_adam", 1e-5, 1e-2, log=True)
        storage.sign(trial, number)
        trial.set_user_attr("configuration", Configuration("resnet10t", "softmax", "adam", rate).to_dict())
        for rung in (1, 3):
            trial.set_user_attr(f"rung_{rung}", {"error": 0.5, "rank_gap": 0.1})
        trial.set_user_attr("seconds", 1.0)
        if number < 2:
            study.tell(trial, [0.5 - number / 10, 0.1])
    shutil.rmtree(folder / "a" / "study.log.files")


def _journal_bomb(folder: Path) -> None:
    """A trial that is finished, and does not say how well it did."""
    (folder / "made").mkdir()
    _make_journals(folder / "made")
    lines = (folder / "made" / "a" / "study.log").read_text().splitlines(keepends=True)
    shutil.rmtree(folder / "made")
    (folder / "study.log").write_text("".join(line for line in lines if "rung_3" not in line))


def _open_journal(folder: Path) -> None:
    study = open_study(folder / "study.log")
    if len(study.table()):
        study.candidates()


def _make_landmarks(folder: Path) -> None:
    (folder / "a").mkdir()
    points = np.arange(10, dtype=float).reshape(5, 2)
    with LandmarkCache(folder / "a" / "landmarks.sqlite") as cache:
        for i in range(20):
            cache.put(f"{i:064x}", "d", Found((64, 64), [DetectedFace(points, (0, 0, 9, 9), 0.9)]))


def _open_landmarks(folder: Path) -> None:
    with LandmarkCache(folder / "landmarks.sqlite") as cache:
        for i in range(20):
            cache.get(f"{i:064x}", "d")
        cache.put("0" * 64, "e", Found((64, 64), []))


# -- runs -------------------------------------------------------------------------------------------------------------


#: The one edit of a run, as its plan and its chunk have it.
ROW = {"slot": 0, "split": "train", "target": "1", "donor": "d1", "from": "dark", "to": "light"}
ROW |= {"path": "skin_tone", "strength": "0.700", "seed": 5}


def _scorers() -> Scorers:
    latent = Reading("dipole", "smile", ("0", "1"), anchors=(-2.0, 2.0), accuracy=0.9, slope=1.5)
    image = Reading("fitted", "smile", ("0", "1"), weight=((0.5, 0.5), (-0.5, 0.5)), bias=(0.0, 1.0))
    identity = IdentityScale(LatentIdentity(((1.0, 0.0),), 1.0), pairs=4)
    return Scorers([AttributeScorer("smile", latent, image)], identity, 3)


def _make_runs(folder: Path) -> None:
    out = folder / "a"
    run = RunFolder(out, JOB)
    run.first_wins("scorers.json", _scorers().to_dict())
    common = dict(ROW)
    picture = io.BytesIO()
    _face().save(picture, "PNG")
    file = Encoded(picture.getvalue(), ".png")
    result = ChunkResult(kept=[common | {"suffix": ".png", "note": ""}], rejected=[], files={"edit-000000": file})
    run.commit_chunk(0, result)
    run.commit_chunk(1, ChunkResult())
    rows = [
        {"file_name": f"train/{i}.png", "split": "train", "smile": str(i % 2), "skin": ("dark", "light")[i // 2 % 2]}
        | {"origin": "real", "source_id": f"d{i}"}
        for i in range(8)
    ]
    edit = {"file_name": "train/edit-000000.png", "split": "train", "smile": "1", "skin": "light", "origin": "edited"}
    rows.append(edit | {"source_id": "d1", "path": "skin_tone", "strength": "0.700", "seed": 5, "score_identity": 0.9})
    _save_pictures(out, [row["file_name"] for row in rows])
    pd.DataFrame(rows).to_csv(out / "metadata.csv", index=False)
    pd.DataFrame([common | {"chunk": 0, "reserves": "[]"}]).to_csv(out / "plan.csv", index=False)
    rejected = common | {"reason": "target_changed", "detail": "smile read 0.12"}
    pd.DataFrame([rejected]).to_csv(out / "rejected.csv", index=False)
    counts = {"0": {"dark": 2, "light": 2}, "1": {"dark": 2, "light": 3}}
    described = {"target": "smile", "protected": ["skin"], "mode": "reduce", "source": "real", "splits": ["train"]}
    described |= {"seed": 0, "limit": None, "dataset": "synthfaces", "license": "MIT", "editor": "tiny"}
    described |= {"checks": {"reached": 0.4, "target": 0.25, "identity": 0.4}, "originals": "copy"}
    described |= {"scorers": {"smile": {"latent": {"kind": "dipole", "balanced_accuracy": 0.9}, "image": None}}}
    described |= {"counts_before": counts, "counts_planned": counts, "counts_after": counts, "editor_license": "MIT"}
    edits = {"planned": 1, "kept": 1, "unfilled": 0, "rejected": 1, "by_reason": {"target_changed": 1}}
    described |= {"edits": edits, "unet_evaluations": 9, "unet_evaluations_per_kept_image": 9.0}
    write_json(out / "report.json", described)
    column = {"column": "skin", "source": "CLIP", "num_faces": 8, "counts": {"dark": 4, "light": 4}, "unlabelled": {}}
    write_json(out / "labelling.json", {"columns": [column]})
    run.finish()


def _open_run(folder: Path) -> None:
    verify_run(folder)
    run = RunFolder(folder, JOB)
    for chunk, rows in ((0, [ROW]), (1, [])):
        if run.has_chunk(chunk, rows):
            run.read_chunk(chunk)
    Scorers.from_dict(run.read("scorers.json"), {})
    report.write(folder)
    open_dataset(folder)


# ---------------------------------------------------------------------------------------------------------------------

KINDS = {
    kind.name: kind
    for kind in (
        Kind("checkpoints", _make_checkpoints, _open_checkpoint, bombs=(_stride_bomb,), share=4),
        Kind("classifiers", _make_classifiers, _open_classifier, renew=write_manifest),
        Kind("clips", _make_clips, _open_clip, renew=write_manifest, bombs=(_merges_bomb,)),
        Kind("editors", _make_editors, _open_editor, renew=write_manifest),
        Kind("found", _make_found_models, lambda folder: load_model(folder)(torch.zeros(1, 3, 32, 32))),
        Kind("journals", _make_journals, _open_journal, bombs=(_journal_bomb,)),
        Kind("landmarks", _make_landmarks, _open_landmarks),
        Kind("layouts", _make_layouts, _open_layout, bombs=(_header_bomb,), share=3),
        Kind(
            "networks",
            _make_networks,
            _open_network,
            bombs=tuple(
                _computing_bomb(*(node if isinstance(node, list) else [node]))
                for node in (
                    helper.make_node("ConstantOfShape", ["dims"], ["big"]),
                    helper.make_node("Expand", ["one", "dims"], ["big"]),
                    helper.make_node("Tile", ["one", "dims"], ["big"]),
                    helper.make_node("RandomNormal", [], ["big"], shape=[100_000, 100_000]),
                    _loop(),
                    _products(),
                )
            ),
        ),
        Kind(
            "pictures",
            _make_pictures,
            _open_picture,
            bombs=(
                *(_png_bomb(16, colour) for colour in (0, 2, 4, 6)),
                _png_bomb(8, 3),
                # as large as is read: how much memory do they take?
                _png_bomb(16, 0, side=8900),
                _png_bomb(8, 6, side=8900),
                _saved_bomb(".gif", "P"),
                _saved_bomb(".tif", "F", compression="tiff_deflate"),
                _saved_bomb(".tif", "CMYK", compression="tiff_lzw"),
                _saved_bomb(".jpg", "CMYK"),
                _exif_bomb,
            ),
            share=8,
        ),
        Kind("runs", _make_runs, _open_run, share=1),
        Kind("stores", _make_stores, _open_store, bombs=(_store_bomb,)),
        Kind("tables", _make_tables, _open_dataset, bombs=(_parquet_bomb, _line_bomb), share=6),
    )
}
