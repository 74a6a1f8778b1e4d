"""What a network sees of a stored crop."""

from dataclasses import replace

import numpy as np
import pytest
from crop_plan import CROP, crop_plan, flat, stage

from nndet_psma.artifacts.classifier_plan import CropPlan
from nndet_psma.trainers.classifier.controls import CONTROLS, EQUAL_SIZE, ONLY, SURROUND
from nndet_psma.trainers.classifier.views import STILL, CropDraw, crop_channels, draw_crop

PLAN = crop_plan()  # sees 8 of 12 x 16 x 16 voxels: from 2, 4, 4 on


def crop(shape=CROP.stored):
    rng = np.random.default_rng(0)
    codes = np.full(shape, 2, np.uint8)
    codes[4:8, 6:10, 7:11] |= 1
    return rng.integers(-100, 101, shape).astype(np.int16), codes


def windowed(hu):
    return ((hu + 100) / 200).astype(np.float32)


def test_three_orthogonal_slices_and_the_mask():
    ct, codes = crop()
    seen = crop_channels(ct, codes, PLAN, stage())
    assert seen.shape == (6, 8, 8)
    # of even cubes the slice behind the middle: 6, 8, 8
    slices = (
        (6, slice(4, 12), slice(4, 12)),
        (slice(2, 10), 8, slice(4, 12)),
        (slice(2, 10), slice(4, 12), 8),
    )
    for index, part in enumerate(slices):
        assert seen[index] == pytest.approx(windowed(ct[part]), abs=1e-6)
        assert np.array_equal(seen[3 + index], codes[part] & 1)


def test_a_volume_and_a_slice_with_neighbours():
    ct, codes = crop()
    seen = crop_channels(ct, codes, flat(PLAN, dimension="3d", input="ct"), stage())
    assert seen.shape == (1, 8, 8, 8)
    assert seen[0] == pytest.approx(windowed(ct[2:10, 4:12, 4:12]), abs=1e-6)
    sliced = crop_plan(CropPlan((3, 8, 8), (4, 4, 4), "2d", 1, "ct", None))
    ct, codes = crop((11, 16, 16))
    assert crop_channels(ct, codes, sliced, stage()) == pytest.approx(windowed(ct[4:7, 4:12, 4:12]), abs=1e-6)


@pytest.mark.parametrize(("outside", "value"), [(None, 0.0), (0.0, 0.5)])
def test_ct_inside_the_mask_only(outside, value):
    ct, codes = crop()
    seen = crop_channels(ct, codes, flat(PLAN, input="ct*mask", outside_hu=outside), stage())
    inside = (codes[6, 4:12, 4:12] & 1).astype(bool)
    assert seen.shape == (3, 8, 8)
    assert (seen[0][~inside] == value).all()
    assert seen[0][inside] == pytest.approx(windowed(ct[6, 4:12, 4:12])[inside], abs=1e-6)


def test_a_blind_network_sees_the_mask_only():
    ct, codes = crop()
    seen = crop_channels(ct, codes, flat(PLAN, input="ct"), stage(windows=()))
    assert seen.shape == (3, 8, 8)
    assert set(np.unique(seen)) == {0.0, 1.0}


def test_flips_and_shifts_read_from_the_store():
    ct, codes = crop()
    plan = flat(PLAN, dimension="3d", input="ct")
    flipped = crop_channels(ct, codes, plan, stage(), CropDraw(flip=(False, False, True)))
    assert flipped[0] == pytest.approx(windowed(ct[2:10, 4:12, 4:12])[:, :, ::-1], abs=1e-6)
    shifted = crop_channels(ct, codes, plan, stage(), CropDraw(shift=(1.0, 0.0, -2.0)))
    assert shifted[0] == pytest.approx(windowed(ct[3:11, 4:12, 2:10]), abs=1e-6)
    turned = crop_channels(ct, codes, plan, stage(), CropDraw(rotation_degrees=90.0))
    assert turned[0] == pytest.approx(np.rot90(windowed(ct[2:10, 4:12, 4:12]), -1, (1, 2)), abs=1e-5)


def test_brightness_is_clipped():
    ct, codes = crop()
    seen = crop_channels(ct, codes, flat(PLAN, input="ct"), stage(), CropDraw(brightness=1.5))
    assert seen[0] == pytest.approx(np.clip(1.5 * windowed(ct[6, 4:12, 4:12]), 0, 1), abs=1e-6)


def test_draws_stay_in_their_ranges():
    plan = replace(PLAN.augmentation, flip="x", rotation_degrees=30.0)
    draws = [draw_crop(plan, np.random.default_rng(seed)) for seed in range(50)]
    assert {draw.flip for draw in draws} == {(False, False, False), (False, False, True)}
    assert max(abs(draw.rotation_degrees) for draw in draws) <= 30
    assert max(abs(v) for draw in draws for v in draw.shift) <= 1
    assert all(0.9 <= draw.brightness <= 1.1 for draw in draws)


def test_controls_take_away_what_they_say():
    """Short axis 6 mm, the plan's is 4: half as large again is made equal by reading 1.5 times as far."""
    ct, codes = crop()
    inside = codes & 1 > 0
    codes[0] = 0  # beyond the image: the median leaves it out
    ct[0] = -1024
    middle = int(np.median(ct[1:]))
    around, draw = CONTROLS[SURROUND](ct, codes, {}, PLAN)
    assert draw == STILL
    assert np.array_equal(around, np.where(inside, middle, ct))
    alone, _ = CONTROLS[ONLY](ct, codes, {}, PLAN)
    assert np.array_equal(alone, np.where(inside, ct, middle))
    same, draw = CONTROLS[EQUAL_SIZE](ct, codes, {"short_axis_mm": 6.0}, PLAN)
    assert same is ct
    assert draw == CropDraw(zoom=1.5)
    assert CONTROLS[EQUAL_SIZE](ct, codes, {"short_axis_mm": None}, PLAN)[1] == STILL


def test_a_zoom_reads_farther_from_the_middle():
    """Of 8 voxels -3.5 .. 3.5 from the middle of 16, twice as far: -7 .. 7, which are whole voxels of a stored 17."""
    ramp = np.broadcast_to(np.arange(17, dtype=np.int16) * 10 - 80, (12, 17, 17))
    plan = crop_plan(CropPlan((1, 8, 8), (2, 4, 4), "2d", 0, "ct", None))
    seen = crop_channels(ramp[:5], np.zeros((5, 17, 17), np.uint8), plan, stage(), CropDraw(zoom=2.0))
    assert seen[0, 0] == pytest.approx(windowed(np.arange(8) * 20 - 70), abs=1e-6)
