"""One case in memory: odd regions, odd modalities, odd sizes; every number counted by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from nndet_psma.artifacts.fingerprint import CaseFingerprint
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.planners.fingerprint.measure_case import measure_volumes


def volumes_of(
    ct: np.ndarray, labels: np.ndarray, ctv: np.ndarray | None = None, **more: np.ndarray
) -> CaseFingerprint:
    """Measure arrays on a grid of 3 x 2 x 1 mm; every instance is of class 0, except 2 of class 1."""
    grid = Geometry(ct.shape, (3.0, 2.0, 1.0))
    arrays = {"CT": ct, **more} | ({} if ctv is None else {"CTV": ctv})
    description = DatasetDescription(
        "Task900_X", "X", 3, {0: "node", 1: "recurrence"}, dict(enumerate(arrays))
    )
    volumes = {i: Volume(array, grid) for i, array in enumerate(arrays.values())}
    classes = {int(i): int(i == 2) for i in np.unique(labels) if i}
    return measure_volumes("a", volumes, Volume(labels, grid), classes, description, "p", "", "h")


def body_of(shape: tuple[int, ...] = (4, 30, 60)) -> np.ndarray:
    ct = np.full(shape, -1000, np.int16)
    ct[:, 4:26, 5:55] = 40
    return ct


def test_a_case_without_lesions() -> None:
    ct = body_of()
    found = volumes_of(ct, np.zeros(ct.shape, np.int32), np.ones(ct.shape, np.uint8))
    assert (found.lesions, found.positive_slices, found.lesion_hu.total) == ([], 0, 0)
    assert "lesion" not in found.intensities["CT"]
    assert found.region_hu.total == ct.size


def test_an_empty_ctv_is_no_region() -> None:
    ct = body_of()
    labels = np.zeros(ct.shape, np.int32)
    labels[1, 10:12, 10:13] = 1
    found = volumes_of(ct, labels, np.zeros(ct.shape, np.uint8))
    assert (found.ctv_box, found.ctv_volume_mm3, found.search_slices) == (None, 0.0, 4)
    (lesion,) = found.lesions
    assert (lesion.outside_ctv_mm, lesion.inside_ctv_mm, lesion.share_in_ctv) == (None, None, None)
    assert found.region_hu.total == 4 * 22 * 50 - 6  # the body, as without CTV
    assert "ctv" not in found.intensities["CT"]


def test_a_ctv_that_fills_the_image_ends_with_it() -> None:
    ct = body_of()
    labels = np.zeros(ct.shape, np.int32)
    labels[1:3, 14:16, 30:32] = 1
    (lesion,) = volumes_of(ct, labels, np.ones(ct.shape, np.uint8)).lesions
    # slices 1 and 2 of 4: two steps of 3 mm to the slice beyond the image
    assert (lesion.outside_ctv_mm, lesion.inside_ctv_mm, lesion.share_in_ctv) == (0.0, 6.0, 1.0)


def test_one_voxel_in_the_corner_of_the_image() -> None:
    ct = body_of()
    labels, ctv = np.zeros(ct.shape, np.int32), np.zeros(ct.shape, np.uint8)
    labels[3, 29, 59] = 2
    ctv[0, 0, 0] = 1
    (lesion,) = volumes_of(ct, labels, ctv).lesions
    assert lesion.box == (3, 29, 59, 4, 30, 60)
    assert (lesion.slices, lesion.size_voxels, lesion.label) == (1, (1, 1, 1), 1)
    assert lesion.volume_mm3 == pytest.approx(6.0)
    assert lesion.slice_sizes_mm == [(2.0, 1.0)]
    assert lesion.outside_ctv_mm == pytest.approx(math.hypot(9.0, 58.0, 59.0))
    assert (lesion.inside_ctv_mm, lesion.share_in_ctv) == (0.0, 0.0)


def test_several_modalities_have_their_own_statistics() -> None:
    ct = body_of()
    labels = np.zeros(ct.shape, np.int32)
    labels[1, 10, 10:15] = 1
    pet = np.where(ct > 0, 1.5, 0.25).astype(np.float32)
    pet[labels == 1] = [2.0, 4.0, 6.0, 8.0, 20.0]
    found = volumes_of(ct, labels, PET=pet)
    assert found.lesions[0].medians == {"CT": 40.0, "PET": 6.0}
    lesion = found.intensities["PET"]["lesion"]
    assert (lesion.mean, lesion.percentile_50, lesion.maximum) == (8.0, 6.0, 20.0)
    assert found.intensities["PET"]["outside"].mean == 0.25  # outside the body in the CT
    assert found.lesion_hu.counts == [5]


def test_ct_in_floating_point_is_counted_in_hu() -> None:
    ct = body_of().astype(np.float32) + 0.25
    labels = np.zeros(ct.shape, np.int32)
    labels[0, 5, 5:8] = 1
    found = volumes_of(ct, labels)
    assert (found.lesion_hu.lowest, found.lesion_hu.counts) == (40, [3])
    assert found.intensities["CT"]["body"].step == 1


def test_no_body_found() -> None:
    ct = np.full((2, 20, 20), -1000, np.int16)
    ct[0, 0, 0] = -999
    labels = np.zeros(ct.shape, np.int32)
    labels[0, 5, 5] = 1
    found = volumes_of(ct, labels)
    assert found.body_volume_mm3 is None
    assert found.body_box == (0, 0, 0, 2, 20, 20)
    assert found.search_slices == 2
    assert sorted(found.intensities["CT"]) == ["lesion", "outside"]


def test_an_image_of_one_slice() -> None:
    ct = body_of((1, 30, 60))
    labels = np.zeros(ct.shape, np.int32)
    labels[0, 10:14, 20:26] = 1
    found = volumes_of(ct, labels)
    assert (found.shape, found.search_slices, found.positive_slices) == ((1, 30, 60), 1, 1)
    assert found.lesions[0].size_mm == (3.0, 8.0, 6.0)
    assert found.lesions[0].slice_sizes_mm == [(8.0, 6.0)]


def test_arrays_are_left_as_they_were() -> None:
    ct = body_of()
    labels, ctv = np.zeros(ct.shape, np.int32), np.zeros(ct.shape, np.uint8)
    labels[1, 10:12, 10:13] = 1
    ctv[1:3, 8:20, 8:20] = 1
    before = ct.copy(), labels.copy(), ctv.copy()
    volumes_of(ct, labels, ctv)
    for array, copy in zip((ct, labels, ctv), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_memory_is_bounded_by_a_few_bytes_per_voxel() -> None:
    """Codes take one byte per voxel, coarse masks and surfaces less each; a distance map alone would take eight."""
    ct = np.full((60, 256, 256), -1000, np.int16)
    ct[:, 30:200, 20:236] = 40
    labels, ctv = np.zeros(ct.shape, np.int32), np.zeros(ct.shape, np.uint8)
    ctv[5:50, 60:180, 40:200] = 1
    labels[10:14, 100:110, 190:204] = 1
    tracemalloc.start()
    found = volumes_of(ct, labels, ctv)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.lesions[0].outside_ctv_mm == 4.0
    assert peak < 5 * ct.size
