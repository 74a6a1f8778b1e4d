"""Segmentation scores by hand, against slow references and against MONAI."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nndet_psma.evaluation.masks.pooled_segmentation import pool_segmentation
from nndet_psma.evaluation.masks.segmentation_scores import (
    DISTANCES,
    OVERLAPS,
    VoxelCounts,
    mahalanobis_distance,
    segmentation_scores,
)
from nndet_psma.evaluation.masks.surface_distance import surface, surface_distances, voxel_distances

SPACING = (3.0, 0.5, 1.0)


def random_pair(seed, share=0.3, shape=(4, 6, 7)):
    rng = np.random.default_rng(seed)
    first, second = rng.random(shape) < share, rng.random(shape) < share
    first[0, 0, 0] = second[-1, -1, -1] = True
    return first, second


def all_pairs(first, second, spacing):
    """Distances from every voxel of one to the nearest of the other, both ways: slow and evident."""
    one, other = np.argwhere(first) * np.array(spacing), np.argwhere(second) * np.array(spacing)
    apart = np.linalg.norm(one[:, None] - other[None], axis=2)
    return apart.min(axis=1), apart.min(axis=0)


def test_counts_by_hand():
    # 6 voxels predicted, 5 true, 4 shared
    prediction, truth = np.zeros((1, 1, 9), dtype=bool), np.zeros((1, 1, 9), dtype=bool)
    prediction[..., 0:6], truth[..., 2:7] = True, True
    scores = segmentation_scores(prediction, truth, SPACING)
    assert (scores.tp, scores.fp, scores.fn) == (4, 2, 1)
    assert scores.dice == pytest.approx(8 / 11)
    assert scores.ppv == pytest.approx(4 / 6)
    assert scores.tpr == pytest.approx(4 / 5)
    assert scores.volumetric_similarity == pytest.approx(1 - 1 / 11)


def test_distances_by_hand():
    # a row of voxels 1 mm apart: prediction 0, 1, 2, truth 2, 3. From the prediction: 2, 1, 0; from the truth: 0, 1.
    prediction, truth = np.zeros((1, 1, 5), dtype=bool), np.zeros((1, 1, 5), dtype=bool)
    prediction[..., :3], truth[..., 2:4] = True, True
    scores = segmentation_scores(prediction, truth, SPACING)
    assert scores.hausdorff_mm == 2
    assert scores.average_hausdorff_mm == pytest.approx(1)  # max(3 / 3, 1 / 2)
    assert scores.surface_distance_mm == pytest.approx(4 / 5)
    assert scores.hd95_mm == pytest.approx(1.9)  # between 1 (half) and 2 (all) at 95 %
    # means 1 and 2.5; variances 2/3 of 3 voxels and 1/4 of 2: (2 + 0.5) / 5 = 0.5
    assert scores.mahalanobis == pytest.approx(1.5 / math.sqrt(0.5))


def test_surface_and_voxel_sets_differ_for_a_shell():
    # the truth is one voxel in the middle of a filled 5 x 5 x 5 cube: no voxel of the truth is away from the cube, but
    # its surface is 2 voxels from the surface of the cube. The far corners of the cube are 2 * sqrt(3) away in both.
    cube, dot = np.ones((5, 5, 5), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    dot[2, 2, 2] = True
    voxels, surfaces = (find(cube, dot, (1.0, 1.0, 1.0)) for find in (voxel_distances, surface_distances))
    assert (voxels.backward.tolist(), surfaces.backward.tolist()) == ([0.0], [2.0])
    assert voxels.hausdorff == surfaces.hausdorff == pytest.approx(2 * 3**0.5)
    assert (len(voxels.forward), len(surfaces.forward)) == (125, 125 - 27)


def test_the_border_of_the_image_is_a_surface():
    assert surface(np.ones((3, 3, 3), dtype=bool)).sum() == 26
    assert surface(np.ones((1, 4, 4), dtype=bool)).all()


@given(st.integers(0, 2**31), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_distances_equal_those_of_all_pairs(seed, share):
    first, second = random_pair(seed, share)
    forward, backward = all_pairs(first, second, SPACING)
    found = voxel_distances(first, second, SPACING)
    assert np.sort(found.forward) == pytest.approx(np.sort(forward))
    assert np.sort(found.backward) == pytest.approx(np.sort(backward))
    edges = surface(first), surface(second)
    forward, backward = all_pairs(*edges, SPACING)
    found = surface_distances(first, second, SPACING)
    assert found.hausdorff == pytest.approx(max(forward.max(), backward.max()))
    assert found.mean == pytest.approx(np.concatenate([forward, backward]).mean())


@given(st.integers(0, 2**31), st.floats(0.02, 0.6))
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_same_values_as_monai(seed, share):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    first, second = random_pair(seed, share, (6, 9, 8))
    scores = segmentation_scores(first, second, SPACING)
    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (first, second)]
    common = {"include_background": True, "spacing": list(SPACING)}
    assert scores.dice == pytest.approx(float(compute_dice(*pair)))
    assert scores.surface_hausdorff_mm == pytest.approx(float(compute_hausdorff_distance(*pair, **common)))
    expected = float(compute_hausdorff_distance(*pair, percentile=95, **common))
    assert scores.hd95_mm == pytest.approx(expected, rel=1e-5)
    expected = float(compute_average_surface_distance(*pair, symmetric=True, **common))
    assert scores.surface_distance_mm == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_properties(seed):
    first, second = random_pair(seed)
    one, other = segmentation_scores(first, second, SPACING), segmentation_scores(second, first, SPACING)
    for name in (*DISTANCES, "dice", "volumetric_similarity"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))
    assert (one.ppv, one.tpr) == (other.tpr, other.ppv)
    assert 0 <= one.hd95_mm <= one.surface_hausdorff_mm
    assert one.average_hausdorff_mm <= one.hausdorff_mm <= one.surface_hausdorff_mm + 1e-9
    double = segmentation_scores(first, second, tuple(2 * s for s in SPACING))
    assert double.hd95_mm == pytest.approx(2 * one.hd95_mm)
    assert double.mahalanobis == pytest.approx(one.mahalanobis)  # it has no unit
    same = segmentation_scores(first, first, SPACING)
    assert [same.dice, same.ppv, same.tpr, same.volumetric_similarity] == [1, 1, 1, 1]
    assert [getattr(same, name) for name in DISTANCES] == [0] * 6


def test_mahalanobis_against_the_formula():
    first, second = random_pair(3)
    points = [np.argwhere(mask) * np.array(SPACING) for mask in (first, second)]
    spread = sum(len(p) * np.cov(p.T, bias=True) for p in points) / sum(map(len, points))
    apart = points[0].mean(axis=0) - points[1].mean(axis=0)
    assert mahalanobis_distance(first, second, SPACING) == pytest.approx(
        math.sqrt(apart @ np.linalg.inv(spread) @ apart)
    )


def test_mahalanobis_of_flat_masks():
    flat, shifted, above = (np.zeros((3, 6, 6), dtype=bool) for _ in range(3))
    flat[1, 1:4, 1:4], shifted[1, 1:4, 2:5], above[2, 1:4, 1:4] = True, True, True
    # in one slice the formula holds in two dimensions: 1 mm apart, variance 2/3 mm2
    assert mahalanobis_distance(flat, shifted, (3.0, 1.0, 1.0)) == pytest.approx(math.sqrt(1.5))
    assert (
        mahalanobis_distance(flat, above, (3.0, 1.0, 1.0)) is None
    )  # no spread in the direction of the step


def test_empty_masks():
    none, some = np.zeros((2, 3, 4), dtype=bool), np.ones((2, 3, 4), dtype=bool)
    both = segmentation_scores(none, none, SPACING)
    assert {getattr(both, name) for name in (*OVERLAPS, *DISTANCES)} == {None}
    missed, invented = segmentation_scores(none, some, SPACING), segmentation_scores(some, none, SPACING)
    assert (missed.dice, missed.ppv, missed.tpr, missed.volumetric_similarity) == (0, None, 0, 0)
    assert (invented.dice, invented.ppv, invented.tpr) == (0, 0, None)
    assert {getattr(missed, name) for name in DISTANCES} == {None}
    assert voxel_distances(none, some, SPACING) is None


def test_masks_of_different_shapes():
    with pytest.raises(ValueError, match="different shapes"):
        segmentation_scores(np.ones((1, 2, 3), dtype=bool), np.ones((1, 2, 4), dtype=bool), SPACING)


def row(prediction, truth):
    masks = np.zeros((2, 1, 1, 10), dtype=bool)
    masks[0, ..., prediction], masks[1, ..., truth] = True, True
    return segmentation_scores(*masks, (1.0, 1.0, 1.0))


def test_pooling():
    # dice 1 of 2 voxels, dice 0.5 (2 and 2 voxels, 1 shared), and a case without anything
    scores = [row(slice(0, 2), slice(0, 2)), row(slice(0, 2), slice(1, 3)), row(slice(0, 0), slice(0, 0))]
    pooled = pool_segmentation(scores, ["a", "b", "c"], draws=200)
    dice = pooled.per_case["dice"]
    assert (dice.mean, dice.cases, dice.undefined) == (0.75, 2, 1)
    assert dice.sd == pytest.approx(math.sqrt(0.125))  # +-0.25, n - 1 = 1
    assert pooled.pooled["dice"] == pytest.approx(6 / 8)  # 3 of 4 and 4 voxels
    # of two patients nothing is known: Student's quantile with one degree of freedom is 12.7
    assert (dice.ci_low, dice.ci_high) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    assert pooled.intervals == "studentised"
    assert pool_segmentation(scores, ["a", "a", "a"]).per_case["dice"].ci_low is None
    assert pool_segmentation([], []).per_case["dice"].mean is None
    with pytest.raises(ValueError, match="3 scores of 1"):
        pool_segmentation(scores, ["a"])


def test_intervals_of_few_and_many_patients():
    # dice 1 and 0.5 by turns: mean 0.75, error 0.25 / sqrt(n - 1), Student's quantile, on the logit scale
    kinds = [row(slice(0, 2), slice(0, 2)), row(slice(0, 2), slice(1, 3))]
    few = pool_segmentation(kinds * 10, [str(n) for n in range(20)], draws=4000).per_case
    half = stats.t.ppf(0.975, 19) * 0.25 / math.sqrt(19) / (0.75 * 0.25)
    ends = [1 / (1 + math.exp(-(math.log(3) + side * half))) for side in (-1, 1)]
    assert [few["dice"].ci_low, few["dice"].ci_high] == pytest.approx(ends, abs=0.01)
    assert few["hausdorff_mm"].ci_low > 0
    same = pool_segmentation(kinds[:1] * 5, [str(n) for n in range(5)]).per_case
    assert (same["dice"].ci_low, same["dice"].ci_high) == (pytest.approx(0.025 ** (1 / 5)), 1.0)
    assert (same["hausdorff_mm"].ci_low, same["hausdorff_mm"].ci_high) == (0.0, 0.0)
    assert pool_segmentation(kinds * 50, [str(n) for n in range(100)]).intervals == "percentile"


def test_counts_add_up():
    assert VoxelCounts(1, 2, 3) + VoxelCounts(4, 5, 6) == VoxelCounts(5, 7, 9)
