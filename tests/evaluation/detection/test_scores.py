import json
import time

import numpy as np
import pytest
from tiny_cases import row_case, row_cases, voxel_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.schema import SchemaError, from_plain, to_plain
from nndet_psma.evaluation.detection.record import Truth, build_record
from nndet_psma.evaluation.detection.score_tables import build_tables, score_values
from nndet_psma.evaluation.detection.scores import Scores, score_records, upgraded_scores
from nndet_psma.evaluation.statistics.bootstrap import drawn_records, patient_weights

MAP = "mAP_IoU_0.10_0.50_0.05_MaxDet_100"


def random_case(rng, index, *, patient=None, labels=2):
    """Lesions and predictions of random size with slice-wise parts; predictions near lesions and elsewhere."""
    count = int(rng.choice([0, 0, 0, 1, 2, 3]))
    lower = rng.uniform(0, 20, (count, 3))
    boxes = np.concatenate([lower, lower + rng.uniform(2, 8, (count, 3))], axis=1)
    slices = [(z, row) for row, box in enumerate(boxes) for z in range(int(box[0]), int(box[3]) + 1)]
    rows = np.array(slices, dtype=np.int64).reshape(-1, 2)
    truth = Truth(
        rng.integers(0, labels, count), boxes, rows[:, 0], rows[:, 1], boxes[rows[:, 1]][:, [1, 2, 4, 5]], 30
    )
    near = boxes + rng.normal(0, 1, boxes.shape)
    far = rng.uniform(0, 20, (6, 3))
    predicted = np.concatenate([near, np.concatenate([far, far + 4], axis=1)])
    scores = rng.uniform(size=len(predicted))
    kinds = rng.integers(0, labels, len(predicted))
    flat = Detections.build(
        predicted[:, [1, 2, 4, 5]], scores, kinds, dim=2, slice=np.clip(predicted[:, 0], 0, 29).astype(int)
    )
    name = f"case{index:03d}"
    found, kept = Detections.build(predicted, scores, kinds), np.flatnonzero(scores >= 0.3)
    return build_record(
        name,
        patient or name,
        truth,
        found,
        flat.select(kept),
        slice_candidates=flat,
        accepted=found.select(kept),
    )


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(5)
    return [random_case(rng, index, patient=f"patient{index // 2}") for index in range(12)]


def test_keys_are_those_of_nndetection(records):
    scores = score_records(records, classes=["node", "bone"], bootstrap_draws=0).scores
    per_class = {MAP}
    for tenth in range(1, 6):
        per_class |= {f"AP_IoU_0.{tenth}0_MaxDet_100", f"FROC_score_IoU_0.{tenth}0"}
    expected = per_class | {f"{name}_{key}" for name in ("node", "bone") for key in per_class}
    ours = {"paper_sensitivity", "paper_precision", "paper_f1", "paper_auc"}
    ours |= {"paper_auc_accepted", "patient_auc"}
    assert set(scores) == expected | ours


def test_results_boxes_holds_text_and_nndetections_keys_only():
    scores = score_records(row_cases(([0], [(0.9, 0)])), classes=["node", "absent"], bootstrap_draws=0)
    table = scores.results_boxes()
    assert table["AP_IoU_0.10_MaxDet_100"] == "1.0"
    assert table["absent_AP_IoU_0.10_MaxDet_100"] == "nan"
    assert not [key for key in table if key.startswith(("paper_", "patient_"))]


def test_map_is_the_mean_over_nine_ious():
    # IoU 3/10 with the only lesion: a hit at 0.10, 0.15, 0.20, 0.25 and 0.30, a miss at the four above
    truth = Truth(np.array([0]), np.array([[0.0, 0, 0, 1, 1, 10]]))
    record = build_record("case", "patient", truth, Detections.build([[0, 0, 0, 1, 1, 3]], [0.9]))
    scores = score_records([record], classes=["node"], bootstrap_draws=0).scores
    assert scores[MAP].value == pytest.approx(5 / 9)
    assert scores["AP_IoU_0.30_MaxDet_100"].value == 1
    assert scores["AP_IoU_0.40_MaxDet_100"].value == 0


