import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from sklearn.metrics import cohen_kappa_score, roc_auc_score, roc_curve

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson
from nndet_psma.evaluation.statistics.reader_study import (
    Confusion,
    cohens_kappa,
    decision_threshold,
    delong_auc,
    mcnemar,
    study_scores,
)

KEYS = [
    "auc", "auc_ci95", "threshold", "tp", "fp", "tn", "fn", "accuracy", "sensitivity", "sensitivity_ci95",
    "specificity", "specificity_ci95", "ppv", "npv", "f1", "kappa", "mcnemar_p",
]  # fmt: skip


def study(truth, scores, other=None):
    return study_scores(
        np.array(truth, dtype=bool),
        np.array(scores, dtype=float),
        None if other is None else np.array(other, float),
    )


def test_a_decision_by_hand():
    # 8 TP, 2 FN, 3 FP, 7 TN; agreement 15/20, by chance (11 * 10 + 9 * 10) / 400 = 1/2: kappa 1/2;
    # area (sensitivity + specificity) / 2; McNemar: 3 against 2 of 5 differ: p = 1
    result = study([1] * 10 + [0] * 10, [1] * 8 + [0] * 2 + [1] * 3 + [0] * 7)
    assert list(result) == KEYS
    assert [result[key] for key in ("tp", "fp", "tn", "fn", "threshold")] == [8, 3, 7, 2, 1.0]
    assert (result["accuracy"], result["sensitivity"], result["specificity"]) == (0.75, 0.8, 0.7)
    assert (result["ppv"], result["npv"], result["f1"]) == pytest.approx((8 / 11, 7 / 9, 16 / 21))
    assert (result["auc"], result["kappa"], result["mcnemar_p"]) == pytest.approx((0.75, 0.5, 1.0))
    # Clopper and Pearson of 8 of 10, a textbook value
    assert result["sensitivity_ci95"] == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_youden_takes_the_highest_of_equal_cuts():
    # cut 0.9: 1/2 + 1 - 1; cut 0.7: 1 + 1/2 - 1: equal
    assert decision_threshold(np.array([0.9, 0.7, 0.8, 0.1]), np.array([True, True, False, False])) == 0.9
    result = study([1, 1, 0, 0], [0.9, 0.8, 0.7, 0.1])
    assert (result["threshold"], result["auc"]) == (0.8, 1.0)


def test_two_columns():
    # truth 1 1 1 1 1 1; first right about all, second about none: 6 of 6: p = 2 / 2^6
    truth = [1] * 6 + [0] * 2
    result = study(truth, truth, [0] * 6 + [0] * 2)
    assert result["mcnemar_p"] == pytest.approx(2 / 64)
    assert study(truth, truth, truth)["mcnemar_p"] == 1.0


@pytest.mark.parametrize(
    ("truth", "scores", "undefined"),
    [
        ([], [], set(KEYS) - {"threshold", "tp", "fp", "tn", "fn", "mcnemar_p"}),
        ([1, 1], [1, 0], {"auc", "auc_ci95", "specificity", "specificity_ci95"}),
        ([1, 1], [0.2, 0.7], set(KEYS)),  # no cut without both kinds
        ([0, 0], [0, 0], {"auc", "auc_ci95", "sensitivity", "sensitivity_ci95", "ppv", "f1", "kappa"}),
        ([1, 0], [0.7, 0.2], {"auc_ci95"}),  # one of each: no spread
    ],
)
def test_undefined_is_none(truth, scores, undefined):
    result = study(truth, scores)
    assert {key for key, value in result.items() if value is None} == undefined


