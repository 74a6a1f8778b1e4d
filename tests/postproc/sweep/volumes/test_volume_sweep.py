"""Thresholds of detectors on volumes: every setting of the joint sweep equals the whole pipeline and the evaluation."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from postproc_cases import slice_boxes
from volume_cases import BASE, random_volumes, slow_curve, slow_metrics, volume_boxes, volume_case

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.postproc.steps.settings import VOLUME_STEPS, PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import parse_criterion
from nndet_psma.postproc.sweep.sweep import SweepResult, sweep

A = (0, 0, 0, 2, 4, 4)
FAR = (6, 9, 9, 8, 13, 13)
GRID = SweepGrid(
    (1.0,),
    (110.0,),
    (0.3, 1.0),
    (0.5,),
    (1,),
    (0.2, 0.45),
    others={
        "nms_iou": (0.2,),
        "fold_iou": (0.3,),
        "fold_score": ("all", "overlap"),
        "min_extent_mm": (4.0,),
    },
)


def all_settings(grid, base, *, fused=True):
    """Every setting in the order in which equals are preferred, by nested loops."""
    others = grid.others
    overlaps = itertools.product(
        sorted({base.nms_iou, *others.get("nms_iou", ())}, key=lambda v: (abs(v - base.nms_iou), -v)),
        sorted({base.fold_iou, *others.get("fold_iou", ())}, key=lambda v: (abs(v - base.fold_iou), -v))
        if fused
        else [base.fold_iou],
        dict.fromkeys([base.fold_score, *others.get("fold_score", ())]) if fused else [base.fold_score],
    )
    hu = [
        (None, base.hu_quantile),
        *itertools.product(sorted(grid.hu_threshold, reverse=True), grid.hu_quantile),
    ]
    for nms_iou, fold_iou, fold_score in overlaps:
        for zone in (None, *sorted(grid.zone_mm, reverse=True)):
            for (threshold, quantile), size in itertools.product(hu, (None, *others.get("min_size_mm", ()))):
                for extent in (None, *others.get("min_extent_mm", ())):
                    yield replace(
                        base,
                        nms_iou=nms_iou,
                        fold_iou=fold_iou,
                        fold_score=fold_score,
                        zone_mm=zone,
                        hu_threshold=threshold,
                        hu_quantile=quantile,
                        min_size_mm=size,
                        min_extent_mm=extent,
                    )


def slow_sweep(cases, grid, criterion, base, *, fused=True):
    """Every setting through the pipeline: (settings, value, metrics), each at its best threshold."""
    goal = parse_criterion(criterion)
    rows = []
    for settings in all_settings(grid, base, fused=fused):
        points = []
        for score in (0.0, *grid.score_threshold):
            tried = replace(settings, score_threshold=score)
            metrics = slow_metrics(cases, tried)
            arrays = {name: np.array([value]) for name, value in metrics.items()}
            judged = metrics["f1"] if goal.of_curve else float(goal.value(arrays)[0])
            points.append((round(judged, 12), tried, metrics))
        value, tried, metrics = max(points, key=lambda point: point[0])
        if goal.of_curve:
            value = round(slow_curve(cases, tried, goal.metric), 12)
        rows.append((tried, value, metrics))
    return rows


@pytest.mark.parametrize(
    ("seed", "criterion", "folds"),
    [
        (0, "map", 2),
        (1, "ap", 3),
        (2, "froc", 2),
        (3, "f1", 2),
        (4, "sensitivity@fp=0.7", 1),
        (5, "auc", 2),
        (8, "patient_auc", 1),
    ],
)
def test_joint_equals_brute_force(seed, criterion, folds):
    cases = random_volumes(seed, folds=folds)
    result = sweep(cases, GRID, criterion=criterion, base=BASE)
    expected = slow_sweep(cases, GRID, criterion, BASE, fused=folds > 1)
    table = result.table
    assert len(table.variants) == len(expected) == (96 if folds > 1 else 24)
    np.testing.assert_allclose(table.value[:, 0, 0, 0], [value for _, value, _ in expected], atol=1e-9)
    thresholds = [settings.score_threshold for settings, _, _ in expected]
    np.testing.assert_array_equal(table.score_threshold[:, 0, 0, 0], thresholds)
    settings, value, metrics = max(expected, key=lambda row: round(row[1], 9))
    assert result.settings == settings
    assert result.best.value == pytest.approx(value, abs=1e-9)
    assert {name: getattr(result.best, name) for name in metrics} == pytest.approx(metrics)
    assert result.num_settings == 3 * len(expected)


@pytest.mark.parametrize("criterion", ["map", "f1", "auc", "patient_auc"])
def test_nested_value_is_that_of_thresholds_chosen_without_the_group(criterion):
    cases = random_volumes(7, num_cases=4, most=14)
    grid = replace(GRID, others={"nms_iou": (0.2,), "min_extent_mm": (4.0,)})
    groups = [[0, 2], [1, 3]]
    result = sweep(cases, grid, criterion=criterion, base=BASE, groups=groups)
    own = [None] * 4
    for group, chosen in zip(groups, result.nested.settings, strict=True):
        rest = [case for index, case in enumerate(cases) if index not in group]
        expected = slow_sweep(rest, grid, criterion, BASE, fused=False)
        assert chosen == max(expected, key=lambda row: round(row[1], 9))[0]
        for index in group:
            own[index] = chosen
    metrics = slow_metrics(cases, own)
    assert {name: getattr(result.nested, name) for name in metrics} == pytest.approx(metrics)
    value = metrics["f1"] if criterion == "f1" else slow_curve(cases, own, criterion)
    assert result.nested.value == pytest.approx(value, abs=1e-9)
    assert result.nested.optimism == pytest.approx(result.best.value - value, abs=1e-9)
    assert result.nested.groups == [["case0", "case2"], ["case1", "case3"]]


def test_by_hand():
    # a false box scores between two true ones; only its size tells it apart: 2 voxels along x
    thin = (16, 9, 9, 18, 13, 11)
    raw = {"v": [volume_boxes((A, 0.9), (thin, 0.6), (FAR, 0.3))]}
    case = volume_case(raw, [A, FAR])
    grid = SweepGrid((), (), (), (0.5,), (), others={"min_extent_mm": (1.0, 2.5, 4.0)})
    result = sweep([case], grid, criterion="map", base=BASE)
    assert result.settings == replace(BASE, min_extent_mm=2.5)  # 4.0 and a score of 0.3 would do as well
    assert (result.best.value, result.best.f1, result.best.fp_per_case) == (1, 1, 0)
    assert result.judged == "lesions"
    off = result.table.value[0, 0, 0, 0]
    # recall 1/2 at precision 1, 51 of the 101 points; the other 50 at 2/3
    assert off == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_hundred_candidates_rank_and_all_of_them_count():
    """101 false boxes outrank the only true one: no average precision, but it is found."""
    false = [((10 * i, 0, 0, 10 * i + 2, 4, 4), 0.5) for i in range(1, 101)]
    grid = SweepGrid((), (), (), (0.5,), (), (0.1,))
    for extra, ap in ((100, 0.0), (99, 1 / 100)):
        case = volume_case({"v": [volume_boxes(*false[:extra], (A, 0.4))]}, [A])
        result = sweep([case], grid, criterion="ap", base=BASE)
        assert result.best.value == pytest.approx(ap)
        assert result.best.sensitivity == 1
        assert slow_metrics([case], result.settings)["precision"] == pytest.approx(1 / (extra + 1))


def test_a_hundred_candidates_rank_the_slices():
    """Lesion on slices 0 and 1 of 20, false boxes on slices 2 and 3, which win against its slices.

    As the 101st best of its case the lesion's box is no candidate: its slices tie with the 16 empty ones. As the 100th
    it wins against them.
    """
    false = [((2, 10 * i, 0, 4, 10 * i + 4, 4), 0.5) for i in range(1, 101)]
    for extra, expected in ((100, 2 * 16 / 2 / 36), (99, 2 * 16 / 36)):
        case = volume_case({"v": [volume_boxes(*false[:extra], (A, 0.4))]}, [A])
        result = sweep([case], SweepGrid((), (), (), (0.5,), (), (0.1,)), criterion="auc", base=BASE)
        assert result.best.value == pytest.approx(expected)


def test_a_filter_frees_the_lesion_for_another_box():
    """The brighter box takes the lesion and is an alarm less; without it the darker one finds it."""
    raw = {"v": [volume_boxes((A, 0.9), ((0, 0, 1, 2, 4, 5), 0.8), hu=[150, 50])]}
    case = volume_case(raw, [A])
    grid = SweepGrid((), (100.0,), (0.5,), (0.5,), (), (0.5,))
    base = replace(BASE, nms_iou=0.9)
    result = sweep([case], grid, criterion="f1", base=base)
    counts = result.table.boxes[:, 0, 0, 0].tolist(), result.table.true[:, 0, 0, 0].tolist()
    assert counts == ([2, 1], [1, 1])
    assert result.settings.hu_threshold == 100.0


def test_one_fold_says_nothing_about_fusion():
    case = volume_case({"v": [volume_boxes((A, 0.9))]}, [A])
    others = {"fold_iou": (0.1, 0.9), "fold_score": ("all", "present"), "nms_iou": (0.1, 0.4, 0.6)}
    grid = SweepGrid((), (), (), (0.5,), (), (), others=others)
    base = replace(BASE, fold_iou=0.4, fold_score="present", nms_iou=0.5)
    result = sweep([case], grid, criterion="map", base=base)
    # the plan's own value first, then the nearest, of two the higher
    assert [variant["nms_iou"] for variant in result.table.variants] == [0.5, 0.6, 0.4, 0.1]
    assert result.settings == base
    assert "nearest to the plan's own" in result.tie_rule


@pytest.mark.parametrize(
    ("search", "criterion"), [("coarse", "map"), ("coarse", "f1"), ("coarse", "auc"), ("optuna", "ap")]
)
def test_stepwise_never_misreports(search, criterion):
    """What is told of a setting is what the pipeline and the evaluation make of it."""
    pytest.importorskip("optuna") if search == "optuna" else None
    cases = random_volumes(3, num_cases=2, voters=1)
    joint = sweep(cases, GRID, criterion=criterion, base=BASE)
    result = sweep(cases, GRID, criterion=criterion, base=BASE, search=search, trials=12, groups=[[0], [1]])
    assert result.best.value <= joint.best.value + 1e-12
    goal = parse_criterion(criterion)
    metrics = slow_metrics(cases, result.settings)
    assert {name: getattr(result.best, name) for name in metrics} == pytest.approx(metrics)
    value = slow_curve(cases, result.settings, criterion) if goal.of_curve else metrics["f1"]
    assert result.best.value == pytest.approx(value)
    assert len(result.nested.settings) == 2
    assert result.table is None


def test_several_voters_are_searched_step_by_step():
    # each voter has a false box of its own: two votes leave the lesion alone
    raw = {
        "a": [volume_boxes((A, 0.6), (FAR, 0.8))],
        "b": [volume_boxes((A, 0.5), ((20, 0, 0, 22, 4, 4), 0.9))],
    }
    grid = SweepGrid((), (), (), (0.5,), (1, 2), ())
    result = sweep([volume_case(raw, [A])], grid, criterion="f1", base=BASE)
    assert (result.search, result.settings.min_votes, result.best.f1) == ("coarse", 2, 1)


def test_thresholds_are_scores_of_boxes_that_hit():
    false = [((10 * i, 0, 0, 10 * i + 2, 4, 4), i / 1000) for i in range(1, 99)]
    case = volume_case({"v": [volume_boxes(*false, (A, 0.7), (FAR, 0.45))]}, [A, FAR])
    result = sweep([case], SweepGrid((), (), (), (0.5,), ()), criterion="f1", base=BASE)
    assert result.num_settings == 3  # 0, 0.45, 0.7
    assert (result.settings.score_threshold, result.best.f1) == (0.45, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": "two_phase"},
            "'two_phase' cannot tune boxes in 3D; expected one of joint, coarse, optuna",
        ),
        ({"tune_hit_iou": True}, "IoU of a hit is not tuned for boxes in 3D"),
        ({"criterion": "map2"}, "unknown sweep criterion 'map2'"),
        ({"others": {"max_size_mm": (1.0,), "link_gap": (0, 1)}}, "candidates of link_gap cannot be tried"),
        ({"steps": ("ZoneFilter", *VOLUME_STEPS)}, "ZoneFilter cannot be tuned as masks"),
    ],
)
def test_what_cannot_be_swept(changes, message):
    case = volume_case({"v": [volume_boxes((A, 0.9))]}, [A])
    grid = SweepGrid((1.0,), (), (), (0.5,), (), others=changes.pop("others", {}))
    steps = tuple(step for step in changes.pop("steps", VOLUME_STEPS))
    base = replace(BASE, steps=steps[:1] + tuple(s for s in steps[1:] if s != steps[0]))
    with pytest.raises(UserError, match=message):
        sweep([case], grid, **{"criterion": "map", "base": base, **changes})


def test_map_is_not_for_slices():
    raw = {"v": [slice_boxes((0, (0, 0, 4, 4), 0.9), zone_mm=[0.0])]}
    truth = slice_boxes((0, (0, 0, 4, 4), 1.0), lesion=[0])
    case = SweepCase("a", raw, truth, 1, 5, (3.0, 1.0, 1.0))
    grid = SweepGrid((), (), (), (0.5,), ())
    for search in ("joint", "two_phase", "coarse"):
        with pytest.raises(UserError, match=r"criterion map .*(sweep.criterion=ap|search=joint)"):
            sweep([case], grid, criterion="map", base=PostprocSettings(), search=search)


def test_every_lesion_has_a_box():
    with pytest.raises(ValueError, match="a: 1 boxes of 2 lesions"):
        SweepCase("a", {"v": [volume_boxes()]}, Detections.build([A], [1.0]), 2, 9, (3.0, 1.0, 1.0))


def test_result_survives_json():
    case = volume_case({"v": [volume_boxes((A, 0.9)), volume_boxes((A, 0.7))]}, [A])
    grid = SweepGrid((), (), (), (0.5,), (), others={"fold_score": ("all", "overlap")})
    result = sweep([case], grid, criterion="map", base=BASE)
    plain = json.loads(json.dumps(to_plain(replace(result, table=None))))
    assert from_plain(SweepResult, plain) == result
    arrays = dict(result.table.arrays())
    assert arrays["variant/fold_score"].tolist() == ["all", "overlap"]
    assert arrays["variant/nms_iou"].dtype == np.float64
    assert plain["best"]["fold_iou"] == BASE.fold_iou