def test_an_absent_class_does_not_lower_the_mean():
    # class 0: AP 1; class 1 has no lesion; nnDetection would count it as -1
    record = row_case("case", [0], [(0.9, 0), (0.8, 5)], prediction_labels=[0, 1])
    scores = score_records([record], classes=["node", "bone"], bootstrap_draws=0).scores
    assert scores["AP_IoU_0.10_MaxDet_100"].value == 1
    assert scores["bone_AP_IoU_0.10_MaxDet_100"].value is None
    assert scores["bone_AP_IoU_0.10_MaxDet_100"].why == "there are no lesions of this class"


def test_classes_are_averaged_in_ap_and_pooled_in_froc():
    # class 0: 1 of 1 found; class 1: 0 of 3 found: mean AP 1/2, pooled sensitivity 1/4
    record = row_case("case", [0, 1, 2, 3], [(0.9, 0)], labels=[0, 1, 1, 1])
    scores = score_records([record], classes=["node", "bone"], bootstrap_draws=0).scores
    assert scores["AP_IoU_0.10_MaxDet_100"].value == 1 / 2
    assert scores["FROC_score_IoU_0.10"].value == 1 / 4


def flat_case(lesions, predictions):
    """A case of one voxel row whose slice-wise part is the same row on slice 0 of 2."""
    count = len(lesions)
    boxes = voxel_boxes(lesions)
    truth = Truth(
        np.zeros(count, dtype=np.int64),
        boxes,
        np.zeros(count, dtype=np.int64),
        np.arange(count),
        boxes[:, [1, 2, 4, 5]],
        2,
    )
    predicted, scores = voxel_boxes([x for _, x in predictions]), [score for score, _ in predictions]
    flat = Detections.build(predicted[:, [1, 2, 4, 5]], scores, dim=2, slice=np.zeros(len(scores), dtype=int))
    return build_record("case", "case", truth, Detections.build(predicted, scores), flat)


@pytest.mark.parametrize(
    ("cases", "undefined"),
    [
        ([], {"AP", "FROC", "sensitivity", "precision", "f1", "paper_auc", "patient_auc"}),
        ([flat_case([], [])], {"AP", "FROC", "sensitivity", "precision", "f1", "paper_auc", "patient_auc"}),
        ([flat_case([], [(0.9, 0)])], {"AP", "FROC", "sensitivity", "f1", "paper_auc", "patient_auc"}),
        ([flat_case([0], [])], {"precision", "patient_auc"}),
        ([flat_case([0], [(0.9, 0)])], {"patient_auc"}),
    ],
)
def test_empty_corners(cases, undefined):
    result = score_records(cases, classes=["node"], bootstrap_draws=20)
    if "paper_auc" in undefined:
        undefined = {*undefined, "paper_auc_accepted"}
    keys = {
        "AP": "AP_IoU_0.10_MaxDet_100",
        "FROC": "FROC_score_IoU_0.10",
        "sensitivity": "paper_sensitivity",
        "precision": "paper_precision",
        "f1": "paper_f1",
        "paper_auc": "paper_auc",
        "paper_auc_accepted": "paper_auc_accepted",
        "patient_auc": "patient_auc",
    }
    for name, key in keys.items():
        score = result.scores[key]
        assert (score.value is None) == (name in undefined), name
        assert (score.why is None) == (score.value is not None), name
    json.dumps(to_plain(result), allow_nan=False)


@pytest.mark.parametrize(
    ("cases", "key", "why"),
    [
        ([], MAP, "there are no cases"),
        ([([], [])], MAP, "there are no lesions"),
        ([([], [])], f"node_{MAP}", "there are no lesions of this class"),
        ([([0], [])], "paper_f1", "there are cases without slice-wise detections"),
        ([([0], [])], "patient_auc", "every patient has a lesion, or none has"),
    ],
)
def test_undefined_scores_say_why(cases, key, why):
    assert score_records(row_cases(*cases), classes=["node"], bootstrap_draws=0).scores[key].why == why


def test_weighting_equals_repeating_records(records):
    # the fast way through the tables against scoring the drawn list of records anew
    tables = build_tables(records, ["node", "bone"])
    assert None not in score_values(tables).values()
    for weights in patient_weights([record.patient_id for record in records], draws=4, seed=3):
        drawn = score_values(tables, weights)
        anew = score_values(build_tables(drawn_records(records, weights), ["node", "bone"]))
        for key in anew:
            assert drawn[key] == (None if anew[key] is None else pytest.approx(anew[key], abs=1e-12)), key


