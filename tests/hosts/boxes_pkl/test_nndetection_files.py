"""nnDetection's ``*_boxes.pkl``: order, extent and grid by hand, and what is refused."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.hosts.boxes_pkl.files import read_nndetection_boxes, write_nndetection_boxes

GRID = Geometry(
    (10, 40, 48), (4.0, 2.0, 1.5), (-30.0, -20.0, 300.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
)
CONTENT = {
    "pred_boxes": np.array([[2, 4, 6, 9, 6, 13]], dtype=np.float32),
    "pred_scores": np.array([0.75], dtype=np.float32),
    "pred_labels": np.array([1.0], dtype=np.float32),
    "restore": True,
    "original_size_of_raw_data": np.array([10, 40, 48]),
    "itk_origin": (-30.0, -20.0, 300.0),
    "itk_spacing": (1.5, 2.0, 4.0),
    "itk_direction": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
}


def _write(tmp_path, **changes):
    file = tmp_path / "case_7_boxes.pkl"
    file.write_bytes(pickle.dumps({**CONTENT, **changes}))
    return file


def test_boxes_by_hand(tmp_path):
    """(a0, a1, a0, a1, a2, a2) = (2, 4, 6, 9, 6, 13): z 2..6, y 4..9, x 6..13, and one voxel less below."""
    found = read_nndetection_boxes(_write(tmp_path))
    assert found.case_id == "case_7"
    assert found.detections.boxes.tolist() == [[3, 5, 7, 6, 9, 13]]
    assert found.detections.scores.tolist() == [0.75]
    assert found.detections.labels.tolist() == [1]
    assert found.geometry == GRID


def test_written_files_hold_what_nndetection_holds(tmp_path):
    """Read back by pickle itself, as nnDetection does."""
    detections = Detections.build([[3, 5, 7, 6, 9, 13]], [0.75], [1])
    write_nndetection_boxes(tmp_path / "case_7_boxes.pkl", detections, GRID)
    found = pickle.loads((tmp_path / "case_7_boxes.pkl").read_bytes())
    assert set(found) == {*CONTENT, "extra_voxels"}
    for key, wanted in CONTENT.items():
        assert type(found[key]) is type(wanted)
        if isinstance(wanted, np.ndarray):
            assert found[key].dtype == wanted.dtype
            np.testing.assert_array_equal(found[key], wanted)
        else:
            assert found[key] == wanted
    again = read_nndetection_boxes(tmp_path / "case_7_boxes.pkl")
    assert again.detections.boxes.tolist() == detections.boxes.tolist()
    assert again.geometry == GRID


@pytest.mark.parametrize("empty", [np.zeros((0, 6), np.float32), np.zeros(0, np.float32), []])
def test_no_boxes(tmp_path, empty):
    none = np.zeros(0, np.float32)
    found = read_nndetection_boxes(_write(tmp_path, pred_boxes=empty, pred_scores=none, pred_labels=none))
    assert len(found.detections) == 0
    write_nndetection_boxes(tmp_path / "e_boxes.pkl", Detections.empty(3), GRID)
    assert pickle.loads((tmp_path / "e_boxes.pkl").read_bytes())["pred_boxes"].shape == (0, 6)
    assert len(read_nndetection_boxes(tmp_path / "e_boxes.pkl").detections) == 0


def test_a_box_clipped_to_nothing_is_dropped(tmp_path):
    boxes = np.array([[2, 4, 3, 9, 6, 13], [2, 4, 6, 9, 6, 13]], np.float32)
    two = np.array([0.5, 0.4], np.float32)
    found = read_nndetection_boxes(_write(tmp_path, pred_boxes=boxes, pred_scores=two, pred_labels=two * 0))
    assert found.detections.scores.tolist() == pytest.approx([0.4])


def test_a_box_may_reach_a_little_beyond_the_image(tmp_path):
    """10 slices: a corner at -5 is the last that is believed."""
    found = read_nndetection_boxes(_write(tmp_path, pred_boxes=np.array([[-5, 4, 6, 9, 6, 13]])))
    assert len(found.detections) == 1


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_longer_voxel_is_one_of_the_grid_predicted_in(tmp_path, ratio):
    """Voxels 6..12 of the image: nnDetection's box of them, restored, begins a resampled voxel before, at 6 - ratio."""
    z, y, x = (ratio * step for step in GRID.spacing)
    low = 6 - ratio
    file = _write(tmp_path, pred_boxes=np.array([[low, low, 12, 12, low, 12]]))
    found = read_nndetection_boxes(file, predicted_at=(z, y, x))
    np.testing.assert_allclose(found.detections.boxes, [[6, 6, 6, 12, 12, 12]])


def test_files_of_ours_tell_how_much_longer_their_boxes_are(tmp_path):
    """Whatever grid they were predicted in."""
    tight = Detections.build([[2, 6, 6, 4, 12, 12]], [0.5])
    write_nndetection_boxes(tmp_path / "a_boxes.pkl", tight, GRID)
    found = read_nndetection_boxes(tmp_path / "a_boxes.pkl", predicted_at=(9.0, 9.0, 9.0))
    assert found.detections.boxes.tolist() == [[2, 6, 6, 4, 12, 12]]


def test_without_a_grid_the_spacing_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="does not tell the spacing of the image"):
        read_nndetection_boxes(_write(tmp_path, itk_origin=None), predicted_at=(1.0, 1.0, 1.0))


