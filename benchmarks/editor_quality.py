"""Measure what the shipped editor of the embedded world is good for, on faces that it was not trained on.

    python benchmarks/editor_quality.py [--editor synthfaces-64] [--faces 400] [--edits 60]

Prints one table of figures beside their bars. The truth about edited faces is read by a regressor that is fitted here
on true attributes; the pipeline never sees it.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from torch import nn

from vlbias import world
from vlbias.classify import fit
from vlbias.diffae.evaluation import psnr
from vlbias.editor import Editor
from vlbias.world.attributes import ATTRIBUTES, LABELS

# Apart from all that was trained on: those faces come from other seeds.
SEED = 909
BINARY = ("smile", "glasses", "beard", "gender", "nose", "age_group", "skin")
DIPOLE_OF = {"nose": "nose_width", "age_group": "age", "skin": "skin_tone", "lips": "lip_fullness"}
POSITIVE = {"gender": "male", "nose": "wide", "age_group": "old", "skin": "dark", "lips": "full"}
#: What the scorer of the edits reads.
CONTINUOUS = ("age", "skin_tone", "masculinity", "smile_intensity", "glasses_opacity", "beard_amount", "nose_width")
RANGE = {"age": 67.0, "skin_tone": 9.0}
LABEL_OF = {"age": "age_group", "skin_tone": "skin"}
POSITIVE_AND_NEGATIVE = {"age_group": ("old", "young"), "skin": ("dark", "light")}


def rows(title: str, values: dict[str, tuple[float, float]]) -> None:
    """Print measured values beside their bars; a bar is a lower bound."""
    print(f"\n{title}")
    for name, (value, bar) in values.items():
        mark = "met" if value >= bar - 1e-6 else "MISSED"  # shares are float32
        print(f"  {name:<46} {value:8.3f}   bar {bar:7.3f}   {mark}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--faces", type=int, default=400, help="unseen faces for probes and the scorer")
    parser.add_argument("--pictures", type=int, default=64, help="unseen faces for PSNR")
    parser.add_argument("--edits", type=int, default=60, help="unseen faces that are edited each way")
    parser.add_argument("--regressor-faces", type=int, default=12000)
    parser.add_argument("--regressor-steps", type=int, default=1600)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    editor = Editor.from_pretrained(arguments.editor)
    faces = world.sample(max(arguments.faces, arguments.pictures), seed=SEED)
    x = world.render(faces, editor.image_size)
    table = faces.table()
    reconstruction(editor, x[: arguments.pictures])
    probes(editor, x, table)
    zero_shot(editor, faces, x)
    walks(editor, arguments.faces)
    two_thousand_faces()
    edits(editor, arguments.edits, arguments.regressor_faces, arguments.regressor_steps)


@torch.no_grad()
def reconstruction(editor: Editor, x: torch.Tensor) -> None:
    """PSNR of decodes from fresh and from inverted x_T."""
    model = editor.renderer.diffae
    values = {}
    z = torch.cat([model.encode(part) for part in x.split(32)])
    for solver in ("ddim", "dpm++2m"):
        fresh, round_trip = [], []
        for part, code, start in zip(x.split(32), z.split(32), range(0, len(x), 32), strict=True):
            noise = editor.renderer.noise(range(start, start + len(part)))
            fresh.append(psnr(model.decode(code, noise, num_steps=10, solver=solver), part))
            x_T = model.invert(part, code, num_steps=20, solver=solver)
            round_trip.append(psnr(model.decode(code, x_T, num_steps=20, solver=solver), part))
        values[f"PSNR dB, fresh x_T, 10 evaluations, {solver}"] = (float(torch.cat(fresh).mean()), 25.0)
        values[f"PSNR dB, inverted x_T, 20 + 20, {solver}"] = (float(torch.cat(round_trip).mean()), 34.0)
    rows("Reconstruction", values)


@torch.no_grad()
def probes(editor: Editor, x: torch.Tensor, table) -> None:
    """Linear probes on z_sem, fitted on fresh faces with true labels, tested on others."""
    from sklearn.linear_model import LogisticRegression, Ridge

    model = editor.renderer.diffae
    train = world.sample(3000, seed=SEED + 1)
    truth = train.table()
    codes = [
        model.normalize(model.encode(world.render(train[start : start + 250], editor.image_size)))
        for start in range(0, len(train), 250)
    ]
    z_train = torch.cat(codes).numpy()
    z_test = torch.cat([model.normalize(model.encode(part)) for part in x.split(128)]).numpy()
    values = {}
    for name in (*BINARY, "lips"):
        positive = POSITIVE.get(name, 1)
        probe = LogisticRegression(C=0.1, max_iter=500).fit(z_train, truth[name] == positive)
        accuracy = float((probe.predict(z_test) == (table[name] == positive)).mean())
        values[f"linear probe accuracy, {name}"] = (accuracy, 0.95)
    for name in ("age", "skin_tone"):
        values[f"linear probe R2, {name}"] = (
            float(Ridge(10.0).fit(z_train, truth[name]).score(z_test, table[name])),
            0.9,
        )
    rows("What z_sem holds", values)


def unambiguous(faces: world.Faces, label: str) -> np.ndarray:
    """Faces that stand a tenth of the attribute's range from the border at least, bool (n,)."""
    name = LABELS[label]
    scale = ATTRIBUTES[name]
    return (getattr(faces, name) - scale.split).abs().numpy() >= 0.1 * (scale.high - scale.low)


