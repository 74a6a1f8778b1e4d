import dataclasses

import numpy as np
import pytest
from scipy import stats
from tiny_cases import row_case, voxel_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.evaluation.detection.compare import Comparison, compare_records, paired_p, patient_test
from nndet_psma.evaluation.detection.record import LesionRecord, Truth, build_record
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.evaluation.detection.strata import ctv_stratum, short_axis_stratum


def lesion(**values):
    return LesionRecord(0, (0, 0, 0, 1, 1, 1), **values)


def test_borders_of_the_strata():
    sizes = {4.999: "<5", 5.0: "5 to <8", 7.999: "5 to <8", 8.0: "8 to 10", 10.0: "8 to 10", 10.001: ">10"}
    assert {size: short_axis_stratum(lesion(short_axis_mm=size)) for size in sizes} == sizes
    places = {0.0: "inside", 0.001: "0 to 5", 5.0: "0 to 5", 5.001: ">5"}
    assert {place: ctv_stratum(lesion(outside_ctv_mm=place)) for place in places} == places
    assert short_axis_stratum(lesion()) == ctv_stratum(lesion()) == "unknown"


@pytest.fixture
def records():
    """Small lesions: one found at 0.9 (case a), one missed (b). Large: found at 0.6 (a). False: 0.8 (a), 0.7 (b)."""
    return [
        row_case(
            "a", [0, 1], [(0.9, 0), (0.8, 5), (0.6, 1)], short_axes_mm=[4, 12], outside_ctv_mm=[0, 7],
            stations=["left", None],
        ),
        row_case("b", [0], [(0.7, 5)], short_axes_mm=[4.5], outside_ctv_mm=[3.0]),
    ]  # fmt: skip


def test_strata_by_hand(records):
    scores = score_records(records, classes=["node"], bootstrap_draws=50)
    strata = {(stratum.group, stratum.name): stratum for stratum in scores.strata}
    assert list(strata) == [
        ("short_axis_mm", "<5"), ("short_axis_mm", ">10"), ("outside_ctv_mm", "inside"), ("outside_ctv_mm", "0 to 5"),
        ("outside_ctv_mm", ">5"), ("station", "left"), ("station", "unknown"),
    ]  # fmt: skip
    small, large = strata["short_axis_mm", "<5"], strata["short_axis_mm", ">10"]
    assert (small.lesions, small.found, small.sensitivity.value) == (2, 1, 0.5)
    assert [score.value for score in small.sensitivity_at_fp.values()] == [
        0.5
    ] * 7  # found before any false box
    # large: nothing before 0.6, where 2 false boxes in 2 cases stand: upright at 1 per case
    assert [large.sensitivity_at_fp[rate].value for rate in ("0.5", "1", "8")] == [0.0, 1.0, 1.0]
    assert large.froc.value == 4 / 7
    # two patients: Student with one degree of freedom says nothing; percentiles: case b drawn twice
    assert (small.sensitivity.ci_low, small.sensitivity.ci_high) == pytest.approx((0, 1), abs=1e-9)
    plain = score_records(records, classes=["node"], bootstrap_draws=50, intervals="percentile")
    assert plain.strata[0].sensitivity.ci_low == 0.0
    assert large.sensitivity.ci_low is None  # one patient only has such a lesion
    assert small.paper_sensitivity.why == "there are cases without slice-wise detections"


def test_a_stratum_without_knowledge_is_left_out():
    assert score_records([row_case("a", [0], [(0.9, 0)])], classes=["node"], bootstrap_draws=0).strata == ()


def test_classes_are_strata_when_there_are_several():
    record = row_case("a", [0, 1], [(0.9, 0), (0.8, 1)], labels=[0, 1], prediction_labels=[0, 0])
    strata = score_records([record], classes=["node", "bone"], bootstrap_draws=0).strata
    assert [(s.group, s.name, s.lesions, s.found) for s in strata] == [
        ("class", "node", 1, 1),
        ("class", "bone", 1, 0),
    ]
    # bone has no false positive of its own class
    assert strata[1].froc.value == 0.0