def test_file_without_a_grid(tmp_path):
    assert read_nndetection_boxes(_write(tmp_path, itk_origin=None)).geometry is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred_scores": np.array([0.5, 0.6])}, r"do not fit; expected \[N, 6\], \[N\], \[N\]"),
        ({"pred_boxes": np.zeros((1, 4))}, "do not fit"),
        ({"pred_scores": np.array([np.nan])}, "pred_scores holds values that are no numbers"),
        ({"pred_boxes": ["a"]}, "pred_boxes holds values that are no numbers"),
        ({"pred_scores": np.array([1.5])}, r"a score is outside \[0, 1\]"),
        ({"pred_labels": np.array([-1.0])}, "a label is no class from 0 on"),
        ({"pred_labels": np.array([0.4])}, "a label is no class from 0 on.*found 0.4"),
        ({"pred_labels": np.array([1e18])}, "a label is no class"),
        ({"pred_boxes": np.array([[2, 4, 6, 9, 6, 1e30]])}, "box 1 of 1 lies outside every image"),
        ({"itk_direction": (0.0,) * 9}, "the grid of the image makes no sense"),
        ({"itk_direction": (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, "the grid of the image makes"),
        ({"itk_spacing": (1e300, 1.0, 1.0)}, "the grid of the image makes no sense"),
        ({"itk_origin": (1e9, 0.0, 0.0)}, "the grid of the image makes no sense"),
        ({"original_size_of_raw_data": np.array([10, 40, 48e9])}, "the grid of the image makes no sense"),
        ({"original_size_of_raw_data": np.array([10, 40, 47.5])}, "the grid of the image makes no sense"),
        ({"restore": False}, "in nnDetection's preprocessed grid.*Predict with restore"),
        ({"itk_spacing": (0.0, 1.0, 1.0)}, "the grid of the image makes no sense"),
        ({"itk_direction": (1.0,)}, "the grid of the image makes no sense"),
        ({"extra_voxels": (1.0, 1.0)}, "extra_voxels makes no sense; expected three numbers"),
        ({"extra_voxels": (1.0, 1.0, -1.0)}, "extra_voxels makes no sense"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"case_7_boxes\.pkl: .*{message}"):
        read_nndetection_boxes(_write(tmp_path, **changes))


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was_here'}",)

    with pytest.raises(
        UserError, match=r"holds more than numbers, so it was not read; found the name posix\.system"
    ):
        read_nndetection_boxes(_write(tmp_path, extra=Attack()))
    assert not (tmp_path / "was_here").exists()


def test_other_files(tmp_path):
    with pytest.raises(UserError, match="file does not exist"):
        read_nndetection_boxes(tmp_path / "none_boxes.pkl")
    file = tmp_path / "gt_boxes.pkl"
    file.write_bytes(pickle.dumps({"boxes": np.zeros((0, 6)), "instances": [], "labels": []}))
    with pytest.raises(UserError, match="is no prediction of nnDetection; expected pred_boxes"):
        read_nndetection_boxes(file)
    file.write_bytes(_write(tmp_path).read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot be read.*Copy or predict it again"):
        read_nndetection_boxes(file)


BOX = np.array([[2, 10, 6, 20, 30, 40]], np.float32)  # z 2..6, y 10..20, x 30..40


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ([2, 3, 0, 1, 5, 4], "z1,y1,z0,y0,x1,x0"),
        ([0, 1, 4, 2, 3, 5], "z0,y0,x0,z1,y1,x1"),
        ([4, 1, 0, 5, 3, 2], "x0,y0,z0,x1,y1,z1"),
    ],
)
def test_corners_in_another_order_are_refused_and_read_when_it_is_named(tmp_path, order, name):
    file = _write(tmp_path, pred_boxes=BOX[:, order])
    with pytest.raises(UserError, match=r"case_7_boxes.pkl: box 1 of 1 has an upper .* --order"):
        read_nndetection_boxes(file)
    found = read_nndetection_boxes(file, name.split(","))
    assert found.detections.boxes.tolist() == [[3, 11, 31, 6, 20, 40]]


def test_boxes_without_volume_are_counted(tmp_path, caplog):
    boxes, two = np.concatenate([BOX, BOX]), np.array([0.5, 0.4], np.float32)
    boxes[0, 2] = 2
    found = read_nndetection_boxes(_write(tmp_path, pred_boxes=boxes, pred_scores=two, pred_labels=two * 0))
    assert len(found.detections) == 1
    assert "1 of 2 boxes have no volume; left out" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred_scores": np.array([-1.3])}, r"a score is outside \[0, 1\]; found -1\.3 to -1\.3"),
        ({"pred_labels": np.array([0.4])}, r"a label is no class from 0 on.*found 0\.4"),
        ({"pred_labels": np.array([1e30])}, "a label is no class"),
        ({"itk_direction": (0.0,) * 9}, "the grid of the image makes no sense"),
        ({"original_size_of_raw_data": np.array([1e300, 4, 4])}, "the grid of the image makes no sense"),
        ({"original_size_of_raw_data": np.array([4.5, 4, 4])}, "the grid of the image makes no sense"),
    ],
)
def test_numbers_that_are_none_of_a_prediction(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_nndetection_boxes(_write(tmp_path, **changes))
