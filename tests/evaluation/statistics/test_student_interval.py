import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from nndet_psma.evaluation.statistics.bootstrap import percentile_interval
from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson, garwood
from nndet_psma.evaluation.statistics.resampling import MANY_PATIENTS, Resampling
from nndet_psma.evaluation.statistics.student_interval import Spread, student_ends

DRAWN = np.array([0.6, 0.7, 0.8, 0.9])  # mean 0.75, standard deviation sqrt(1 / 60)


def clustered_share(rng, patients):
    """Found and all lesions ``[P]``: patients differ (standard deviation 1 on the logit scale)."""
    lesions = np.maximum(1, rng.poisson(2.5, patients))
    return rng.binomial(lesions, expit(1.8 + rng.normal(0, 1, patients))), lesions


def share_interval(found, lesions, resampling):
    value = found.sum() / lesions.sum()
    return resampling.interval(value, resampling.weights @ found / (resampling.weights @ lesions))


def test_ends_of_each_scale_by_hand():
    # five patients: error sqrt(1/60 * 5/4), Student's quantile with four degrees of freedom
    reach = stats.t.ppf(0.975, 4) * np.sqrt(1 / 60 * 5 / 4)
    assert student_ends(0.75, DRAWN, 5) == pytest.approx(
        (expit(logit(0.75) - reach / (0.75 * 0.25)), expit(logit(0.75) + reach / (0.75 * 0.25)))
    )
    root = np.sqrt(0.75)
    assert student_ends(0.75, DRAWN, 5, scale="rate") == pytest.approx(
        ((root - reach / (2 * root)) ** 2, (root + reach / (2 * root)) ** 2)
    )
    assert student_ends(0.75, DRAWN, 5, scale="length") == student_ends(0.75, DRAWN, 5, scale="rate")
    assert student_ends(0.5, DRAWN, 5, scale="difference") == pytest.approx((0.5 - reach, 0.5 + reach))
    assert student_ends(0.75, DRAWN, 5, scale="difference")[1] == 1.0
    assert student_ends(7.5, DRAWN, 5, scale="contrast") == pytest.approx((7.5 - reach, 7.5 + reach))


def test_undefined_draws_are_left_out():
    assert student_ends(0.75, np.append(DRAWN, np.nan), 5) == student_ends(0.75, DRAWN, 5)
    assert student_ends(0.75, np.full(3, np.nan), 5) is None
    assert student_ends(0.75, DRAWN, 1) is None


def test_bounds_are_exact():
    assert student_ends(1.0, np.ones(9), 18) == pytest.approx((0.025 ** (1 / 18), 1))
    assert student_ends(0.0, np.zeros(9), 18) == pytest.approx((0, 1 - 0.025 ** (1 / 18)))
    assert student_ends(0.5, np.full(9, 0.5), 4) == clopper_pearson(2, 4)  # all four patients alike
    assert student_ends(0.0, np.zeros(9), 18, scale="rate") == (0, pytest.approx(-np.log(0.025) / 18))
    assert student_ends(0.25, np.full(9, 0.25), 4, scale="difference") == (0.25, 0.25)
    assert student_ends(0.0, np.zeros(9), 18, scale="length") == (0, 0)  # millimetres are no counts


def test_a_bound_with_draws_below_it_joins_both():
    # a FROC score of 1 may fall when a draw takes more false positives: the wider end counts
    draws = np.r_[np.ones(10), np.zeros(10)]
    assert student_ends(1.0, draws, 18) == (0, 1)
    assert student_ends(1.0, np.r_[np.ones(10), np.full(10, 0.99)], 18)[0] == pytest.approx(0.025 ** (1 / 18))


def test_p_and_interval_agree():
    spread = Spread.of(DRAWN, 5)
    assert spread.p(spread.reach(0.95)) == pytest.approx(0.05)
    assert Spread.of(np.ones(5), 5) is None


def test_exact_counts():
    assert garwood(0) == (0, pytest.approx(-np.log(0.025)))
    # the mean at which 3 or more, or 3 or fewer, are seen with 2.5 %
    low, high = garwood(3)
    assert (stats.poisson.sf(2, low), stats.poisson.cdf(3, high)) == pytest.approx((0.025, 0.025))
    assert clopper_pearson(0, 0) is None


def test_rows_of_a_resampling():
    patients = ["a", "b", "a", "c"]
    rows = Resampling.of(patients, draws=6, seed=1)
    assert (rows.method, rows.draws, rows.weights.shape) == ("studentised", 6, (9, 4))
    assert rows.weights[6:].tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert Resampling.of(patients, draws=6, seed=1, method="percentile").weights.shape == (6, 4)
    many = Resampling.of([str(n) for n in range(MANY_PATIENTS)], draws=6, seed=1)
    assert (many.method, len(many.weights)) == ("percentile", 6)
    assert len(Resampling.of(["a", "a"], draws=6, seed=1).weights) == 0
    with pytest.raises(ValueError, match="level"):
        Resampling.of(patients, draws=6, seed=1, level=95)


def test_patients_that_do_not_define_a_score_do_not_count():
    # one of three patients has lesions: nothing is known about the spread
    resampling = Resampling.of(["a", "b", "c"], draws=50, seed=0)
    lesions = resampling.weights @ [2, 0, 0]
    values = np.divide(resampling.weights @ [1, 0, 0], lesions, out=np.full(53, np.nan), where=lesions > 0)
    interval = resampling.interval(0.5, values)
    assert (interval.low, interval.high) == (None, None)
    assert 0 < interval.undefined < interval.draws == 50
    assert resampling.interval(None, values).undefined == interval.undefined


def test_a_score_that_no_patient_alone_defines_keeps_percentiles():
    resampling = Resampling.of(["a", "b", "c"], draws=4, seed=0)
    values = np.r_[DRAWN, np.full(3, np.nan)]
    expected = percentile_interval(DRAWN.tolist())
    assert resampling.interval(0.75, values) == expected
    assert resampling.spread(values) is None


@pytest.mark.parametrize("patients", [10, 18])
def test_studentised_intervals_cover_what_percentiles_do_not(patients):
    rng = np.random.default_rng(0)
    found, lesions = clustered_share(rng, 2_000_000)
    truth, covered = found.sum() / lesions.sum(), {"studentised": 0, "percentile": 0}
    names = [str(n) for n in range(patients)]
    for _ in range(300):
        sample, seed = clustered_share(rng, patients), int(rng.integers(2**31))
        for method in covered:
            interval = share_interval(*sample, Resampling.of(names, draws=300, seed=seed, method=method))
            covered[method] += interval.low <= truth <= interval.high
    assert covered["studentised"] / 300 > 0.93
    assert covered["percentile"] < covered["studentised"] - 9
