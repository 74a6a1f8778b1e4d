"""Searches that skip settings, the nested value, and the tolerance as a threshold."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from postproc_cases import FAR, A
from sweep_cases import (
    BASE,
    METRICS,
    random_cases,
    raw_boxes,
    slow_counts,
    slow_metrics,
    sweep_case,
    truth_at,
)

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.ensemble import join_folds, join_models
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.one_setting import count_setting
from nndet_psma.postproc.sweep.sweep import sweep

SMALL = SweepGrid((2.0,), (110.0,), (0.3, 1.0), (0.2, 0.6), (1, 2, 3), (0.3, 0.6))


def test_one_setting_is_counted_as_with_plain_loops():
    cases = random_cases(3)
    for settings in (BASE, replace(BASE, min_votes=2, zone_mm=2.0, score_threshold=0.3)):
        assert count_setting(cases, settings) == slow_counts(cases, settings)


class TestCoarse:
    def test_finds_what_the_joint_sweep_finds(self):
        """One filter each decides: the box far out, the bright box, the box one window alone sees."""
        rows = [(0, A, 0.9), (1, A, 0.9), (2, A, 0.9)]
        boxes = raw_boxes(*rows, zone=[0.0, 5.0, 0.0], hu=[50, 50, 150])
        raw = {"a": [boxes], "b": [raw_boxes((0, A, 0.8), (9, FAR, 0.7))], "c": [boxes]}
        case = sweep_case(raw, truth_at(0))
        grid = replace(SweepGrid.paper_grid(), min_votes=(1, 2, 3))
        coarse = sweep([case], grid, criterion="f1", base=BASE, search="coarse")
        joint = sweep([case], grid, criterion="f1", base=BASE)
        assert coarse.best.value == joint.best.value == 1
        assert coarse.num_settings == len(coarse.rows) < joint.num_settings / 1000

    @pytest.mark.parametrize("seed", range(3))
    def test_never_worse_than_the_start_and_true_to_its_row(self, seed):
        cases = random_cases(seed)
        start = replace(BASE, score_threshold=0.3, vote_iou=0.6)
        result = sweep(cases, SMALL, criterion="f1", base=start, search="coarse")
        assert result.best.f1 >= slow_metrics(cases, start)[2]
        ours = [getattr(result.best, name) for name in METRICS]
        np.testing.assert_allclose(ours, slow_metrics(cases, result.settings), atol=1e-12)
        assert sweep(cases, SMALL, criterion="f1", base=start, search="coarse") == result

    def test_settings_that_are_no_masks(self):
        """A displaced second box (IoU 1/3 with the first) is false: stricter suppression takes it away."""
        raw = {"a": [raw_boxes((0, A, 0.9), (0, (0, 2, 4, 6), 0.9))]}
        grid = SweepGrid((), (), (), (0.5,), (), others={"nms_iou": (0.2, 0.5)})
        case, base = sweep_case(raw, truth_at(0)), replace(BASE, hit_iou=0.5)
        result = sweep([case], grid, criterion="f1", base=base, search="coarse")
        assert (result.settings.nms_iou, result.best.f1) == (0.2, 1)
        with pytest.raises(UserError, match=r"candidates of nms_iou cannot be tried .*search=coarse"):
            sweep([case], grid, criterion="f1", base=base)

    def test_curves_need_every_threshold(self):
        with pytest.raises(UserError, match="ap needs every score threshold"):
            sweep(random_cases(0), SMALL, criterion="ap", base=BASE, search="coarse")

    def test_rankings_leave_the_threshold_open(self):
        with pytest.raises(
            UserError, match=r"auc leaves the score threshold open.*search=joint or two_phase"
        ):
            sweep(random_cases(0), SMALL, criterion="auc", base=BASE, search="coarse")


class TestOptuna:
    def test_missing_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        with pytest.raises(UserError, match=r"needs the package optuna.*pip install optuna"):
            sweep(random_cases(0), SMALL, criterion="f1", base=BASE, search="optuna")

    def test_asks_the_study(self, monkeypatch):
        """A stand-in that draws at random: the best of its trials is taken, the start is one of them."""
        trials = []

        class Study:
            def enqueue_trial(self, parameters):
                self.first = parameters

            def optimize(self, objective, n_trials):
                rng = np.random.default_rng(0)
                for number in range(n_trials):
                    drawn = self.first if number == 0 else {}
                    trial = SimpleNamespace(
                        number=number,
                        suggest_int=lambda n, a, b, d=drawn: d.get(n, int(rng.integers(a, b + 1))),
                    )
                    trials.append(objective(trial))

        package = ModuleType("optuna")
        package.logging = SimpleNamespace(set_verbosity=lambda level: None, WARNING=30)
        package.samplers = SimpleNamespace(TPESampler=lambda seed: seed)
        package.create_study = lambda direction, sampler: Study()
        monkeypatch.setitem(sys.modules, "optuna", package)
        cases = random_cases(0)
        result = sweep(cases, SMALL, criterion="f1", base=BASE, search="optuna", trials=20)
        assert len(trials) == 20
        assert result.best.value == pytest.approx(max(trials))
        # the vote IoU of BASE, 0.5, is no candidate: 0.6 is the nearest; its score threshold is next to 0
        start = replace(BASE, vote_iou=0.6, score_threshold=0.0)
        assert trials[0] == pytest.approx(slow_metrics(cases, start)[2])


class TestNested:
    @pytest.mark.parametrize("search", ["joint", "two_phase"])
    def test_each_group_at_the_thresholds_of_the_others(self, search):
        cases = random_cases(5, num_cases=4)
        groups = [[0, 2], [1], [3]]
        result = sweep(cases, SMALL, criterion="f1", base=BASE, search=search, groups=groups)
        totals = np.zeros(3, dtype=int)
        for group, settings in zip(groups, result.nested.settings, strict=True):
            rest = [case for index, case in enumerate(cases) if index not in group]
            assert settings == sweep(rest, SMALL, criterion="f1", base=BASE, search=search).settings
            totals += slow_counts([cases[index] for index in group], settings)
        boxes, true, found = totals
        sensitivity, precision = found / 16, true / boxes  # four lesions in each of four cases
        assert result.nested.sensitivity == pytest.approx(sensitivity)
        assert result.nested.precision == pytest.approx(precision)
        assert result.nested.fp_per_case == pytest.approx((boxes - true) / 4)
        assert result.nested.value == pytest.approx(2 * sensitivity * precision / (sensitivity + precision))
        assert result.nested.optimism == pytest.approx(result.best.value - result.nested.value)
        assert result.nested.groups == [["case0", "case2"], ["case1"], ["case3"]]

    def test_groups_change_nothing_else(self):
        cases = random_cases(6)
        plain = sweep(cases, SMALL, criterion="f1", base=BASE)
        assert plain.nested is None
        assert (
            replace(sweep(cases, SMALL, criterion="f1", base=BASE, groups=[[0], [1]]), nested=None) == plain
        )

    def test_noise_is_found_out(self):
        """Only its own threshold fits a patient: tuned on both they look good, held out they do not."""
        hits = [raw_boxes((0, A, 0.2), (1, FAR, 0.1)), raw_boxes((0, A, 0.8), (1, FAR, 0.7))]
        cases = [sweep_case({"a": [each]}, truth_at(0), name=str(i)) for i, each in enumerate(hits)]
        grid = SweepGrid((), (), (), (0.5,), ())
        result = sweep(cases, grid, criterion="f1", base=BASE, groups=[[0], [1]])
        # plain: threshold 0.2 leaves 3 boxes, 2 of them true, and finds both: 2 * 1 * (2 / 3) / (5 / 3) = 0.8
        assert result.best.value == pytest.approx(0.8)
        # tuned on the second (0.8) the first loses everything; on the first (0.2) the second keeps both boxes:
        # sensitivity 1/2, precision 1/2
        assert result.nested.value == pytest.approx(0.5)
        assert [s.score_threshold for s in result.nested.settings] == [0.8, 0.2]

    def test_curves(self):
        cases = random_cases(7, num_cases=3)
        result = sweep(cases, SMALL, criterion="ap", base=BASE, groups=[[0], [1], [2]])
        assert 0 <= result.nested.value <= 1
        with pytest.raises(UserError, match="ap has no nested value"):
            sweep(cases, SMALL, criterion="ap", base=BASE, search="two_phase", groups=[[0], [1]])


def test_tolerance_is_scored_but_not_chosen_unless_asked():
    """Half a hit (IoU 1/3): right at 0.1 and 0.3, wrong at 0.5."""
    raw = {"a": [raw_boxes((0, (0, 2, 4, 6), 0.5))]}
    grid = SweepGrid((), (), (), (0.5,), (), hit_iou=(0.1, 0.3, 0.5))
    base = replace(BASE, hit_iou=0.5)
    kept = sweep([sweep_case(raw, truth_at(0))], grid, criterion="f1", base=base)
    assert (kept.settings.hit_iou, kept.best.value) == (0.5, 0)
    assert kept.table.hit_iou.tolist() == [0.1, 0.3, 0.5]
    assert kept.table.value[0, 0, 0].tolist() == [1, 1, 0]
    tuned = sweep([sweep_case(raw, truth_at(0))], grid, criterion="f1", base=base, tune_hit_iou=True)
    assert (tuned.settings.hit_iou, tuned.best.value) == (0.3, 1)  # of equals the stricter one


def test_curve_criterion_takes_the_threshold_by_f1():
    """Scores 0.9 true, 0.5 false, 0.3 true: two lesions. AP: 1/2 at precision 1, then 1/2 at 2/3."""
    raw = {"a": [raw_boxes((0, A, 0.9), (5, FAR, 0.5), (1, A, 0.3))]}
    result = sweep(
        [sweep_case(raw, truth_at(0, 1), num_lesions=2)],
        SweepGrid((), (), (), (0.5,), ()),
        criterion="ap",
        base=BASE,
    )
    assert result.best.value == pytest.approx(0.5 + 0.5 * 2 / 3)
    # F1: 2/3 at 0.9, 4/5 at 0.3
    assert (result.settings.score_threshold, result.best.f1) == (0.0, pytest.approx(0.8))


def test_unknown_search():
    with pytest.raises(UserError, match="unknown sweep search 'random'; expected one of joint, two_phase"):
        sweep(random_cases(0), SMALL, criterion="f1", base=BASE, search="random")


def test_space_that_is_too_large():
    many = tuple(np.linspace(1, 50, 600))
    grid = SweepGrid(many, many, (0.1, 0.2, 0.3), (0.5,), ())
    with pytest.raises(UserError, match=r"too many to try them all.*sweep.search=coarse"):
        sweep(random_cases(0), grid, criterion="f1", base=BASE)


def test_space_that_needs_too_much_memory(monkeypatch):
    monkeypatch.setattr("nndet_psma.postproc.sweep.slices.joint.MAX_MASKS", 100)
    with pytest.raises(UserError, match=r"too many to try them all.* of the filters for"):
        sweep(random_cases(0), SMALL, criterion="f1", base=BASE)


def test_folds_join_by_voter_and_models_side_by_side():
    one, two = raw_boxes((0, A, 0.9)), raw_boxes((0, A, 0.5))
    folds = join_folds([{"a": [one], "b": [one]}, {"a": [two]}])
    assert {name: len(parts) for name, parts in folds.items()} == {"a": 2, "b": 1}
    models = join_models({"x": {"a": [one]}, "y": {"a": [two], "b": []}})
    assert list(models) == ["x/a", "y/a", "y/b"]
