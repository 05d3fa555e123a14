"""Speed at full size: the ffhq256 architecture with random weights, on this machine's processor or on a GPU.

    python benchmarks/full_size.py [--threads 2] [--repeats 3]
    python benchmarks/full_size.py --device cuda --precision float32 tf32 bf16 --batch 1 4 32 --repeats 10
    python benchmarks/full_size.py --batch 1 --image-size 16 --channels 32 --photo 64 --train-batch 8 --train-steps 5

The last tries on the processor what the second measures. The first prints in one run: seconds for an evaluation of
the UNet and for an encode, GFLOP/s and their share of the matrix product and convolution peaks measured beside them,
peak memory; evaluations for a decoded, an inverted and a kept face; the ratio to a plain eager module-by-module
network of the same architecture and weights (``PlainUNet``) and how far the two outputs lie apart; and a walk of 256
codes through 30 steps in one batch against one by one.

With `--batch` it prints, for each precision and batch: milliseconds of an evaluation, ours and the plain network's, and
how far the outputs lie apart; images a second of training a network of 15 million weights at 128 px; and evaluations,
seconds and peak memory of a photograph that is edited, beside what 350 evaluations of the published recipe take.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

#: Bars that the project set itself.
MIN_RATIO, MAX_DIFFERENCE, MIN_WALK_RATIO = 1.3, 1e-4, 20.0
#: On a GPU: speed against the plain network by batch; dB of bfloat16 outputs; images a second of training.
GPU_RATIOS, MIN_DB, MIN_TRAINED = {1: 1.3, 4: 1.3, 32: 1.5}, 40.0, 15_000
#: Evaluations that the published recipe makes for an edit of a photograph: DDIM inversion, and rendering.
PUBLISHED_EVALUATIONS = 250 + 100


# -- the reference: every step a module or a line of its own, in torch's default layout --------------------------------
class PlainResBlock(nn.Module):
    def __init__(self, source):
        super().__init__()
        self.resample = source.resample
        self.norm_in = nn.GroupNorm(source.norm_in.num_groups, source.norm_in.num_channels)
        self.conv_in = nn.Conv2d(source.conv_in.in_channels, source.conv_in.out_channels, 3, padding=1)
        is_same = isinstance(source.skip, nn.Identity)
        self.skip = nn.Identity() if is_same else nn.Conv2d(source.skip.in_channels, source.skip.out_channels, 1)
        self.act = nn.SiLU()
        self.is_conditioned = source.is_conditioned
        if self.is_conditioned:
            self.time = nn.Linear(source.time.in_features, source.time.out_features)
            self.semantic = nn.Linear(source.semantic.in_features, source.semantic.out_features)
            self.norm_out = nn.GroupNorm(source.norm_out.num_groups, source.norm_out.num_channels)
            self.conv_out = nn.Conv2d(source.conv_out.in_channels, source.conv_out.out_channels, 3, padding=1)

    def forward(self, x, time=None, semantic=None):
        h = self.act(self.norm_in(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv_in(h)
        if self.is_conditioned:
            scale, shift = self.time(self.act(time))[:, :, None, None].chunk(2, dim=1)
            h = self.norm_out(h)
            h = h * (1 + scale) + shift
            h = h * (1 + self.semantic(self.act(semantic))[:, :, None, None])
            h = self.conv_out(self.act(h))
        return self.skip(x) + h


class PlainAttention(nn.Module):
    def __init__(self, source):
        super().__init__()
        channels = source.norm.num_channels
        self.num_heads = source.num_heads
        self.norm = nn.GroupNorm(source.norm.num_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        d = c // self.num_heads
        qkv = self.qkv(self.norm(x.reshape(b, c, h * w))).reshape(b * self.num_heads, 3 * d, h * w)
        q, k, v = qkv.split(d, dim=1)
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / d**0.5, dim=-1)
        out = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, h * w)
        return x + self.out(out).reshape(b, c, h, w)


class PlainUNet(nn.Module):
    """The published UNet, straightforwardly: (x_t, t, z_sem) => predicted noise. Weights are copied from ``source``."""

    def __init__(self, source):
        super().__init__()
        self.width = source.config.model_channels
        self.time_embed = nn.Sequential(*(type(m)(*_linear(m)) for m in source.time_embed))
        self.input_blocks = nn.ModuleList([_plain_stage(stage) for stage in source.input_blocks])
        self.middle_block = _plain_stage(source.middle_block)
        self.output_blocks = nn.ModuleList([_plain_stage(stage) for stage in source.output_blocks])
        self.norm = nn.GroupNorm(source.norm.num_groups, source.norm.num_channels)
        self.act = nn.SiLU()
        self.out = nn.Conv2d(source.out.in_channels, source.out.out_channels, 3, padding=1)
        own = self.state_dict()
        state = {name: value.contiguous().reshape(own[name].shape) for name, value in source.state_dict().items()}
        self.load_state_dict(state)

    def forward(self, x, t, z_sem):
        half = self.width // 2
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
        angles = t[:, None].float() * rates
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        h, kept = x, []
        for stage in self.input_blocks:
            h = _run(stage, h, time, z_sem)
            kept.append(h)
        h = _run(self.middle_block, h, time, z_sem)
        for stage in self.output_blocks:
            h = _run(stage, torch.cat([h, kept.pop()], dim=1), time, z_sem)
        return self.out(self.act(self.norm(h)))


def _linear(module):
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else ()


def _plain_stage(stage):
    from vlbias.diffae.blocks import ResBlock

    modules = []
    for m in stage:
        if isinstance(m, nn.Conv2d):
            modules.append(nn.Conv2d(m.in_channels, m.out_channels, 3, padding=1))
        else:
            modules.append(PlainResBlock(m) if isinstance(m, ResBlock) else PlainAttention(m))
    return nn.ModuleList(modules)


def _run(stage, h, time, z_sem):
    for module in stage:
        h = module(h, time, z_sem) if isinstance(module, PlainResBlock) else module(h)
    return h


# -- measuring ---------------------------------------------------------------------------------------------------------
def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of a call, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def gflop(function: Callable[[], object]) -> float:
    """Floating point operations of a call, a multiplication and an addition counted as two, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


