import numpy as np
import pytest

from nndet_psma.evaluation.statistics.decision_curve import THRESHOLDS, decision_curve


def test_by_hand():
    # of 10 rows 4 are a yes; from 0.2 on 3 yes and 2 no are called: 3/10 - 2/10 * 0.25; all: 4/10 - 6/10 * 0.25
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    p = np.array([0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.0, 0.0])
    [row] = decision_curve(p, truth, (0.2,))
    assert (row.model, row.treat_all, row.treat_none) == pytest.approx((0.25, 0.25, 0.0))
    [half] = decision_curve(p, truth, (0.5,))
    assert (half.model, half.treat_all) == pytest.approx((0.2 - 0.1, 0.4 - 0.6))


def test_thresholds():
    assert (THRESHOLDS[0], THRESHOLDS[-1], len(THRESHOLDS)) == (0.01, 0.6, 60)
    assert decision_curve(np.zeros(0), np.zeros(0, bool)) == []
    with pytest.raises(ValueError, match="thresholds"):
        decision_curve(np.ones(1), np.ones(1, bool), (1.0,))
