"""One detector over the slices of a case: boxes back on the store grid, worked out by hand.

The plane of 20 x 30 voxels at 1.5 pixels per voxel needs 30 x 45, rounded up to 32 x 48 pixels. Its middle (16, 24)
shows the centre (10, 15), so pixel (r, c) is voxel ((r - 16) / 1.5 + 10, (c - 24) / 1.5 + 15).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_models import FixedBoxes

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.systems.psma25d.predict import predict_slices

SHAPE = (3, 20, 30)
GRID = Geometry(SHAPE, (4.0, 2.0, 2.0))
CPU = torch.device("cpu")


@pytest.fixture
def plan(tiny_task):
    return replace(tiny_task.plan, detector=replace(tiny_task.plan.detector, scale=1.5), margin_mm=6.48)


def _case(ct=None, distance=None) -> PreparedCase:
    array = np.full(SHAPE, -1000, np.int16) if ct is None else ct
    return PreparedCase("case", {"CT": array}, GRID, GRID, distance, None, {})


def _predict(plan, case, model, mirrored=False, batch_size=2, stage=-1):
    return predict_slices(
        model, case, plan, plan.stages[stage], device=CPU, batch_size=batch_size, mirrored=mirrored
    )


def test_boxes_by_hand(plan):
    # rows 13..19 -> 8..12, columns 21..27 -> 13..17
    found = _predict(plan, _case(), FixedBoxes([[21.0, 13.0, 27.0, 19.0]]))
    assert np.allclose(found.boxes, [[8, 13, 12, 17]] * 3)
    assert found.columns["slice"].tolist() == [0, 1, 2]
    assert found.labels.tolist() == [0, 0, 0]  # torchvision counts from 1
    assert np.allclose(found.scores, 0.9)


def test_whole_slices_have_a_scale_of_their_own(plan):
    # body_scale 1: 20 x 30 -> 24 x 32 pixels, whose middle is (12, 16)
    found = _predict(plan, _case(), FixedBoxes([[12.0, 10.0, 18.0, 14.0]]), stage=0)
    assert np.allclose(found.boxes[0], [8, 11, 12, 17])


def test_mirrored_view(plan):
    case = _case()
    symmetric = FixedBoxes([[21.0, 13.0, 27.0, 19.0]])
    assert np.allclose(_predict(plan, case, symmetric, mirrored=True).boxes, [[8, 13, 12, 17]] * 3)
    # columns 30..36 are 19..23 straight and, mirrored about 15, 7..11
    aside = FixedBoxes([[30.0, 13.0, 36.0, 19.0]])
    assert np.allclose(_predict(plan, case, aside).boxes[0], [8, 19, 12, 23])
    assert np.allclose(_predict(plan, case, aside, mirrored=True).boxes[0], [8, 7, 12, 11])


def test_mirrored_view_shows_the_mirror_image(plan):
    ct = np.random.default_rng(0).integers(-200, 300, SHAPE).astype(np.int16)
    straight, mirrored = FixedBoxes([]), FixedBoxes([])
    _predict(plan, _case(ct), straight)
    _predict(plan, _case(ct), mirrored, mirrored=True)
    for first, second in zip(straight.seen, mirrored.seen, strict=True):
        torch.testing.assert_close(first.flip(-1), second, rtol=0, atol=1e-4)


def test_boxes_are_cut_to_the_image_and_slivers_dropped(plan):
    boxes = [[-9.0, -9.0, 27.0, 19.0], [24.0, 16.0, 24.6, 22.0], [200.0, 10.0, 210.0, 20.0]]
    found = _predict(plan, _case(), FixedBoxes(boxes))
    assert np.allclose(found.boxes, [[0, 0, 12, 17]] * 3)  # 0.4 voxels wide and outside: gone


def test_hu_quantiles_of_the_voxels_in_the_box(plan):
    """Box 8..12 x 13..17 holds the values 0..15; quantile q of sixteen even values is 15 q."""
    ct = np.full(SHAPE, 500, np.int16)
    ct[:, 8:12, 13:17] = np.arange(16).reshape(4, 4)
    found = _predict(plan, _case(ct), FixedBoxes([[21.0, 13.0, 27.0, 19.0]]))
    assert np.allclose(found.columns["hu_quantiles"][1], 15 * np.arange(1, 11) / 10)


def test_fractional_box_takes_every_voxel_it_touches(plan):
    ct = np.full(SHAPE, 500, np.int16)
    ct[:, 8:12, 13:17] = 7
    inside = FixedBoxes([[22.0, 14.0, 26.0, 18.0]])  # 8.67..11.33 x 13.67..16.33
    assert np.allclose(_predict(plan, _case(ct), inside).columns["hu_quantiles"], 7)


def test_zone_is_the_distance_of_the_centre(plan):
    distance = np.zeros(SHAPE, np.int16)
    distance[0, 10, 15], distance[1, 10, 15], distance[2, 10, 15] = 350, -400, 648
    found = _predict(plan, _case(distance=distance), FixedBoxes([[21.0, 13.0, 27.0, 19.0]]))
    assert np.allclose(found.columns["zone_mm"], [3.5, 0, 6.48])  # inside the CTV it is 0


def test_without_ctv_there_is_no_distance(plan):
    found = _predict(plan, _case(), FixedBoxes([[21.0, 13.0, 27.0, 19.0]]))
    assert found.columns["zone_mm"].tolist() == [0, 0, 0]


def test_region_is_cropped_and_masked(plan):
    """CTV grown to rows 4..12 and columns 6..22 of slices 1 and 2: centre (8, 14), 12 x 24 pixels, in 16 x 24."""
    distance = np.full(SHAPE, 1000, np.int16)
    distance[1:, 4:12, 6:22] = 0
    ct = np.full(SHAPE, 100, np.int16)
    model = FixedBoxes([[9.0, 5.0, 15.0, 11.0]])
    found = _predict(plan, _case(ct, distance), model)
    assert found.columns["slice"].tolist() == [1, 2]
    # middle (8, 12): rows 5..11 -> 6..10, columns 9..15 -> 12..16
    assert np.allclose(found.boxes, [[6, 12, 10, 16]] * 2)
    assert {tuple(image.shape[1:]) for image in model.seen} == {(16, 24)}
    image = model.seen[0]
    assert not image[:, :1].any()  # 8 rows of 1.5 pixels reach from 2 to 14
    assert not image[:, 15:].any()
    assert (image[:, 3:13] > 0).all()


def test_normalised_as_planned(plan):
    shifted = replace(plan, detector=replace(plan.detector, input_mean=0.45, input_std=0.225))
    first, second = FixedBoxes([]), FixedBoxes([])
    ct = np.full(SHAPE, 100, np.int16)
    _predict(plan, _case(ct), first)
    _predict(shifted, _case(ct), second)
    torch.testing.assert_close((first.seen[0] - 0.45) / 0.225, second.seen[0])


def test_neighbours_are_channels(plan):
    """k = 1: slice 0 repeats itself as its own lower neighbour; the window -125..225 maps 50 HU steps to 1/7."""
    assert plan.neighbours == 1
    assert plan.stages[-1].windows == ["hu_m125_225"]
    ct = np.stack([np.full(SHAPE[1:], -125 + 50 * z, np.int16) for z in range(3)])
    model = FixedBoxes([])
    _predict(plan, _case(ct), model)
    middles = [image[:, 16, 24].tolist() for image in model.seen]
    assert np.allclose(np.array(middles) * 7, [[0, 0, 1], [0, 1, 2], [1, 2, 2]], atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batch_size_does_not_matter(plan, batch_size):
    model = FixedBoxes([[21.0, 13.0, 27.0, 19.0], [30.0, 13.0, 36.0, 19.0]])
    found = _predict(plan, _case(), model, batch_size=batch_size)
    assert found.columns["slice"].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(model.seen) == 3


def test_nothing_found(plan):
    found = _predict(plan, _case(), FixedBoxes([]))
    assert len(found) == 0
    assert found.columns["hu_quantiles"].shape == (0, 10)
    assert set(found.columns) == {"slice", "zone_mm", "hu_quantiles"}
