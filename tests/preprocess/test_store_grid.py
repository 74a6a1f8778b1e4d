"""The grid of the store: invertible, and resampling that agrees with ITK and with a slow loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_cases import plan_of
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.dataset.images.images import (
    Volume,
    canonical_geometry,
    read_volume,
    resample_volume,
    write_volume,
)
from nndet_psma.preprocess.grid import ct_on, image_on, mask_box, mask_on, store_grid
from nndet_psma.preprocess.prepare import prepare_case

STEPS = st.floats(0.5, 6.0)
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)
ORDERS = st.permutations(range(3))


@st.composite
def geometries(draw):
    """Any grid of a file: permuted, flipped, oblique axes."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=3, max_size=3)))
    turn = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    matrix = turn[:, draw(ORDERS)] * draw(SIGNS)
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(
        shape, tuple(draw(st.tuples(STEPS, STEPS, STEPS))), origin, tuple(matrix.ravel().tolist())
    )


@st.composite
def boxes_in(draw, shape):
    lower = [draw(st.integers(0, n - 1)) for n in shape]
    upper = [draw(st.integers(a + 1, n)) for a, n in zip(lower, shape, strict=True)]
    return np.array([*lower, *upper])


@settings(max_examples=60, deadline=None)
@given(st.data(), geometries(), st.tuples(STEPS, STEPS, STEPS))
def test_points_go_to_the_file_and_back(data, file, spacing):
    canonical = canonical_geometry(file)
    grid = store_grid(canonical, data.draw(boxes_in(canonical.shape)), spacing)
    points = data.draw(st.lists(st.tuples(*[st.floats(-5, 20)] * 3), min_size=1, max_size=4))
    store = np.array(points)
    in_file = file.to_voxels(grid.geometry.to_patient(store))
    back = grid.geometry.to_voxels(file.to_patient(in_file))
    mm = np.abs(grid.geometry.to_patient(back) - grid.geometry.to_patient(store))
    assert mm.max() < 1e-6
    # the map by whole voxels of the box is the map through the patient
    np.testing.assert_allclose(
        grid.to_store(canonical.to_voxels(grid.geometry.to_patient(store))), store, atol=1e-6
    )
    # the outer edges of the store are those of the box
    ends = canonical.to_voxels(grid.geometry.to_patient(np.array([[0, 0, 0], grid.geometry.shape], float)))
    np.testing.assert_allclose(ends, [grid.lower, grid.upper], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.data(), geometries(), st.tuples(STEPS, STEPS, STEPS))
def test_boxes_and_masks_agree_within_a_voxel_of_the_coarser_grid(data, source, spacing):
    source = canonical_geometry(source)
    box = data.draw(boxes_in(source.shape))
    grid = store_grid(source, np.array([0, 0, 0, *source.shape]), spacing)
    mask = np.zeros(source.shape, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))] = 1
    mapped = map_boxes(box[None].astype(float), source, grid.geometry)[0]
    found = boxes_from_instances(mask_on(mask, grid))[1]
    if len(found) == 0:  # thinner than a store voxel along one axis
        assert (mapped[3:] - mapped[:3]).min() < 1 + 1e-6
        return
    assert np.abs(found[0] - mapped).max() <= 0.5 + 1e-6  # a centre is at most half a voxel from the edge
    back = map_boxes(mapped[None], grid.geometry, source)[0]
    np.testing.assert_allclose(back, box, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.data(), geometries(), st.tuples(STEPS, STEPS, STEPS), st.integers(0, 99))