def zero_shot(editor: Editor, faces: world.Faces, x: torch.Tensor) -> None:
    """The shipped CLIP on unseen, unambiguous faces."""
    values = {}
    table = faces.table()
    for name in ("age_group", "skin", "gender", "smile", "glasses", "beard", "nose", "lips"):
        if DIPOLE_OF.get(name, name) not in editor.dipoles:
            continue
        clear = unambiguous(faces, name)
        says_positive = editor.renderer.score(x[clear], DIPOLE_OF.get(name, name)).numpy() > 0.5
        truth = (table[name] == POSITIVE.get(name, 1)).to_numpy()[clear]
        values[f"zero-shot accuracy, {name} ({clear.sum()} faces)"] = (float((says_positive == truth).mean()), 0.95)
    rows("What the CLIP reads", values)


@torch.no_grad()
def walks(editor: Editor, num_faces: int) -> None:
    """Cosine between the mean change of a walk of strength 1 and that of z_sem under true counterfactuals."""
    values = {}
    renderer = editor.renderer
    for path, label in LABEL_OF.items():
        faces = world.sample(num_faces, seed=SEED + 4)
        codes = []
        for value in POSITIVE_AND_NEGATIVE[label]:
            x = world.render(faces.replace(**{label: value}), editor.image_size)
            codes.append(renderer.encode(x))
        walked = renderer.normalize(renderer.walk(codes[1], {path: 1.0}))
        positive, negative = (renderer.normalize(one) for one in codes)
        true, made = (positive - negative).mean(dim=0), (walked - negative).mean(dim=0)
        values[f"cosine to the true change of z_sem, {path}"] = (float(torch.cosine_similarity(true, made, 0)), 0.95)
    rows("Walks of the paths, mean over faces", values)


def two_thousand_faces() -> None:
    """Is the world too easy? A classifier fitted on 2,000 faces must not be right about all others."""
    train, test = world.sample(2000, seed=SEED + 5), world.sample(2000, seed=SEED + 6)
    x_train, x_test = world.render(train), world.render(test)
    print("\nA classifier fitted on 2,000 faces, accuracy on 2,000 others")
    for label in ("smile", "glasses", "gender", "age_group", "skin"):
        scorer = fit(x_train, train.label(label).tolist(), num_steps=600, seed=0)
        accuracy = float((np.array(scorer.predict(x_test)) == test.label(label).numpy()).mean())
        print(f"  {label:<12} {accuracy:.4f}", flush=True)


