import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from postproc_cases import FAR, A, slice_boxes
from sweep_cases import (
    BASE,
    METRICS,
    random_cases,
    raw_boxes,
    slow_metrics,
    slow_ranking,
    sweep_case,
    truth_at,
    with_healthy,
)

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.criterion import parse_criterion
from nndet_psma.postproc.sweep.sweep import SweepResult, sweep


def slow_sweep(cases, grid, criterion, base):
    """Both phases by nested loops: {setting: metrics} of each and the best value."""
    goal = parse_criterion(criterion)

    def value(metrics):
        columns = dict(zip(METRICS, map(np.array, metrics), strict=True))
        return round(float(goal.value(columns)), 12)

    def milder(settings):
        off = float("inf")
        return (
            -(off if settings.zone_mm is None else settings.zone_mm),
            -(off if settings.hu_threshold is None else settings.hu_threshold),
            settings.hu_quantile,
            settings.min_votes,
            settings.vote_iou,
            settings.score_threshold,
        )

    scores = (0.0, *grid.score_threshold)
    hu = [(None, base.hu_quantile), *itertools.product(grid.hu_threshold, grid.hu_quantile)]
    first = {}
    for zone, (threshold, quantile), score in itertools.product((None, *grid.zone_mm), hu, scores):
        tried = replace(
            base,
            zone_mm=zone,
            hu_threshold=threshold,
            hu_quantile=quantile,
            score_threshold=score,
            min_votes=1,
        )
        first[tried] = np.mean([slow_metrics(cases, tried, voter) for voter in cases[0].raw], axis=0)
    best = min(first, key=lambda s: (-value(first[s]), milder(s)))
    second = {}
    for iou, votes, score in itertools.product(grid.vote_iou, grid.min_votes, scores):
        tried = replace(best, vote_iou=iou, min_votes=votes, score_threshold=score)
        second[tried] = slow_metrics(cases, tried)
    best = min(second, key=lambda s: (-value(second[s]), milder(s)))
    return first, second, best, value(second[best])


def row_key(row, base):
    iou, votes = row.vote_iou or base.vote_iou, row.min_votes or 1
    return row.zone_mm, row.hu_threshold, row.hu_quantile, iou, votes, row.score_threshold


def settings_key(s):
    return s.zone_mm, s.hu_threshold, s.hu_quantile, s.vote_iou, s.min_votes, s.score_threshold


@pytest.mark.parametrize(
    ("seed", "criterion"), [(0, "f1"), (1, "f1"), (2, "sensitivity@precision=0.4"), (3, "sensitivity@fp=1.5")]
)
def test_two_phases_equal_brute_force(seed, criterion):
    grid = SweepGrid((2.0,), (110.0,), (0.3, 1.0), (0.2, 0.6), (1, 2, 3), (0.2, 0.6))
    cases = random_cases(seed)
    result = sweep(cases, grid, criterion=criterion, base=BASE, search="two_phase")
    first, second, best, value = slow_sweep(cases, grid, criterion, BASE)
    assert result.settings == best
    assert result.best.value == pytest.approx(value, abs=1e-12)
    for phase, expected in ((1, first), (2, second)):
        rows = {row_key(row, BASE): row for row in result.rows if row.phase == phase}
        assert set(rows) == {settings_key(settings) for settings in expected}
        for settings, metrics in expected.items():
            ours = [getattr(rows[settings_key(settings)], name) for name in METRICS]
            np.testing.assert_allclose(ours, metrics, atol=1e-12, err_msg=str(settings))
    assert result.num_settings == len(result.rows) == len(first) + len(second)


