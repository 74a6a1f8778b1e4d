"""Spacing of the 3D grid and sizes of regions and lesions on it, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from planner_samples import box_lesion, fingerprint, hand_made_case

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.planners.volume_rules import affordable_spacing, volume_sizes, volume_spacing


def of(spacings: list[tuple[float, float, float]], shape: tuple[int, int, int] = (40, 256, 256)):
    return volume_spacing(np.array(spacings), np.array([shape] * len(spacings), dtype=float))


def test_median_of_every_axis_and_one_common_value_in_the_plane() -> None:
    # medians 2, 0.8 and 1.25; the common in-plane value is sqrt(0.8 * 1.25) = 1
    found, rule = of([(1.0, 0.8, 1.25), (2.0, 0.8, 1.25), (3.0, 0.8, 1.25)])
    assert found == (2.0, 1.0, 1.0)
    assert rule == "volume.volume_spacing: median"


def test_a_coarse_axis_gets_its_ten_percent_quantile() -> None:
    # z 1, 2, ..., 11 mm: median 6 is six times 1 mm, the 10 % quantile is 2
    found, rule = of([(float(z), 1.0, 1.0) for z in range(1, 12)])
    assert found == (2.0, 1.0, 1.0)
    assert "z is 6.0 times as coarse: 10 % quantile" in rule


def test_it_never_becomes_finer_than_the_plane() -> None:
    # 10 % quantile of 0.5, 4, 4: 0.5 + 0.2 * 3.5 = 1.2, below the plane's 1.25
    found, _ = of([(0.5, 1.25, 1.25), (4.0, 1.25, 1.25), (4.0, 1.25, 1.25)])
    assert found == (1.25, 1.25, 1.25)


@pytest.mark.parametrize("shape", [(100, 256, 256), (40, 119, 256)])
def test_many_slices_are_no_anisotropy(shape: tuple[int, int, int]) -> None:
    # 3 * 100 > 256 and 3 * 40 > 119: z has more than a third of the others' voxels
    found, _ = of([(1.0, 1.0, 1.0), (6.0, 1.0, 1.0), (6.0, 1.0, 1.0)], shape)
    assert found[0] == 6.0


def test_regions_and_lesions_in_planned_voxels() -> None:
    # CTV box 12 x 80 x 100 voxels of (3, 1, 1) mm grown by 6 mm: 36 + 12, 80 + 12, 100 + 12 mm; grid (2, 1, 1)
    sizes = volume_sizes(fingerprint(cases=1), (2.0, 1.0, 1.0), 6.0, 5.0)
    np.testing.assert_allclose(sizes.regions, [[24.0, 92.0, 112.0]])
    # lesions of two slices of 3 mm = 6 mm and sides of 5 and 6 mm
    np.testing.assert_allclose(sizes.lesions, [[3.0, 5.0, 5.0], [3.0, 6.0, 6.0]])
    assert sizes.median_region == (24.0, 92.0, 112.0)
    assert sizes.lesion_quantile(0.5) == (3.0, 5.5, 5.5)


def test_without_ctv_the_body_in_all_slices_and_never_beyond_the_image() -> None:
    # body rows 20..180, columns 30..270 of 200 x 300, slices 5..15 of 20: every slice counts, margins of 25 mm end at
    # the image on three sides: rows 0..200, columns 5..295
    case = hand_made_case(
        "a", body_box=(5.0, 20.0, 30.0, 15.0, 180.0, 270.0), lesions=[box_lesion(1, (2, 4, 4))]
    )
    sizes = volume_sizes(Fingerprint("T", {"0": "CT"}, {"0": "x"}, [case]), (3.0, 1.0, 1.0), 0.0, 25.0)
    np.testing.assert_allclose(sizes.regions, [[20.0, 200.0, 290.0]])


def test_a_ctv_grows_to_the_end_of_the_image() -> None:
    case = hand_made_case(
        "a", ctv_box=(1.0, 0.0, 100.0, 20.0, 50.0, 299.0), lesions=[box_lesion(1, (2, 4, 4))]
    )
    sizes = volume_sizes(Fingerprint("T", {"0": "CTV"}, {"0": "x"}, [case]), (3.0, 1.0, 1.0), 6.0, 25.0)
    # z 1 - 2 -> 0 to 20; y 0 to 56; x 94 to 300
    np.testing.assert_allclose(sizes.regions, [[20.0, 56.0, 206.0]])


def test_large_lesions_coarsen_the_grid() -> None:
    """90 mm along z at 3 mm: 1.5 * 90 / 64 = 2.1 mm, fine as it is; 80 and 96 mm in-plane: 2.25 mm for both."""
    lesions = np.array([[90.0, 80.0, 96.0]] * 3)
    assert affordable_spacing((3.0, 1.0, 1.0), lesions, 64) == (3.0, 2.25, 2.25)
    assert affordable_spacing((1.0, 1.0, 1.0), lesions, 64) == (2.1094, 2.25, 2.25)
    assert affordable_spacing((3.0, 1.0, 1.0), lesions, 512) == (3.0, 1.0, 1.0)


def test_small_lesions_keep_four_voxels() -> None:
    # half of the lesions are of 6 mm: 1.5 mm at most, though those of 96 mm ask for 2.25
    lesions = np.array([[6.0, 6.0, 6.0], [96.0, 96.0, 96.0]] * 10)
    assert affordable_spacing((1.0, 1.0, 1.0), lesions, 64) == (1.5, 1.5, 1.5)
    assert affordable_spacing((3.0, 2.0, 2.0), lesions, 64) == (3.0, 2.0, 2.0)  # never finer
