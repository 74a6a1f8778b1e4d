import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from nndet_psma.evaluation.statistics.calibration import calibration


def test_by_hand():
    # bins 0.2..0.3: two rows at 0.25, one a yes (0.5); 0.7..0.8: two rows at 0.75, both a yes: gaps 0.25 and 0.25
    found = calibration(np.array([0.25, 0.25, 0.75, 0.75]), np.array([True, False, True, True]))
    assert found.expected_error == pytest.approx(0.25)
    assert found.brier == pytest.approx((0.75**2 + 0.25**2 + 2 * 0.25**2) / 4)
    assert [(row.low, row.high, row.observed.hits, row.observed.total) for row in found.bins] == [
        (0.2, 0.3, 1, 2),
        (0.7, 0.8, 2, 2),
    ]


def test_slope_and_intercept_of_probabilities_that_are_wrong_in_a_known_way():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 100_000)
    truth = rng.random(100_000) < expit(0.5 * logits - 1)
    found = calibration(expit(logits), truth)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    shifted = calibration(expit(0.5 * logits + 1), truth)  # right slope, two too high
    assert (shifted.slope, shifted.intercept) == pytest.approx((1.0, -2.0), abs=0.05)


def test_slope_is_that_of_a_logistic_regression():
    rng = np.random.default_rng(1)
    p = rng.random(60)
    truth = rng.random(60) < p
    oracle = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000)
    oracle.fit(np.log(p / (1 - p))[:, None], truth)
    assert calibration(p, truth).slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)


def test_where_nothing_can_be_said():
    empty = calibration(np.zeros(0), np.zeros(0, bool))
    assert (empty.slope, empty.intercept, empty.expected_error, empty.brier, empty.bins) == (None,) * 4 + (
        [],
    )
    one_kind = calibration(np.array([0.2, 0.4]), np.array([True, True]))
    assert (one_kind.slope, one_kind.intercept) == (None, None)
    apart = calibration(np.array([0.2, 0.4, 0.8]), np.array([False, False, True]))
    assert apart.slope is None
    assert apart.intercept is not None
    equal = calibration(np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, False, False, False]))
    assert equal.slope is None
    assert equal.intercept == pytest.approx(-np.log(3))  # odds of 1 to 3
    certain = calibration(np.array([0.0, 1.0, 1.0, 0.0]), np.array([False, True, False, True]))
    assert np.isfinite([certain.slope, certain.intercept]).all()
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        calibration(np.array([1.2]), np.array([True]))
