"""The same patient, written in whatever orientation, gives the same lesions in patient millimetres.

From files to prediction by the whole chain: reading, cropping, resampling, detector, post-processing, and the way back.
The detector marks bright spots, so its boxes depend on the voxels alone.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from fake_models import BrightSpots
from scipy.spatial.transform import Rotation
from tiny_place import GRID, LESIONS, tiny_case

from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import original_geometry, read_volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.inference.input_cases import description_from_plan
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.preprocess.build import load_case
from nndet_psma.systems.psma25d.predict import predict_slices

CASE = "case_0"
SETTINGS = PostprocSettings(score_threshold=0.1, link_iou=0.1)


def _reordered(array: np.ndarray, grid: Geometry, axes, flips) -> tuple[np.ndarray, Geometry]:
    """The same voxels at the same places in the patient, with array axes permuted and flipped."""
    corner = np.zeros(3)
    matrix = np.array(grid.direction).reshape(3, 3)[:, ::-1][:, list(axes)]  # columns by array axis
    for axis in range(3):
        if flips[axis]:
            corner[axes[axis]] = grid.shape[axes[axis]] - 1
            matrix[:, axis] *= -1
    turned = np.flip(array.transpose(axes), [axis for axis in range(3) if flips[axis]])
    origin = grid.to_patient(corner[None] + 0.5)[0]
    new = Geometry(
        turned.shape,
        tuple(grid.spacing[a] for a in axes),
        tuple(origin.tolist()),
        tuple(matrix[:, ::-1].ravel().tolist()),
    )
    return np.ascontiguousarray(turned), new


def _rotated(grid: Geometry, rotation: np.ndarray) -> Geometry:
    """The patient turned about the scanner's origin: same voxels, other header."""
    direction = rotation @ np.array(grid.direction).reshape(3, 3)
    return replace(
        grid, origin=tuple((rotation @ grid.origin).tolist()), direction=tuple(direction.ravel().tolist())
    )


def _predict(folder, plan, grid=GRID, axes=(0, 1, 2), flips=(False, False, False)):
    """Write the case in this orientation and predict it; also returns the lesions' mask as the file orders it."""
    ct, ctv, instances = tiny_case(CASE)
    files = [folder / f"x_{i:04d}.nii.gz" for i in range(2)]
    for file, array in zip(files, (ct, ctv), strict=True):
        write_volume(file, *_reordered(array, grid, axes, flips))
    prepared = load_case(RawCase("x", tuple(files)), description_from_plan(plan), plan, with_labels=False)
    stage = plan.stage("hu_m125_225")
    found = predict_slices(BrightSpots(), prepared, plan, stage, device=torch.device("cpu"), batch_size=4)
    image = original_geometry(files[0])
    whole = (0.0, 0.0, 0.0, *map(float, prepared.geometry.shape))
    meta = RawMeta("x", "made", "ctv", prepared.geometry, image, whole, {"a": 1})
    prediction = make_prediction(RawPrediction(meta, {"a": [found]}), SETTINGS, plan.classes)
    return prediction, _reordered(instances, grid, axes, flips)[0]


def _sorted(lesions):
    return sorted(lesions, key=lambda lesion: round(lesion.centre_mm[2], 1))


@pytest.fixture(scope="module")
def straight(tiny_task, tmp_path_factory):
    prediction, _ = _predict(tmp_path_factory.mktemp("straight"), tiny_task.plan)
    return prediction


def test_straight_image_by_the_phantom_itself(straight):
    """Both lesions lie where they were drawn: centre of voxel (z, y, x) at origin + index * spacing."""
    assert len(straight.lesions) == 2
    for lesion, (z, y, x, _) in zip(_sorted(straight.lesions), LESIONS[CASE], strict=True):
        wanted = (GRID.origin[0] + 2 * x, GRID.origin[1] + 2 * y, GRID.origin[2] + 4 * z)
        assert lesion.centre_mm == pytest.approx(wanted, abs=1.5)  # less than a pixel, which is 2 mm


