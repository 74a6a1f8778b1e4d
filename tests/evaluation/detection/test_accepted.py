"""Lesions that the tuned thresholds accept, scored in 3D: rates by hand, intervals, where the thresholds come from."""

import json

import numpy as np
import pytest
from tiny_cases import row_case, voxel_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.evaluation.detection.accepted import TunedThresholds, accepted_values, rank_accepted
from nndet_psma.evaluation.detection.compare import compare_records
from nndet_psma.evaluation.detection.record import CaseRecord, Truth, build_record
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.evaluation.statistics.bootstrap import bootstrap


def case(name, lesions, candidates, accepted, patient=None):
    """Lesions at positions of a voxel row; candidates and accepted ones as (score, position)."""

    def boxes(rows):
        return Detections.build(voxel_boxes([x for _, x in rows]), [score for score, _ in rows])

    truth = Truth(np.zeros(len(lesions), dtype=np.int64), voxel_boxes(lesions), spacing=(2.0, 2.0, 2.0))
    return build_record(name, patient or name, truth, boxes(candidates), accepted=boxes(accepted))


@pytest.fixture
def records():
    """Patient p, two scans: of lesions 0, 1 and 2 the first two are found (1 twice), one box is false; the second scan
    holds no lesion and one false box. Patient q: the lesion was a candidate that was not accepted.

    3 lesions + 0 + 1, accepted 4 + 1 + 0: TP 2, FP 3, FN 2.
    """
    return [
        case("p1", [0, 1, 2], [(0.9, 0), (0.5, 1)], [(0.9, 0), (0.8, 1), (0.7, 1), (0.6, 9)], "p"),
        case("p2", [], [], [(0.6, 3)], "p"),
        case("q", [0], [(0.4, 0)], [], "q"),
    ]


def test_rates_by_hand(records):
    accepted = score_records(records, classes=["node"], bootstrap_draws=0).accepted
    rates = accepted.by_rule["0.10"]
    assert (rates.tp, rates.fp, rates.fn) == (2, 3, 2)
    assert rates.sensitivity.value == 2 / 4
    assert rates.ppv.value == 2 / 5
    assert rates.f1.value == pytest.approx(4 / (4 + 3 + 2))
    assert rates.fp_per_case.value == 3 / 3
    assert rates.fp_per_patient.value == 3 / 2


def test_intervals_draw_patients(records):
    """Two patients drawn are (p, p), (p, q) or (q, q): sensitivity 2/3, 2/4, 0; false ones per patient 3, 3/2, 0."""
    scores = score_records(records, classes=["node"], bootstrap_draws=400, seed=0, intervals="percentile")
    rates = scores.accepted.by_rule["0.10"]
    assert (rates.sensitivity.ci_low, rates.sensitivity.ci_high) == (0, pytest.approx(2 / 3))
    assert (rates.fp_per_patient.ci_low, rates.fp_per_patient.ci_high) == (0, 3)
    # nothing is accepted in (q, q): PPV 2/5 in all other draws, a quarter is left out
    assert (rates.ppv.ci_low, rates.ppv.ci_high) == (2 / 5, 2 / 5)
    assert 60 < rates.ppv.undefined_draws < 140


def test_draws_equal_scoring_the_drawn_records(records):
    def statistic(drawn):
        return accepted_values(rank_accepted(drawn))["accepted_f1"]

    slow = bootstrap(records, statistic, draws=50, seed=3)
    scores = score_records(records, classes=["node"], bootstrap_draws=50, seed=3, intervals="percentile")
    score = scores.accepted.by_rule["0.10"].f1
    assert (score.ci_low, score.ci_high) == pytest.approx((slow.low, slow.high))


