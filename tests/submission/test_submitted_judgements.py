"""Judgements as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from artifact_samples import PREDICTION

from nndet_psma.artifacts.results import Call, Judged, Judgement
from nndet_psma.core.errors import UserError
from nndet_psma.stages.submit import SubmitJob, read_submitted, submit

P = {"no": 0.25, "yes": 0.75}
OBJECT = Judgement(4, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (6.0, 7.0, 8.0), P, "yes")
OBJECTS = [Judged("b", "hash", [OBJECT]), Judged("a", "hash", [])]
CALLS = [Call("b", "hash", P, "yes"), Call("a", "hash", {"no": 1.0, "yes": 0.0}, "no")]


def test_table_of_objects(tmp_path):
    done = submit(SubmitJob(OBJECTS, "judgements-csv", tmp_path))
    assert done.told == "1 judgements of 2 cases"
    assert (tmp_path / "judgements.csv").read_text().splitlines() == [
        "case_id,object_id,decision,p_no,p_yes,z0,y0,x0,z1,y1,x1,centre_x_mm,centre_y_mm,centre_z_mm",
        "b,4,yes,0.25,0.75,0.0,1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0",
    ]
    index = json.loads((tmp_path / "submission.json").read_text())
    assert index["cases"] == [{"case_id": "a", "judgements": 0}, {"case_id": "b", "judgements": 1}]


def test_table_of_cases(tmp_path):
    submit(SubmitJob(CALLS, "judgements-csv", tmp_path))
    lines = (tmp_path / "judgements.csv").read_text().splitlines()
    assert lines[1:] == ["a,,no,1.0,0.0" + 9 * ",", "b,,yes,0.25,0.75" + 9 * ","]


def test_json(tmp_path):
    submit(SubmitJob(OBJECTS, "judgements-json", tmp_path / "objects"))
    first, second = json.loads((tmp_path / "objects/judgements.json").read_text())["cases"]
    assert first == {"case_id": "a", "objects": []}
    [each] = second["objects"]
    assert (each["object_id"], each["box_voxels"], each["probabilities"]) == (4, list(OBJECT.box), P)
    submit(SubmitJob(CALLS, "judgements-json", tmp_path / "cases"))
    content = json.loads((tmp_path / "cases/judgements.json").read_text())
    assert content["cases"][1] == {"case_id": "b", "decision": "yes", "probabilities": P}
    assert content["schema"] == "nndet_psma.judgements"


@pytest.mark.parametrize(
    ("form", "results", "message"),
    [
        (
            "boxes-json",
            OBJECTS,
            "'boxes-json' cannot hold results of the type Judged.*judgements-csv, judgements",
        ),
        (
            "judgements-csv",
            [PREDICTION],
            "cannot hold results of the type Prediction; expected one of boxes-json",
        ),
        ("judgements-csv", [], "no predictions to submit"),
        ("judgements-csv", [CALLS[0], CALLS[0]], "case b is there twice"),
    ],
)
def test_refused(tmp_path, form, results, message):
    with pytest.raises(UserError, match=message):
        submit(SubmitJob(results, form, tmp_path))


def test_the_type_is_told_by_the_names_of_the_files(tmp_path):
    for result in CALLS:
        result.write(result.file(tmp_path, result.case_id))
    assert read_submitted(tmp_path) == sorted(CALLS, key=lambda call: call.case_id)
    OBJECTS[0].write(OBJECTS[0].file(tmp_path, "b"))
    with pytest.raises(UserError, match=r"results of several types; found .*_judged.json"):
        read_submitted(tmp_path)
    assert read_submitted(tmp_path, kind=Judged) == [OBJECTS[0]]
    with pytest.raises(UserError, match=r"holds no predictions; expected files \*_judged.json"):
        read_submitted(tmp_path / "nowhere", kind=Judged)