def randomised(model: nn.Module) -> nn.Module:
    """Fill zeroed last layers too, so that every block counts in the comparison of outputs."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data.normal_(0, fan_in**-0.5, generator=generator)
        else:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def full_size_config(image_size: int, channels: int = 128):
    """ffhq256_autoenc; fewer levels for smaller pictures, and fewer channels, to try the script out."""
    from vlbias.diffae import DiffAEConfig

    levels = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4)}.get(image_size, (1, 2, 4))
    return DiffAEConfig(
        image_size=image_size,
        model_channels=channels,
        channel_mult=levels,
        num_res_blocks=2,
        embed_channels=512,
        enc_channel_mult=(*levels, levels[-1]),
    )


def peaks(repeats: int) -> dict[str, float]:
    """GFLOP/s that torch's own matrix product and convolutions reach here."""
    a = torch.randn(2048, 2048)
    out = {"matrix product 2048": 2 * 2048**3 / 1e9 / seconds(lambda: a @ a, repeats)}
    for channels, side in ((128, 256), (256, 64), (512, 16)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last).requires_grad_(False)
        x = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        work = 2 * 9 * channels**2 * side**2 / 1e9
        out[f"convolution 3x3, {channels} channels, {side} px"] = work / seconds(lambda c=conv, x=x: c(x), repeats)
    return out