def test_few_patients_get_studentised_intervals():
    """False ones of two patients: 1 and 0, so the standard error is 1/2 and Student's quantile 12.706.

    On the scale of square roots the interval reaches 12.706 * 0.5 / (2 * sqrt(0.5)) = 4.49 beyond sqrt(0.5).
    """
    pair = [case("a", [0], [], [(0.9, 5)], "a"), case("b", [], [], [], "b")]
    rates = score_records(pair, classes=["node"], bootstrap_draws=4000, seed=0).accepted.by_rule["0.10"]
    assert rates.fp_per_case.value == 0.5
    assert rates.fp_per_case.ci_low == 0
    assert rates.fp_per_case.ci_high == pytest.approx((0.5**0.5 + 4.492) ** 2, rel=0.03)
    # one patient has all lesions: nothing is known about the spread of the sensitivity
    assert (rates.sensitivity.ci_low, rates.sensitivity.ci_high) == (None, None)


def test_other_hit_rules(records):
    """Voxels of 2 mm: the second box on lesion 1 lies 2 mm from lesion 2, within 5 mm; the box at 9 hits nothing."""
    by_rule = score_records(records, classes=["node"], bootstrap_draws=0).accepted.by_rule
    assert list(by_rule) == ["0.10", "overlap_0.10", "distance_5mm", "centre"]
    assert (by_rule["distance_5mm"].tp, by_rule["distance_5mm"].fp, by_rule["distance_5mm"].fn) == (3, 2, 1)
    assert by_rule["centre"].tp == 2


def test_nothing_accepted_nothing_there():
    rates = score_records([case("a", [], [], [])], classes=["node"], bootstrap_draws=0).accepted.by_rule[
        "0.10"
    ]
    assert (rates.sensitivity.value, rates.sensitivity.why) == (None, "there are no lesions")
    assert (rates.ppv.value, rates.ppv.why) == (None, "nothing is accepted")
    assert rates.fp_per_patient.value == 0
    nobody = score_records([], classes=["node"], bootstrap_draws=0).accepted.by_rule["0.10"]
    assert (nobody.fp_per_patient.value, nobody.fp_per_patient.why) == (None, "there are no cases")


def test_more_than_a_hundred_accepted_lesions_all_count():
    crowded = case("a", [0], [], [(0.5, x) for x in range(1, 121)] + [(0.4, 0)])
    rates = score_records([crowded], classes=["node"], bootstrap_draws=0).accepted.by_rule["0.10"]
    assert (rates.tp, rates.fp) == (1, 120)


def test_a_case_that_does_not_know_them_leaves_the_section_out(records):
    scores = score_records([*records, row_case("old", [0], [])], classes=["node"], bootstrap_draws=0)
    assert scores.accepted is None
    assert scores.scores["AP_IoU_0.10_MaxDet_100"].value is not None


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        (TunedThresholds("defaults", tuned=False), "no cases"),
        (TunedThresholds("9 settings", cases=["v1", "v2"]), "other cases"),
        (TunedThresholds("9 settings", cases=["v1", "q"]), "the scored cases"),
        (TunedThresholds("9 settings"), "unknown cases"),
        (None, "unknown cases"),
    ],
)
def test_on_which_cases_the_thresholds_were_chosen(records, thresholds, expected):
    accepted = score_records(records, classes=["node"], bootstrap_draws=0, thresholds=thresholds).accepted
    assert accepted.chosen_on == expected
    assert accepted.source == ("" if thresholds is None else thresholds.source)


def test_comparison_of_accepted_lesions(records):
    """The other model accepts nothing: 2 of 4 lesions more, three false ones more of two patients."""
    silent = [case(r.case_id, *lesions, [], [], r.patient_id) for r, lesions in zip(
        records, ([[0, 1, 2]], [[]], [[0]]), strict=True
    )]  # fmt: skip
    found = compare_records(records, silent, classes=["node"], draws=20).scores
    assert found["accepted_sensitivity"].difference == 0.5
    assert found["accepted_fp_per_patient"].difference == 1.5
    assert found["accepted_ppv"].difference is None
    assert found["accepted_f1"].ci_low is not None


def test_records_survive_json(records):
    plain = json.loads(json.dumps(to_plain(records), allow_nan=False))
    assert [from_plain(CaseRecord, each) for each in plain] == records
    del plain[0]["accepted"]
    assert from_plain(CaseRecord, plain[0]).accepted is None