def test_resampling_equals_itk(data, source, spacing, seed):
    source = canonical_geometry(source)
    box = data.draw(boxes_in(source.shape))
    grid = store_grid(source, box, spacing)
    array = np.random.default_rng(seed).integers(-1000, 1000, source.shape).astype(np.int16)
    peer = resample_volume(Volume(array, source), grid.geometry, order=1, fill=-1024).array
    # a store voxel may lie on the border of the file's outermost voxel, where ITK fills: leave those out
    reached = (
        resample_volume(
            Volume(np.ones(source.shape, np.float32), source), grid.geometry, order=1, fill=0
        ).array
        > 0
    )
    np.testing.assert_allclose(image_on(array, grid)[reached], peer[reached], atol=0.05)
    assert np.abs(ct_on(array, grid)[reached] - peer[reached]).max(initial=0) <= 0.55


def test_linear_by_hand():
    grid = store_grid(Geometry((1, 1, 4), (1.0, 1.0, 1.0)), np.array([0, 0, 0, 1, 1, 4]), (1.0, 1.0, 2.0))
    array = np.array([[[0, 10, 30, 60]]], np.int16)
    # centres of the two store voxels lie between voxels 0 and 1, and 2 and 3
    assert image_on(array, grid).tolist() == [[[5.0, 45.0]]]
    finer = store_grid(Geometry((1, 1, 2), (1.0, 1.0, 1.0)), np.array([0, 0, 0, 1, 1, 2]), (1.0, 1.0, 0.5))
    # centres at -0.25, 0.25, 0.75, 1.25 voxels: beyond the border the outermost voxel is repeated
    assert image_on(np.array([[[0, 10]]], np.int16), finer).tolist() == [[[0.0, 2.5, 7.5, 10.0]]]
    assert ct_on(np.array([[[0, 10]]], np.float32), finer).tolist() == [
        [[0, 2, 8, 10]]
    ]  # 2.5 to even, 7.5 to 8


def test_a_crop_uses_neighbours_beyond_its_edge():
    grid = store_grid(Geometry((1, 1, 6), (1.0, 1.0, 1.0)), np.array([0, 0, 1, 1, 1, 5]), (1.0, 1.0, 0.5))
    array = np.arange(0, 60, 10, dtype=np.int16)[None, None]
    # first centre at 0.75 voxels of the file: between the 0 outside the crop and the 10 inside
    assert image_on(array, grid)[0, 0, 0] == 7.5


def test_kept_grid_keeps_voxels_type_and_memory():
    source = Geometry((3, 4, 5), (3.0, 1.0, 1.0))
    grid = store_grid(source, np.array([0, 1, 1, 3, 4, 5]), (3.0, 1.005, 0.995))  # within 1 %
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    assert grid.is_crop
    assert grid.geometry.spacing == source.spacing
    made = ct_on(array, grid)
    assert made.dtype == np.int16
    assert np.array_equal(made, array[:, 1:, 1:])
    assert not np.shares_memory(made, array)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.floats(1.0, 4.0), st.floats(0.8, 2.5)),
    st.tuples(st.floats(1.0, 4.0), st.floats(0.8, 2.5)),
    st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_a_bright_ball_and_its_mask_stay_together(file_step, planned, turn, offset):
    size = np.array([60.0, 80.0, 80.0])
    spacing = (file_step[0], file_step[1], file_step[1])
    shape = tuple(int(n) for n in np.rint(size / spacing))
    grid = Geometry(
        shape, spacing, (7.0, -3.0, 11.0), tuple(Rotation.from_rotvec(turn).as_matrix().ravel().tolist())
    )
    centre = np.array(shape) / 2 + offset  # voxel edges
    away = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1) - centre
    ball = np.linalg.norm(away * spacing, axis=-1) <= 12.0
    ct = np.where(ball, 1000, 0).astype(np.int16)
    case = prepare_case(
        "a", {"CT": Volume(ct, grid)}, plan_of((planned[0], planned[1], planned[1])),
        labels=Volume(ball.astype(np.int32), grid), classes={1: 0},
    )  # fmt: skip
    weights = case.arrays["CT"].astype(float)
    seen = np.array(
        [
            (weights.sum(axis=tuple({0, 1, 2} - {a})) * (np.arange(n) + 0.5)).sum()
            for a, n in enumerate(weights.shape)
        ]
    )
    seen /= weights.sum()
    drawn = np.argwhere(case.instances == 1).mean(axis=0) + 0.5
    expected = case.geometry.to_voxels(grid.to_patient(centre[None]))[0]
    assert np.abs(seen - drawn).max() <= 0.5
    assert np.abs(drawn - expected).max() <= 0.5
    assert np.abs(seen - expected).max() <= 0.5


