"""What the sweep is given: truth from the store's instances, the plan's grid, and which files are still good."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_models import boxes_2d, raw_of

from nndet_psma.artifacts.raw_predictions import write_raw
from nndet_psma.artifacts.run_config import SweepConfig
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.inference.tuning import (
    TABLE_NAME,
    patient_groups,
    sweep_case,
    tune,
    write_sweep,
)
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import sweep_grid
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.store import write_case
from nndet_psma.systems.psma25d.system import PSMA25D

GRID = Geometry((4, 10, 12), (4.0, 2.0, 2.0))


@pytest.fixture
def store(tmp_path):
    """Instance 2 on slice 0, instance 7 (class 1) on slices 1 and 2, in two pieces on slice 2."""
    instances = np.zeros(GRID.shape, np.int16)
    instances[0, 1:3, 1:4] = 2
    instances[1, 5:8, 6:9] = 7
    instances[2, 5:6, 6:7] = 7
    instances[2, 7:8, 9:11] = 7
    case = PreparedCase(
        "case_0", {"CT": np.zeros(GRID.shape, np.int16)}, GRID, GRID, None, instances, {2: 0, 7: 1}
    )
    write_case(tmp_path / "store", case, "inputs")
    return tmp_path / "store"


@pytest.fixture
def file(store, tmp_path):
    found = [boxes_2d([(0, 1, 1, 3, 4, 0.9), (3, 0, 0, 2, 2, 0.4)])]
    write_raw(tmp_path / "case_0.npz", raw_of({"a": found}, GRID))
    return tmp_path / "case_0.npz"


def test_truth_from_instances(store, file):
    case = sweep_case(file, store)
    assert case.truth.boxes.tolist() == [[1, 1, 3, 4], [5, 6, 8, 9], [5, 6, 8, 11]]
    assert case.truth.columns["slice"].tolist() == [0, 1, 2]
    assert case.truth.columns["lesion"].tolist() == [0, 1, 1]
    assert case.truth.labels.tolist() == [0, 1, 1]
    assert (case.num_lesions, case.num_slices, case.spacing) == (2, 4, (4.0, 2.0, 2.0))


def test_lesion_lost_in_resampling_still_counts(store, file, tmp_path):
    """classes holds an id without voxels: one lesion more to miss."""
    from nndet_psma.preprocess.store import read_case

    case = read_case(store, "case_0")
    write_case(tmp_path / "other", replace(case, classes={**case.classes, 9: 0}), "inputs")
    assert sweep_case(file, tmp_path / "other").num_lesions == 3


def test_case_without_lesions(file, tmp_path):
    empty = np.zeros(GRID.shape, np.int16)
    case = PreparedCase("case_0", {"CT": empty}, GRID, GRID, None, empty, {})
    write_case(tmp_path / "healthy", case, "inputs")
    found = sweep_case(file, tmp_path / "healthy")
    assert (len(found.truth), found.num_lesions) == (0, 0)


def test_case_without_labels(file, tmp_path):
    case = PreparedCase("case_0", {"CT": np.zeros(GRID.shape, np.int16)}, GRID, GRID, None, None, {})
    write_case(tmp_path / "bare", case, "inputs")
    with pytest.raises(UserError, match="case case_0 was preprocessed without labels"):
        sweep_case(file, tmp_path / "bare")


def test_tuned_plan(store, file, tiny_task, tmp_path):
    plan = tiny_task.plan
    tuned, result = tune([sweep_case(file, store)], [file], plan, SweepConfig(), folds=[0])
    # one of two lesions by a box of 0.9, a false box of 0.4: the threshold goes between
    assert 0.4 < tuned.settings["score_threshold"] <= 0.9
    assert tuned.value == pytest.approx(2 / 3)  # precision 1, sensitivity 1/2
    assert (tuned.criterion, tuned.folds, tuned.cases) == ("f1", [0], ["case_0"])
    assert f"{result.num_settings} settings tried on 1 validation cases of folds [0]" in tuned.source
    write_sweep(tmp_path / "sweep.json", result)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["schema"] == "nndet_psma.sweep"
    assert (content["version"], content["search"], content["table"]) == (2, "joint", TABLE_NAME)
    assert "table" not in content["columns"]
    with np.load(tmp_path / TABLE_NAME, allow_pickle=False) as table:
        shape = table["value"].shape
        assert shape[0] == len(table["variant/zone_mm"])
        assert shape[1:] == (len(table["min_votes"]), len(table["vote_iou"]), len(table["hit_iou"]))
        assert {table[name].shape for name in ("boxes", "true", "found", "score_threshold")} == {shape}
        tolerance = list(table["hit_iou"]).index(content["settings"]["hit_iou"])
        assert table["value"][..., tolerance].max() == pytest.approx(tuned.value)
    assert {len(row) for row in content["rows"]} == {len(content["columns"])}


def test_another_search_takes_the_old_table_away(store, file, tiny_task, tmp_path):
    write_sweep(
        tmp_path / "sweep.json",
        tune([sweep_case(file, store)], [file], tiny_task.plan, SweepConfig(), folds=[0])[1],
    )
    assert (tmp_path / TABLE_NAME).is_file()
    options = SweepConfig(search="two_phase")
    write_sweep(
        tmp_path / "sweep.json",
        tune([sweep_case(file, store)], [file], tiny_task.plan, options, folds=[0])[1],
    )
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert (content["search"], content["table"]) == ("two_phase", None)
    assert len(content["rows"]) == content["num_settings"]
    assert not (tmp_path / TABLE_NAME).exists()


def test_groups_hold_whole_patients():
    patients = {"a": "p", "b": "q", "c": "p", "d": "r"}
    assert patient_groups(patients, 2) == [["a", "c", "d"], ["b"]]  # p has most cases, then q and r in turn
    assert patient_groups(patients) == [["a", "c"], ["b"], ["d"]]
    assert patient_groups({"a": "p", "b": "p"}) == []


def test_untuned_plan_says_so(tiny_task):
    plan = PSMA25D().untuned(tiny_task.plan, [0, 1])
    assert "not tuned" in plan.source
    assert plan.value is None
    assert PostprocSettings(**plan.settings).score_threshold == 0.0


def test_grid_of_the_plan(tiny_task):
    grid = sweep_grid(tiny_task.plan)
    assert max(grid.zone_mm) == tiny_task.plan.margin_mm
    assert grid.min_votes == (1, 2)
    wrong = replace(tiny_task.plan, postproc_grid={**tiny_task.plan.postproc_grid, "vote_iou": [1.5]})
    with pytest.raises(UserError, match=r"postproc_grid of the plan is wrong: vote_iou must lie in \(0, 1\]"):
        sweep_grid(wrong)
    with pytest.raises(UserError, match=r"postproc_grid of the plan is wrong: .*tau7"):
        sweep_grid(replace(tiny_task.plan, postproc_grid={"tau7": [1]}))
