"""Nodes of a mask and their sizes: known solids at any orientation and spacing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nndet_psma.artifacts.prediction import PredictedLesion, SliceBox
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.boxes.labels import foreground_box, node_components
from nndet_psma.core.errors import UserError
from nndet_psma.nodes.measurement import measure_boxes, measure_nodes


def solid(inside, shape, spacing, turn):
    """Voxels whose centre lies in a solid that is turned about the middle of the image; ``inside`` takes mm."""
    centres = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in shape], indexing="ij"), axis=-1) * spacing
    local = (centres - np.array(shape) * spacing / 2) @ turn
    return inside(local)


def ellipsoid(semi_axes):
    return lambda points: ((points / semi_axes) ** 2).sum(axis=-1) <= 1


def cuboid(sides):
    return lambda points: (np.abs(points) <= np.array(sides) / 2).all(axis=-1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.5)])
def test_a_cuboid_of_voxels(spacing):
    mask = np.zeros((8, 12, 14), dtype=np.uint8)
    mask[2:4, 3:8, 5:9] = 1  # 2 x 5 x 4 voxels
    geometry = Geometry(mask.shape, spacing, origin=(10.0, 20.0, 30.0))
    (node,) = measure_nodes(mask, geometry)
    z, y, x = (n * s for n, s in zip((2, 5, 4), spacing, strict=True))
    assert node.box_sides_mm == pytest.approx(sorted((z, y, x), reverse=True), abs=1e-9)
    assert (node.long_diameter_mm, node.short_diameter_mm) == (node.box_sides_mm[0], node.box_sides_mm[2])
    assert node.volume_mm3 == pytest.approx(z * y * x)
    assert node.volume_ml == pytest.approx(z * y * x / 1000)
    assert node.box_volume_mm3 == pytest.approx(z * y * x)
    # a rectangle a > b: the diagonal d; at right angles to it, corner to side a: b * d / a (similar triangles)
    diagonal = np.hypot(y, x)
    assert node.in_plane_long_mm == pytest.approx(diagonal)
    assert node.in_plane_short_mm == pytest.approx(min(y, x) * diagonal / max(y, x))
    assert (node.box, node.slice, node.slices, node.cut_off) == ((2, 3, 5, 4, 8, 9), 2, 2, False)
    # middle voxel coordinates (3, 5.5, 7): index 2.5, 5, 6.5 from the first centre
    expected = (10 + 6.5 * spacing[2], 20 + 5 * spacing[1], 30 + 2.5 * spacing[0])
    assert node.centre_mm == pytest.approx(expected)


@given(st.integers(0, 2**31), st.sampled_from([(0.5, 0.5, 0.5), (1.0, 0.5, 0.4)]))
@settings(max_examples=8, deadline=None)
def test_a_turned_cuboid_within_a_voxel(seed, spacing):
    sides = (14.0, 9.0, 6.0)
    shape = tuple(int(22 / s) for s in spacing)
    mask = solid(cuboid(sides), shape, spacing, Rotation.random(random_state=seed).as_matrix())
    (node,) = measure_nodes(mask, Geometry(shape, spacing))
    diagonal = np.linalg.norm(spacing)
    # a rounded voxel reaches at most half a voxel beyond each face; edges of the solid may be missed by a voxel
    for found, true in zip(node.box_sides_mm, sides, strict=True):
        assert true - diagonal <= found <= true + 1.1 * max(spacing)
    assert node.volume_mm3 == pytest.approx(np.prod(sides), rel=0.03)


@given(st.integers(0, 2**31), st.sampled_from([(0.5, 0.5, 0.5), (1.0, 0.5, 0.4)]))
@settings(max_examples=8, deadline=None)
def test_no_box_round_an_ellipsoid_is_smaller(seed, spacing):
    semi = np.array((8.0, 5.0, 3.5))
    shape = tuple(int(20 / s) for s in spacing)
    axes = Rotation.random(random_state=seed).as_matrix()
    mask = solid(ellipsoid(semi), shape, spacing, axes)
    (node,) = measure_nodes(mask, Geometry(shape, spacing))
    assert node.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(semi), rel=0.03)
    # the box along the true axes: voxel centres and a rounded voxel
    centres = np.argwhere(mask) * spacing @ axes
    along = np.ptp(centres, axis=0) + np.linalg.norm(axes * np.array(spacing)[:, None], axis=0)
    assert node.box_volume_mm3 <= along.prod() * 1.005
    assert along == pytest.approx(2 * semi, abs=1.05 * max(spacing))


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.0, 0.5, 0.4), (3.0, 0.7, 0.7)])
def test_ellipsoids_within_a_voxel_on_average(spacing):
    # any single box may be turned against the axes of the solid; over orientations the sides are right within a voxel
    semi, shape = (8.0, 4.0, 3.5), tuple(int(22 / s) for s in spacing)
    found = []
    for seed in range(12):
        mask = solid(ellipsoid(semi), shape, spacing, Rotation.random(random_state=seed).as_matrix())
        found.append(measure_nodes(mask, Geometry(shape, spacing))[0].box_sides_mm)
    assert np.mean(found, axis=0) == pytest.approx(2 * np.array(semi), abs=0.6 * np.linalg.norm(spacing))
    assert np.min(found, axis=0)[2] >= 7 - 0.5 * np.linalg.norm(spacing)


def test_in_plane_axes_of_a_turned_ellipse():
    # a cylinder whose slices are an ellipse of 20 x 8 mm turned by 30 degrees; tolerance: one pixel diagonal
    spacing = (2.0, 0.25, 0.25)
    shape = (4, 100, 100)
    turn = Rotation.from_rotvec([np.radians(30), 0, 0]).as_matrix()
    mask = solid(lambda p: (p[..., 1] / 10) ** 2 + (p[..., 2] / 4) ** 2 <= 1, shape, spacing, turn)
    (node,) = measure_nodes(mask, Geometry(shape, spacing))
    assert node.in_plane_long_mm == pytest.approx(20, abs=0.36)
    assert node.in_plane_short_mm == pytest.approx(8, abs=0.36)
    assert node.cut_off  # it fills all slices


def test_the_slice_of_largest_area_counts_not_the_longest():
    mask = np.zeros((3, 10, 12), dtype=bool)
    mask[0, 4:8, 2:6] = True  # 16 voxels, diagonal 5.66
    mask[1, 5, 1:11] = True  # 10 voxels, 10.05 long
    (node,) = measure_nodes(mask, Geometry(mask.shape, (1.0, 1.0, 1.0)))
    assert node.slice == 0
    assert node.in_plane_long_mm == pytest.approx(32**0.5)


def test_given_instances_are_kept_even_when_they_touch_or_fall_apart():
    ids = np.zeros((1, 4, 9), dtype=np.int16)
    ids[0, 1, 1:3], ids[0, 1, 3:5], ids[0, 1, 7] = 7, 3, 7  # 7 is in two pieces, touches 3
    nodes = measure_nodes(ids, Geometry(ids.shape, (1.0, 1.0, 1.0)))
    assert [(node.node, node.volume_mm3) for node in nodes] == [(3, 2), (7, 3)]
    assert nodes[1].long_diameter_mm == 7  # from voxel 1 to 8


@pytest.mark.parametrize(("neighbours", "count"), [(26, 1), (18, 2), (6, 3)])
def test_connectivity(neighbours, count):
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[1, 2, 2] = 1  # a corner, then an edge in common
    ids, found = node_components(mask, neighbours)
    assert (found, ids.max()) == (count, count)
    assert ((ids > 0) == (mask > 0)).all()


def test_an_unknown_connectivity():
    with pytest.raises(UserError, match="6, 18 or 26"):
        node_components(np.zeros((1, 1, 1)), 8)


def test_nothing_to_measure():
    ids, count = node_components(np.zeros((2, 3, 4)))
    assert count == 0
    assert foreground_box(ids > 0) is None
    assert measure_nodes(ids, Geometry((2, 3, 4), (1.0, 1.0, 1.0))) == []


def test_bad_masks_are_refused():
    geometry = Geometry((1, 1, 2), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="from 0"):
        measure_nodes(np.array([[[-1, 1]]]), geometry)
    with pytest.raises(ValueError, match="does not fit"):
        measure_nodes(np.zeros((1, 1, 3), dtype=int), geometry)


def test_axes_and_direction_of_the_image_do_not_matter_for_size():
    mask = np.zeros((6, 8, 10), dtype=bool)
    mask[1:3, 2:6, 3:8] = True
    plain = measure_nodes(mask, Geometry(mask.shape, (2.0, 1.0, 1.5)))[0]
    turn = Rotation.from_euler("xyz", [0.2, 0.4, 0.1]).as_matrix()
    oblique = measure_nodes(mask, Geometry(mask.shape, (2.0, 1.0, 1.5), direction=tuple(turn.ravel())))[0]
    assert oblique.box_sides_mm == plain.box_sides_mm
    assert oblique.centre_mm == pytest.approx(turn @ plain.centre_mm)


def test_sizes_of_a_detected_box():
    # 3 x 8 x 6 voxels of 2 x 0.5 x 1 mm: 6 x 4 x 6 mm; its largest slice box is 4 x 5 mm
    slices = [SliceBox((1, 2, 3, 2, 10, 8), 0.9, 1), SliceBox((2, 2, 3, 3, 6, 8), 0.8, 1)]
    lesion = PredictedLesion(0.9, 0, "node", (1, 2, 3, 4, 10, 9), (1.0, 2.0, 3.0), (6, 4, 6), slices)
    (node,) = measure_boxes([lesion], Geometry((10, 20, 20), (2.0, 0.5, 1.0)))
    assert node.box_sides_mm == (6, 6, 4)
    assert (node.in_plane_long_mm, node.in_plane_short_mm, node.slice) == (5, 4, 1)
    assert node.volume_mm3 == pytest.approx(np.pi / 6 * 144)
    assert (node.box_volume_mm3, node.score, node.node, node.cut_off) == (144, 0.9, 1, False)
    # voxels are not what makes a detected box uncertain
    assert (node.box_short_zone_mm, node.in_plane_short_zone_mm) == (None, None)
