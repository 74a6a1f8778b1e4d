"""The zone of a short diameter holds what the node really measures."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.nodes.bounding_box import mask_corners, minimum_box
from nndet_psma.nodes.measurement import measure_nodes
from nndet_psma.nodes.size_zone import box_zone, in_plane_zone
from nndet_psma.nodes.staging import StagingRule

BOTH_ENDS = 1 - math.sqrt(0.05)


def drawn(semi, spacing, rng):
    """An ellipsoid at a random place and orientation, measured on voxels whose centres lie in it."""
    half = np.ceil(max(semi) / np.array(spacing)).astype(int) + 2
    lines = [np.arange(-n, n + 1) * s for n, s in zip(half, spacing, strict=True)]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1) - (rng.random(3) - 0.5) * spacing
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    mask = ((points @ turn / semi) ** 2).sum(axis=-1) <= 1
    return measure_nodes(mask, Geometry(mask.shape, spacing))[0]


def test_a_cuboid_of_voxels_by_hand():
    mask = np.zeros((5, 12, 14), dtype=bool)
    mask[1:4, 1:9, 1:11] = True  # 9 x 8 x 10 mm; the shortest side lies along y
    low, high = box_zone(minimum_box(mask_corners(mask, (3.0, 1.0, 1.0)), (3.0, 1.0, 1.0)), (3.0, 1.0, 1.0))
    # one voxel less; a chord beside the poles by half a voxel of 3 x 1 mm, and 0.78 voxels of 1 mm
    assert (low, high) == pytest.approx((7, math.sqrt(64 + 10) + BOTH_ENDS))


def test_of_equally_short_sides_the_coarser_counts():
    mask = np.zeros((5, 12, 14), dtype=bool)
    mask[1:4, 1:10, 1:11] = True  # 9 x 9 x 10 mm
    zones = []
    for turned in (mask, mask.transpose(0, 2, 1)):
        box = minimum_box(mask_corners(turned, (3.0, 1.0, 1.0)), (3.0, 1.0, 1.0))
        zones.append(box_zone(box, (3.0, 1.0, 1.0)))
    assert zones[0] == pytest.approx((6, math.sqrt(81 + 2) + 3 * BOTH_ENDS))
    assert zones[0] == pytest.approx(zones[1])


def test_in_plane_by_hand():
    assert in_plane_zone(9.0, (3.0, 0.8, 1.0)) == pytest.approx((9 - 4 / math.pi, math.sqrt(81 + 9 + 0.64)))
    assert in_plane_zone(0.5, (1.0, 1.0, 1.0))[0] == 0.0


def test_the_narrowest_width_of_a_box_is_at_most_its_shortest_side():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.pad(rng.random((3, 4, 5)) < 0.4, 1)
        mask[2, 2, 2] = True
        box = minimum_box(mask_corners(mask, (2.0, 1.0, 0.5)), (2.0, 1.0, 0.5))
        assert box.narrowest <= box.sides[2] + 1e-12
        assert np.linalg.norm(box.narrowest_axis) == pytest.approx(1)
    # a tetrahedron is narrowest between two opposite edges, its smallest box is the cube of side 2 round it
    points = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    assert minimum_box(points).narrowest == pytest.approx(2)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
@pytest.mark.parametrize("stretch", [(1.0, 1.0, 1.0), (1.0, 1.3, 1.7)])
def test_the_zone_holds_the_truth(spacing, stretch):
    rng, held = np.random.default_rng(1), 0
    for _ in range(120):
        short = rng.uniform(5, 12)
        zone = drawn(short / 2 * np.array(stretch), spacing, rng).box_short_zone_mm
        held += zone[0] <= short <= zone[1]
    assert held / 120 >= 0.92


def test_a_node_below_the_limit_that_reads_above_it_is_borderline():
    # voxels of 1 mm read the short axis of a 7.5 mm sphere as more than 8 mm in plane
    rng, rule = np.random.default_rng(2), StagingRule(diameter="in_plane")
    nodes = [drawn(np.full(3, 3.75), (1.0, 1.0, 1.0), rng) for _ in range(60)]
    above = [node for node in nodes if rule.is_suspicious(node)]
    assert len(above) > 10
    assert np.mean([rule.is_borderline(node) for node in above]) > 0.95
