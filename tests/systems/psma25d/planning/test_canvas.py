"""Room for rotation: on discs, boxes, and a pelvic search region made by hand after a real one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from tiny_place import real_data

from nndet_psma.dataset.images.images import read_volume
from nndet_psma.systems.psma25d.planning.canvas import KEPT, bounded_angle, grown_canvas, kept_share


def pelvis() -> np.ndarray:
    """Voxel centres (y, x) of a CTV along the iliac vessels, round the middle of its box of 34 x 57.

    24 slices of two discs of radius 9, which run from the back of the middle to the front of the sides.
    """
    y, x = np.mgrid[-17:17:0.5, -28.5:28.5:0.5] + 0.25
    found = []
    for t in np.linspace(0, 1, 24):
        inside = (y - (8 - 16 * t)) ** 2 + (np.abs(x) - 19.5 * t) ** 2 <= 9**2
        found.append(np.stack([y[inside], x[inside]], axis=1))
    return np.concatenate(found)


def seen(points: np.ndarray, canvas: tuple[float, float], degrees: float, scale: float = 1.0) -> float:
    shares = []
    for angle in np.deg2rad(np.linspace(-degrees, degrees, 91)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shares.append(np.mean((np.abs(points @ turn.T * scale) <= np.array(canvas) / 2).all(axis=1)))
    return float(np.mean(shares))


def test_nothing_is_lost_without_rotation_or_with_room():
    assert kept_share(np.array([[34.0, 57.0]]), (34, 57), 0.0) == 1.0
    assert kept_share(np.array([[30.0, 40.0]]), (50, 50), 180.0) == 1.0  # the diagonal is 50


def test_a_long_strip_turned_by_up_to_a_right_angle_keeps_its_middle():
    """Of length 2 in an image of height 1: all of it up to an angle of 30 degrees, then 1 / (2 sin(angle)).

    The mean over 90 degrees is (30 + 180 / pi * ln(cot(15 degrees)) / 2) / 90 = 0.753 for a strip of even width; the
    model's is thinner at its ends, so it keeps more.
    """
    even = (30 + np.rad2deg(np.log(1 / np.tan(np.deg2rad(15))) / 2)) / 90
    found = kept_share(np.array([[1e-3, 200.0]]), (100, 200), 90.0)
    assert even < found < even + 0.05


def test_rotation_loses_much_of_a_pelvic_region_and_the_model_no_less():
    found = kept_share(np.array([[34.0, 57.0]]), (34, 57), 180.0)
    assert found < seen(pelvis(), (34, 57), 180.0) < 0.92


@pytest.mark.parametrize(("degrees", "scale"), [(180.0, 1.0), (180.0, 1.11), (30.0, 1.0), (15.0, 1.1)])
def test_the_grown_canvas_keeps_it(degrees, scale):
    canvas = grown_canvas(np.array([[34.0, 57.0]]) * 10, (352, 576), degrees, scale, 32)
    assert canvas[0] % 32 == canvas[1] % 32 == 0
    assert seen(pelvis() * 10, canvas, degrees, scale) >= KEPT
    if degrees == 180.0:  # never beyond the turned longer side and a stride
        assert max(canvas) < 570 * scale * 1.1 + 32


def test_the_bounded_angle_keeps_it():
    regions = np.array([[340.0, 570.0]])
    angle = bounded_angle(regions, (340, 570), 180.0)
    assert 3 <= angle <= 12
    assert seen(pelvis() * 10, (340, 570), angle) >= KEPT
    assert kept_share(regions, (340, 570), angle + 1) < KEPT
    assert bounded_angle(np.array([[30.0, 40.0]]), (50, 50), 90.0) == 90.0


@pytest.mark.realdata
@pytest.mark.parametrize("degrees", [180.0, 45.0, 30.0, 15.0])
def test_a_real_search_region_stays_in_view(degrees):
    """Iliac vessels of a real CT from the femoral heads to the sacrum, grown by 7 mm to a CTV and by 6.48 mm."""
    file = real_data("totalsegmentator") / "example_seg_fast_force_split.nii.gz"
    numbers = read_volume(file, canonical=False).array
    vessels = np.isin(numbers, [65, 66, 67, 68])
    vessels[:19] = vessels[52:] = False
    region = distance_transform_edt(~vessels, sampling=(3, 3, 3)) <= 7 + 6.48
    voxels = np.argwhere(region)[:, 1:]
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    points, box = voxels + 0.5 - (low + high) / 2, (high - low).astype(float)
    sides = (int(box[0]), int(box[1]))
    assert seen(points, sides, 180.0) < 0.89  # what a fixed canvas loses
    assert seen(points, grown_canvas(box[None], sides, degrees, 1.0, 1), degrees) >= KEPT
    assert seen(points, sides, bounded_angle(box[None], sides, degrees)) >= KEPT
