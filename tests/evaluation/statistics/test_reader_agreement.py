"""Agreement of readers and measurements; the figures that the study of DWI nodes (2022) printed come out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.evaluation.masks.node_detection import NodeDetection
from nndet_psma.evaluation.statistics.agreement import (
    binomial_auc_interval,
    patient_agreement,
    reader_agreement,
)
from nndet_psma.evaluation.statistics.bland_altman import bland_altman
from nndet_psma.evaluation.statistics.kappa import cohens_kappa_of, kappa_of_table
from nndet_psma.evaluation.statistics.pearson import pearson
from nndet_psma.evaluation.statistics.proportion import Proportion


def test_the_papers_nodes():
    # testing set: 226 of 231 predictions right, 226 of 230 nodes found. 0.978, 0.983 and 0.980; the paper cuts the
    # first and the last to 0.97 and gives the second as 0.98
    found = NodeDetection(found=226, missed=4, right=226, false=5)
    assert (round(found.precision, 3), round(found.recall, 3), round(found.f1, 3)) == (0.978, 0.983, 0.980)


def test_the_papers_patients():
    # hold-out set: 37 of 37 with and 37 of 40 without suspicious nodes staged right
    truth = [True] * 37 + [False] * 40
    called = [True] * 37 + [True] * 3 + [False] * 37
    result = patient_agreement(called, truth)
    sensitivity, specificity = result.sensitivity, result.specificity
    assert (sensitivity.hits, sensitivity.total, sensitivity.value) == (37, 37, 1.0)
    assert (round(100 * sensitivity.ci_low, 1), sensitivity.ci_high) == (90.5, 1.0)
    assert round(100 * specificity.value, 1) == 92.5
    assert (round(100 * specificity.ci_low, 1), round(100 * specificity.ci_high, 1)) == (79.6, 98.4)
    assert result.auc == pytest.approx(0.9625)  # printed 0.963
    assert [round(end, 3) for end in result.auc_exact] == [0.892, 0.993]
    # observed 74 / 77, by chance (40 * 37 + 37 * 40) / 77^2
    assert result.kappa.value == pytest.approx((74 / 77 - 2960 / 5929) / (1 - 2960 / 5929))
    assert round(result.kappa.value, 3) == 0.922


def test_scores_beside_decisions():
    result = patient_agreement([True, False, False], [True, False, True], [12.0, 3.0, 7.0])
    assert (result.auc, result.counts.fn, result.sensitivity.value) == (1.0, 1, 0.5)
    one_kind = patient_agreement([True, False], [True, True])
    assert (one_kind.auc, one_kind.auc_exact, one_kind.specificity.value) == (None, None, None)
    with pytest.raises(ValueError, match="different lengths"):
        patient_agreement([True], [True, False])


def test_the_binomial_interval_of_an_auc_at_its_ends():
    assert binomial_auc_interval(1.0, 37) == pytest.approx((0.025 ** (1 / 37), 1.0))
    assert binomial_auc_interval(0.0, 37) == pytest.approx((0.0, 1 - 0.025 ** (1 / 37)))
    with pytest.raises(ValueError, match="no AUC"):
        binomial_auc_interval(1.2, 10)


def test_proportions():
    # no hit: the upper end p solves (1 - p)^3 = 0.025
    none = Proportion.of(0, 3)
    assert (none.value, none.ci_low) == (0, 0)
    assert none.ci_high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert Proportion.of(0, 0) == Proportion(0, 0, None, None, None)
    with pytest.raises(ValueError, match="no share"):
        Proportion.of(4, 3)
    with pytest.raises(ValueError, match="level"):
        Proportion.of(1, 3, level=1.0)


def numeric_error(table):
    """Standard error by the delta method with numeric derivatives of kappa: an independent way."""

    def value(shares):
        chance = shares.sum(axis=1) @ shares.sum(axis=0)
        return (np.trace(shares) - chance) / (1 - chance)

    total = table.sum()
    shares, step = table / total, 1e-6
    slopes = np.zeros(table.shape)
    for cell in np.ndindex(table.shape):
        moved = np.zeros(table.shape)
        moved[cell] = step
        slopes[cell] = (value(shares + moved) - value(shares - moved)) / (2 * step)
    return np.sqrt(((shares * slopes**2).sum() - (shares * slopes).sum() ** 2) / total)


@given(st.integers(0, 2**31), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_kappa_and_its_error(seed, size):
    table = np.random.default_rng(seed).integers(1, 20, (size, size))
    from sklearn.metrics import cohen_kappa_score

    places = np.repeat(np.arange(size * size), table.ravel())
    first, second = np.divmod(places, size)
    found = kappa_of_table(table)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.standard_error == pytest.approx(numeric_error(table), rel=1e-4)
    assert found.ci_low <= found.value <= found.ci_high
    for weighting in ("linear", "quadratic"):
        expected = cohen_kappa_score(first, second, weights=weighting)
        assert kappa_of_table(table, weighting=weighting).value == pytest.approx(expected)


def test_kappa_of_readers():
    readings = {"expert": ["N0", "N1", "N1", "N0"], "resident": ["N0", "N1", "N0", "N0"], "model": ["N0"] * 4}
    found = reader_agreement(readings)
    assert list(found) == [("expert", "resident"), ("expert", "model"), ("resident", "model")]
    # 3 of 4 agree; by chance (2 * 3 + 2 * 1) / 16 = 0.5
    assert found["expert", "resident"].value == pytest.approx(0.5)
    assert found["expert", "resident"].agreement == 0.75
    assert found["expert", "model"].value == 0  # a reader who always says the same agrees by chance only
    with pytest.raises(ValueError, match="two readers"):
        reader_agreement({"expert": ["N0"]})


def test_kappa_where_it_is_undefined():
    assert cohens_kappa_of(["N0"] * 3, ["N0"] * 3).value is None
    assert cohens_kappa_of(["N0"] * 3, ["N0"] * 3, order=["N0", "N1"]).agreement == 1
    assert cohens_kappa_of([], []).items == 0
    perfect = cohens_kappa_of(["N0", "N1"], ["N0", "N1"])
    assert (perfect.value, perfect.ci_low, perfect.ci_high) == (1, 1, 1)
    with pytest.raises(ValueError, match="not in the order"):
        cohens_kappa_of(["N2"], ["N0"], order=["N0", "N1"])
    with pytest.raises(ValueError, match="2 and 1 items"):
        cohens_kappa_of(["N0", "N1"], ["N0"])
    with pytest.raises(ValueError, match="square"):
        kappa_of_table([[1, 2]])


def test_bland_altman_by_hand():
    # differences 1, 2, 3 of means 10, 20, 30: bias 2, sd 1, limits 0.04 and 3.96
    found = bland_altman([10.5, 21, 31.5], [9.5, 19, 28.5])
    assert (found.bias, found.sd, found.lower, found.upper) == pytest.approx((2, 1, 0.04, 3.96))
    assert found.slope == pytest.approx(0.1)
    assert (found.inside, found.pairs) == (1.0, 3)
    # t quantile of 2 degrees of freedom: 4.3027
    assert found.bias_ci == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    reach = 4.3027 * (1 / 3 + 1.96**2 / 4) ** 0.5
    assert found.upper_ci == pytest.approx((3.96 - reach, 3.96 + reach), abs=1e-3)


@given(st.integers(0, 2**31), st.integers(4, 30))
@settings(max_examples=20, deadline=None)
def test_against_scipy(seed, count):
    from scipy.stats import pearsonr, ttest_rel

    rng = np.random.default_rng(seed)
    first = rng.normal(10, 3, count)
    second = first + rng.normal(0.5, 1, count)
    expected = pearsonr(first, second)
    found = pearson(first, second)
    assert (found.r, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))
    assert bland_altman(first, second).p == pytest.approx(ttest_rel(first, second).pvalue)


def test_few_or_equal_pairs():
    assert bland_altman([], []).bias is None
    assert (bland_altman([3.0], [1.0]).bias, bland_altman([3.0], [1.0]).sd) == (2, None)
    assert (bland_altman([2, 3], [1, 2]).p, bland_altman([1, 2], [1, 2]).p) == (0, 1)  # no spread
    assert bland_altman([2, 0], [0, 2]).slope is None
    assert (pearson([1], [2]).r, pearson([1, 1, 1, 1], [1, 2, 3, 4]).r) == (None, None)
    assert (pearson([1, 2, 4], [1, 2, 5]).ci_low, pearson([1, 2], [3, 4]).p) == (None, None)
    line = pearson([1, 2, 3, 4], [2, 4, 6, 8])
    assert (line.r, line.p) == (pytest.approx(1), pytest.approx(0, abs=1e-10))


def test_bad_pairs():
    for compare in (pearson, bland_altman):
        with pytest.raises(ValueError, match="pairs of 2 and 1"):
            compare([1, 2], [1])
        with pytest.raises(ValueError, match="not finite"):
            compare([1, np.nan], [1, 2])
        with pytest.raises(ValueError, match="level"):
            compare([1, 2], [1, 2], level=0)
