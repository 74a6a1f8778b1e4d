import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cases import random_records, row_cases

from nndet_psma.evaluation.detection.average_precision import average_precision
from nndet_psma.evaluation.detection.draws import (
    drawn_auc,
    drawn_curves,
    drawn_points,
    drawn_share,
    mean_of_drawn,
)
from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve
from nndet_psma.evaluation.detection.operating_points import operating_points
from nndet_psma.evaluation.detection.ranking import DetectionColumns, rank_detections
from nndet_psma.evaluation.statistics.auc import dense_ranks, rank_auc


def nan(value):
    return np.nan if value is None else value


@settings(max_examples=120, deadline=None)
@given(random_records(min_cases=1), st.integers(0, 2**32 - 1))
def test_many_draws_equal_one_by_one(records, seed):
    draws = np.random.default_rng(seed).integers(0, 4, (6, len(records)))
    draws[0] = 1
    draws[draws.sum(axis=1) == 0] = 1  # a draw holds a case
    ranked = rank_detections(records, iou=0.5)
    curves = drawn_curves([ranked], draws)[0]
    points = drawn_points(ranked, [0.002, 0.5, 1.0], draws)
    for row, weights in enumerate(draws):
        assert curves.average_precision[row] == pytest.approx(
            nan(average_precision(ranked, weights)), nan_ok=True
        )
        curve = froc_curve(ranked, weights)
        expected = np.full(7, np.nan) if curve is None else curve.sensitivity_at()
        assert curves.sensitivities[row].tolist() == pytest.approx(expected.tolist(), nan_ok=True)
        for column, point in enumerate(operating_points(ranked, [0.002, 0.5, 1.0], weights)):
            for name, values in points.items():
                assert values[row, column] == pytest.approx(nan(getattr(point, name)), nan_ok=True), name


def test_rankings_of_one_family_are_drawn_together():
    rng = np.random.default_rng(0)
    cases = [
        (
            range(3),
            [(float(s), int(x)) for s, x in zip(rng.uniform(size=8), rng.integers(0, 6, 8), strict=True)],
        )
        for _ in range(5)
    ]
    family = DetectionColumns.of(row_cases(*cases)).rank(["0.10", "0.50"])
    draws = rng.multinomial(5, np.full(5, 0.2), size=4)
    for ranked, together in zip(family, drawn_curves(family, draws), strict=True):
        alone = drawn_curves([ranked], draws)[0]
        assert (together.average_precision == alone.average_precision).all()
    with pytest.raises(ValueError, match="do not share"):
        drawn_curves([family[0], rank_detections(row_cases(([0], [(0.9, 0)])), iou=0.1)], draws)


def test_no_draws_and_no_rankings():
    ranked = rank_detections(row_cases(([0], [(0.9, 0)])), iou=0.5)
    curves = drawn_curves([ranked], np.zeros((0, 1), dtype=np.int64))[0]
    assert curves.average_precision.shape == (0,)
    assert curves.sensitivities.shape == (0, len(FP_RATES))
    assert drawn_curves([], np.ones((2, 1), dtype=np.int64)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auc_equals_one_by_one(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(0, 12))
    ranks, positive = dense_ranks(rng.integers(0, 4, size) / 4), rng.uniform(size=size) < 0.5
    cases, draws = rng.integers(0, 3, size), rng.integers(0, 3, (5, 3))
    expected = [nan(rank_auc(ranks, positive, weights[cases])) for weights in draws]
    assert drawn_auc(ranks, positive, cases, draws).tolist() == pytest.approx(expected, nan_ok=True)


def test_share_and_mean():
    # case 0: 1 of 2 hit, case 1: 1 of 1; drawn (1, 1), (0, 2), (2, 0), and a draw without any row
    share = drawn_share(
        np.array([True, False, True]),
        np.array([0, 0, 1]),
        np.array([[1, 1, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2]]),
    )
    assert share.tolist() == pytest.approx([2 / 3, 1.0, 0.5, np.nan], nan_ok=True)
    assert mean_of_drawn([share, np.array([0.0, np.nan, np.nan, np.nan])]).tolist() == pytest.approx(
        [1 / 3, 1.0, 0.5, np.nan], nan_ok=True
    )
