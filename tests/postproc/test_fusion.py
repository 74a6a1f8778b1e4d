"""One score of detector and second stage: the regression by hand, its threshold, what is told of it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.postproc.calibration import CalibratedCutoff
from nndet_psma.postproc.fusion import FEWEST, Fusion, _best_f1, fit_fusion


def _odds(p):
    return math.log(p / (1 - p))


def test_the_score_by_hand():
    """-1 + 0.5 * ln(4) + 2 * ln(9) = 4.0876; 1 / (1 + exp(-4.0876)) = 0.98350."""
    assert Fusion(-1.0, 0.5, 2.0, 0.5).score(0.8, 0.9) == pytest.approx(0.98350, abs=1e-5)
    assert Fusion(0.0, 1.0, 0.0, 0.5).score(0.3, 0.9) == pytest.approx(0.3)
    assert 0 < Fusion(0.0, 1.0, 1.0, 0.5).score(0.0, 1.0) < 1  # odds of 0 and 1 are bounded


def test_the_highest_threshold_of_best_f1():
    """Accepted 1: F1 2/4, 2: 2/5, 3: 4/6, 4: 4/7; of two equal scores both are accepted."""
    scores, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, True])
    assert _best_f1(scores, truth) == 0.1  # 6/7
    truth = np.array([True, False, True, False])
    assert _best_f1(scores, truth) == 0.7  # 2/3, 2/4, 4/5, 4/6
    assert _best_f1(np.array([0.9, 0.5, 0.5]), np.array([True, False, True])) == 0.5


def _candidates(seed=0, count=400, told=2.0):
    """Half of them lesions; the detector is not much better than chance, the second stage tells them apart."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    detector = 1 / (1 + np.exp(-(rng.normal(size=count) + 0.5 * truth)))
    status = 1 / (1 + np.exp(-(rng.normal(size=count) + told * (2 * truth - 1))))
    return detector, status, truth, np.arange(count) % 3


def test_the_better_stage_weighs_more():
    detector, status, truth, groups = _candidates()
    fusion, note = fit_fusion(detector, status, truth, groups)
    assert fusion.status > 2 * fusion.detector > 0
    assert 0.2 < fusion.threshold < 0.8
    fused, alone = map(float, re.findall(r"0\.\d{3}", note))
    assert fused > alone + 0.2
    again = from_plain(CalibratedCutoff, to_plain(CalibratedCutoff("yes", fusion=fusion)))
    assert again.fusion == fusion


def test_a_second_stage_that_knows_nothing_is_not_fused():
    """Judged on folds that it was not fitted on: there noise makes the ranking worse."""
    detector, status, truth, groups = _candidates(told=0.0, seed=1)
    fusion, note = fit_fusion(detector, status, truth, groups)
    assert fusion is None
    assert note.startswith(
        "not fused: the average precision of 400 candidates, each fold by the fusion of the others"
    )


def test_one_fold_alone_is_not_fused():
    detector, status, truth, _ = _candidates()
    fusion, note = fit_fusion(detector, status, truth, np.zeros(len(truth), dtype=int))
    assert fusion is None
    assert "two folds" in note


def test_too_few_candidates_are_not_fused():
    detector, status, truth, groups = _candidates(count=2 * FEWEST - 1)
    assert fit_fusion(detector, status, truth, groups) == (
        None,
        f"not fused with the detector's score: fewer than {FEWEST} candidates of a kind",
    )


def test_weights_of_a_stranger_are_bounded():
    with pytest.raises(ValueError, match=r"fusion\.status"):
        from_plain(
            CalibratedCutoff,
            {"positive": "a", "fusion": {"intercept": 0.0, "detector": 1.0, "status": 1e9, "threshold": 0.5}},
        )