def test_strata_of_one_group_make_up_the_whole():
    rng = np.random.default_rng(2)
    records = []
    for index in range(8):
        count = int(rng.integers(0, 4))
        boxes = [(float(rng.uniform()), int(rng.integers(0, 6))) for _ in range(5)]
        records.append(row_case(f"c{index}", range(count), boxes, short_axes_mm=rng.uniform(3, 14, count)))
    scores = score_records(records, classes=["node"], bootstrap_draws=0)
    total = sum(stratum.lesions for stratum in scores.strata)
    assert total == scores.num_lesions
    for rate, place in (("1", 3), ("8", 6)):
        pooled = sum(s.lesions * s.sensitivity_at_fp[rate].value for s in scores.strata) / total
        assert pooled == pytest.approx(scores.froc_curves["FROC_curve_IoU_0.10"][place])


def with_slices(name, lesions, accepted, *, patient=None):
    """A case of one row with lesions and accepted boxes at places, slice-wise and in 3D, all of score 0.5."""
    boxes, found = voxel_boxes(lesions), voxel_boxes(accepted)
    zeros = np.zeros(len(lesions), dtype=np.int64)
    truth = Truth(zeros, boxes, zeros, np.arange(len(lesions)), boxes[:, [1, 2, 4, 5]], 2)
    scores = np.full(len(accepted), 0.5)
    flat = Detections.build(found[:, [1, 2, 4, 5]], scores, dim=2, slice=np.zeros(len(accepted), dtype=int))
    return build_record(name, patient or name, truth, Detections.build(found, scores), flat)


def test_a_model_is_no_different_from_itself(records):
    same = compare_records(records, records[::-1], classes=["node"], draws=40)
    for row in same.scores.values():
        assert row.difference in (0.0, None)
    assert same.scores["FROC_score_IoU_0.10"].p is None  # two patients are too few
    assert (same.scores["FROC_score_IoU_0.10"].ci_low, same.scores["FROC_score_IoU_0.10"].ci_high) == (
        0.0,
        0.0,
    )
    assert same.patients is None
    assert from_plain(Comparison, to_plain(same)) == same


def test_comparison_by_hand():
    # ten patients with a lesion each: the first model finds all, the second none
    first = [with_slices(f"c{i}", [0], [0]) for i in range(10)]
    second = [with_slices(f"c{i}", [0], []) for i in range(10)]
    result = compare_records(first, second, classes=["node"], names=("A", "B"), draws=99)
    row = result.scores["paper_sensitivity"]
    assert (row.first, row.second, row.difference, row.ci_low, row.ci_high) == (1.0, 0.0, 1.0, 1.0, 1.0)
    assert row.p == 2 / 100  # no draw at or below 0, one added: 2 (0 + 1) / (99 + 1)
    assert result.scores["paper_precision"].difference is None  # the second predicts nothing
    assert result.scores["FROC_score_centre"].difference == 1.0
    assert (result.patients.only_first, result.patients.both_right) == (10, 0)
    assert result.patients.p == pytest.approx(2 / 2**10)
    back = compare_records(second, first, classes=["node"], draws=99).scores["paper_sensitivity"]
    assert (back.difference, back.p) == (-1.0, row.p)


def test_paired_draws_see_a_small_difference_that_intervals_of_each_model_hide():
    # patients differ a lot (half have their lesion found by both), the first finds one more in three patients
    def case(index, found):
        return with_slices(f"c{index:02d}", [0, 1, 2, 3], range(found))

    rng = np.random.default_rng(0)
    easy = rng.integers(0, 4, 30)
    first = [case(index, int(count) + 1) for index, count in enumerate(easy)]
    second = [case(index, int(count)) for index, count in enumerate(easy)]
    row = compare_records(first, second, classes=["node"], draws=200).scores["paper_sensitivity"]
    assert row.difference == pytest.approx(0.25)
    assert (row.ci_low, row.ci_high) == pytest.approx((0.25, 0.25))  # the same in every draw
    alone = score_records(first, classes=["node"], bootstrap_draws=200).scores["paper_sensitivity"]
    assert alone.ci_high - alone.ci_low > 0.1


