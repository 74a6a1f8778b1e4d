"""What training has cost: from metrics and memory files, beside the estimate."""

from __future__ import annotations

import pytest
from artifact_samples import PLAN

from nndet_psma.report.training_cost import compared_rows, true_cost
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.watch.memory_check import MemoryCheck


def estimate():
    """Rows of the sample plan's estimated cost."""
    return system_of(PLAN).facts(PLAN).cost


def _stage(folder, rows, finished=True, memory=None):
    folder.mkdir(parents=True)
    lines = ["step,loss,seconds_per_step,memory_gb", *(f"{s},1,{t},{m}" for s, t, m in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if finished:
        (folder / "finished").write_text("hash")
    if memory is not None:
        MemoryCheck("s", "GPU", "resnet18", 4, (64, 64), "no", 2.0, memory, 1.0, memory / 2).write(
            folder / "memory.json"
        )


@pytest.fixture
def folds(tmp_path):
    """Fold 0: wsi 100 steps of 2 s and 60 of 1 s = 260 s; narrow 200 x 1.8 s = 360 s. Fold 1: wsi 160 x 0.5 s = 80 s,
    and narrow stopped after 10 x 6 s = 60 s."""
    _stage(tmp_path / "fold0/wsi", [(100, 2, 1.5), (160, 1, 2.5)])
    _stage(tmp_path / "fold0/narrow", [(200, 1.8, 9.0)], memory=3.0)
    _stage(tmp_path / "fold1/wsi", [(160, 0.5, 0.5)])
    _stage(tmp_path / "fold1/narrow", [(10, 6, 0.5)], finished=False)
    (tmp_path / "fold1/val_predictions").mkdir()
    return [tmp_path / "fold0", tmp_path / "fold1"]


def test_hours_and_memory_by_hand(folds):
    cost = true_cost(folds)
    assert [(s.fold, s.stage, s.steps, s.finished) for s in cost.stages] == [
        ("fold0", "narrow", 200, True), ("fold0", "wsi", 160, True),
        ("fold1", "narrow", 10, False), ("fold1", "wsi", 160, True),
    ]  # fmt: skip
    assert cost.hours_per_stage == pytest.approx({"wsi": 170 / 3600, "narrow": 360 / 3600})
    assert cost.hours_total == pytest.approx(760 / 3600)
    assert cost.memory_gb == 3.0  # memory.json goes before the 9.0 of the metrics
    assert cost.stages[1].seconds_per_step == pytest.approx(260 / 160)


def test_nothing_trained_yet(tmp_path):
    cost = true_cost([tmp_path / "fold0"])
    assert (cost.stages, cost.hours_total, cost.memory_gb, cost.hours_per_stage) == ((), 0, 0, {})
    rows = compared_rows(estimate(), cost, 6)
    assert {row.measured for row in rows} == {""}


def test_a_stage_that_logged_no_step_costs_nothing(tmp_path):
    _stage(tmp_path / "fold0/wsi", [], finished=False)
    (stage,) = true_cost([tmp_path / "fold0"]).stages
    assert (stage.steps, stage.hours, stage.seconds_per_step) == (0, 0, 0)


def test_measured_beside_estimated(folds):
    rows = {row.key: row for row in compared_rows(estimate(), true_cost(folds), 6)}
    assert [(r.key, r.value, r.rule, r.evidence) for r in rows.values()] == [tuple(r) for r in estimate()]
    assert (
        rows["cost.wsi"].measured == "2.8 min per fold for 160 steps, 1.06 s per step"
    )  # 340 s in 320 steps of two folds
    assert rows["cost.narrow"].measured == "6.0 min per fold for 200 steps, 1.8 s per step"
    assert rows["cost.both"].measured == ""
    assert rows["cost.total"].measured == "13 min, 3 of 6 stages finished"
    assert rows["cost.memory"].measured == "3.0 GB"


def test_a_real_training_has_a_cost(trained):
    cost = true_cost([trained.model / "fold0", trained.model / "fold1"])
    assert {stage.stage for stage in cost.stages} == {stage.name for stage in trained.plan.stages}
    assert all(stage.finished and stage.hours > 0 for stage in cost.stages)
    facts = system_of(trained.plan).facts(trained.plan)
    rows = compared_rows(facts.cost, cost, facts.trainings * 2)
    assert all(row.measured for row in rows)
