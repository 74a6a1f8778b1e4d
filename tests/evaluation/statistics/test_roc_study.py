import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.evaluation.statistics.auc import auc, dense_ranks, rank_aucs, stratified_auc
from nndet_psma.evaluation.statistics.reader_study import delong_auc, delong_difference, sensitive_threshold
from nndet_psma.evaluation.statistics.roc_study import (
    RocQuestions,
    comparisons,
    roc_answers,
    stratified_interval,
)

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12)


@settings(max_examples=60)
@given(rows, st.integers(0, 100))
def test_areas_of_draws_are_areas_of_the_drawn_rows(content, seed):
    truth, scores, strata = (np.array(column) for column in zip(*content, strict=True))
    weights = np.random.default_rng(seed).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=4)
    found = rank_aucs(dense_ranks(scores), truth, weights)
    within = stratified_auc(dense_ranks(scores), truth, strata, weights)
    for times, value, inside in zip(weights, found, within, strict=True):
        drawn = np.repeat(np.arange(len(truth)), times)
        slow = auc(scores[drawn], truth[drawn])
        assert value == pytest.approx(slow, nan_ok=True) if slow is not None else np.isnan(value)
        pairs = [
            (scores[a] > scores[b]) + (scores[a] == scores[b]) / 2
            for a in drawn
            for b in drawn
            if truth[a] and not truth[b] and strata[a] == strata[b]
        ]
        assert inside == pytest.approx(np.mean(pairs)) if pairs else np.isnan(inside)


def test_a_score_that_tells_only_the_strata_apart():
    # station A: 3 of 4 positive, station B: 1 of 4; the score is the station
    truth = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    scores = np.array([1.0] * 4 + [0.0] * 4)
    answers = roc_answers(truth, scores, RocQuestions(strata=["A"] * 4 + ["B"] * 4))
    assert auc(scores, truth) == 0.75
    assert answers["stratified_auc"] == 0.5
    assert answers["strata"]["A"] == {"rows": 4, "positives": 3, "auc": 0.5, "auc_ci95": None}


def test_strata_without_both_kinds():
    answers = roc_answers(np.array([True, False]), np.array([1.0, 0.0]), RocQuestions(strata=["A", "B"]))
    assert (answers["stratified_auc"], answers["stratified_auc_ci95"]) == (None, None)
    assert answers["strata"]["B"]["auc"] is None


def test_rates_at_a_sensitivity():
    truth = np.array([1] * 10 + [0] * 5, bool)
    scores = np.array([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 2.5, 2.5, 1.5, 0, 0], float)
    # nine of ten positives reach 2; 2.5 twice of five negatives, too
    found = roc_answers(truth, scores, RocQuestions(at_sensitivity=0.9))["at_sensitivity"]
    assert (found["threshold"], found["tp"], found["fp"], found["specificity"]) == (2.0, 9, 2, 0.6)
    assert sensitive_threshold(scores, truth, 1.0) == 1.0
    assert sensitive_threshold(scores, truth, 0.05) == 10.0
    assert sensitive_threshold(scores, np.zeros(15, bool), 0.9) is None
    assert roc_answers(~truth & truth, scores, RocQuestions(at_sensitivity=0.9)) == {"at_sensitivity": None}


def test_draws_that_keep_both_kinds():
    rng = np.random.default_rng(3)
    truth = np.repeat([True, False], 65)
    scores = rng.normal(truth * 1.5, 1)
    low, high = stratified_interval(truth, scores, draws=10_000)
    area, (delong_low, delong_high) = delong_auc(scores, truth)
    assert low < area < high
    assert (low, high) == pytest.approx((delong_low, delong_high), abs=0.015)
    assert stratified_interval(truth, scores, draws=200) == stratified_interval(truth, scores, draws=200)
    assert stratified_interval(truth | True, scores, draws=9) is None


def test_intervals_over_patients_are_wider_where_patients_repeat_themselves():
    rng = np.random.default_rng(5)
    truth = np.arange(20) % 2 == 0
    scores = rng.normal(truth * 1.0, 1)
    once = roc_answers(truth, scores, RocQuestions(patients=[str(i) for i in range(20)]))["by_patient"]
    names = [str(i) for i in range(20) for _ in range(5)]
    repeated = roc_answers(np.repeat(truth, 5), np.repeat(scores, 5), RocQuestions(patients=names))[
        "by_patient"
    ]
    assert (once["patients"], once["intervals"]) == (20, "studentised")
    assert repeated == once  # five equal rows of a patient tell nothing new
    assert {"sensitivity_ci95", "specificity_ci95", "ppv_ci95", "npv_ci95", "accuracy_ci95"} <= set(once)


def test_patients_without_both_kinds_of_truth():
    answers = roc_answers(np.ones(4, bool), np.arange(4.0), RocQuestions(patients=list("aabb")))
    assert answers == {"by_patient": {"patients": 2, "intervals": "studentised", "auc_ci95": None}}


def test_paired_difference():
    truth = np.array([1, 1, 0, 0], bool)
    same = delong_difference(np.arange(4.0), np.arange(4.0), truth)
    assert (same.value, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    better = delong_difference(np.array([4.0, 3, 2, 1]), np.array([1.0, 4, 3, 2]), truth)
    assert better.value == 0.5  # four pairs in order against two
    # placements of the positives 1 1 against 0 1, of the negatives 1 1 against 0.5 0.5: variances 1/2 and 0
    assert better.interval[1] == 1.0
    assert better.p == pytest.approx(0.317, abs=1e-3)  # 0.5 / sqrt(0.5 / 2): one standard error
    assert delong_difference(np.arange(2.0), np.arange(2.0), np.ones(2, bool)).value is None
    assert delong_difference(np.arange(2.0), np.arange(2.0), np.array([True, False])).p is None


def test_unpaired_variance_is_recovered_without_correlation():
    """With independent columns the paired variance is about the sum of both."""
    rng = np.random.default_rng(11)
    truth = np.repeat([True, False], 400)
    first, second = rng.normal(truth * 1.0, 1), rng.normal(truth * 1.0, 1)
    widths = [np.subtract(*delong_auc(column, truth)[1]) for column in (first, second)]
    low, high = delong_difference(first, second, truth).interval
    assert high - low == pytest.approx(np.hypot(*widths), rel=0.1)


def test_every_pair_is_compared_and_adjusted():
    truth = np.array([1] * 8 + [0] * 8, bool)
    right, wrong = truth.astype(float), (~truth).astype(float)
    found = comparisons(truth, {"a": right, "b": wrong, "c": right})
    assert [(row["first"], row["second"]) for row in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0]["mcnemar_p"] == pytest.approx(2 / 2**16)
    assert found[0]["mcnemar_p_bonferroni"] == pytest.approx(6 / 2**16)
    assert found[2]["mcnemar_p_holm"] == pytest.approx(6 / 2**16)
    assert (found[1]["mcnemar_p"], found[1]["auc_difference"]) == (1.0, 0.0)
    assert comparisons(np.ones(3, bool), {"a": np.arange(3.0), "b": np.arange(3.0)}) == []
