"""From raw boxes on the store grid to lesions in the image's own voxels and in millimetres, by hand.

The store: 4 x 10 x 12 voxels of 4 x 2 x 2 mm, first voxel centre at the patient's origin. One lesion on slices 1 and 2,
rows 2..5, columns 3..7. Its centre: edges z 1..3 -> (2 - 0.5) * 4 = 6 mm, y (3.5 - 0.5) * 2 = 6 mm,
x (5 - 0.5) * 2 = 9 mm.
"""

from __future__ import annotations

import numpy as np
import pytest
from fake_models import boxes_2d, raw_of

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.inference.postprocessing import MAX_CANDIDATES, make_prediction
from nndet_psma.postproc.steps.settings import PostprocSettings

STORE = Geometry((4, 10, 12), (4.0, 2.0, 2.0))
LESION = [(1, 2, 3, 5, 7, 0.8), (2, 2, 3, 5, 7, 0.6)]
OPEN = PostprocSettings(score_threshold=0.0, nms_iou=0.5, link_iou=0.1)
CLASSES = {"0": "node"}
FLIPPED_Y = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
# image axes x, y, z run along the patient's y, z, x
PERMUTED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _predict(image=None, rows=LESION, settings=OPEN, **more):
    return make_prediction(raw_of({"a": [boxes_2d(rows)]}, STORE, image, **more), settings, CLASSES)


@pytest.mark.parametrize(
    ("image", "box", "size"),
    [
        (STORE, (1, 2, 3, 3, 5, 7), (8, 6, 8)),
        # rows counted from the other side: 10 - 5 .. 10 - 2
        (Geometry((4, 10, 12), (4, 2, 2), (0, 18, 0), FLIPPED_Y), (1, 5, 3, 3, 8, 7), (8, 6, 8)),
        # slices of 8 mm, pixels of 1 mm, same outer edges: z halves, y and x double
        (Geometry((2, 20, 24), (8, 1, 1), (-0.5, -0.5, 2)), (0.5, 4, 6, 1.5, 10, 14), (8, 6, 8)),
        # array axes (z, y, x) of the file are the patient's x, z, y
        (Geometry((12, 4, 10), (2, 4, 2), (0, 0, 0), PERMUTED), (3, 1, 2, 7, 3, 5), (8, 8, 6)),
        # a larger image: 5 slices, 6 rows and 7 columns more in front
        (Geometry((9, 16, 19), (4, 2, 2), (-14, -12, -20)), (6, 8, 10, 8, 11, 14), (8, 6, 8)),
    ],
    ids=["straight", "flipped", "resampled", "permuted", "uncropped"],
)
def test_box_in_the_images_own_voxels(image, box, size):
    (lesion,) = _predict(image).lesions
    assert lesion.box == pytest.approx(box)
    assert lesion.centre_mm == pytest.approx((9, 6, 6))  # x, y, z
    assert lesion.size_mm == pytest.approx(size)
    assert lesion.score == pytest.approx(0.8)
    assert (lesion.label, lesion.name) == (0, "node")
    assert len(lesion.slices) == 2


def test_slice_boxes_are_one_store_slice_thick():
    (lesion,) = _predict().lesions
    assert [s.box for s in lesion.slices] == [(1, 2, 3, 2, 5, 7), (2, 2, 3, 3, 5, 7)]
    assert [(s.score, s.votes) for s in lesion.slices] == [(0.8, 1), (0.6, 1)]