def test_mcnemar_counts_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(4, 1) == pytest.approx(2 * 6 / 32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_exact_interval_equals_scipy(pair):
    hits, total = pair
    expected = binomtest(hits, total).proportion_ci(method="exact")
    assert clopper_pearson(hits, total) == pytest.approx((expected.low, expected.high))


def slow_delong(scores, truth):
    """Variance from the definition: how each positive and each negative does against all of the other kind."""
    positive, negative = scores[truth], scores[~truth]
    wins = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])
    return wins.mean(), [
        wins.mean(axis=1).var(ddof=1) / len(positive), wins.mean(axis=0).var(ddof=1) / len(negative)
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_area_and_interval_equal_slow_references(seed):
    rng = np.random.default_rng(seed)
    truth = np.array([True, True, False, False, *(rng.uniform(size=12) < 0.5)])
    scores = rng.integers(0, 8, len(truth)) / 8 + 0.3 * truth
    area, (low, high) = delong_auc(scores, truth)
    expected, (first, second) = slow_delong(scores, truth)
    assert area == pytest.approx(expected) == pytest.approx(roc_auc_score(truth, scores))
    if first + second > 0:
        freedom = (first + second) ** 2 / (first**2 / (truth.sum() - 1) + second**2 / ((~truth).sum() - 1))
        reach = t.ppf(0.975, freedom) * (first + second) ** 0.5 / (expected * (1 - expected))
        odds = expected / (1 - expected)
        assert [low / (1 - low), high / (1 - high)] == pytest.approx(
            [odds / np.exp(reach), odds * np.exp(reach)]
        )
    else:  # told apart perfectly
        assert high - low > 0.1
    cut = decision_threshold(scores, truth)
    fpr, tpr, cuts = roc_curve(truth, scores, drop_intermediate=False)
    assert (tpr - fpr)[list(cuts).index(cut)] == pytest.approx((tpr - fpr).max())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_kappa_equals_scikit_learn(rows):
    first, second = (np.array(column) for column in zip(*rows, strict=True))
    found = cohens_kappa(Confusion.of(first, second))
    if found is None:
        assert (first == first[0]).all()
        assert (second == first[0]).all()
    else:
        assert found == pytest.approx(cohen_kappa_score(first, second))


@pytest.mark.parametrize(("positives", "negatives"), [(37, 40), (40, 37), (2, 9)])
def test_perfect_areas_have_a_bound(positives, negatives):
    # k = min(37, 40) pairs that share no row are all in order with at most AUC^37: 0.025 at 0.905
    truth = np.arange(positives + negatives) < positives
    bound = 0.025 ** (1 / min(positives, negatives))
    scores = np.where(truth, 2.0, 1.0) + np.arange(len(truth)) / 1000
    assert delong_auc(scores, truth) == (1.0, pytest.approx((bound, 1.0)))
    assert delong_auc(-scores, truth) == (0.0, pytest.approx((0.0, 1 - bound)))


def test_equal_scores_tell_nothing():
    # as if of four pairs two were in order
    area, ends = delong_auc(np.zeros(9), np.arange(9) < 4)
    assert (area, ends) == (0.5, pytest.approx(clopper_pearson(2, 4)))


def test_the_bound_of_a_perfect_area_holds_for_the_worst_distribution():
    # a share 1 - AUC of the five positives lies below all negatives: P(perfect) = AUC^5, at the bound just 0.025
    rng = np.random.default_rng(0)
    truth, bound = np.arange(25) < 5, 0.025 ** (1 / 5)
    perfect = 0
    for _ in range(4000):
        scores = np.where(truth, np.where(rng.uniform(size=25) < bound, 2.0, 0.0), 1.0)
        perfect += delong_auc(scores, truth)[0] == 1.0
    assert perfect / 4000 == pytest.approx(0.025, abs=0.006)


@pytest.mark.parametrize(("apart", "positives"), [(1.0, 40), (3.0, 9), (3.0, 40), (1.5, 5)])
def test_delong_covers_what_it_promises(apart, positives):
    # 95 % intervals of 300 samples of a known area (normal, so far apart) hold it as often; plain ones in 85 % near 1
    rng = np.random.default_rng(1)
    truth, area = np.arange(positives + 40) < positives, norm.cdf(apart / 2**0.5)
    held = 0
    for _ in range(300):
        low, high = delong_auc(rng.normal(size=positives + 40) + apart * truth, truth)[1]
        held += low <= area <= high
    assert held / 300 > 0.915
