"""``nndet_psma measure``: from masks and boxes to tables, reports, pictures and DICOM."""

import csv
import json

import numpy as np
import pytest

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.measure import build_parser, main
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.report.structured.artifact import StructuredReport
from nndet_psma.stages.measure import input_files

GRID = Geometry((4, 16, 20), (3.0, 1.0, 1.0), origin=(-10.0, -8.0, 50.0))


def two_nodes(big=1, small=1):
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[0:3, 3:13, 2:12] = big  # 9 x 10 x 10 mm
    mask[2, 2:4, 15:18] = small  # 3 x 2 x 3 mm
    return mask


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    write_volume(folder / "case_a.nii.gz", two_nodes(), GRID)
    write_volume(folder / "case_b.nii.gz", np.zeros(GRID.shape, dtype=np.uint8), GRID)
    return folder


def rows(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def fails(capsys, *arguments):
    assert main([str(each) for each in arguments]) == 2
    return capsys.readouterr().err


def test_a_folder_of_masks(masks, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(masks), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    # 9 mm along slices of 3 mm: 6 mm at least, at most sqrt(81 + 2) + 0.78 * 3
    assert (
        "case_a: N1, 1 of 2 nodes suspicious, 1 borderline, largest 9.0 mm (6.0 to 11.4); the stage hinges on "
        "borderline nodes only"
    ) in printed
    assert "case_b: N0, 0 of 0 nodes suspicious" in printed
    assert "2 reports, 1 of them N1" in printed
    names = {"nodes.csv", "patients.csv"} | {
        f"case_{c}_nodes.{kind}" for c in "ab" for kind in ("json", "html")
    }
    assert {file.name for file in out.iterdir()} == names
    assert [(row["case_id"], row["stage"]) for row in rows(out / "patients.csv")] == [
        ("case_a", "N1"),
        ("case_b", "N0"),
    ]
    assert [row["box_short_mm"] for row in rows(out / "nodes.csv")] == ["9.000", "2.000"]
    assert [(row["short_low_mm"], row["borderline"]) for row in rows(out / "nodes.csv")] == [
        ("6.000", "1"),
        ("1.000", "0"),
    ]
    assert [(row["borderline"], row["hinges_on_borderline"]) for row in rows(out / "patients.csv")] == [
        ("1", "1"),
        ("0", "0"),
    ]
    report = StructuredReport.read(out / "case_a_nodes.json")
    assert (report.origin, report.connectivity) == ("components", 26)
    # the same input gives the same files
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert main([str(masks), "-o", str(out)]) == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_ids_are_kept_or_split(tmp_path):
    file = tmp_path / "case_a_instances.nii.gz"
    write_volume(file, two_nodes(3, 5), GRID)
    for nodes, expected in (("auto", [("3", "1"), ("5", "0")]), ("components", [("1", "1"), ("2", "0")])):
        assert main([str(file), "-o", str(tmp_path / nodes), "--nodes", nodes]) == 0
        found = rows(tmp_path / nodes / "nodes.csv")
        assert [(row["node"], row["suspicious"]) for row in found] == expected
        assert {row["case_id"] for row in found} == {"case_a"}
    assert json.loads((tmp_path / "auto" / "case_a_nodes.json").read_text())["origin"] == "instances"


@pytest.mark.parametrize(("value", "dtype"), [(1, "u1"), (255, "u1"), (255, "f4"), (2, "i2")])
def test_a_mask_of_one_value_is_binary_whichever_it_is(tmp_path, value, dtype):
    write_volume(tmp_path / "a.nii.gz", two_nodes(value, value).astype(dtype), GRID)
    assert main([str(tmp_path / "a.nii.gz"), "-o", str(tmp_path / "out")]) == 0
    found = [(row["node"], row["box_short_mm"]) for row in rows(tmp_path / "out" / "nodes.csv")]
    assert found == [("1", "9.000"), ("2", "2.000")]


def test_classes_taken_for_ids_are_told(tmp_path, capsys, caplog):
    """Number 1 has two parts 17 mm apart (x 2 to 3, x 20 to 23), number 2 two parts that are 1 mm apart."""
    mask = np.zeros((4, 16, 30), np.uint8)
    mask[0, 3, 2:3] = mask[0, 3, 20:23] = 1
    mask[2, 3, 2:3] = mask[2, 3, 4:5] = 2
    write_volume(tmp_path / "a.nii.gz", mask, Geometry(mask.shape, (3.0, 1.0, 1.0)))
    assert main([str(tmp_path / "a.nii.gz"), "-o", str(tmp_path / "out")]) == 0
    assert "more than 10 mm apart: 1; if these numbers are classes, give --nodes components" in caplog.text
    assert len(rows(tmp_path / "out" / "nodes.csv")) == 2


def test_an_interpolated_mask_is_refused_or_thresholded(tmp_path, capsys, caplog):
    soft = two_nodes().astype(np.float32)
    soft[0] *= 0.4  # of three slices of the big node two are left
    soft[2] *= 0.5
    write_volume(tmp_path / "a.nii.gz", soft, GRID)
    assert "give --soft" in fails(capsys, tmp_path / "a.nii.gz", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main([str(tmp_path / "a.nii.gz"), "-o", str(tmp_path / "out"), "--soft"]) == 0
    assert [row["box_short_mm"] for row in rows(tmp_path / "out" / "nodes.csv")] == ["6.000", "2.000"]
    assert "an interpolated mask; voxels from 0.5 on count" in caplog.text
    write_volume(tmp_path / "a.nii.gz", soft * 3, GRID)
    assert "has no threshold" in fails(capsys, tmp_path / "a.nii.gz", "-o", tmp_path / "out", "--soft")


def test_ids_that_do_not_fit_do_not_wrap_around(tmp_path, capsys):
    file = tmp_path / "a.nii.gz"
    write_volume(file, (two_nodes(1, 2).astype(np.float64) * 2**31 + two_nodes()), GRID)
    assert "a.nii.gz: node ids that make no sense" in fails(capsys, file, "-o", tmp_path / "out")


def test_the_rule_is_the_users(masks, tmp_path):
    arguments = [
        "--threshold_mm",
        "9.5",
        "--diameter",
        "in_plane",
        "--largest_by",
        "volume",
        "--source",
        "RECIST 1.1",
    ]
    assert main([str(masks / "case_a.nii.gz"), "-o", str(tmp_path / "out"), *arguments]) == 0
    rule = StructuredReport.read(tmp_path / "out" / "case_a_nodes.json").rule
    assert (rule.threshold_mm, rule.diameter, rule.largest_by) == (9.5, "in_plane", "volume")
    assert "RECIST 1.1" in (tmp_path / "out" / "case_a_nodes.html").read_text()


def test_the_same_patient_from_a_flipped_file(masks, tmp_path):
    # the array stored from head to foot and left to right: sizes, places and stage are the same
    write_volume(
        tmp_path / "case_a.nii.gz",
        two_nodes()[::-1, :, ::-1].copy(),
        Geometry(GRID.shape, GRID.spacing, (9.0, -8.0, 59.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)),
    )
    for name, file in (("plain", masks / "case_a.nii.gz"), ("flipped", tmp_path / "case_a.nii.gz")):
        assert main([str(file), "-o", str(tmp_path / name)]) == 0
    assert rows(tmp_path / "plain" / "nodes.csv") == rows(tmp_path / "flipped" / "nodes.csv")


def test_pictures(masks, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for case in ("case_a_0000", "case_b"):
        write_volume(images / f"{case}.nii.gz", np.random.default_rng(0).normal(size=GRID.shape), GRID)
    assert (
        main([str(masks), "-o", str(tmp_path / "out"), "--images", str(images), "--window", "-1", "1"]) == 0
    )
    assert (tmp_path / "out" / "case_a_nodes.html").read_text().count("data:image/jpeg") == 4
    (images / "case_b.nii.gz").unlink()
    assert "no image of case case_b" in fails(capsys, masks, "-o", tmp_path / "no", "--images", images)
    write_volume(
        images / "case_b.nii.gz", np.zeros((4, 16, 21)), Geometry((4, 16, 21), GRID.spacing, GRID.origin)
    )
    assert "different grids" in fails(capsys, masks, "-o", tmp_path / "no", "--images", images)
    assert "LOWER below UPPER" in fails(capsys, masks, "-o", tmp_path / "no", "--window", "1", "1")


def test_boxes(tmp_path):
    # a box of 3 x 10 x 9 voxels of 3 x 1 x 1 mm in a file that runs from head to foot: slices 0 to 3 are 1 to 4 in LPS
    grid = Geometry(GRID.shape, GRID.spacing, (-10.0, -8.0, 59.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    box = (0.0, 3.0, 2.0, 3.0, 13.0, 11.0)
    slices = [SliceBox((1.0, 3.0, 2.0, 2.0, 13.0, 11.0), 0.8, 1)]
    lesion = PredictedLesion(0.8, 0, "node", box, (-3.5, -0.5, 53.0), (9.0, 10.0, 9.0), slices)
    prediction = Prediction("case_a", "0", "ctv", grid, (0, 0, 0, 4, 16, 20), [lesion], [lesion])
    prediction.write(tmp_path / "in" / "case_a_boxes.json")
    write_volume(
        tmp_path / "in" / "ignored.nii.gz", two_nodes(), GRID
    )  # a folder with boxes: the boxes count
    assert main([str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    (row,) = rows(tmp_path / "out" / "nodes.csv")
    assert (row["case_id"], row["box_short_mm"], row["score"], row["slice"]) == (
        "case_a",
        "9.000",
        "0.8000",
        "2",
    )
    report = StructuredReport.read(tmp_path / "out" / "case_a_nodes.json")
    assert report.nodes[0].box == (1, 3, 2, 4, 13, 11)
    assert "detected boxes" in (tmp_path / "out" / "case_a_nodes.html").read_text()


def test_dicom(masks, tmp_path, capsys):
    pytest.importorskip("highdicom")
    (tmp_path / "dicom").mkdir()
    error = fails(capsys, masks / "case_a.nii.gz", "-o", tmp_path / "out", "--dicom", tmp_path / "dicom")
    assert "holds no DICOM images" in error


def test_bad_inputs(masks, tmp_path, capsys):
    assert "does not exist" in fails(capsys, tmp_path / "nowhere", "-o", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "nothing to measure" in fails(capsys, tmp_path / "empty", "-o", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("no mask")
    assert "neither a mask" in fails(capsys, tmp_path / "notes.txt", "-o", tmp_path / "out")
    assert "case_a is there twice" in fails(capsys, masks, masks / "case_a.nii.gz", "-o", tmp_path / "out")
    write_volume(tmp_path / "half.nii.gz", two_nodes() * np.float32(0.5), GRID)
    assert "was interpolated" in fails(capsys, tmp_path / "half.nii.gz", "-o", tmp_path / "out")
    with pytest.raises(SystemExit):
        build_parser().parse_args([str(masks), "-o", "out", "--threshold_mm", "0"])


def test_the_masks_of_a_segmentation_come_before_its_boxes(masks):
    (masks / "case_a_boxes.json").write_text("{}")
    assert input_files([masks])["case_a"].name == "case_a_boxes.json"
    assert input_files([masks], masks_only=True)["case_a"].name == "case_a.nii.gz"
    write_volume(masks / "case_a_instances.nii.gz", two_nodes(1, 2), GRID)
    (masks / "case_a.nii.gz").rename(masks / "case_a_seg.nii.gz")
    assert {case: file.name for case, file in input_files([masks]).items()} == {
        "case_a": "case_a_instances.nii.gz"
    }