@pytest.mark.parametrize("criterion", ["auc", "patient_auc"])
def test_two_phases_rank_like_brute_force(criterion):
    """Phase 1 the mean over the voters, phase 2 all voters; one row a setting, at the threshold of the best F1."""
    grid = SweepGrid((2.0,), (110.0,), (0.3, 1.0), (0.2, 0.6), (1, 2, 3), (0.2, 0.6))
    cases = with_healthy(random_cases(8, num_cases=4), ["a", "B", "c", "D"])
    result = sweep(cases, grid, criterion=criterion, base=BASE, search="two_phase")
    assert len(result.rows) == 6 + 2 * 3
    for row in result.rows:
        own = dict(zip(("zone_mm", "hu_threshold", "hu_quantile"), row_key(row, BASE)[:3], strict=True))
        if row.phase == 1:
            tried = replace(BASE, **own, min_votes=1)
            values = [slow_ranking(cases, tried, criterion, voter) for voter in cases[0].raw]
        else:
            tried = replace(BASE, **own, min_votes=row.min_votes, vote_iou=row.vote_iou)
            values = [slow_ranking(cases, tried, criterion)]
        assert row.value == pytest.approx(np.mean(values), abs=1e-12)
    assert (result.settings.min_votes, result.best.value) == (
        1,
        max(r.value for r in result.rows if r.phase == 2),
    )


def test_chosen_settings_reproduce_the_best_row_with_thresholds_from_the_scores():
    cases = random_cases(7, num_cases=3, scores=np.linspace(0.01, 0.99, 50))
    result = sweep(cases, SweepGrid.paper_grid(), criterion="f1", base=BASE)
    ours = [getattr(result.best, name) for name in METRICS]
    np.testing.assert_allclose(ours, slow_metrics(cases, result.settings), atol=1e-12)


def test_zone_filter_is_found():
    # the box 4 mm out is false, the one 2 mm out true: 3 mm separates them, and no score does
    raw = {"soft": [raw_boxes((0, A, 0.5), (1, FAR, 0.5), zone=[2.0, 4.0])]}
    grid = SweepGrid((1.0, 2.0, 3.0), (), (), (0.5,), ())
    result = sweep([sweep_case(raw, truth_at(0))], grid, criterion="f1", base=BASE)
    assert result.settings.zone_mm == 3.0  # 2 and 3 are equally good: the milder one
    assert result.best.f1 == 1


def test_a_filter_that_hurts_is_switched_off():
    raw = {"soft": [raw_boxes((0, A, 0.5), zone=9.0, hu=300)]}
    base = replace(BASE, zone_mm=1.0, hu_threshold=80.0, hu_quantile=0.7)
    result = sweep([sweep_case(raw, truth_at(0))], SweepGrid.paper_grid(), criterion="f1", base=base)
    assert result.settings.zone_mm is None
    assert result.settings.hu_threshold is None
    assert result.settings.score_threshold == 0


def test_ties_prefer_the_lower_quantile_of_the_hu_filter():
    # vessel: 150 HU at every quantile; node: 50 HU. Any pair below 150 works: highest threshold, lowest quantile
    raw = {"soft": [raw_boxes((0, A, 0.5), (1, FAR, 0.5), hu=[50, 150])]}
    result = sweep([sweep_case(raw, truth_at(0))], SweepGrid.paper_grid(), criterion="f1", base=BASE)
    assert (result.settings.hu_threshold, result.settings.hu_quantile) == (140.0, 0.1)


def test_votes_are_found():
    # each voter has its own false positive of the same score as the shared true box
    raw = {f"w{i}": [raw_boxes((0, A, 0.5), (5 + i, FAR, 0.5))] for i in range(3)}
    result = sweep([sweep_case(raw, truth_at(0))], SweepGrid.paper_grid(), criterion="f1", base=BASE)
    assert (result.settings.min_votes, result.settings.vote_iou) == (2, 0.1)
    assert result.best.f1 == 1
    assert {row.min_votes for row in result.rows} == {1, 2, 3}


@pytest.mark.parametrize("search", ["joint", "two_phase"])
def test_one_voter_has_no_vote(search):
    raw = {"soft": [raw_boxes((0, A, 0.5), (1, FAR, 0.2))]}
    base = replace(BASE, min_votes=3, vote_iou=0.7)
    grid = replace(SweepGrid.paper_grid(), hit_iou=())
    result = sweep([sweep_case(raw, truth_at(0))], grid, criterion="f1", base=base, search=search)
    assert {row.vote_iou for row in result.rows} == {None}
    assert result.settings == replace(base, min_votes=1, score_threshold=0.5)
    # 11 zones x 51 HU settings x scores 0, 0.2, 0.5
    assert result.num_settings == 11 * 51 * 3