@pytest.mark.parametrize("thickness", [1.0, 5.0, 12.0])
def test_a_single_slice_is_never_resampled_across(thickness):
    """2D data: the spacing along z means nothing, and there is no second slice."""
    plan = replace(plan_of((2.0, 2.0, 2.0)), modalities={"0": "CT"}, ctv_modality=None)
    grid = Geometry((1, 40, 48), (thickness, 1.0, 1.0))
    ct = np.zeros((1, 40, 48), np.int16)
    labels = np.zeros((1, 40, 48), np.int32)
    ct[0, 10:20, 12:20] = labels[0, 10:20, 12:20] = 1
    case = prepare_case("a", {"CT": Volume(ct, grid)}, plan, labels=Volume(labels, grid), classes={1: 0})
    assert case.geometry.shape == (1, 20, 24)
    assert case.geometry.spacing == (thickness, 2.0, 2.0)
    assert boxes_from_instances(case.instances)[1].tolist() == [[0, 5, 6, 1, 10, 10]]
    assert case.ctv_distance is None


def test_several_modalities_without_ct_or_ctv():
    plan = _without_ct()
    grid = Geometry((4, 20, 20), (2.0, 1.0, 1.0))
    t2 = np.zeros(grid.shape, np.uint16)
    t2[:, 6:14, 5:15] = 7  # what is not zero is the body; 5 mm round it stay
    adc = np.full(grid.shape, 0.25, np.float64)
    case = prepare_case("a", {"T2": Volume(t2, grid), "ADC": Volume(adc, grid)}, plan)
    assert list(case.arrays) == ["T2", "ADC"]
    assert case.geometry.shape == (4, 18, 20)
    assert {array.dtype for array in case.arrays.values()} == {np.dtype(np.float32)}
    assert case.arrays["T2"][:, 5:13, 5:15].min() == 7


def _without_ct():
    from nndet_psma.artifacts.channels import Scaling

    plan = plan_of((2.0, 1.0, 1.0))
    stage = replace(plan.stages[0], windows=[], region="body")
    return replace(
        plan, modalities={"0": "T2", "1": "ADC"}, ct_modality=None, ctv_modality=None, windows=[], stages=[stage],
        scalings=[Scaling(0, "T2", 0.0, 9.0), Scaling(1, "ADC", 0.0, 1.0)],
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(geometries(), st.integers(0, 99))
def test_files_go_through_disk_into_canonical_axes_and_back(tmp_path_factory, file, seed):
    array = np.random.default_rng(seed).permutation(np.prod(file.shape)).reshape(file.shape).astype(np.int32)
    place = tmp_path_factory.mktemp("disk") / "a.mha"
    write_volume(place, array, file)
    volume = read_volume(place)
    voxel = np.unravel_index(int(np.argmax(volume.array)), volume.array.shape)
    box = np.array([[*voxel, *(v + 1 for v in voxel)]], dtype=float)
    back = map_boxes(box, volume.geometry, file)[0]
    expected = np.unravel_index(int(np.argmax(array)), array.shape)
    np.testing.assert_allclose(back, [*expected, *(v + 1 for v in expected)], atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
def test_box_of_a_mask_equals_that_of_an_instance(seed, share):
    mask = np.random.default_rng(seed).random((4, 5, 6)) < share
    slow = boxes_from_instances(mask.astype(np.int8))[1].tolist()
    box = mask_box(mask)
    assert ([] if box is None else [box.tolist()]) == slow
