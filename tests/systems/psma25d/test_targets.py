"""Targets of a slice: boxes that fit the transformed mask, and no lesion lost to the pixels' centres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.boxes.box import boxes_from_instances, to_torchvision
from nndet_psma.preprocess.warp import plane_map, warp
from nndet_psma.systems.psma25d.targets import slice_target

SHAPE = (40, 48)


def _blocks(*blocks: tuple[int, int, int, int]) -> np.ndarray:
    instances = np.zeros(SHAPE, np.int16)
    for number, (y0, x0, y1, x1) in enumerate(blocks, start=1):
        instances[y0:y1, x0:x1] = number
    return instances


def test_no_instance_gives_an_empty_target():
    target = slice_target(_blocks(), {}, plane_map((20, 24), 1.0, (32, 64)), masks=True)
    assert {name: (tuple(value.shape), value.dtype) for name, value in target.items()} == {
        "boxes": ((0, 4), torch.float32),
        "labels": ((0,), torch.int64),
        "masks": ((0, 32, 64), torch.uint8),
    }
    seen = slice_target(_blocks((0, 0, 5, 5)), {1: 0}, plane_map((35, 40), 2.0, (16, 16)), masks=True)
    assert [tuple(value.shape) for value in seen.values()] == [(0, 4), (0,), (0, 16, 16)]


def test_two_classes_by_hand():
    """Twofold round (20, 24): a voxel (y, x) begins at pixel (2 y - 24, 2 x - 16)."""
    mapping = plane_map((20, 24), 2.0, (32, 64))
    target = slice_target(_blocks((15, 10, 18, 14), (20, 30, 22, 31)), {1: 3, 2: 0}, mapping, masks=True)
    assert target["boxes"].tolist() == [[4, 6, 12, 12], [44, 16, 46, 20]]
    assert target["labels"].tolist() == [4, 1]
    assert target["masks"].sum(dim=(1, 2)).tolist() == [48, 8]
    assert target["masks"][1, 16:20, 44:46].all()
    assert "masks" not in slice_target(_blocks(), {}, mapping, masks=False)


blocks = st.tuples(st.integers(2, 18), st.integers(2, 22), st.integers(20, 38), st.integers(24, 46))


@given(blocks, st.floats(1, 3), st.booleans(), st.floats(-4, 4), st.floats(-4, 4))
@settings(max_examples=60, deadline=None)
def test_without_rotation_the_box_is_the_mapped_box(block, scale, flip, dy, dx):
    size = (int(60 * scale), int(60 * scale))
    mapping = plane_map((20, 24), scale, size, flip=flip, shift=(dy, dx))
    found = slice_target(_blocks(block), {1: 0}, mapping, masks=False)["boxes"].numpy()
    wanted = to_torchvision(mapping.boxes_to_detector(np.array([block], float)))
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3  # an edge moves to the next border between pixels


@given(st.lists(blocks, min_size=1, max_size=3), st.floats(0.6, 3), st.floats(-180, 180), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_cropped_equals_the_whole_picture(found, scale, angle, flip):
    """Reference: warp the whole slice, take all boxes. Only where no instance is small or cut off."""
    mapping = plane_map((21.3, 22.1), scale, (50, 60), rotation_degrees=angle, flip=flip)
    instances = _blocks(*found)
    whole = warp(instances[None].astype(np.float32), mapping, nearest=True)[0].numpy().astype(int)
    ids, boxes = boxes_from_instances(whole)
    thick = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(axis=1)
    target = slice_target(instances, {1: 0, 2: 1, 3: 2}, mapping, masks=True)
    if thick.all() and ids.tolist() == sorted(set(instances.ravel().tolist()) - {0}):
        assert target["labels"].tolist() == ids.tolist()
        # a coordinate between two voxels may be rounded either way
        assert np.abs(target["boxes"].numpy() - to_torchvision(boxes)).max(initial=0) <= 1
        masks = whole[None] == ids[:, None, None]
        assert np.mean(target["masks"].numpy() != masks) < 0.01


@given(
    st.tuples(st.integers(0, 39), st.integers(0, 47)),
    st.floats(0.3, 2.5),
    st.floats(-180, 180),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_lesion_of_one_voxel_survives_while_it_is_in_view(voxel, scale, angle, flip):
    y, x = voxel
    mapping = plane_map((20, 24), scale, (32, 40), rotation_degrees=angle, flip=flip)
    target = slice_target(_blocks((y, x, y + 1, x + 1)), {1: 0}, mapping, masks=True)
    row, column = mapping.to_detector(np.array([[y + 0.5, x + 0.5]]))[0]
    depth = min(row, column, 32 - row, 40 - column)  # inside the view when positive
    if abs(depth) < 2:  # on the border either is right
        return
    assert len(target["boxes"]) == (depth > 0)
    for box, mask in zip(target["boxes"].tolist(), target["masks"], strict=True):
        left, top, right, bottom = box
        assert min(right - left, bottom - top) >= 2
        assert max(right - left, bottom - top) <= max(2, np.ceil(1.5 * scale) + 1)
        assert top - 0.51 <= row <= bottom + 0.51
        assert left - 0.51 <= column <= right + 0.51
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box


def test_a_rim_of_a_lesion_beyond_the_border_is_no_target():
    """Voxels 0..10 of a block begin 10 pixels left of the view; one column of pixels is left in it."""
    mapping = plane_map((20, 24), 1.0, (40, 28))  # columns 10 to 38
    assert len(slice_target(_blocks((10, 0, 20, 11)), {1: 0}, mapping, masks=False)["boxes"]) == 0
    two = slice_target(_blocks((10, 0, 20, 12)), {1: 0}, mapping, masks=False)["boxes"]
    assert two.tolist() == [[0, 10, 2, 20]]


@pytest.mark.parametrize("corner", [(0, 0), (39, 47), (0, 47), (39, 0)])
def test_a_lesion_in_the_corner_of_the_picture(corner):
    y, x = corner
    mapping = plane_map((20, 24), 0.5, (20, 24))
    (box,) = slice_target(_blocks((y, x, y + 1, x + 1)), {1: 0}, mapping, masks=False)["boxes"].tolist()
    assert box == [22 if x else 0, 18 if y else 0, 24 if x else 2, 20 if y else 2]
