"""The values of a balance run's page: counts, pairs, rejects, scorers, limits, provenance."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from vlbias.labelling import ColumnReport
from vlbias.pages.folder import RunFiles, evenly_spaced
from vlbias.pages.leaks import leak_values, leak_warnings
from vlbias.pages.page import number, percent
from vlbias.pages.plots import counts_plot
from vlbias.shown import plural
from vlbias.version import __version__

__all__ = ["REASONS", "run_values"]

PAIRS_PER_MOVE = 18
#: Pairs on a page, so that the page of a run of any size opens at once.
MAX_PAIRS = 216
WEAKEST = 12
LEFT_OUT_ROWS = 20
REJECT_EXAMPLES = 12

REASONS = {
    "unreadable": "The file, of a donor or of another original, could not be read.",
    "already_in_group": "Before any edit the donor read as the wanted group: its label or the scorer is wrong.",
    "out_of_reach": "No allowed strength carried the face into the wanted group.",
    "donor_unclear": "A face sampled from the prior did not look like what its code said.",
    "protected_not_reached": "The picture did not read as the wanted group after the edit.",
    "target_changed": "The target attribute moved along with the protected one.",
    "other_protected_changed": "Another protected attribute, which was to stay, moved along.",
    "identity_lost": "The edit looked like somebody else.",
    "not_finite": "A network returned NaN or infinity.",
    "refused_by_person": "A person looked at the edit and refused it.",
    "no_donor_left": "Every donor of this place in the plan was turned down; the cell stays one short.",
}
#: What that comes to where copies fill places.
_NO_DONOR_LEFT = (
    "Every donor of this place in the plan was turned down; a copy of an original fills it, if there is one."
)

SCORES = {
    "score_protected_latent": ("Protected attribute, latent probe", "reached"),
    "score_protected_image": ("Protected attribute, picture", "reached"),
    "score_target_latent": ("Target attribute, latent probe", "target"),
    "score_target_image": ("Target attribute, picture", "target"),
    "score_others": ("Other protected attributes", "target"),
    "score_identity": ("Identity", "identity"),
}


def run_values(files: RunFiles, *, title: str | None, command: str | None) -> dict[str, Any]:
    """What ``balance.html.j2`` needs, apart from the audit."""
    report = files.report
    protected = " × ".join(report["protected"])
    amplify = report.get("mode") == "amplify"
    word = "made more unequal" if amplify else "balanced"
    return {
        "title": title or f"{report.get('dataset', 'A dataset')}, {word} for {report['target']} by {protected}",
        "eyebrow": "vlbias balance report",
        "lede": [
            _lede(report, protected),
            *(f"Note: {text}" for text in report.get("warnings", [])),
            *leak_warnings(report),
        ],
        "tiles": _tiles(report),
        "counts": _counts(report, protected),
        "edits": _edits(files),
        "rejected": _rejected(files),
        "leak": leak_values(report),
        "scorers": _scorers(files),
        "labelling": [labelling_values(report) for report in files.labelling],
        "limits": _limits(files),
        "asked": _asked(report),
        "cost": _cost(report),
        "facts": versions(),
        "command": command or _command(report),
        "files": [
            *([("labelling.json", "how the labels that a machine gave were scored")] if files.labelling else []),
            ("metadata.csv", "one row a picture: labels, where it comes from, and the readings that verified it"),
            ("plan.csv", "every edit that was planned"),
            ("rejected.csv", "every try that was turned down, with its reason"),
            ("report.json", "the numbers of this page"),
            ("README.md", "dataset card; Hugging Face datasets reads the folder"),
        ],
    }


def _cells(report: Mapping[str, Any], key: str) -> list[int]:
    return [int(n) for groups in report[key].values() for n in groups.values()]


def _worst_ratio(report: Mapping[str, Any], key: str) -> float | None:
    ratios = [min(g.values()) / max(g.values()) for g in report[key].values() if g and max(g.values()) > 0]
    return min(ratios) if ratios else None


def _lede(report: Mapping[str, Any], protected: str) -> str:
    edits = report["edits"]
    source = "faces sampled from the prior" if report.get("source") == "prior" else "its own faces"
    copies = report.get("copies", 0)
    if not edits["planned"] and copies:
        return (
            f"No edit was planned; the short groups of {protected} in each class of {report['target']} are filled by "
            f"{plural(copies, 'copy', 'copies')} of their own originals."
        )
    if not edits["planned"]:
        return f"The groups of {protected} were as wanted in each class of {report['target']}: no edit was planned."
    aim = (
        f"make the groups of {protected} more unequal within each class of {report['target']}, for study"
        if report.get("mode") == "amplify"
        else f"hold as many faces of each group of {protected} within each class of {report['target']}"
    )
    text = (
        f"{edits['kept']:,} of {edits['planned']:,} planned edits of {source} were kept, so that the dataset can {aim}."
    )
    if copies:
        instead = f", {edits['copied']:,} in places of edits that were turned down" if edits["copied"] else ""
        text += f" The same cells hold {plural(copies, 'copy', 'copies')} of originals as well{instead}."
    if edits.get("unfilled"):
        text += f" {plural(edits['unfilled'], 'place')} stayed empty, because no donor passed the checks there."
    if report.get("limit") == edits["planned"]:
        text += f" The plan was limited to {plural(edits['planned'], 'edit')}, so cells may still differ."
    return text


def _tiles(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    edits = report["edits"]
    before, after = _worst_ratio(report, "counts_before"), _worst_ratio(report, "counts_after")
    per_image = report.get("unet_evaluations_per_kept_image")
    tiles: list[dict[str, Any]] = [
        {
            "label": "Smallest group by largest",
            "before": percent(before),
            "value": percent(after),
            "note": f"in the least balanced class; {percent(1.0)} is equal",
        },
        {
            "label": "Edits kept",
            "before": None,
            "value": f"{edits['kept']:,}",
            "note": f"of {edits['planned']:,} planned; {plural(edits['rejected'], 'try', 'tries')} turned down",
        },
    ]
    if per_image is not None:
        tiles.append(
            {
                "label": "Cost of a kept edit" if "copies" in report else "Cost of an added picture",
                "before": None,
                "value": number(float(per_image), 1),
                "note": "evaluations of the diffusion network",
            }
        )
    if "copies" in report:
        tiles.append(
            {
                "label": "Copies of originals",
                "before": None,
                "value": f"{report['copies']:,}",
                "note": f"{percent(report['copies_share'])} of what cells lack was asked for; "
                f"{edits['copied']:,} in places of edits",
            }
        )
    return tiles


def _counts(report: Mapping[str, Any], protected: str) -> dict[str, Any]:
    before, after = report["counts_before"], report["counts_after"]
    planned = report.get("counts_planned", after)
    rows = [
        {"label": label, "group": group, "before": n, "planned": planned[label][group], "after": after[label][group]}
        for label, groups in before.items()
        for group, n in groups.items()
    ]
    short = sum(row["planned"] - row["after"] for row in rows if row["after"] < row["planned"])
    smallest, largest = min(_cells(report, "counts_before")), max(_cells(report, "counts_before"))
    intro = (
        f"Before, the smallest cell held {smallest:,} faces and the largest {largest:,}. A cell is one class of "
        f"{report['target']} within one group of {protected}."
    )
    if short:
        intro += f" After, cells fall short of the plan by {plural(short, 'face')} in all."
    return {
        "intro": intro,
        "plot": counts_plot(before, after, report["target"]),
        "target": report["target"],
        "protected": protected,
        "splits": ", ".join(report.get("splits", ["train"])),
        "rows": rows,
    }


def _pair(files: RunFiles, row: Any) -> dict[str, Any]:
    target = files.report["target"]
    strength = _strength(row["strength"])
    return {
        "donor": files.donor_image(row),
        "edit": files.image(str(row["file_name"])),
        "donor_alt": f"Donor {row['source_id']}: {row['from']}, {target} {row[target]}",
        "edit_alt": f"Edit to {row['to']} of the face on the left",
        "caption": f"{row['from']} → {row['to']}, {strength}",
        "orders": {},
    }


def _move(files: RunFiles, title: str, part: pd.DataFrame, most: int) -> dict[str, Any]:
    """Some pairs of the edits from one group to another."""
    shown = part.iloc[evenly_spaced(len(part), most)]
    pairs = [_pair(files, row) for _, row in shown.iterrows()]
    note = f"{len(shown)} of {len(part):,}, evenly spaced through the list, not chosen."
    return {
        "title": title,
        "note": f"All {len(part)} edits." if len(shown) == len(part) else note,
        "pairs": [pair | {"orders": order} for pair, order in zip(pairs, _orders(files, shown), strict=True)],
    }


def _orders(files: RunFiles, shown: pd.DataFrame) -> list[dict[str, int]]:
    """The place of each pair in every order that a reader may choose, for the style sheet: least certain first, ..."""
    strength = pd.to_numeric(shown["strength"], errors="coerce").abs()
    keys = {"margin": _least_margin(files, shown), "strength": -strength}
    if "score_identity" in shown:
        keys["identity"] = pd.to_numeric(shown["score_identity"])
    places = pd.DataFrame({name: values.rank(method="first", na_option="bottom") for name, values in keys.items()})
    return [dict(zip(keys, map(int, row), strict=True)) for row in places.itertuples(index=False, name=None)]


def _strength(value: Any) -> str:
    try:
        text = number(float(value), 2)
    except (TypeError, ValueError):
        return f"strength {value}"
    return f"strength {text if text.startswith('−') else '+' + text}"


def _edits(files: RunFiles) -> dict[str, Any]:
    edited = files.edited
    target = files.report["target"]
    kinds = list(edited.groupby([target, "from", "to"], sort=True, dropna=False))
    most = max(1, min(PAIRS_PER_MOVE, MAX_PAIRS // max(1, len(kinds))))
    moves = [_move(files, f"{target} = {label}: {old} to {new}", part, most) for (label, old, new), part in kinds]
    weakest = edited.iloc[0:0]
    if len(edited) > WEAKEST:
        weakest = edited.assign(margin=_least_margin(files, edited)).nsmallest(WEAKEST, "margin")
    return {
        "intro": "In each pair the donor is on the left and its edit on the right."
        if len(edited)
        else "No edit was kept.",
        "moves": moves[:MAX_PAIRS],
        "weakest": [_pair(files, row) for _, row in weakest.iterrows()],
        "weakest_note": "The edits that passed a check by the least. The method is as good as these.",
    }


def _least_margin(files: RunFiles, edited: pd.DataFrame) -> pd.Series:
    """How far above what it needed the closest reading of each edit was."""
    needed = {name: _needed(files.report, name) for name in SCORES if name in edited}
    above = {name: pd.to_numeric(edited[name]) - least for name, least in needed.items() if least is not None}
    if not above:
        return pd.Series(0.0, index=edited.index)
    return pd.DataFrame(above).min(axis=1).fillna(float("inf"))


def _needed(report: Mapping[str, Any], score: str) -> float | None:
    """What a reading had to be for an edit to be kept; ``None`` where the report does not say."""
    found = report.get("checks", {}).get(SCORES[score][1])
    if found is None and score.startswith("score_protected_"):
        # where nobody set a margin, the labelled originals said what is enough
        found = report.get("enough", {}).get(score.removeprefix("score_protected_"))
    return found


def _rejected(files: RunFiles) -> dict[str, Any]:
    rejected = files.rejected
    counts = rejected["reason"].value_counts()
    meanings = REASONS | ({"no_donor_left": _NO_DONOR_LEFT} if "copies" in files.report else {})
    reasons = [
        {"code": code, "times": int(times), "meaning": meanings.get(str(code), "")} for code, times in counts.items()
    ]
    intro = (
        "Nothing was turned down."
        if not reasons
        else "A try is one donor for one place of the plan, after the walks that were allowed. When it is turned down, "
        "the next donor is tried. rejected.csv lists each."
    )
    tries = rejected[rejected["donor"].notna() & (rejected["reason"] != "no_donor_left")]
    shown = tries.iloc[evenly_spaced(len(tries), REJECT_EXAMPLES)]
    examples = []
    for _, row in shown.iterrows():
        image = files.source_image(str(row["donor"]))
        wish = f"{row['from']} → {row['to']}" if pd.notna(row.get("from")) else "an original"
        detail = f": {row['detail']}" if pd.notna(row.get("detail")) else ""
        alt = f"The donor {row['donor']}, before any edit"
        example = {"image": image, "alt": alt, "reason": row["reason"], "caption": f"{wish}{detail}"}
        examples.append(example | {"accepted": _accepted(files, row)})
    left_out = files.report.get("left_out", [])
    return {
        "intro": intro,
        "reasons": reasons,
        "left_out": left_out[:LEFT_OUT_ROWS],
        "left_out_note": f"{plural(len(left_out), 'remark')} on files, rows and labels of the dataset"
        f" ({', '.join(f'{code} {n:,}' for code, n in Counter(row['code'] for row in left_out).items())})"
        + (f"; the first {LEFT_OUT_ROWS}. report.json lists all." if len(left_out) > LEFT_OUT_ROWS else "."),
        "examples": examples,
        "examples_note": "Evenly spaced through the list. On the left the donor that was turned down, before any edit: "
        "edits that failed are not kept. Beside it an edit of the same kind that was accepted.",
    }


def _accepted(files: RunFiles, row: Any) -> dict[str, Any] | None:
    """A kept edit of the same class between the same groups, if there is one: that of the same donor before others."""
    edited, target = files.edited, files.report["target"]
    alike = edited[(edited["from"] == row["from"]) & (edited["to"] == row["to"])]
    alike = alike[alike[target].astype(str) == str(row["target"])]
    same = alike[alike["source_id"].astype(str) == str(row["donor"])]
    best = pd.concat([same, alike]).head(1)
    return None if best.empty else _pair(files, best.iloc[0])


def _scorers(files: RunFiles) -> dict[str, Any]:
    report = files.report
    rows = [
        {
            "column": column,
            "scorer": _scorer_name(where, reading),
            "kind": "none: blind here" if reading is None else reading.get("kind", ""),
            "accuracy": None if reading is None else reading.get("balanced_accuracy"),
        }
        for column, scorer in report.get("scorers", {}).items()
        for where, reading in scorer.items()
        if where != "not_asked" or reading is not None
    ]
    scores = []
    for name, (title, _) in SCORES.items():
        if name not in files.edited:
            continue
        values = pd.to_numeric(files.edited[name]).dropna()
        if len(values):
            scores.append(
                {
                    "title": title,
                    "needed": _needed(report, name),
                    "low": float(values.quantile(0.05)),
                    "median": float(values.median()),
                    "count": len(values),
                }
            )
    return {
        "intro": "Each edit was read twice, from the semantic code and from the finished picture, by those named here. "
        "It was kept if the protected attribute had arrived, the target had stayed, and the face was still the same. A "
        "target that the donor itself showed weakly may fall below what is needed by as little as it did there."
        + _identity_note(report.get("identity_scorer", {})),
        "rows": rows,
        "scores": scores,
    }


def _scorer_name(where: str, reading: Mapping[str, object] | None) -> str:
    if where == "latent":
        return "linear probe on the semantic code"
    name = (reading or {}).get("name", "CLIP")
    return f"{name} on the picture" if where == "image" else f"{name}, not asked"


def _identity_note(scorer: Mapping[str, Any]) -> str:
    """Who read identity, and what it made of faces that nobody edited."""
    if not scorer:
        return ""
    names = {"latent": "the distance of semantic codes", "clip": "CLIP's image features"}
    text = f" Identity was read by {names.get(scorer['name'], scorer['name'])}"
    shares = (scorer.get("strangers_pass"), scorer.get("mirrored_pass"))
    if None in shares:
        return text + "."
    strangers, mirrored = map(percent, shares)
    return (
        f"{text}: among originals, {strangers} of pairs of strangers and {mirrored} of faces with their own mirror "
        "image would have passed as the same face."
    )


def labelling_values(report: ColumnReport) -> dict[str, Any]:
    """A column that a machine filled: its source, its counts and its confusion with given labels."""
    score = report.evaluation
    missing = sum(report.unlabelled.values())
    text = f"{sum(report.counts.values()):,} of {plural(report.num_faces, 'face')} got a label."
    if missing:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in report.unlabelled.items())
        text += f" {missing:,} got none and were left out of the balance ({reasons})."
    table = None
    if score is None:
        verdict = "No labels were given to score it against, so its errors are not known."
    else:
        given = "the labels it replaced" if report.against == report.column else f"the given labels of {report.against}"
        verdict = (
            f"Against {given} on {plural(score['num_compared'], 'face')} it agrees for {percent(score['accuracy'], 1)} "
            f"of those it labelled (95 % interval {percent(score['accuracy_low'], 1)} to "
            f"{percent(score['accuracy_high'], 1)}); "
            f"balanced accuracy {percent(score['balanced_accuracy'], 1)}, "
            f"kappa {number(score['kappa'], 2)}."
        )
        rows = [
            {
                "label": label,
                "cells": [
                    {"count": count, "right": column == label}
                    for column, count in zip(score["columns"], counts, strict=True)
                ],
                "recall": score["recall"].get(label),
            }
            for label, counts in zip(score["labels"], score["confusion"], strict=True)
        ]
        precision = [score["precision"].get(column) for column in score["columns"]]
        table = {"columns": score["columns"], "rows": rows, "precision": precision, "against": report.against}
        table["bands"] = [band for band in score["by_confidence"] if band["num"]]
    return {"column": report.column, "source": report.source, "text": text, "verdict": verdict, "table": table}


def _limits(files: RunFiles) -> list[str]:
    report = files.report
    limits = [
        "Edited pictures are synthetic. They show nobody as they look and prove nothing about anybody.",
        "Edits were read by machines, whose own errors are listed above. An edit may pass and still look wrong, or "
        "change something that no scorer watches.",
        f"Equal counts weaken one association, {report['target']} with {', '.join(report['protected'])}. Others are as "
        "they were, and a classifier may still treat groups differently.",
        "Labels are those of the dataset. Where they are wrong or coarse, so is the balance.",
    ]
    for labelled in files.labelling:
        known = "whose errors are in the table above" if labelled.evaluation else "whose errors are not known"
        limits.append(
            f"The labels of {labelled.column} were given by a machine {known}: balanced counts of its labels."
        )
    if "skin" in report["protected"] and "race" in files.table.columns and not files.labelling:
        limits.append("The column skin groups annotated race; it is not measured skin tone.")
    if report.get("copies"):
        limits.append(
            "Copies show nobody new. Hold faces out for validation together with their copies: source_id says whose."
        )
    if report["edits"].get("unfilled"):
        limits.append(
            f"{plural(report['edits']['unfilled'], 'place')} of the plan stayed empty: the set is less balanced "
            "than planned."
        )
    if report.get("mode") == "amplify":
        limits.insert(0, "This set is more biased than its source, on purpose. Do not train a product on it.")
    return limits


def _asked(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    licences = (report.get("license"), report.get("editor_license"))
    rows = [
        ("Target, which stays", report["target"]),
        ("Protected, made equal" if report.get("mode") != "amplify" else "Protected", ", ".join(report["protected"])),
        ("Dataset", report.get("dataset")),
        ("Licence of its pictures", licences[0] or "not stated; ask their publisher"),
        ("Editor", report.get("editor")),
        ("Licence of the editor", licences[1] or "not stated"),
        ("Mode, source", f"{report.get('mode', '–')}, {report.get('source', '–')}"),
        ("Seed", report.get("seed")),
        ("Copies", f"{percent(report['copies_share'])} of what cells lack" if "copies_share" in report else None),
        ("Review", _review(report.get("review"))),
        ("Originals", _originals(report)),
        ("Faces", _alignment(report.get("alignment"))),
    ]
    return [(term, str(text)) for term, text in rows if text is not None]


def _review(review: Mapping[str, Any] | None) -> str | None:
    if not review:
        return None
    return (
        f"{plural(review['decisions'], 'decision')} of {plural(review['reviewers'], 'person', 'people')}, rule "
        f"{review['rule']}: {review['refused']:,} refused, {review['replaced']:,} of them replaced"
    )


def _cost(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was spent for what was kept."""
    edits, per_image = report["edits"], report.get("unet_evaluations_per_kept_image")
    tries = edits["kept"] + edits["rejected"]
    rows = [("Tries", f"{tries:,} for {plural(edits['kept'], 'kept edit')}")]
    if "unet_evaluations" in report:
        rows.append(("Evaluations of the diffusion network", f"{report['unet_evaluations']:,}"))
    if per_image is not None:
        rows.append(("Evaluations for a kept picture", number(float(per_image), 1)))
    return rows


