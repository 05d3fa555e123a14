"""The published schemas of reports: met by real ones, and by nothing else."""

from __future__ import annotations

import json

import jsonschema
import pytest
import torch
from finished_run import audit_result, write_measured
from schemas import SCHEMAS, problems, problems_below, schema_of
from test_report_paths import written
from test_report_studies import STUDY, front, simulated

from vlbias import audit, load_dataset, report

FILES = {"flips-report": "flips.json", "path-drift": "paths.json"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Schema => folder of a report that it is for."""
    out = tmp_path_factory.mktemp("reports")
    faces = load_dataset("synthfaces", n=20, image_size=16)
    counted = [audit.composition(faces, target="smile", protected="skin")]
    report.write_audit(out / "audit-report", audit_result(bootstrap=50), compositions=counted)
    written(out / "paths-report")
    for name, page in zip(FILES, write_measured(out).values(), strict=True):
        page.parent.rename(out / name)
    report.write_simulation(out / "simulation-report", simulated(shares=(0.0, 0.5), repeats=1))
    report.write_search(out / "search-report", STUDY, front())
    return {folder.name: folder for folder in sorted(out.iterdir())}


def test_every_report_is_what_its_schema_says(reports):
    found, wrong = problems_below(next(iter(reports.values())).parent)
    assert wrong == []
    assert found == set(reports) == {file.stem for file in SCHEMAS.iterdir()} - {"balance-report"}
    for name, folder in reports.items():
        values = json.loads((folder / FILES.get(name, "report.json")).read_text())
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        assert set(values) <= set(schema["properties"]), name  # nothing that is not promised
        for key in schema["required"]:
            assert problems({k: v for k, v in values.items() if k != key}, name), f"{name} without {key}"


def test_a_wrong_value_would_be_found(reports):
    values = json.loads((reports["audit-report"] / "report.json").read_text())
    values["classifiers"]["baseline"]["accuracy"] = 1.5
    assert problems(values, "audit-report") == [
        "audit-report at classifiers/baseline/accuracy: 1.5 is greater than the maximum of 1"
    ]
    assert problems({"datasets": [], "classifiers": {}}, "audit-report")
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema({"type": "colour"})


def test_whole_compositions_and_datasets_alone_have_reports_too(tmp_path):
    shares = [{"x": 0.5, "y": 0.25, "z": 0.25}, {"x": 0.2, "y": 0.4, "z": 0.4}]
    report.write_simulation(tmp_path / "given", simulated(shares=shares, repeats=1))
    faces = load_dataset("synthfaces", n=20, image_size=16)
    report.write_audit(tmp_path / "counts", compositions=[audit.composition(faces, target="smile", protected="skin")])
    assert problems_below(tmp_path) == ({"simulation-report", "audit-report"}, [])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("{}")
    assert schema_of(tmp_path / "other" / "report.json") is None and problems_below(tmp_path)[1]


def test_a_reading_that_nothing_is_known_of_is_written(tmp_path):
    from test_report_paths import measured

    found = measured()
    found.moved.loc["age +1", "beard"] = float(torch.tensor([]).median())
    written(tmp_path, found)
    assert json.loads((tmp_path / "report.json").read_text())["moved"]["age +1"]["beard"] is None
    assert problems_below(tmp_path) == ({"paths-report"}, [])