def test_oblique_image():
    """Turned by 30 degrees about z: the centre turns with it, the box is the same in voxels."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turned = Geometry((4, 10, 12), (4, 2, 2), (0, 0, 0), (c, -s, 0, s, c, 0, 0, 0, 1))
    raw = raw_of({"a": [boxes_2d(LESION)]}, turned)
    (lesion,) = make_prediction(raw, OPEN, CLASSES).lesions
    assert lesion.box == pytest.approx((1, 2, 3, 3, 5, 7), abs=1e-4)
    assert lesion.centre_mm == pytest.approx((9 * c - 6 * s, 9 * s + 6 * c, 6), abs=1e-4)


def test_candidates_have_neither_threshold_nor_votes():
    strict = PostprocSettings(score_threshold=0.7, min_votes=2, vote_iou=0.3)
    second = boxes_2d([(1, 2, 3, 5, 7, 0.9)])
    raw = raw_of({"a": [boxes_2d([*LESION, (0, 6, 8, 8, 10, 0.3)])], "b": [second]}, STORE)
    prediction = make_prediction(raw, strict, CLASSES)
    assert [lesion.score for lesion in prediction.lesions] == [pytest.approx(0.85)]  # (0.8 + 0.9) / 2
    # 0.3 of one voter of two counts half
    assert [lesion.score for lesion in prediction.candidates] == [pytest.approx(0.85), pytest.approx(0.15)]


def test_votes_are_capped_at_the_voters_present():
    # an image searched without CTV has the whole-slice detector alone
    assert len(_predict(settings=PostprocSettings(min_votes=3)).lesions) == 1


def test_candidates_are_capped_best_first():
    rows = [(2 * (i % 2), 0, 0, 2, 2, 0.1) for i in range(1)]
    rows += [
        (z, y, x, y + 0.5, x + 0.5, 0.2 + 0.001 * (y * 12 + x))
        for z in (1,)
        for y in range(10)
        for x in range(12)
    ]
    prediction = _predict(rows=rows)
    scores = [c.score for c in prediction.candidates]
    assert len(scores) == MAX_CANDIDATES == 100
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.319)


def test_nothing_found():
    prediction = _predict(rows=[])
    assert prediction.lesions == prediction.candidates == []


def test_examined_box_goes_back_to_the_image():
    image = Geometry((4, 10, 12), (4, 2, 2), (0, 18, 0), FLIPPED_Y)
    assert _predict(image, examined=(1.0, 1.0, 2.0, 3.0, 6.0, 9.0)).examined == pytest.approx(
        (1, 4, 2, 3, 9, 9)
    )


def test_hash_names_thresholds_and_raw_prediction():
    first = _predict()
    assert first.made_from == _predict().made_from
    assert first.made_from != _predict(settings=PostprocSettings(score_threshold=0.1)).made_from


def test_file_round_trip(tmp_path):
    prediction = _predict()
    prediction.write(tmp_path / "case_0_boxes.json")
    assert Prediction.read(tmp_path / "case_0_boxes.json") == prediction


def test_boxes_in_3d():
    """The lesion of the docstring in one box; a second, worse one 1.5 slices deep."""
    from nndet_psma.boxes.detections import Detections
    from nndet_psma.postproc.steps.settings import VOLUME_STEPS

    boxes = Detections.build(
        [(1, 2, 3, 3, 5, 7), (0.5, 6, 8, 2, 8, 10)],
        [0.8, 0.3],
        zone_mm=[0.0, 0.0],
        hu_quantiles=np.full((2, 10), np.nan, dtype=np.float32),
    )
    settings = PostprocSettings(steps=VOLUME_STEPS, score_threshold=0.5)
    # slices of 8 mm, pixels of 1 mm, same outer edges: z halves, y and x double
    image = Geometry((2, 20, 24), (8, 1, 1), (-0.5, -0.5, 2))
    prediction = make_prediction(raw_of({"v": [boxes]}, STORE, image), settings, CLASSES)
    (lesion,) = prediction.lesions
    assert lesion.box == pytest.approx((0.5, 4, 6, 1.5, 10, 14))
    assert lesion.centre_mm == pytest.approx((9, 6, 6))
    assert [s.box for s in lesion.slices] == [
        pytest.approx((0.5, 4, 6, 1, 10, 14)),
        pytest.approx((1, 4, 6, 1.5, 10, 14)),
    ]
    assert [(s.score, s.votes) for s in lesion.slices] == [(0.8, 1)] * 2
    assert [c.score for c in prediction.candidates] == [0.8, 0.3]
    assert len(prediction.candidates[1].slices) == 2  # slices 0 and 1