def test_intervals_hold_the_value_and_repeat_with_the_seed(records):
    first = score_records(records, classes=["node", "bone"], bootstrap_draws=100, seed=1)
    assert first == score_records(records, classes=["node", "bone"], bootstrap_draws=100, seed=1)
    assert first != score_records(records, classes=["node", "bone"], bootstrap_draws=100, seed=2)
    for key in (
        "FROC_score_IoU_0.10",
        "paper_sensitivity",
        "paper_precision",
        "paper_auc",
        "paper_auc_accepted",
    ):
        score = first.scores[key]
        assert score.ci_low < score.value < score.ci_high


def test_without_draws_or_with_one_patient_there_is_no_interval(records):
    assert score_records(records, classes=["node", "bone"], bootstrap_draws=0).scores[MAP].ci_low is None
    assert score_records(records[:2], classes=["node", "bone"], bootstrap_draws=9).scores[MAP].ci_low is None


def test_json_round_trip(records):
    scores = score_records(records, classes=["node", "bone"], bootstrap_draws=10)
    assert from_plain(Scores, json.loads(json.dumps(to_plain(scores), allow_nan=False))) == scores


def test_counts_curves_and_operating_points():
    records = [
        row_case("a1", [0], [(0.92, 0), (0.5, 5)], patient="a"),
        row_case("a2", [], [], patient="a"),
        row_case("b1", [0], [(0.3, 5)], patient="b"),
    ]
    scores = score_records(records, classes=["node"], bootstrap_draws=50)
    assert (scores.num_cases, scores.num_patients, scores.num_lesions, scores.num_predictions) == (3, 2, 2, 3)
    assert scores.froc_curves["FROC_curve_IoU_0.10"] == (0.5,) * 7
    assert [row.point.threshold for row in scores.operating_points][:3] == [0.05, 0.1, 0.15]
    assert len(scores.operating_points) == 19
    assert scores.best_f1.point.threshold == 0.92
    assert scores.best_f1.point.f1 == 2 / 3
    # drawn twice, patient a gives sensitivity 1, patient b gives 0
    plain = score_records(records, classes=["node"], bootstrap_draws=50, intervals="percentile")
    assert (plain.best_f1.sensitivity.low, plain.best_f1.sensitivity.high) == (0, 1)


def test_few_patients_get_studentised_intervals_and_scores_say_so():
    few = row_cases(*([([0], [(0.9, 0)])] * 14 + [([0], [(0.8, 5)])] * 4))
    scores, percentiles = (
        score_records(few, classes=["node"], bootstrap_draws=400, intervals=method)
        for method in (None, "percentile")
    )
    assert (scores.intervals, percentiles.intervals) == ("studentised", "percentile")
    assert from_plain(Scores, to_plain(scores)) == scores
    old = {key: value for key, value in to_plain(scores).items() if key != "intervals"}
    assert from_plain(Scores, old).intervals == "percentile"
    wide, narrow = (each.scores["FROC_score_IoU_0.10"] for each in (scores, percentiles))
    assert 0 < wide.ci_low < narrow.ci_low < wide.value < narrow.ci_high < wide.ci_high + 0.05
    many = row_cases(*([([0], [(0.9, 0)])] * 75 + [([0], [])] * 25))
    assert score_records(many, classes=["node"], bootstrap_draws=20).intervals == "percentile"


def test_scores_at_their_bound_have_an_exact_interval():
    # 12 patients with a lesion, all found without a false box; 6 without lesion, of whom nothing is found
    records = row_cases(*([([0], [(0.9, 0)])] * 12 + [([], [])] * 6))
    scores = score_records(records, classes=["node"], bootstrap_draws=200)
    bound = 0.025 ** (1 / 12)
    for key in ("AP_IoU_0.10_MaxDet_100", "FROC_score_IoU_0.10"):
        assert (scores.scores[key].ci_low, scores.scores[key].ci_high) == pytest.approx((bound, 1))
    # the AUC over patients compares pairs of both kinds: six without a common patient
    auc = scores.scores["patient_auc"]
    assert (auc.value, auc.ci_low, auc.ci_high) == (1, pytest.approx(0.025 ** (1 / 6)), 1)
    row = scores.operating_points[0]
    assert (row.sensitivity.low, row.ppv.low) == pytest.approx((bound, bound))
    assert (row.fp_per_case.low, row.fp_per_case.high) == (0, pytest.approx(-np.log(0.025) / 18))