def test_limit_that_cannot_be_met_comes_as_near_as_possible():
    # precision 1/2 at best, 0.9 wanted: misses by 0.4
    raw = {"soft": [raw_boxes((0, A, 0.5), (1, FAR, 0.5))]}
    grid = SweepGrid((), (), (), (0.5,), ())
    result = sweep([sweep_case(raw, truth_at(0))], grid, criterion="sensitivity@precision=0.9", base=BASE)
    assert result.best.value == pytest.approx(-0.4)


def test_lesions_without_slice_box_are_missed():
    raw = {"soft": [raw_boxes((0, A, 0.5))]}
    grid = SweepGrid((), (), (), (0.5,), ())
    result = sweep([sweep_case(raw, truth_at(0), num_lesions=4)], grid, criterion="f1", base=BASE)
    assert result.best.sensitivity == 0.25


def test_cases_without_lesion_bring_false_positives():
    healthy = sweep_case({"soft": [raw_boxes((0, A, 0.4))]}, Detections.empty(2), 0, "healthy")
    ill = sweep_case({"soft": [raw_boxes((0, A, 0.5))]}, truth_at(0), 1, "ill")
    grid = SweepGrid((), (), (), (0.5,), ())
    result = sweep([healthy, ill], grid, criterion="f1", base=BASE, search="two_phase")
    assert result.settings.score_threshold == 0.5
    assert result.rows[0].fp_per_case == 0.5  # threshold 0
    assert sweep([healthy, ill], grid, criterion="f1", base=BASE).settings == result.settings


def test_no_predictions_at_all():
    raw = {"a": [Detections.empty(2)], "b": [raw_boxes()]}
    result = sweep([sweep_case(raw, truth_at(0))], SweepGrid.paper_grid(), criterion="f1", base=BASE)
    assert result.best.value == 0
    assert result.settings.zone_mm is None


def test_json_round_trip():
    grid = SweepGrid((1.0,), (), (), (0.5,), (2,))
    result = replace(sweep(random_cases(1), grid, criterion="f1", base=BASE, groups=[[0], [1]]), table=None)
    assert from_plain(SweepResult, json.loads(json.dumps(to_plain(result), allow_nan=False))) == result
    assert "smaller hu_quantile" in result.tie_rule


def test_no_lesion_says_what_to_do():
    healthy = sweep_case({"soft": [raw_boxes()]}, Detections.empty(2), 0)
    with pytest.raises(UserError, match=r"no lesion in any validation case.* Keep the default thresholds"):
        sweep([healthy], SweepGrid.paper_grid(), criterion="f1", base=BASE)


def test_no_cases():
    with pytest.raises(UserError, match="no validation case"):
        sweep([], SweepGrid.paper_grid(), criterion="f1", base=BASE)


def test_unknown_criterion():
    with pytest.raises(UserError, match="unknown sweep criterion 'mAP'"):
        sweep(random_cases(0), SweepGrid.paper_grid(), criterion="mAP", base=BASE)


def test_cases_with_different_voters():
    cases = [
        sweep_case({"x": [raw_boxes()]}, truth_at(0)),
        sweep_case({"y": [raw_boxes()]}, truth_at(0), name="b"),
    ]
    with pytest.raises(ValueError, match=r"a has \['x'\], b has \['y'\]"):
        sweep(cases, SweepGrid.paper_grid(), criterion="f1", base=BASE)


def test_truth_is_checked():
    with pytest.raises(ValueError, match="a: lesion 1, but only 1 lesions"):
        sweep_case({}, truth_at(0, 1), num_lesions=1)
    with pytest.raises(ValueError, match=r"without the columns \['lesion'\]"):
        sweep_case({}, slice_boxes((0, A, 1.0)))
