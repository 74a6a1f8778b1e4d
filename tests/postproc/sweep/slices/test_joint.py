"""The joint sweep against one setting after the other."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from postproc_cases import slice_boxes
from sweep_cases import (
    BASE,
    METRICS,
    metrics_from,
    random_cases,
    raw_boxes,
    slow_counts,
    slow_metrics,
    slow_ranking,
    sweep_case,
    with_healthy,
)

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.criterion import parse_criterion
from nndet_psma.postproc.sweep.sweep import sweep

GRID = SweepGrid((2.0,), (110.0,), (0.3, 1.0), (0.2, 0.6), (1, 2, 3), (0.3, 0.6), hit_iou=(0.1, 0.5))
SCORES = (0.0, 0.3, 0.6)
TOLERANCES = (0.1, 0.3, 0.5)  # that of BASE among them


def every_setting(base, num_voters=3):
    """Settings by (f, v, i, h), one for each score threshold, the mildest first."""
    filters = itertools.product((None, 2.0), ((None, base.hu_quantile), (110.0, 0.3), (110.0, 1.0)))
    ious = (0.2, 0.6) if num_voters > 1 else (base.vote_iou,)
    for f, (zone, (threshold, quantile)) in enumerate(filters):
        for v, i, h in itertools.product(range(num_voters), range(len(ious)), range(3)):
            yield (
                (f, v, i, h),
                [
                    replace(
                        base,
                        zone_mm=zone,
                        hu_threshold=threshold,
                        hu_quantile=quantile,
                        vote_iou=ious[i],
                        min_votes=v + 1,
                        hit_iou=TOLERANCES[h],
                        score_threshold=score,
                    )
                    for score in SCORES
                ],
            )


def value_of(goal, metrics):
    return round(float(goal.value(dict(zip(METRICS, map(np.array, metrics), strict=True)))), 12)


def check_against_slow(cases, base=BASE, criterion="f1", num_voters=3):
    result = sweep(cases, GRID, criterion=criterion, base=base)
    goal = parse_criterion(criterion)
    best = (-np.inf, None)
    table = result.table
    for cell, settings in every_setting(base, num_voters):
        counts = [slow_counts(cases, each) for each in settings]
        values = [value_of(goal, metrics_from(each, cases)) for each in counts]
        place = int(np.argmax(values))
        assert table.score_threshold[cell] == SCORES[place]
        ours = tuple(int(array[cell]) for array in (table.boxes, table.true, table.found))
        assert ours == counts[place], (cell, settings[place])
        assert table.value[cell] == pytest.approx(values[place], abs=1e-11)
        if cell[3] == 1 and values[place] > best[0]:  # hit_iou of BASE; the first of equals
            best = (values[place], settings[place])
    assert result.settings == best[1]
    shown = [getattr(result.best, name) for name in METRICS]
    np.testing.assert_allclose(shown, slow_metrics(cases, result.settings), atol=1e-12)
    assert result.num_settings == table.value.size * len(SCORES)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force(seed):
    check_against_slow(random_cases(seed))


@pytest.mark.parametrize("criterion", ["sensitivity@precision=0.4", "sensitivity@fp=1.5"])
def test_equals_brute_force_for_other_criteria(criterion):
    check_against_slow(random_cases(11), criterion=criterion)


@pytest.mark.parametrize("seed", [20, 21])
def test_voters_that_were_not_asked(seed):
    check_against_slow(random_cases(seed, num_cases=3, missing=True))


def test_one_voter():
    check_against_slow(random_cases(30, num_voters=1), num_voters=1)


def test_folds_that_count_only_where_they_see_the_box():
    check_against_slow(random_cases(31), base=replace(BASE, fold_score="present"))


def test_portions_change_nothing(monkeypatch):
    """One filter setting, one component, one unit at a time."""
    cases = random_cases(32, num_cases=3)
    whole = sweep(cases, GRID, criterion="f1", base=BASE, groups=[[0], [1, 2]])
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.vote_counts._DENSE", 1)
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.components._BLOCK", 1)
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.vote_events._PORTION", 1)
    portions = sweep(cases, GRID, criterion="f1", base=BASE, groups=[[0], [1, 2]])
    assert portions == whole
    for name in ("score_threshold", "boxes", "true", "found", "value"):
        np.testing.assert_array_equal(getattr(portions.table, name), getattr(whole.table, name))


def test_portions_change_no_ranking(monkeypatch):
    cases = random_cases(34, num_cases=3)
    whole = sweep(cases, GRID, criterion="auc", base=BASE, groups=[[0], [1, 2]])
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.image_scores._CELLS", 1)
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.vote_counts._DENSE", 1)
    portions = sweep(cases, GRID, criterion="auc", base=BASE, groups=[[0], [1, 2]])
    assert portions == whole
    np.testing.assert_array_equal(portions.table.value, whole.table.value)


def test_heaps_of_boxes():
    """55 boxes of two voters on one slice, none suppressed: more than fit into one word of presence bits."""
    rng = np.random.default_rng(0)

    def heap(count):
        corner = rng.uniform(0, 6, (count, 2))
        rows = ((0, (y, x, y + 8, x + 8), s) for (y, x), s in zip(corner, rng.random(count), strict=True))
        return raw_boxes(*rows, zone=rng.integers(0, 5, count), hu=rng.integers(60, 180, count))

    truth = slice_boxes((0, (2, 2, 9, 9), 1.0), (0, (5, 5, 12, 12), 1.0), lesion=[0, 1])
    case = sweep_case({"w0": [heap(30)], "w1": [heap(25)]}, truth, num_lesions=2)
    check_against_slow([case], base=replace(BASE, nms_iou=1.0), num_voters=2)


def test_voxel_sizes_of_their_own():
    """The size filter sees each case in its own millimetres."""
    cases = random_cases(33)
    cases = [replace(case, spacing=(3.0, size, size)) for case, size in zip(cases, (1.0, 2.0), strict=True)]
    grid = SweepGrid(
        (), (), (), (0.5,), (2,), (0.3,), others={"min_short_axis_mm": (5.0, 8.0), "max_size_mm": (6.0,)}
    )
    table = sweep(cases, grid, criterion="f1", base=BASE).table
    assert [variant["min_short_axis_mm"] for variant in table.variants] == [None, 5.0, 8.0, None, 5.0, 8.0]
    assert [variant["max_size_mm"] for variant in table.variants] == [None] * 3 + [6.0] * 3
    for cell in np.ndindex(table.value.shape):
        f, v, _, _ = cell
        changes = {
            "min_votes": int(table.min_votes[v]),
            "score_threshold": float(table.score_threshold[cell]),
        }
        settings = BASE.but({**table.variants[f], **changes})
        ours = tuple(int(each[cell]) for each in (table.boxes, table.true, table.found))
        assert ours == slow_counts(cases, settings)
    assert len({int(n) for n in table.boxes.reshape(-1)}) > 4


@pytest.mark.parametrize(
    ("seed", "criterion", "voters", "missing"),
    [
        (40, "auc", 3, False),
        (41, "auc", 3, True),
        (42, "auc", 1, False),
        (43, "patient_auc", 3, False),
        (55, "patient_auc", 3, True),
    ],
)
def test_rankings_equal_brute_force(seed, criterion, voters, missing):
    """The value of every cell is that of the candidates; the threshold that of the best F1, the lowest of equals."""
    cases = random_cases(seed, num_cases=5, num_voters=voters, missing=missing)
    cases = with_healthy(cases, ["a", "B", "a", "C", "d"])
    result = sweep(cases, GRID, criterion=criterion, base=BASE)
    table, best = result.table, (-np.inf, None)
    for cell, settings in every_setting(BASE, voters):
        counts = [slow_counts(cases, each) for each in settings]
        place = int(np.argmax([round(metrics_from(each, cases)[2], 12) for each in counts]))
        value = round(slow_ranking(cases, settings[0], criterion), 12)
        assert table.value[cell] == pytest.approx(value, abs=1e-12), cell
        assert table.score_threshold[cell] == SCORES[place]
        assert tuple(int(each[cell]) for each in (table.boxes, table.true, table.found)) == counts[place]
        if cell[3] == 1 and value > best[0]:
            best = (value, settings[place])
    assert len(np.unique(table.value)) > 2
    assert (result.best.value, result.settings) == (pytest.approx(best[0]), best[1])


@pytest.mark.parametrize("criterion", ["auc", "patient_auc"])
def test_nested_ranking_joins_the_groups(criterion):
    """Every group at the setting that is best without it; slices, or patients, of all groups are ranked together."""
    cases = with_healthy(random_cases(45, num_cases=6), ["a", "B", "c", "D", "e", "F"])
    groups = [[0, 1], [2, 3], [4, 5]]
    result = sweep(cases, GRID, criterion=criterion, base=BASE, groups=groups)
    own = [None] * len(cases)
    for group, chosen in zip(groups, result.nested.settings, strict=True):
        rest = [case for index, case in enumerate(cases) if index not in group]
        assert chosen == sweep(rest, GRID, criterion=criterion, base=BASE).settings
        for index in group:
            own[index] = chosen
    assert result.nested.value == pytest.approx(slow_ranking(cases, own, criterion))
    assert result.nested.optimism == pytest.approx(result.best.value - result.nested.value)


def test_ranking_chooses_filters_and_leaves_the_rest_to_the_rules():
    """Scores by hand: the lesion on slice 0 has 0.4, a bright box (150 HU) on slice 1 has 0.9, of 20 slices.

    With the bright box the lesion's slice wins 18 of 19 pairs, without it all. 140 HU does as well as 100: the milder.
    One vote, the lower vote IoU and, of thresholds 0, 0.2 and 0.5 by F1, the lowest that leaves one box: the rules.
    """
    raw = {"a": [raw_boxes((0, (0, 0, 4, 4), 0.4), (1, (0, 0, 4, 4), 0.9), hu=[50, 150])]}
    raw["b"] = [raw_boxes((0, (0, 0, 4, 4), 0.4))]
    grid = SweepGrid((), (100.0, 140.0), (0.5,), (0.2, 0.6), (1, 2), (0.2, 0.5))
    result = sweep(
        [sweep_case(raw, slice_boxes((0, (0, 0, 4, 4), 1.0), lesion=[0]))], grid, criterion="auc", base=BASE
    )
    assert result.table.value[0, 0, 0, 0] == pytest.approx(18 / 19)
    assert result.best.value == 1
    chosen = result.settings
    assert (chosen.hu_threshold, chosen.min_votes, chosen.vote_iou, chosen.score_threshold) == (
        140.0,
        1,
        0.2,
        0.0,
    )


def test_lesions_that_the_crop_lost_make_a_patient_ill():
    """Patient a has a lesion without a slice box: a patient to be ranked, but no slice."""
    empty = slice_boxes(lesion=[])
    lost = replace(sweep_case({"v": [raw_boxes((3, (0, 0, 4, 4), 0.5))]}, empty, 1), patient="a")
    healthy = replace(sweep_case({"v": [raw_boxes((3, (0, 0, 4, 4), 0.2))]}, empty, 0, "b"), patient="b")
    grid = SweepGrid((), (), (), (0.5,), ())
    assert sweep([lost, healthy], grid, criterion="patient_auc", base=BASE).best.value == 1
    with pytest.raises(
        UserError, match="criterion auc is undefined: every validation slice holds a lesion, or none"
    ):
        sweep([lost, healthy], grid, criterion="auc", base=BASE)


def test_patients_of_one_kind_cannot_be_ranked():
    with pytest.raises(
        UserError, match=r"every validation patient holds a lesion, or none does.*Choose another"
    ):
        sweep(random_cases(0), GRID, criterion="patient_auc", base=BASE)