def test_few_patients_are_compared_with_student():
    # 12 patients with one lesion each: the first model finds 9, the second 6 of the same
    first = [with_slices(f"c{i:02d}", [0], [0] if i < 9 else []) for i in range(12)]
    second = [with_slices(f"c{i:02d}", [0], [0] if i < 6 else []) for i in range(12)]
    result = compare_records(first, second, classes=["node"], draws=4000)
    row = result.scores["paper_sensitivity"]
    # differences 0 and 1 with mean 1/4: standard error sqrt(3/16 / 11), Student with 11 degrees of freedom
    error = np.sqrt(3 / 16 / 11)
    reach = stats.t.ppf(0.975, 11) * error
    assert (row.ci_low, row.ci_high) == pytest.approx((0.25 - reach, 0.25 + reach), abs=0.015)
    assert row.p == pytest.approx(2 * stats.t.sf(0.25 / error, 11), abs=0.01)
    assert (row.p < 0.05) == (row.ci_low > 0)
    assert result.intervals == "studentised"
    plain = compare_records(first, second, classes=["node"], draws=400, intervals="percentile")
    assert plain.scores["paper_sensitivity"].ci_low >= 0.0
    assert plain.intervals == "percentile"


def test_p_values():
    assert paired_p(np.array([])) is None
    assert paired_p(np.array([np.nan, np.nan])) is None
    assert paired_p(np.array([1.0, 2.0, -1.0, 3.0])) == 2 * 2 / 5
    assert paired_p(np.zeros(9)) == 1.0


def test_the_interval_of_more_false_alarms_has_no_upper_end():
    """Eight false alarms more per patient (12 patients, 6 to 10): it was cut to 1, as if it were a share."""

    def case(index, count):
        found = Detections.build(voxel_boxes(range(1, 1 + count)), np.full(count, 0.5))
        truth = Truth(np.zeros(1, dtype=np.int64), voxel_boxes([0]))
        return build_record(f"c{index:02d}", f"c{index:02d}", truth, found, accepted=found)

    many = [6, 7, 8, 9, 10, 8] * 2
    result = compare_records(
        [case(i, count) for i, count in enumerate(many)],
        [case(i, 0) for i in range(12)],
        classes=["node"],
        draws=200,
    )
    row = result.scores["accepted_fp_per_patient"]
    assert row.difference == 8.0
    assert 7 < row.ci_low < 8 < row.ci_high < 9


def test_patients_are_judged_by_all_their_scans():
    # patient x: lesion in one scan, a box in the other: called positive, rightly. y: nothing there, the first is silent
    first = [
        with_slices("x1", [0], [], patient="x"),
        with_slices("x2", [], [3], patient="x"),
        with_slices("y", [], []),
    ]
    second = [
        with_slices("x1", [0], [], patient="x"),
        with_slices("x2", [], [], patient="x"),
        with_slices("y", [], [0]),
    ]
    test = patient_test(first, second)
    assert (test.both_right, test.only_first, test.only_second, test.both_wrong) == (0, 2, 0, 0)
    assert test.p is None  # two patients are too few
    more = [with_slices(f"z{i}", [], []) for i in range(8)]  # both are right about eight more
    assert (
        patient_test([*first, *more], [*second, *more]).p == 0.5
    )  # two discordant patients for one model: 2 / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:1], "not scored on the same cases: \\['b'\\]"),
        (
            lambda r: [r[0], row_case("b", [1], [], short_axes_mm=[1.0])],
            "b: the models were scored against different",
        ),
        (
            lambda r: [r[0], dataclasses.replace(r[1], patient_id="other")],
            "b: the models were scored against different",
        ),
    ],
)
def test_other_cases_or_lesions_are_refused(records, change, message):
    with pytest.raises(ValueError, match=message):
        compare_records(records, change(records), classes=["node"], draws=5)
