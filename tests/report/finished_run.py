"""A finished balance run and an audit, written down by hand: what the report reads, without running anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vlbias import audit, load_dataset, report
from vlbias.audit import AuditResult, TrainingSummary
from vlbias.classify import FitSettings
from vlbias.fairness import EvaluationSettings
from vlbias.images import save_png

Counts = dict[str, dict[str, int]]
BEFORE: Counts = {"0": {"dark": 40, "light": 16}, "1": {"dark": 4, "light": 40}}
SCORES = ("protected_latent", "protected_image", "target_latent", "target_image", "others", "identity")


def plain_picture(key: str, group: str, target: str) -> Image.Image:
    """A picture that differs with each argument."""
    rng = np.random.default_rng(abs(hash((key, group, target))) % 2**32)
    base = 70 if group == "dark" else 190
    pixels = np.clip(rng.normal(base, 12, (24, 24, 3)), 0, 255).astype(np.uint8)
    pixels[16:18, 8:16] = 230 if target == "1" else 20
    return Image.fromarray(pixels)


def _save(picture: Image.Image | bytes, path: Path) -> None:
    path.write_bytes(picture) if isinstance(picture, bytes) else save_png(picture, path)


def write_run(
    out: Path,
    picture: Callable[[str, str, str], Image.Image | bytes] = plain_picture,
    unfilled: int = 2,
    before: Counts = BEFORE,
) -> Path:
    """Write a run in which the last ``unfilled`` places of smile 1, dark stayed empty."""
    planned = {target: dict.fromkeys(groups, max(groups.values())) for target, groups in before.items()}
    rng = np.random.default_rng(0)
    (out / "train").mkdir(parents=True, exist_ok=True)
    rows, plan, rejected = [], [], []
    slot = 0
    after = {target: dict(groups) for target, groups in planned.items()}
    after["1"]["dark"] -= unfilled
    for target, groups in before.items():
        for group, count in groups.items():
            for index in range(count):
                item = f"synth-{target}-{group}-{index:03d}"
                name = f"train/{item}.png"
                _save(picture(item, group, target), out / name)
                rows.append({"file_name": name, "split": "train", "smile": target, "skin": group, "origin": "real"})
                rows[-1] |= {"source_id": item}
    for target, wanted, other in (("0", "light", "dark"), ("1", "dark", "light")):
        for index in range(planned[target][wanted] - before[target][wanted]):
            donor = f"synth-{target}-{other}-{index % before[target][other]:03d}"
            strength = f"{(1 if wanted == 'dark' else -1) * (0.7 + 0.02 * index):.3f}"
            common = {"slot": slot, "split": "train", "target": target, "donor": donor, "from": other, "to": wanted}
            common |= {"path": "skin_tone", "strength": strength, "seed": 1000 + slot}
            plan.append(common | {"chunk": slot // 8})
            scores = dict(zip(SCORES, np.round(rng.uniform(0.4, 1.3, 6), 4), strict=True)) | {"others": None}
            if target == "1" and index >= planned[target][wanted] - before[target][wanted] - unfilled:
                rejected.append(common | {"reason": "no_donor_left", "detail": "3 donors tried", "donor": None})
            else:
                name = f"train/edit-{slot:06d}.png"
                _save(picture(donor, wanted, target), out / name)
                row = {"file_name": name, "split": "train", "smile": target, "skin": wanted, "origin": "edited"}
                row |= {"source_id": donor, "path": "skin_tone", "strength": strength, "seed": 1000 + slot}
                rows.append(row | {f"score_{key}": value for key, value in scores.items()})
            if slot % 5 == 0:
                reason = ("target_changed", "identity_lost", "protected_not_reached")[slot % 3]
                detail = {"target_changed": "smile read 0.12, needs 0.25", "identity_lost": "identity 0.31, needs 0.40"}
                rejected.append(common | {"reason": reason, "detail": detail.get(reason, "CLIP read 0.20")} | scores)
            slot += 1
    pd.DataFrame(rows).to_csv(out / "metadata.csv", index=False)
    pd.DataFrame(plan).to_csv(out / "plan.csv", index=False)
    pd.DataFrame(rejected).to_csv(out / "rejected.csv", index=False)
    reasons = pd.Series([row["reason"] for row in rejected if row["reason"] != "no_donor_left"]).value_counts()
    values = {
        "target": "smile",
        "protected": ["skin"],
        "mode": "reduce",
        "source": "real",
        "splits": ["train"],
        "seed": 0,
        "limit": None,
        "dataset": "synthfaces",
        "license": "MIT (drawn by vlbias)",
        "editor": "synthfaces-64",
        "editor_license": "MIT",
        "checks": {"reached": 0.4, "target": 0.25, "identity": 0.4},
        "scorers": {
            "smile": {"latent": {"kind": "dipole", "balanced_accuracy": 0.962}, "image": None},
            "skin": {
                "latent": {"kind": "dipole", "balanced_accuracy": 0.991},
                "image": {"kind": "fitted", "balanced_accuracy": 0.987},
            },
        },
        "originals": "copy",
        "counts_before": before,
        "counts_planned": planned,
        "counts_after": after,
        "edits": {
            "planned": slot,
            "kept": slot - unfilled,
            "unfilled": unfilled,
            "rejected": int(reasons.sum()),
            "by_reason": {str(key): int(n) for key, n in reasons.items()},
        },
        "unet_evaluations": 2745,
        "unet_evaluations_per_kept_image": 45.75,
    }
    (out / "report.json").write_text(json.dumps(values))
    return out


def audit_result(bootstrap: int = 200, seeds: int = 3, num_test: int = 800, oracle: bool = True) -> AuditResult:
    """Predictions with planted cell accuracies: smiles on dark skin are missed by the baseline."""
    rng = np.random.default_rng(1)
    accuracies = {
        "baseline": {(0, 0): 0.93, (0, 1): 0.38, (1, 0): 0.74, (1, 1): 0.95},
        "balanced": {(0, 0): 0.90, (0, 1): 0.72, (1, 0): 0.83, (1, 1): 0.93},
        "oracle": {(0, 0): 0.91, (0, 1): 0.86, (1, 0): 0.88, (1, 1): 0.92},
    }
    if not oracle:
        del accuracies["oracle"]
    group = np.repeat([0, 1], num_test // 2)
    y_true = np.tile([0, 1], num_test // 2)
    predictions = {}
    for name, cells in accuracies.items():
        right = np.stack(
            [
                rng.random(num_test)
                < np.array([cells[g, y] for g, y in zip(group, y_true, strict=True)]) + rng.normal(0, 0.02)
                for _ in range(seeds)
            ]
        )
        predictions[name] = np.where(right, y_true, 1 - y_true)
    counts = {
        "baseline": [[40, 16], [4, 40]],
        "balanced": [[40, 40], [38, 40]],
        "oracle": [[40, 40], [40, 40]],
    }
    training = {
        name: TrainingSummary(
            num_images=int(np.sum(counts[name])),
            num_missing=0,
            num_made=58 if name == "balanced" else 0,
            num_in_test=0,
            counts=pd.DataFrame(counts[name], index=["0", "1"], columns=["dark", "light"]),
        )
        for name in accuracies
    }
    return AuditResult(
        target="smile",
        protected=["skin"],
        classes=["0", "1"],
        groups=["dark", "light"],
        y_true=y_true,
        group=group,
        predictions=predictions,
        training=training,
        seeds=list(range(seeds)),
        settings=FitSettings(),
        evaluation=EvaluationSettings(positive="1", bootstrap=bootstrap),
        num_test_missing=0,
    )


def write_measured(base: Path) -> dict[str, Path]:
    """Pages of flips and of what paths do by labels, each in a folder of its name."""
    from doubles import tiny_editor  # not where a benchmark imports this

    faces = load_dataset("synthfaces", n=90, image_size=16, seed=3)
    faces.table["split"] = ["train", "test"] * 45
    flips = audit.flips(lambda x: (x.mean((1, 2, 3)) > 0).long(), faces, protected="skin", size=16)
    few = audit.DriftSettings(columns=("skin", "glasses"), strengths=(0.5,), num_faces=3)
    drift = audit.drift(tiny_editor().renderer, faces, settings=few, fit={"num_steps": 1}, show_progress=False)
    return {
        "flips": report.write_flips(base / "flips", flips),
        "drift": report.write_drift(base / "drift", drift),
    }
