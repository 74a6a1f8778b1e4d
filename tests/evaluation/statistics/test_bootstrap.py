import numpy as np
import pytest
from scipy import stats
from tiny_cases import row_case, row_cases

from nndet_psma.evaluation.statistics.bootstrap import (
    bootstrap,
    drawn_records,
    patient_weights,
    percentile_interval,
)


def found_fraction(records):
    """Lesions found / lesions."""
    lesions = sum(len(record.lesions) for record in records)
    found = sum(claim >= 0 for record in records for claim in record.claims(0.5))
    return found / lesions if lesions else None


def test_weights_draw_patients_with_all_their_cases():
    weights = patient_weights(["a", "b", "a", "c"], draws=500, seed=1)
    assert weights.shape == (500, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many patients as there are
    # a patient is missing from a draw with probability (2/3)^3 = 8/27
    assert (weights[:, 0] == 0).mean() == pytest.approx(8 / 27, abs=0.06)


def test_same_seed_same_draws():
    patients = [str(number) for number in range(20)]
    first = patient_weights(patients, draws=5, seed=7)
    assert (first == patient_weights(patients, draws=5, seed=7)).all()
    assert (first != patient_weights(patients, draws=5, seed=8)).any()


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_patients_give_no_draws(patients):
    assert patient_weights(patients, draws=10, seed=0).shape == (0, len(patients))


def test_interval_is_the_middle_of_the_values():
    values = [float(value) for value in range(101)]
    interval = percentile_interval(values, level=0.9)
    assert (interval.low, interval.high) == (pytest.approx(5), pytest.approx(95))
    assert (interval.draws, interval.undefined) == (101, 0)


def test_undefined_draws_are_left_out_and_counted():
    interval = percentile_interval([None, 1.0, None, 1.0])
    assert (interval.low, interval.high, interval.draws, interval.undefined) == (1.0, 1.0, 4, 2)
    assert percentile_interval([None]).low is None
    assert percentile_interval([]).high is None


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_must_be_a_fraction(level):
    with pytest.raises(ValueError, match="level must lie in"):
        percentile_interval([0.5], level=level)


def test_two_patients_one_found_one_missed():
    # the four draws of two patients give 0, 1/2, 1/2, 1: each end has probability 1/4, so the 95 % interval is [0, 1]
    records = row_cases(([0], [(0.9, 0)]), ([0], []))
    interval = bootstrap(records, found_fraction, draws=200)
    assert (interval.low, interval.high) == (0, 1)


def test_one_patient_with_many_cases_has_no_interval():
    records = [row_case(f"case{n}", [0], [(0.9, 0)] if n % 2 else [], patient="same") for n in range(10)]
    assert bootstrap(records, found_fraction, draws=50).low is None


def test_a_patient_drawn_twice_is_two_patients():
    records = [
        row_case("a1", [], [], patient="a"),
        row_case("a2", [], [], patient="a"),
        row_case("b", [], []),
    ]
    drawn = drawn_records(records, np.array([2, 2, 0]))
    assert [record.patient_id for record in drawn] == ["a", "a#2", "a", "a#2"]
    assert [record.case_id for record in drawn] == ["a1", "a1#2", "a2", "a2#2"]


def test_draws_without_lesions_are_counted():
    # one patient with a lesion among two: missing from a draw with probability 1/4
    records = row_cases(([0], [(0.9, 0)]), ([], []))
    interval = bootstrap(records, found_fraction, draws=400, seed=2)
    assert interval.undefined / interval.draws == pytest.approx(1 / 4, abs=0.07)
    assert (interval.low, interval.high) == (1, 1)


def test_large_sample_equals_the_normal_approximation():
    # 400 patients, 300 found: 0.75 +- 1.96 * sqrt(0.75 * 0.25 / 400) = 0.75 +- 0.0424
    records = row_cases(*([([0], [(0.9, 0)])] * 300 + [([0], [])] * 100))
    interval = bootstrap(records, found_fraction, draws=400)
    assert interval.low < 0.75 < interval.high
    assert interval.low == pytest.approx(0.75 - 0.0424, abs=0.01)
    assert interval.high == pytest.approx(0.75 + 0.0424, abs=0.01)


def test_equals_scipy_where_scipy_applies():
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.6, 0.2, 0.9, 0.55])
    records = row_cases(*(([], [(value, 0)]) for value in values))
    ours = bootstrap(
        records, lambda drawn: float(np.mean([r.predictions[0].score for r in drawn])), draws=4000
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (ours.low, ours.high) == (
        pytest.approx(theirs.low, abs=0.02),
        pytest.approx(theirs.high, abs=0.02),
    )


def test_cases_of_a_patient_stay_together_and_widen_the_interval():
    # ten patients with ten equal cases each carry the information of ten cases, not of a hundred
    def records(patient_of):
        return [
            row_case(f"case{n}", [0], [(0.9, 0)] if n < 50 else [], patient=patient_of(n)) for n in range(100)
        ]

    def width(interval):
        return interval.high - interval.low

    together = bootstrap(records(lambda n: f"patient{n // 10}"), found_fraction, draws=300)
    apart = bootstrap(records(lambda n: f"patient{n}"), found_fraction, draws=300)
    assert width(together) == pytest.approx(np.sqrt(10) * width(apart), rel=0.25)