def fit_regressor(num_faces: int, size: int, num_steps: int) -> nn.Module:
    """A network that reads true attributes from pictures: (b, 3, h, w) => (b, len(CONTINUOUS)), each in 0..1."""
    import timm

    faces = world.sample(num_faces, seed=SEED + 2)
    x = world.render(faces, size)
    y = truth_of(faces)
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=len(CONTINUOUS), channels=[32, 64, 96, 160], stem_width=24)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        index = torch.randint(num_faces, (48,), generator=generator)
        batch = x[index]
        flipped = torch.rand(len(index), generator=generator) < 0.5
        batch = torch.where(flipped[:, None, None, None], batch.flip(-1), batch)
        loss = nn.functional.smooth_l1_loss(model(batch), y[index], beta=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def truth_of(faces) -> torch.Tensor:
    """True attributes scaled to 0..1, (n, len(CONTINUOUS))."""
    columns = []
    for name in CONTINUOUS:
        value = getattr(faces, name).float()
        low = {"age": 18.0, "skin_tone": 1.0}.get(name, 0.0)
        columns.append((value - low) / RANGE.get(name, 1.0))
    return torch.stack(columns, dim=1)


#: Label borders of CONTINUOUS on the 0..1 scale.
BORDERS = torch.tensor(
    [(ATTRIBUTES[name].split - ATTRIBUTES[name].low) / (ATTRIBUTES[name].high - ATTRIBUTES[name].low)
     for name in CONTINUOUS]
)  # fmt: skip


def edits(editor: Editor, num_edits: int, regressor_faces: int, regressor_steps: int) -> None:
    """Edits of strength +-1, compared with the truth: did the attribute cross, did every other one stay?

    Beside each stands what the scorer says of the true counterfactuals, which is the most that it can say of an edit.
    """
    scorer = fit_regressor(regressor_faces, editor.image_size, regressor_steps)
    faces = world.sample(num_edits * 6, seed=SEED + 3)
    table = faces.table()
    x = world.render(faces, editor.image_size)
    before = read(scorer, x)
    accuracy = ((before > BORDERS) == (truth_of(faces) > BORDERS)).float().mean(0)
    print("\nThe scorer itself on unseen faces, share on the true side of the border:")
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in zip(CONTINUOUS, accuracy.tolist(), strict=True)))
    values, ceiling = {}, {}
    for path in editor.attributes:
        if path not in CONTINUOUS:
            continue
        label = LABEL_OF[path]
        for sign in (1.0, -1.0):
            wanted, other = POSITIVE_AND_NEGATIVE[label][:: int(sign)]
            donors = np.flatnonzero((table[label] == other).to_numpy())[:num_edits]
            started = time.monotonic()
            edited = editor.edit(x[donors], **{path: sign})
            seconds = time.monotonic() - started
            true = world.render(faces[torch.from_numpy(donors)].replace(**{label: wanted}), editor.image_size)
            values |= verdict(path, sign, before[donors], read(scorer, edited))
            ceiling |= verdict(path, sign, before[donors], read(scorer, true))
            print(f"  ({len(donors)} edits of {path} {sign:+g} took {seconds:.0f} s)")
    rows("Edits, scored by a regressor fitted on the truth", values)
    rows("The same scorer on the true counterfactuals of these faces", ceiling)


@torch.no_grad()
def read(scorer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The scorer's readings, (n, len(CONTINUOUS)) in 0..1."""
    return torch.cat([scorer(part) for part in x.split(64)])


def verdict(path: str, sign: float, before: torch.Tensor, after: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Shares of faces whose attribute crossed and whose others stayed, each with its bar."""
    side = after > BORDERS
    values = {}
    for place, name in enumerate(CONTINUOUS):
        if name == path:
            values[f"{path} {sign:+g}: reaches the other pole"] = (
                float((side[:, place] == (sign > 0)).float().mean()),
                0.9,
            )
            continue
        if name in RANGE:
            stays = (after[:, place] - before[:, place]).abs() <= 0.1
        else:
            stays = side[:, place] == (before[:, place] > BORDERS[place])
        values[f"{path} {sign:+g}: {name} stays"] = (float(stays.float().mean()), 0.9)
    return values


if __name__ == "__main__":
    main()