def test_a_point_chosen_on_the_scored_cases_stands_apart():
    scores = score_records(row_cases(([0], [(0.9, 0), (0.4, 5)])), classes=["node"], bootstrap_draws=0)
    assert {row.chosen_on for row in scores.operating_points} == {"no cases"}
    plain = to_plain(scores)
    assert "best_f1" not in plain
    assert plain["optimistic"]["chosen_on"] == "the scored cases"
    best = plain["optimistic"]["best_f1"]
    assert (best["point"]["threshold"], best["chosen_on"]) == (0.9, "the scored cases")


def test_scores_of_an_older_version_are_read():
    """There paper_auc was that of the accepted boxes, and best_f1 stood beside the fixed thresholds."""
    scores = score_records([flat_case([0], [(0.9, 0), (0.2, 5)])], classes=["node"], bootstrap_draws=0)
    old = to_plain(scores)
    best = old.pop("optimistic")["best_f1"]
    for row in (best, *old["operating_points"]):
        del row["chosen_on"]
    del old["accepted"], old["scores"]["paper_auc"]
    old["scores"]["paper_auc"] = old["scores"].pop("paper_auc_accepted")
    read = from_plain(Scores, upgraded_scores({**old, "schema_version": 1, "best_f1": best}))
    assert read.schema_version == 1
    assert read.best_f1 == scores.best_f1
    assert (read.best_f1.chosen_on, read.operating_points) == ("the scored cases", scores.operating_points)
    assert "paper_auc" not in read.scores
    assert read.scores["paper_auc_accepted"] == scores.scores["paper_auc_accepted"]
    assert read.accepted is None
    new = to_plain(scores)
    assert upgraded_scores(new) == new


@pytest.mark.parametrize("content", [[], None, {"schema_version": 1, "scores": 3, "best_f1": 4}])
def test_damaged_older_files_are_left_to_the_reader(content):
    with pytest.raises(SchemaError):
        from_plain(Scores, upgraded_scores(content))


def test_operating_points_use_iou_one_tenth_and_all_predictions():
    # IoU 3/10 is a hit; the 120 boxes elsewhere are 120 false positives, not a hundred
    truth = Truth(np.array([0]), np.array([[0.0, 0, 0, 1, 1, 10]]))
    boxes = [[0, 0, 0, 1, 1, 3], *[[0, 0, 50, 1, 1, 60]] * 120]
    record = build_record("case", "case", truth, Detections.build(boxes, [0.99] + [0.96] * 120))
    point = score_records([record], classes=["node"], bootstrap_draws=0).operating_points[-1].point
    assert (point.threshold, point.tp, point.fp) == (0.95, 1, 120)


def test_slice_threshold_reaches_the_paper_scores():
    case = flat_case([0], [(0.9, 0), (0.2, 5)])
    assert score_records([case], classes=["node"], bootstrap_draws=0).scores["paper_precision"].value == 0.5
    high = score_records([case], classes=["node"], bootstrap_draws=0, slice_threshold=0.5)
    assert high.scores["paper_precision"].value == 1


@pytest.mark.parametrize(
    ("cases", "options", "message"),
    [
        (row_cases(([0], []))[:1] * 2, {}, "cases occur twice: case0"),
        ([row_case("case", [0], [], labels=[1])], {}, r"case: labels \[1\], but classes are \['node'\]"),
        ([flat_case([0], [])], {"slice_iou": 0.3}, "made at IoU 0.1, not 0.3"),
    ],
)
def test_wrong_input_is_refused(cases, options, message):
    with pytest.raises(ValueError, match=message):
        score_records(cases, classes=["node"], bootstrap_draws=0, **options)


def test_records_must_hold_every_iou():
    record = build_record(
        "case", "case", Truth(np.array([0]), voxel_boxes([0])), Detections.empty(), ious=[0.1]
    )
    with pytest.raises(ValueError, match=r"case: not matched at IoU 0\.15"):
        score_records([record], classes=["node"], bootstrap_draws=0)


def test_two_hundred_draws_of_fifty_cases_take_seconds_not_minutes():
    rng = np.random.default_rng(0)
    cases = [random_case(rng, index, labels=1) for index in range(50)]
    start = time.perf_counter()
    score_records(cases, classes=["node"], bootstrap_draws=200)
    assert time.perf_counter() - start < 5  # about 0.3 s; generous for a busy machine