def versions() -> list[tuple[str, str]]:
    """Of this library, of PyTorch and of Python."""
    import platform

    import torch

    return [("Versions", f"vlbias {__version__}, torch {torch.__version__}, Python {platform.python_version()}")]


def _alignment(settings: Mapping[str, object] | None) -> str | None:
    """How faces were cut out of photographs; ``None`` where they were not, or datasets were joined."""
    if settings is None or "write" not in settings:
        return None
    written = "written back into the whole photographs" if settings["write"] == "whole" else "written as aligned crops"
    return f"found by {settings['detector']}; cut as {settings['layout']}; {written}"


def _originals(report: Mapping[str, Any]) -> str | None:
    """What happened to the pictures that were not edited."""
    trips = report.get("round_trip")
    passed = f"; {trips['passed']:,} of {trips['planned']:,} passed through the editor" if trips else ""
    return None if report.get("originals") is None else f"{report['originals']}{passed}"


def _command(report: Mapping[str, Any]) -> str:
    words = ["vlbias", "balance", "DATASET", "OUT"]
    words += ["--target", report["target"], "--protected", ",".join(report["protected"])]
    for name in ("editor", "mode", "source", "limit", "originals", "seed"):
        if report.get(name) is not None:
            words += [f"--{name}", str(report[name])]
    words += ["--copies", f"{report['copies_share']:g}"] if "copies_share" in report else []
    words += ["--round-trip"] if report.get("round_trip") else []
    words += ["--review"] if report.get("review") else []
    words += ["--pseudonymise"] if report.get("pseudonymised") else []
    alignment = report.get("alignment") or {}
    if "write" in alignment:
        words += ["--align", "--write", alignment["write"], "--face", alignment["face"]]
    return shlex.join(words + _scorer_options(report))


def _scorer_options(report: Mapping[str, Any]) -> list[str]:
    """The options that name networks of the user's own, by their files' names."""
    words = []
    identity = report.get("identity_scorer", {})
    if identity.get("kind", "latent") not in ("latent", "custom"):
        words += ["--identity", str(identity["name"])]
    for column, scorer in report.get("scorers", {}).items():
        for reading in (scorer.get("image"), scorer.get("not_asked")):
            if reading is not None and "name" in reading:
                words += ["--scorer", f"{column}={reading['name']}"]
    return words
