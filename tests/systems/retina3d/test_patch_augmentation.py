"""The map of a training patch, its resampling and its targets: by hand and against slow references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from nndet_psma.systems.retina3d.augmentation import (
    Lesions,
    patch_map,
    patch_target,
    shown_extent,
    warp_instances,
    warp_patch,
)
from nndet_psma.trainers.augmentation.draw import AugmentationDraw

STILL = AugmentationDraw(1.0, 0.0, False, (0.0, 0.0), False, 1.0, 0.0, 0)
RNG = np.random.default_rng(0)


def test_a_still_map_is_a_crop():
    volume = RNG.random((1, 6, 8, 9)).astype(np.float32)
    mapping = patch_map(STILL, (3, 4, 5), (3.0, 4.0, 4.5), (1.0, 2.0, 2.5))  # begins at (2, 2, 2)
    np.testing.assert_allclose(warp_patch(volume, (0, 0, 0), mapping), volume[:, 2:5, 2:6, 2:7], atol=1e-6)
    part = volume[:, 1:, 1:, 2:]  # the same from a crop that begins at (1, 1, 2)
    np.testing.assert_allclose(warp_patch(part, (1, 1, 2), mapping), volume[:, 2:5, 2:6, 2:7], atol=1e-6)


def test_beyond_the_volume_is_nothing():
    volume = np.ones((1, 2, 2, 2), np.float32)
    mapping = patch_map(STILL, (4, 4, 4), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    shown = warp_patch(volume, (0, 0, 0), mapping)
    assert shown.sum() == 8
    assert (shown[0, 1:3, 1:3, 1:3] == 1).all()


def test_mirror_by_hand():
    """The point is shown in the middle; what lies right of it comes to lie left."""
    volume = np.zeros((1, 1, 1, 5), np.float32)
    volume[0, 0, 0, 3] = 1
    draw = replace(STILL, flip=True)
    shown = warp_patch(volume, (0, 0, 0), patch_map(draw, (1, 1, 5), (0.5, 0.5, 2.5), (0.5, 0.5, 2.5)))
    assert shown[0, 0, 0].tolist() == [0, 1, 0, 0, 0]


def test_scale_by_hand():
    """Twice as large: slice 0 of 2 fills slices 0 and 1 of 4, mixed with slice 1 where they meet."""
    volume = np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    draw = replace(STILL, scale=2.0)
    mapping = patch_map(draw, (4, 1, 1), (1.0, 0.5, 0.5), (2.0, 0.5, 0.5))
    # patch slices are centred on store places 0.25, 0.75, 1.25, 1.75; voxel centres are 0.5 and 1.5
    assert warp_patch(volume, (0, 0, 0), mapping)[0, :, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 0.75])


DRAWS = st.builds(
    lambda scale, angle, flip: replace(STILL, scale=scale, rotation_degrees=angle, flip=flip),
    st.floats(0.7, 1.5), st.floats(-180, 180), st.booleans(),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(DRAWS, st.tuples(st.floats(1, 6), st.floats(1, 9), st.floats(1, 9)))
def test_resampling_is_trilinear(draw, point):
    """Against scipy voxel by voxel, over the part of the volume that the patch needs."""
    volume = np.random.default_rng(1).random((1, 7, 10, 11)).astype(np.float32)
    mapping = patch_map(draw, (4, 6, 6), point, (2.0, 3.0, 3.0))
    box = mapping.footprint((0, 0, 0, 7, 10, 11))
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in (4, 6, 6)), indexing="ij")).reshape(3, -1).T
    store = np.column_stack([
        places[:, 0] * mapping.step + mapping.offset, mapping.plane.to_store(places[:, 1:])
    ])  # fmt: skip
    wanted = map_coordinates(volume[0], store.T - 0.5, order=1, mode="grid-constant").reshape(4, 6, 6)
    if box is None:
        assert not wanted.any()
        return
    part = volume[(slice(None), *(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True)))]
    np.testing.assert_allclose(warp_patch(part, box[:3], mapping)[0], wanted, atol=1e-3)
    np.testing.assert_allclose(mapping.to_patch(store), places, atol=1e-9)


@given(DRAWS, st.tuples(*[st.floats(1, 8)] * 3))
def test_extents_are_hulls(draw, sides):
    mapping = patch_map(draw, (9, 9, 9), (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    corners = np.array(np.meshgrid(*((-s / 2, s / 2) for s in sides))).reshape(3, -1).T
    shown = mapping.to_patch(corners)
    np.testing.assert_allclose(shown_extent(draw, np.array(sides)), np.ptp(shown, axis=0), atol=1e-9)


def _target(instances, mapping, classes=None, mask=True):
    lesions = Lesions.of(instances, (0, 0, 0))
    shown = warp_instances(instances, (0, 0, 0), mapping)
    classes = classes or {int(i): 0 for i in lesions.ids}
    return patch_target(shown, lesions, classes, mapping, mask=mask)


def test_lesions_by_hand():
    """Three voxels in an L: the mean of (0.5, 0.5, 0.5), (0.5, 0.5, 1.5), (0.5, 1.5, 0.5) and the origin."""
    instances = np.zeros((2, 3, 3), np.int16)
    instances[0, 0, 0] = instances[0, 0, 1] = instances[0, 1, 0] = 4
    lesions = Lesions.of(instances, (5, 0, 2))
    assert lesions.ids.tolist() == [4]
    assert lesions.boxes.tolist() == [[5, 0, 2, 6, 2, 4]]
    assert lesions.voxels.tolist() == [3]
    np.testing.assert_allclose(lesions.centres, [[5.5, 2.5 / 3, 2 + 2.5 / 3]])


def test_target_of_a_crop():
    instances = np.zeros((6, 8, 8), np.int16)
    instances[2:4, 3:6, 2:5] = 7
    mapping = patch_map(STILL, (4, 6, 6), (3.0, 4.0, 4.0), (2.0, 3.0, 3.0))  # begins at (1, 1, 1)
    target = _target(instances, mapping, {7: 2})
    assert target["boxes"].tolist() == [[1, 2, 1, 3, 5, 4]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [2]
    assert int(target["mask"].sum()) == 18
    assert (target["mask"][1:3, 2:5, 1:4] == 1).all()


@pytest.mark.parametrize(("columns", "boxes"), [(1, 0), (2, 1)])
def test_a_rim_has_no_box_but_stays_in_the_mask(columns, boxes):
    """A lesion 6 wide whose first columns are in view: a sixth is a rim, a third is a lesion that is cut."""
    instances = np.zeros((1, 4, 12), np.int16)
    instances[0, :, 6 - columns : 12 - columns] = 1
    mapping = patch_map(STILL, (1, 4, 6), (0.5, 2.0, 3.0), (0.5, 2.0, 3.0))  # columns 0..6
    target = _target(instances, mapping)
    assert len(target["boxes"]) == boxes
    assert int(target["mask"].sum()) == 4 * columns


def test_a_lesion_between_the_voxels_keeps_one():
    """Shown at 0.5, the patch samples the store at 1.5 and 3.5, voxels 1 and 3; voxel 2 lies between.

    Its centre 2.5 is 1.0 in the patch: the second voxel.
    """
    instances = np.zeros((1, 5, 5), np.int16)
    instances[0, 2, 2] = 1
    mapping = patch_map(replace(STILL, scale=0.5), (1, 2, 2), (0.5, 2.5, 2.5), (0.25, 1.0, 1.0))
    assert not warp_instances(instances, (0, 0, 0), mapping).any()
    target = _target(instances, mapping)
    assert target["boxes"].tolist() == [[0, 1, 1, 1, 2, 2]]
    assert int(target["mask"].sum()) == 1


def test_no_lesions():
    mapping = patch_map(STILL, (2, 4, 4), (1.0, 2.0, 2.0), (1.0, 2.0, 2.0))
    target = _target(np.zeros((2, 4, 4), np.int16), mapping, mask=False)
    assert target["boxes"].shape == (0, 6)
    assert target["labels"].shape == (0,)
    assert set(target) == {"boxes", "labels"}
