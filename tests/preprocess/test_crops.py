"""Crops round objects: voxels, borders, orientation, measurements."""

from dataclasses import replace

import numpy as np
import pytest
from crop_plan import CROP, crop_plan, volumes

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume
from nndet_psma.inference.volumes import canonical
from nndet_psma.preprocess.crops import AIR_HU, INSIDE, VALID, cut_objects

PLAN = crop_plan()  # stored: 12 x 16 x 16 voxels of 1 mm


def cut(ct, mask, plan=PLAN, **options):
    return cut_objects(ct, mask, plan, image=ct.geometry, **options)


def test_voxels_of_the_image_are_kept_where_the_grids_agree():
    """The box 8..12, 9..13, 10..14 has its middle at 10, 11, 12: stored are 4..16, 3..19 and 4..20."""
    ct, mask = volumes()
    found = cut(ct, mask)
    assert np.array_equal(found.ct[0], ct.array[4:16, 3:19, 4:20])
    assert np.array_equal(found.codes[0] & INSIDE, mask.array[4:16, 3:19, 4:20])
    assert (found.codes[0] & VALID == VALID).all()
    node = found.objects[0]
    assert node.object_id == 1
    assert node.box == (8, 9, 10, 12, 13, 14)
    assert node.centre_mm == pytest.approx((11.5, 10.5, 9.5))  # x, y, z of voxel centres


def test_a_crop_over_the_border_is_that_of_the_padded_image():
    ct, mask = volumes(boxes=((0, 1, 20, 3, 5, 24),))
    wide = [
        Volume(np.pad(v.array, 30, constant_values=fill), Geometry((80, 84, 84), (1.0, 1.0, 1.0)))
        for v, fill in ((ct, AIR_HU), (mask, 0))
    ]
    for spacing in (1.0, 0.8):
        plan = replace(PLAN, spacing=(spacing,) * 3)
        near, far = cut(ct, mask, plan), cut(*wide, plan)
        assert np.array_equal(near.ct, far.ct)
        assert np.array_equal(near.codes & INSIDE, far.codes & INSIDE)
        outside = near.codes[0] & VALID == 0
        assert outside.any()
    assert (cut(ct, mask).ct[0][cut(ct, mask).codes[0] & VALID == 0] == AIR_HU).all()


def test_other_voxels_are_resampled():
    """A ramp along x of 2 mm voxels: every mm is half a step, the middle of the box lies on a voxel's edge."""
    shape = (12, 12, 16)
    ramp = np.broadcast_to(np.arange(16, dtype=np.int16) * 20, shape)
    mask = np.zeros(shape, np.uint8)
    mask[5:7, 5:7, 7:9] = 1
    grid = Geometry(shape, (2.0, 2.0, 2.0))
    found = cut(Volume(ramp, grid), Volume(mask, grid))
    assert found.ct[0, 6, 8].tolist() == [75 + 10 * k for k in range(16)]


def test_flipped_files_give_the_same_crops():
    ct, mask = volumes(boxes=((8, 9, 10, 12, 13, 15), (3, 3, 3, 6, 5, 6)))
    turned = Geometry(ct.geometry.shape, (1.0,) * 3, (23.0, 23.0, 0.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    other = [canonical(Volume(v.array[:, ::-1, ::-1], turned)) for v in (ct, mask)]
    first, second = cut(ct, mask), cut_objects(*other, PLAN, image=turned)
    assert np.array_equal(first.ct, second.ct)
    assert np.array_equal(first.codes, second.codes)
    assert [each.features for each in first.objects] == [each.features for each in second.objects]
    assert second.objects[0].box == (8, 11, 9, 12, 15, 14)  # in voxels of the flipped file
    assert second.objects[0].centre_mm == pytest.approx(first.objects[0].centre_mm)


def test_measurements():
    """2 x 4 x 6 voxels of 3 x 1 x 1 mm with the values 0..47."""
    shape = (8, 12, 12)
    mask, ct = np.zeros(shape, np.uint8), np.zeros(shape, np.int16)
    inside = (slice(2, 4), slice(3, 7), slice(2, 8))
    mask[inside], ct[inside] = 5, np.arange(48).reshape(2, 4, 6)
    grid = Geometry(shape, (3.0, 1.0, 1.0))
    ctv = np.zeros(shape, np.uint8)
    ctv[2, 4, 11] = 1
    node = cut_objects(Volume(ct, grid), Volume(mask, grid), PLAN, image=grid, ctv=Volume(ctv, grid)).objects[
        0
    ]
    assert node.object_id == 5
    found = node.features
    assert found["volume_mm3"] == 48 * 3
    assert found["long_axis_mm"] == pytest.approx(np.hypot(4, 6))
    assert (found["hu_median"], found["hu_mean"]) == (23.5, 23.5)
    assert found["hu_sd"] == pytest.approx(np.arange(48).std())
    assert (found["hu_p10"], found["hu_p90"]) == pytest.approx((4.7, 42.3))
    # the middle of the box lies at edges (3, 5, 5), the voxel's centre at (2.5, 4.5, 11.5)
    assert found["outside_ctv_mm"] == pytest.approx(np.sqrt(1.5**2 + 0.5**2 + 6.5**2))
    empty = cut_objects(
        Volume(ct, grid), Volume(mask, grid), PLAN, image=grid, ctv=Volume(0 * ctv, grid)
    ).objects[0]
    assert empty.features["outside_ctv_mm"] is None


def test_no_object_and_another_grid():
    ct, mask = volumes(boxes=())
    found = cut(ct, mask)
    assert found.objects == []
    assert found.ct.shape == (0, *CROP.stored)
    moved = Volume(mask.array, replace(mask.geometry, origin=(5.0, 0.0, 0.0)))
    with pytest.raises(UserError, match="another grid than the CT"):
        cut(ct, moved)


def test_metal_is_as_bright_as_can_be():
    ct, mask = volumes()
    bright = Volume(np.full(ct.array.shape, 69557, np.int32), ct.geometry)
    assert (cut(bright, mask).ct == 32767).all()
