"""Image, labels, CTV and boxes stay on top of each other through cropping, resampling and turning."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prepared_cases import CTV, LESION, SHAPE, SPACING, plan_of, prepared, volumes
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, read_volume, write_volume
from nndet_psma.preprocess.prepare import prepare_case
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case, write_case


def _box(slices) -> np.ndarray:
    return np.array([[*(s.start for s in slices), *(s.stop for s in slices)]], dtype=np.float64)


def test_same_spacing_is_a_crop_of_whole_voxels():
    case = prepared(Geometry(SHAPE, SPACING, (10.0, 20.0, 30.0)))
    # body 8..36 x 9..47 and 5 mm = 4 voxels of 1.5 mm round it; all slices
    assert case.geometry.shape == (10, 36, 46)
    assert case.geometry.spacing == SPACING
    assert case.geometry.origin == pytest.approx((10 + 5 * 1.5, 20 + 4 * 1.5, 30))
    assert boxes_from_instances(case.instances)[1].tolist() == [[3, 12, 15, 6, 20, 26]]
    assert case.arrays["CT"].dtype == case.instances.dtype == case.ctv_distance.dtype == np.int16


@settings(max_examples=15, deadline=None)
@example(
    (2.0, 1.0), (0.0, 0.0, 2.225073858507e-311), (0.0, 0.0, 0.0)
)  # ITK lost the labels of a denormal cosine
@given(
    st.tuples(st.floats(2.0, 7.0), st.floats(0.7, 2.5)),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.tuples(*[st.floats(-100, 100)] * 3),
)
def test_other_spacing_and_oblique_axes_keep_everything_in_place(spacing, turn, origin):
    direction = tuple(Rotation.from_rotvec(turn).as_matrix().ravel().tolist())
    grid = Geometry(SHAPE, SPACING, origin, direction)
    planned = (spacing[0], spacing[1], spacing[1])
    case = prepared(grid, planned)
    # the outer edges stay: the last corner of the store is a whole number of source voxels away from the first
    ends = grid.to_voxels(case.geometry.to_patient(np.array([[0, 0, 0], case.geometry.shape], dtype=float)))
    np.testing.assert_allclose(ends, np.rint(ends), atol=1e-6)
    assert ends[1][0] - ends[0][0] == pytest.approx(SHAPE[0])
    # image, labels and mapped box agree to half a store voxel
    mapped = map_boxes(_box(LESION), grid, case.geometry)
    labelled = boxes_from_instances(case.instances)[1]
    bright = boxes_from_instances((case.arrays["CT"] > 75).astype(np.int8))[1]
    assert np.abs(labelled - mapped).max() <= 0.5 + 1e-6
    assert np.abs(bright - mapped).max() <= 0.75  # linear interpolation is symmetric about the edge
    inside = boxes_from_instances((case.ctv_distance < 0).astype(np.int8))[1]
    assert np.abs(inside - map_boxes(_box(CTV), grid, case.geometry)).max() <= 0.5 + 1e-6
    found = stage_region(case, plan_of(planned), plan_of().stages[0])
    assert len(found.slices)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_turned_files_of_one_patient_give_the_same_arrays(order, tmp_path):
    grid = Geometry(SHAPE, SPACING, (10.0, 20.0, 30.0))
    reference = prepared(grid)
    turned_volumes = []
    flips = [axis == order[0] for axis in range(3)]
    for number, volume in enumerate(volumes(grid)):
        array = np.flip(volume.array, [a for a in range(3) if flips[a]]).transpose(order)
        matrix = np.array(grid.direction).reshape(3, 3)[:, ::-1] * np.where(flips, -1.0, 1.0)
        first = np.array([[SHAPE[a] - 1 if flips[a] else 0 for a in range(3)]]) + 0.5
        turned = Geometry(
            array.shape,
            tuple(SPACING[a] for a in order),
            tuple(grid.to_patient(first)[0].tolist()),
            tuple(matrix[:, list(order)][:, ::-1].ravel().tolist()),
        )
        write_volume(tmp_path / f"{number}.mha", array, turned)
        turned_volumes.append(read_volume(tmp_path / f"{number}.mha"))
    ct, ctv, labels = turned_volumes
    case = prepare_case("a", {"CT": ct}, plan_of(), ctv=ctv, labels=labels, classes={1: 0})
    assert case.geometry.same_grid(reference.geometry)
    assert np.array_equal(case.arrays["CT"], reference.arrays["CT"])
    assert np.array_equal(case.instances, reference.instances)
    assert np.array_equal(case.ctv_distance, reference.ctv_distance)


def test_a_lesion_is_not_lost_silently_when_slices_are_coarsened():
    grid = Geometry(SHAPE, SPACING)
    ct, ctv, _ = volumes(grid)
    labels = np.zeros(SHAPE, np.int32)
    labels[4:5, 20:21, 20:21] = 1  # one voxel of 4 x 1.5 x 1.5 mm on a grid of 12 x 4.5 x 4.5 mm
    case = prepare_case(
        "a", {"CT": ct}, plan_of((12.0, 4.5, 4.5)), ctv=ctv, labels=Volume(labels, grid), classes={1: 0}
    )
    assert set(np.unique(case.instances)) == {0, 1}


def test_a_ctv_that_vanishes_is_told():
    grid = Geometry(SHAPE, SPACING)
    ct, _, labels = volumes(grid)
    far = np.zeros(SHAPE, np.uint8)
    far[0, 0, 0] = 1  # outside the body
    case = prepare_case("a", {"CT": ct}, plan_of(), ctv=Volume(far, grid), labels=labels, classes={1: 0})
    with pytest.raises(UserError, match="the CTV of case a"):
        stage_region(case, plan_of(), plan_of().stages[0])


@pytest.mark.parametrize("name", ["PET/SUV", "ctv_distance", "instances", "CT (venous)"])
def test_any_modality_name_can_be_stored(name, tmp_path):
    grid = Geometry(SHAPE, SPACING)
    plan = replace(plan_of(), modalities={"0": "CT", "1": "CTV", "2": name})
    ct, ctv, labels = volumes(grid)
    other = Volume(np.ones(SHAPE, np.float32), grid)
    case = prepare_case("a", {"CT": ct, name: other}, plan, ctv=ctv, labels=labels, classes={1: 0})
    write_case(tmp_path, case, "hash")
    again = read_case(tmp_path, "a")
    for key, array in case.arrays.items():
        assert np.array_equal(again.arrays[key], array)
    assert np.array_equal(again.instances, case.instances)
    assert np.array_equal(again.ctv_distance, case.ctv_distance)
