import csv

import numpy as np
import pytest
from tiny_cases import row_case, voxel_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.record import Truth, build_record
from nndet_psma.evaluation.detection.tables import write_case_table, write_lesion_table


@pytest.fixture
def records():
    return [
        row_case(
            "b",
            [0, 1],
            [(0.25, 1), (0.9, 5)],
            patient="secret",
            labels=[0, 0],
            volumes_mm3=[12.5, 30.0],
            short_axes_mm=[4.0, 8.5],
        ),
        row_case("a", [], [], patient="other"),
    ]


def read(file):
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_lesion_table(records, tmp_path):
    write_lesion_table(records, tmp_path / "lesions.csv")
    assert (tmp_path / "lesions.csv").read_text() == (
        "case_id,lesion,label,volume_mm3,short_axis_mm,score,found\n"
        "b,0,0,12.5,4.0,,0\n"
        "b,1,0,30.0,8.5,0.25,1\n"
    )


def test_lesion_table_leaves_out_the_patient(records, tmp_path):
    write_lesion_table(records, tmp_path / "lesions.csv")
    assert "secret" not in (tmp_path / "lesions.csv").read_text()


def test_what_was_not_measured_is_empty(tmp_path):
    write_lesion_table([row_case("a", [0], [])], tmp_path / "lesions.csv")
    assert read(tmp_path / "lesions.csv")[0]["volume_mm3"] == ""


def test_case_table(records, tmp_path):
    write_case_table(records, tmp_path / "cases.csv")
    assert (tmp_path / "cases.csv").read_text() == (
        "case_id,patient_id,lesions,predictions,found,missed,false_positives,max_score,"
        "accepted,accepted_found,accepted_false\n"
        "b,secret,2,2,1,1,1,0.9,,,\n"
        "a,other,0,0,0,0,0,0.0,,,\n"
    )


def test_case_table_counts_accepted_lesions(tmp_path):
    """Two lesions; accepted: two boxes on the first, one beside: one lesion found, two of three false."""
    truth = Truth(np.zeros(2, dtype=np.int64), voxel_boxes([0, 1]))
    chosen = Detections.build(voxel_boxes([0, 0, 7]), [0.9, 0.8, 0.7])
    write_case_table([build_record("c", "p", truth, chosen, accepted=chosen)], tmp_path / "cases.csv")
    [row] = read(tmp_path / "cases.csv")
    assert [row[key] for key in ("accepted", "accepted_found", "accepted_false")] == ["3", "1", "2"]


@pytest.mark.parametrize("write", [write_lesion_table, write_case_table])
def test_no_records_give_a_header(write, tmp_path):
    write([], tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("write", [write_lesion_table, write_case_table])
def test_records_must_be_matched_at_the_iou_of_the_table(write, tmp_path):
    record = build_record("case", "p", Truth(np.array([0]), voxel_boxes([0])), Detections.empty(), ious=[0.5])
    with pytest.raises(ValueError, match=r"not matched at IoU 0\.10"):
        write([record], tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
