"""The dataset card: what the folder is, how it was made, and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlbias.balance.packing import SUFFIXES, features_of
from vlbias.balance.plan import Plan
from vlbias.balance.traces import card_lines
from vlbias.hub import license_entries
from vlbias.shown import front_matter, in_code, in_markdown

__all__ = ["dataset_card"]


#: Of loose pictures, and of pictures in shards.
_WHERE = (
    "The folder of each split\nrepeats its part, for readers that look there. Every made picture says so inside its "
    "file. `plan.csv` is the",
    "Pictures stand in shards\nbelow `data/`, each with its row. Every made picture says so inside its file. "
    "`plan.csv` is the",
)


def dataset_card(report: Mapping[str, Any], plan: Plan) -> str:
    """Markdown with a YAML head, as Hugging Face reads it.

    Args:
        report: what the run came to, see ``docs/balance.md``.
        plan: what was asked for.
    """
    edits, where = report["edits"], _WHERE["shards" in report]
    target, protected = in_code(report["target"]), in_code(", ".join(report["protected"]))
    dataset, editor = in_code(report["dataset"]), in_code(report["editor"])
    aim = "to equalise" if report["mode"] == "reduce" else "to make more unequal, for study,"
    origins = (
        "real, edited, copied, sampled or round-trip" if "copies" in report else "real, edited, sampled or round-trip"
    )
    source = {"real": "its own faces", "prior": "faces sampled from the editor's latent prior"}[report["source"]]
    lines = [
        front_matter(_head(report)),
        f"# {in_markdown(report['dataset'])}, balanced for {target} by {protected}",
        "",
        f"Made by vlbias from {dataset} by editing {source} with {editor}, {aim} the groups of {protected} inside each "
        f"class of {target}. Splits balanced: {', '.join(map(in_markdown, report['splits']))}; "
        "an edit and its donor are in the same split.",
        "",
        f"- licence of the pictures it was made from: {_or(report['license'], 'not stated; ask their publisher')}",
        f"- licence of the editor: {_or(report['editor_license'], 'not stated')}",
        f"- {edits['planned']} edits planned, {edits['kept']} kept, {edits['unfilled']} cells' places left unfilled; "
        f"{edits['rejected']} tries turned down (`rejected.csv` says why)",
        *_copies_lines(report),
        "",
        f"| {target} | {protected} | before | after |",
        "|---|---|---|---|",
    ]
    for label, groups in report["counts_before"].items():
        after = report["counts_after"][label]
        cells = ((in_markdown(label), in_markdown(group), n, after[group]) for group, n in groups.items())
        lines += ["| {} | {} | {} | {} |".format(*cell) for cell in cells]
    if review := report.get("review"):
        people = "1 person" if review["reviewers"] == 1 else f"{review['reviewers']} people"
        what = f"{review['refused']} were refused, {review['replaced']} of them replaced"
        lines += ["", f"{people} looked at edits; {what}."]
    if report.get("pseudonymised"):
        lines += ["", "Pictures have other names here than in the dataset they come from."]
    lines += _alignment_lines(report.get("alignment"))
    lines += _round_trip_lines(report.get("round_trip"))
    lines += card_lines(report)
    lines += [
        "",
        "## Files",
        f"`metadata.csv` has one row a picture: labels, `origin` ({origins}), `source_id`",
        f"(the donor), path, strength, seed, and the readings that verified it (`score_...`). {where}",
        "plan, `report.json` has the figures.",
        "",
        "## Limits",
        "- Edited and sampled pictures are synthetic. They show nobody as they look and prove nothing about anybody.",
        f"- The edits were read by machines ({_scorers(report)}); their errors are in here.",
        "- Equal counts mitigate one association. They do not make a classifier fair: measure it (`vlbias audit`).",
        "- Labels of an edited picture that the edit made untrue (such as the age in years) are blank.",
    ]
    lines += [f"- {in_markdown(text)}" for text in report.get("warnings", [])]
    if plan.settings["mode"] == "amplify":
        lines.append("- This set is **more** biased than its source, on purpose. Do not train a product on it.")
    return "\n".join(lines) + "\n"


def _head(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub reads of the card; a licence is named only if pictures and editor have the same."""
    licenses = {report["license"], report["editor_license"]}
    one = licenses.pop() if len(licenses) == 1 else None
    head: dict[str, Any] = {"pretty_name": f"{report['dataset']}, balanced", **license_entries(one)}
    stated = f"{report['license']} {report['editor_license']}".lower()
    research = one is None or "research" in stated or "non-commercial" in stated
    tags = ["vlbias", "faces", "fairness", "synthetic", *(["research-only"] if research else [])]
    return head | {"task_categories": ["image-classification"], "tags": tags} | _shards_in_head(report)


def _shards_in_head(report: Mapping[str, Any]) -> dict[str, Any]:
    """Where `datasets` finds the splits; an imagefolder says so by its folders."""
    if "shards" not in report:
        return {}
    shards, ending = report["shards"], SUFFIXES[report["format"]]
    files = [{"split": split, "path": f"data/{split}-*{ending}"} for split in shards["num_files"]]
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]}
    return head | ({"dataset_info": {"features": features_of(shards)}} if report["format"] == "webdataset" else {})


def _scorers(report: Mapping[str, Any]) -> str:
    """Who read the edits, in words."""
    pictures = [scorer.get("image") for scorer in report["scorers"].values()]
    names = ["linear probes", *(image.get("name", "a CLIP") for image in pictures if image)]
    identity = report["identity_scorer"]
    names += [] if identity["kind"] in ("latent", "clip") else [f"{identity['name']} for identity"]
    return ", ".join(dict.fromkeys(map(in_markdown, names)))


def _or(text: str | None, unknown: str) -> str:
    return in_markdown(text) if text else unknown


def _alignment_lines(settings: Mapping[str, Any] | None) -> list[str]:
    """How faces were cut out of photographs; nothing where they were not, or datasets were joined."""
    if settings is None or "write" not in settings:
        return []
    written = {
        "whole": "Edits are put back into the whole photographs; the column `face_box` says where each face lies: "
        "left, top, right, bottom in pixels of the upright picture.",
        "crop": "Originals and edits are both the aligned crop, cut and compressed in the same way.",
    }
    return ["", f"Faces were found in photographs by {in_markdown(settings['detector'])}. {written[settings['write']]}"]


def _copies_lines(report: Mapping[str, Any]) -> list[str]:
    """What stands in the set twice; nothing where copies were not asked for."""
    if "copies" not in report:
        return []
    copied = report["edits"]["copied"]
    return [
        f"- {report['copies']} copies of originals of the short cells, {copied} of them in places of edits (`origin` "
        "is `copied`, `source_id` says whose). A copy shows nobody new: hold it out with its original and their edits",
    ]


def _round_trip_lines(trips: Mapping[str, object] | None) -> list[str]:
    """What happened to the originals that passed through the editor; nothing where none did."""
    if not trips:
        return []
    return [
        "",
        f"{trips['passed']} of {trips['planned']} originals passed through the editor without being edited, so that "
        "they carry what editing leaves behind (`origin` is `round-trip`). They are not quite what they were.",
    ]
