"""What docs/balance.md writes beside a network's file is understood as it stands."""

from __future__ import annotations

import json
import re

from vlbias.networks import FaceInput, FaceOutput
from vlbias.networks.files import _INPUT, _OTHERS, _OUTPUT


def test_documented_sidecars_are_understood(repository):
    text = (repository / "docs" / "balance.md").read_text(encoding="utf-8")
    section = text.split("## Who reads the edits")[1].split("\n## ")[0]
    found = [json.loads(item) for item in re.findall(r"\{\"[^{}]*\}", section) if ".onnx" not in item]
    assert len(found) >= 4
    for values in found:
        assert set(values) <= {*_INPUT, *_OUTPUT, *_OTHERS}
        FaceInput(**{"size": 112} | {key: values[key] for key in _INPUT if key in values})
        FaceOutput(**{key: values[key] for key in _OUTPUT if key in values})
    table = section.split("| key |")[1].split("\n\n")[0]
    documented = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert documented | {"about", "license", "source"} == {*_INPUT, *_OUTPUT, *_OTHERS}