def networks(image_size: int, repeats: int) -> bool:
    """Seconds of an evaluation and of an encode, and the plain network beside them. True if the bars are met."""
    from vlbias.diffae import DiffAE
    from vlbias.diffae.winograd import direct_convolutions

    model = DiffAE(full_size_config(image_size)).eval().requires_grad_(False)
    randomised(model.unet)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, image_size, image_size, generator=generator)
    t, z_sem = torch.tensor([500]), torch.randn(1, 512, generator=generator)
    best = peaks(repeats)
    for name, rate in best.items():
        print(f"  peak, {name}: {rate:.0f} GFLOP/s")
    matmul, conv = best.pop("matrix product 2048"), max(rate for name, rate in best.items() if "conv" in name)

    with direct_convolutions():  # counted as a convolution is usually counted, whatever way it is then computed
        work, encode_work = gflop(lambda: model.unet(x, t, z_sem)), gflop(lambda: model.encode(x.clamp(-1, 1)))
    encode_s, _ = timed(lambda: model.encode(x.clamp(-1, 1)), repeats)
    ours = model.unet(x, t, z_sem)
    timed(lambda: model.unet(x, t, z_sem), 1)
    print(f"  peak memory with the autoencoder alone: {peak_gb():.2f} GB")

    plain = PlainUNet(model.unet).eval().requires_grad_(False)
    difference = float((plain(x, t, z_sem) - ours).abs().max())

    def direct() -> Tensor:
        with direct_convolutions():
            return model.unet(x, t, z_sem)

    # in turns, so that other work on the machine slows all of them alike
    ways = {"vlbias": lambda: model.unet(x, t, z_sem), "direct": direct, "plain": lambda: plain(x, t, z_sem)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(timed(way, 1))
    wall = {name: statistics.median(row[0] for row in rows) for name, rows in found.items()}
    busy = {name: statistics.median(row[1] for row in rows) for name, rows in found.items()}
    for name, rate in (("UNet evaluation", work / wall["vlbias"]), ("encode", encode_work / encode_s)):
        took, flops = (wall["vlbias"], work) if name.startswith("UNet") else (encode_s, encode_work)
        print(
            f"  {name}: {took:.2f} s, {flops:.0f} GFLOP, {rate:.0f} GFLOP/s "
            f"({rate / matmul:.0%} of the matrix product's, {rate / conv:.0%} of the best convolution's)"
        )
    for name, label in (
        ("vlbias", "vlbias"),
        ("direct", "vlbias, torch's convolutions"),
        ("plain", "plain eager reference"),
    ):
        print(
            f"  {label:30s} {wall[name]:.2f} s, {busy[name]:.2f} processor seconds, "
            f"{wall['plain'] / wall[name]:.2f} and {busy['plain'] / busy[name]:.2f} times the reference's speed"
        )
    print(f"  largest difference of the two outputs: {difference:.1e} (bar {MAX_DIFFERENCE:g})")
    # other work stretches wall-clock time at random; processor time is what the network itself took
    ratio = busy["plain"] / busy["vlbias"]
    print(f"  ratio to the reference, processor time: {ratio:.2f} (bar {MIN_RATIO})")
    return ratio >= MIN_RATIO and difference <= MAX_DIFFERENCE


def timed(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall-clock and processor seconds of a call; processor time is that of all threads."""
    rows = []
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        function()
        rows.append((time.perf_counter() - wall, time.process_time() - busy))
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def peak_gb() -> float:
    """Largest resident memory of this process so far, in 2**30 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def evaluations(editor_name: str, num_edits: int) -> None:
    """Evaluations of the UNet for a decoded, inverted, edited and kept face, read from the model's own counter."""
    from vlbias import Balancer, Editor, load_dataset
    from vlbias.files import read_json

    editor = Editor.from_pretrained(editor_name)
    faces = load_dataset("synthfaces", n=200, seed=77, bias={("smile", "skin"): 0.9})
    pictures = faces.tensor(faces.ids[:4], editor.image_size)
    code = editor.encode(pictures)
    counts = {}
    for name, call in (
        ("inverted (with encode)", lambda: editor.encode(pictures)),
        ("decoded", lambda: editor.decode(code)),
        ("edited", lambda: editor.edit(pictures, **{editor.attributes[0]: 1.0})),
    ):
        before = editor.renderer.evaluations
        call()
        counts[name] = (editor.renderer.evaluations - before) / len(pictures)
    for name, count in counts.items():
        print(f"  a face {name}: {count:g} evaluations ('{editor_name}', its own render settings)")
    with tempfile.TemporaryDirectory() as folder:
        balancer = Balancer(editor, target="smile", protected="skin", seed=0)
        out = Path(folder) / "balanced"
        balancer.run(faces, balancer.plan(faces, limit=num_edits), out)
        report = read_json(out / "report.json")
    kept = report["edits"]
    print(
        f"  a kept face: {report['unet_evaluations_per_kept_image']:.1f} evaluations (all of a balance run, tries that "
        f"were turned down included, by the faces kept: {kept['kept']} of {kept['planned']})"
    )


def walks(repeats: int) -> bool:
    """256 codes through 30 steps in one batch against one by one. True if the bar is met."""
    from vlbias import Dipole, PathSet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dipoles = {"age": Dipole("old", "young"), "tone": Dipole("dark", "light")}
        paths = PathSet(dipoles, 512, mean=torch.zeros(512), std=torch.ones(512)).requires_grad_(False)
        z = torch.randn(256, 512)
    k = torch.arange(256) % 2

    def together() -> Tensor:
        return paths.traverse(z, k, num_steps=30, step_size=0.05)

    def apart() -> Tensor:
        rows = range(len(z))
        return torch.cat([paths.traverse(z[i : i + 1], k[i : i + 1], num_steps=30, step_size=0.05) for i in rows])

    difference = float((together() - apart()).abs().max())
    batch_s, single_s = seconds(together, 5 * repeats), seconds(apart, repeats)
    print(
        f"  256 codes, 30 steps: {1000 * batch_s:.1f} ms in one batch, {1000 * single_s:.0f} ms one by one: "
        f"{single_s / batch_s:.0f} times (bar {MIN_WALK_RATIO:g}), largest difference {difference:.1e}"
    )
    return single_s / batch_s >= MIN_WALK_RATIO


# -- batches, precisions and devices -----------------------------------------------------------------------------------
@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Within it products are made in float32, in TF32 (by CUDA alone), or under bfloat16 autocast."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def milliseconds(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median of a call on ``device``, after those that warm up and are captured."""
    from vlbias.diffae.graphs import PATIENCE

    times, warm_up = [], PATIENCE + 1 if device.type == "cuda" else 1
    for _ in range(repeats + warm_up):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[warm_up:])


def beside_the_published(args: argparse.Namespace, device: torch.device) -> bool:
    """An evaluation of ours and of the plain network, for each precision and batch. True if the bars are met."""
    from vlbias.diffae import DiffAE
    from vlbias.diffae.evaluation import psnr
    from vlbias.diffae.graphs import plain_evaluations

    model = DiffAE(full_size_config(args.image_size, args.channels)).eval().requires_grad_(False)
    randomised(model.unet)
    plain = PlainUNet(model.unet).eval().requires_grad_(False).to(device)
    model.to(device)
    print(f"  {'precision':10s}{'batch':>6s}{'ours':>11s}{'no graphs':>11s}{'plain':>11s}{'ratio':>7s}   outputs apart")
    met = True
    for batch in args.batch:
        generator = torch.Generator().manual_seed(batch)
        x = torch.randn(batch, 3, args.image_size, args.image_size, generator=generator).to(device)
        t, z_sem = torch.full((batch,), 500, device=device), torch.randn(batch, 512, generator=generator).to(device)
        with precision("float32", device):
            exact = plain(x, t, z_sem)
        for name in args.precision:
            with precision(name, device):
                ours_ms = milliseconds(lambda x=x, t=t, z=z_sem: model(x, t, z), device, args.repeats)
                plain_ms = milliseconds(lambda x=x, t=t, z=z_sem: plain(x, t, z), device, args.repeats)
                ours = model(x, t, z_sem).float()
                with plain_evaluations():
                    eager_ms = milliseconds(lambda x=x, t=t, z=z_sem: model(x, t, z), device, args.repeats)
            apart, db = float((ours - exact).abs().max()), float(psnr(ours, exact).mean())
            ratio = plain_ms / ours_ms
            bar, asked = GPU_RATIOS.get(batch, MIN_RATIO), f"{MIN_DB:g} dB" if name == "bf16" else f"{MAX_DIFFERENCE:g}"
            print(
                f"  {name:10s}{batch:6d}{ours_ms:8.1f} ms{eager_ms:8.1f} ms{plain_ms:8.1f} ms{ratio:6.2f}   "
                f"{apart:.1e}, {db:.1f} dB (bars: {bar} and {asked})"
            )
            is_near = db >= MIN_DB if name == "bf16" else name == "tf32" or apart <= MAX_DIFFERENCE
            met &= is_near and ratio >= bar
    return met


def trained(args: argparse.Namespace) -> bool:
    """Images a second of training a network of 15 million weights at 128 px. True if the bar is met."""
    from vlbias.diffae import DiffAE, DiffAEConfig, DiffAETrainingSettings, train_diffae

    edge, batch = min(128, 2 * args.image_size), args.train_batch
    model = DiffAE(
        DiffAEConfig(
            image_size=edge,
            model_channels=args.channels // 2,
            channel_mult=(1, 2, 4),
            num_res_blocks=1,
            embed_channels=320,
            attention_resolutions=(),
            patch_size=4,
            prediction_type="v_prediction",
            num_groups=8,
            enc_channel_mult=(1, 2, 2, 2),
            enc_num_res_blocks=1,
            enc_patch_size=4,
            enc_pool="flatten",
        )
    )
    images = torch.randint(0, 256, (4 * batch, 3, edge, edge), dtype=torch.uint8)
    settings = DiffAETrainingSettings(
        max_images=args.train_steps * batch,
        batch_size=batch,
        log_every=args.train_steps // 5 * batch,
        save_every=10**9,
        eval_every=10**9,
        device=args.device,
    )
    with tempfile.TemporaryDirectory() as folder:
        train_diffae(model, images, settings, folder)
        lines = [json.loads(line) for line in (Path(folder) / "times.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[4]  # what is before the first line warms up
    rate = (last["images"] - first["images"]) / max(last["seconds"] - first["seconds"], 1e-9)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"  {weights:.1f} million weights, {edge} px, batch {batch}: {rate:.0f} images/s (bar {MIN_TRAINED:,})")
    return rate >= MIN_TRAINED


def photograph(args: argparse.Namespace, batch: int) -> None:
    """Evaluations, seconds and peak memory of photographs that are edited, and of the published recipe's counts."""
    from PIL import Image

    from vlbias import Dipole, Editor, PathSet
    from vlbias.diffae import DiffAE
    from vlbias.rendering import RenderSettings

    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    model = DiffAE(full_size_config(args.image_size, args.channels)).eval().requires_grad_(False)
    randomised(model.unet)
    paths = PathSet({"age": Dipole("old", "young")}, 512, mean=torch.zeros(512), std=torch.ones(512))
    paths.requires_grad_(False).to(device)
    editor = Editor(model.to(device), paths=paths, settings=RenderSettings(batch_size=batch, corrections=0))
    pixels = torch.randint(0, 256, (args.photo, args.photo, 3), dtype=torch.uint8).numpy()
    pictures = [Image.fromarray(pixels).resize((args.photo, args.photo)) for _ in range(batch)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with precision(args.precision[-1], device):
        for _ in range(4 if device.type == "cuda" else 0):  # until evaluations are captured
            editor.edit(pictures, age=0.8)
        editor.renderer.evaluations = 0
        evaluation_s = editor.renderer.seconds_per_evaluation(batch)
        start = time.perf_counter()
        editor.edit(pictures, age=0.8)
    taken = (time.perf_counter() - start) / batch
    count = editor.renderer.evaluations / batch
    published = PUBLISHED_EVALUATIONS * evaluation_s
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else peak_gb()
    print(
        f"  {args.photo} px, {batch} at a time, {args.precision[-1]}: {count:g} evaluations and {taken:.2f} s a "
        f"photograph, peak {peak:.2f} GB; the published {PUBLISHED_EVALUATIONS} evaluations at this network's speed "
        f"({1000 * evaluation_s:.1f} ms): {published:.1f} s, {published / taken:.1f} times as long"
    )


def on_device(args: argparse.Namespace) -> bool:
    """The part for batches, precisions and devices. True if all bars are met."""
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; medians of {args.repeats}; bars are those of an H100 or H200")
    print(f"Networks of ffhq256_autoenc at {args.image_size} px, random weights, beside a plain eager network")
    with torch.inference_mode():
        met = beside_the_published(args, device)
    print("Training")
    met &= trained(args)
    print("Photographs")
    for batch in (1, 4):  # each in a process of its own, so that its peak is not that of what came before
        one = multiprocessing.get_context("spawn").Process(target=photograph, args=(args, batch))
        one.start()
        one.join()
        if one.exitcode:
            sys.exit(f"Photographs, {batch} at a time, ended with status {one.exitcode}.")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument("--channels", type=int, default=128, metavar="N", help="of the networks' first level")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="default: torch's own choice")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="measurements that a median is taken of")
    parser.add_argument(
        "--editor", default="synthfaces-64", metavar="NAME", help="editor whose evaluations are counted"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--precision", nargs="+", choices=["float32", "tf32", "bf16"], default=["float32"])
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="compare at these; on a GPU: 1 4 32")
    parser.add_argument("--photo", type=int, default=1024, metavar="PX", help="edge of the photographs that are edited")
    parser.add_argument("--train-batch", type=int, default=256, metavar="N", help="images of a training step")
    parser.add_argument("--train-steps", type=int, default=500, metavar="N", help="steps of the training, at least 5")
    parser.add_argument("--edits", type=int, default=8, metavar="N", help="planned edits of the balance run; 0: none")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.device != "cpu":
        args.batch = args.batch or [1, 4, 32]
    if args.batch:
        print("all bars met" if on_device(args) else "a bar is missed")
        return
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, float32, torch {torch.__version__}; load {load}"
    )
    print(f"Networks of ffhq256_autoenc at {args.image_size} px, random weights")
    with torch.inference_mode():
        met = networks(args.image_size, args.repeats)
    print("Walks in a latent space of 512 numbers")
    met &= walks(args.repeats)
    if args.edits:
        print("Evaluations")
        evaluations(args.editor, args.edits)
    print("all bars met" if met else "a bar is missed")


if __name__ == "__main__":
    main()
