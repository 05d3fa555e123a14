"""Constraints that pin every dependency to its lower bound in setup.cfg, for pip's ``--constraint``.

    python .ci/lower_bounds.py > constraints.txt
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

SETTINGS = Path(__file__).parents[1] / "setup.cfg"
#: Extras whose packages the library itself uses; tools of its developers may be the newest.
EXTRAS = ("align", "faces", "datasets", "lpips", "search")


def lower_bounds(text: str) -> dict[str, str]:
    """Package -> lowest version, of every requirement ``name>=version``; others are left free."""
    return dict(re.findall(r"^\s*([A-Za-z0-9._-]+)>=([0-9.]+)", text, re.MULTILINE))


def main() -> None:
    settings = configparser.ConfigParser()
    settings.read(SETTINGS, encoding="utf-8")
    texts = [settings["options"]["install_requires"], *(settings["options.extras_require"][name] for name in EXTRAS)]
    for name, version in lower_bounds("\n".join(texts)).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