def _assert_same(prediction, straight, mask, rotation=None):
    turn = np.eye(3) if rotation is None else rotation
    assert len(prediction.lesions) == len(straight.lesions)
    for lesion in prediction.lesions:
        wanted = [turn @ other.centre_mm for other in straight.lesions]
        nearest = min(wanted, key=lambda centre: np.abs(centre - lesion.centre_mm).max())
        assert np.abs(nearest - lesion.centre_mm).max() < 0.05
        # in the file's own voxels, the box must hold its lesion and hardly anything else
        low = np.floor(np.array(lesion.box[:3]) + 0.01).astype(int)
        high = np.ceil(np.array(lesion.box[3:]) - 0.01).astype(int)
        inside = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        (number,) = set(np.unique(inside).tolist()) - {0}
        assert (inside == number).sum() >= 0.6 * (mask == number).sum()
        assert lesion.size_mm == pytest.approx(
            (np.array(lesion.box[3:]) - lesion.box[:3]) * prediction.image.spacing, abs=1e-3
        )


@pytest.mark.parametrize(
    "flips", [(True, False, False), (False, True, False), (False, False, True), (True,) * 3]
)
def test_flipped_axes(straight, tiny_task, tmp_path, flips):
    prediction, mask = _predict(tmp_path, tiny_task.plan, flips=flips)
    _assert_same(prediction, straight, mask)


@pytest.mark.parametrize("axes", list(permutations(range(3)))[1:])
def test_permuted_axes(straight, tiny_task, tmp_path, axes):
    prediction, mask = _predict(tmp_path, tiny_task.plan, axes=axes, flips=(False, True, False))
    assert prediction.image.shape == tuple(GRID.shape[a] for a in axes)
    _assert_same(prediction, straight, mask)


@pytest.mark.parametrize("angles", [(20.0, 0.0, 0.0), (12.0, -9.0, 17.0)])
def test_oblique_header(straight, tiny_task, tmp_path, angles):
    rotation = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    prediction, mask = _predict(tmp_path, tiny_task.plan, grid=_rotated(GRID, rotation))
    _assert_same(prediction, straight, mask, rotation)


def test_oblique_permuted_and_flipped(straight, tiny_task, tmp_path):
    rotation = Rotation.from_euler("zyx", (-15.0, 8.0, 5.0), degrees=True).as_matrix()
    prediction, mask = _predict(
        tmp_path, tiny_task.plan, grid=_rotated(GRID, rotation), axes=(2, 0, 1), flips=(True, False, True)
    )
    _assert_same(prediction, straight, mask, rotation)


def test_other_spacing(straight, tiny_task, tmp_path):
    """The plan asks for 3 x 1.6 x 1.6 mm: boxes change by less than a voxel, centres by less than a pixel."""
    plan = replace(tiny_task.plan, spacing=(3.0, 1.6, 1.6))
    prediction, mask = _predict(tmp_path, plan, flips=(True, True, False))
    assert prediction.image.spacing == pytest.approx(GRID.spacing)
    assert len(prediction.lesions) == 2
    for found, wanted in zip(_sorted(prediction.lesions), _sorted(straight.lesions), strict=True):
        assert np.abs(np.subtract(found.centre_mm, wanted.centre_mm)).max() < 2.0
        middle = np.floor(np.mean([found.box[:3], found.box[3:]], axis=0)).astype(int)
        assert mask[tuple(middle)] > 0


def test_truth_and_prediction_meet_on_the_label_grid(straight, tiny_task, tmp_path):
    """A prediction in a permuted image overlaps the labels read canonically."""
    from nndet_psma.evaluation.detection.record import truth_from_instances
    from nndet_psma.inference.records import make_record

    prediction, mask = _predict(tmp_path, tiny_task.plan, axes=(1, 2, 0), flips=(True, False, True))
    write_volume(tmp_path / "label.nii.gz", mask, prediction.image)
    label = read_volume(tmp_path / "label.nii.gz")
    truth = truth_from_instances(label.array, {1: 0, 2: 0}, label.geometry.spacing)
    record = make_record(prediction, truth, label.geometry, "p", slice_iou=0.1)
    assert sorted(record.claims(0.1)) == [0, 1]
    assert {hit for p in record.slices.predictions for hit in p.hits} == {0, 1}
    assert len(straight.lesions) == 2
