"""Trackers through accelerate's own machinery, with a tracker that keeps what it is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from artifact_samples import PLAN

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.settings import TrainerSettings
from nndet_psma.trainers.watch import trackers
from nndet_psma.trainers.watch.trackers import TrackerLog, check_trackers, tracked_config, tracker_arguments


class Memory(GeneralTracker):
    """Keeps every call; ``fails`` names the method that raises."""

    name = "memory"
    requires_logging_directory = False

    def __init__(self, fails=""):
        super().__init__()
        self.calls, self.fails = [], fails

    @property
    def tracker(self):
        return self.calls

    def _call(self, name, *values):
        self.calls.append((name, *values))
        if name == self.fails:
            raise ConnectionError("server is gone")

    def start(self):
        self._call("start")

    def store_init_configuration(self, values):
        self._call("config", values)

    def log(self, values, step=None, **_):
        self._call("log", step, values)

    def finish(self):
        self._call("finish")


def _report(step, iterations=5):
    return StepReport(step, iterations, {"loss_a": float(step), "loss": 2.0 * step}, 0.1, 4, 0.5, None)


def _run(*kept, steps=range(1, 6), every=2):
    log = TrackerLog(Accelerator(cpu=True, log_with=list(kept)), "Task", "fold0 wsi", {"batch": 4}, every)
    for step in steps:
        log.on_step(_report(step), None)
    log.on_end(True)


def test_what_a_tracker_is_told():
    """Rows after steps 2, 4 and 5: mean losses of steps 1 and 2, 3 and 4, and 5."""
    memory = Memory()
    _run(memory)
    assert [call[0] for call in memory.calls] == ["start", "config", "log", "log", "log", "finish"]
    assert memory.calls[1] == ("config", {"batch": 4})
    rows = [(call[1], call[2]) for call in memory.calls if call[0] == "log"]
    assert [step for step, _ in rows] == [2, 4, 5]
    assert [row["loss"] for _, row in rows] == [3, 7, 10]
    assert [row["loss_a"] for _, row in rows] == [1.5, 3.5, 5]
    assert rows[0][1]["images_per_second"] == 8
    assert "step" not in rows[0][1]


def test_a_note_goes_with_the_next_row():
    memory = Memory()
    log = TrackerLog(Accelerator(cpu=True, log_with=[memory]), "Task", "run", {}, 1)
    log.on_step(_report(1), None)
    log.note(val_ap=0.5)
    log.on_step(_report(2), None)
    assert ["val_ap" in call[2] for call in memory.calls if call[0] == "log"] == [False, True]


def test_training_goes_on_without_its_server(caplog):
    broken, well = Memory("log"), Memory()
    with caplog.at_level(logging.WARNING, logger="nndet_psma"):
        _run(broken, well)
    assert [call[0] for call in broken.calls] == ["start", "config", "log", "finish"]
    assert [record.getMessage() for record in caplog.records] == [
        "nothing more is sent to trackers: ConnectionError: server is gone"
    ]
    assert well.calls[-1] == ("finish",)


def test_every_tracker_is_closed_even_when_one_fails():
    broken, well = Memory("finish"), Memory()
    _run(broken, well)
    assert well.calls[-1] == ("finish",)


def test_a_tracker_that_cannot_start_is_an_error():
    with pytest.raises(
        UserError, match=r"cannot start \(ConnectionError: server is gone\).*trainer_cfg.trackers"
    ):
        _run(Memory("start"))


def test_a_finished_stage_starts_no_tracker():
    memory = Memory()
    _run(memory, steps=[])
    assert memory.calls == []


def test_a_resumed_run_replaces_what_was_sent_after_the_checkpoint(monkeypatch):
    told = []
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "init_trackers", lambda *args, **kwargs: told.append((args, kwargs)))
    log = TrackerLog(accelerator, "Task", "fold0 wsi", {}, 10)
    log.on_step(_report(41, 100), None)
    assert told[0][0] == ("Task",)
    assert told[0][1]["init_kwargs"]["tensorboard"] == {"purge_step": 41}
    assert told[0][1]["init_kwargs"]["wandb"] == {"name": "fold0 wsi"}


def test_missing_packages_name_the_pip_command(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow, which is not installed\. .*pip install mlflow"):
        tracker_arguments(["mlflow"], tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "tensorboardX" or None)
    check_trackers(["tensorboard"])


def test_unknown_trackers_are_refused():
    with pytest.raises(
        UserError, match="unknown tracker 'visdom'; expected some of tensorboard, mlflow, wandb"
    ):
        check_trackers(["visdom"])


def test_arguments_of_the_accelerator(tmp_path, monkeypatch):
    assert tracker_arguments([], tmp_path) == {}
    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    assert tracker_arguments(["tensorboard"], tmp_path) == {
        "log_with": ["tensorboard"],
        "project_dir": str(tmp_path),
    }


def test_tensorboard_writes_events(tmp_path):
    pytest.importorskip("tensorboard")
    arguments = tracker_arguments(["tensorboard"], tmp_path)
    log = TrackerLog(Accelerator(cpu=True, **arguments), "Task", "run", {"batch": 4}, 1)
    log.on_step(_report(1), None)
    log.on_end(True)
    assert list((tmp_path / "Task").rglob("events.out.tfevents.*"))


@dataclass(frozen=True)
class _Settings:
    weights: str = "/home/someone/patient_17.pth"
    also: str = "patient_17.pth"
    cases: tuple[str, ...] = ("patient_17/ct",)
    trackers: tuple[str, ...] = ("wandb",)
    clip_norm: float = 10.0
    seed: int | None = None


def test_the_configuration_is_flat_and_tells_no_path_and_no_case():
    plan = replace(PLAN, detector=replace(PLAN.detector, weights="/data/patient_17/r50.pth"))
    config = tracked_config(plan, plan.stages[0], _Settings())
    assert all(isinstance(value, bool | int | float | str) for value in config.values())
    text = str(config)
    assert "/" not in text
    assert "patient_17" not in text
    assert not any(case in text.split("'") for fold in plan.folds for case in [*fold.train, *fold.val])
    assert config["detector.backbone"] == plan.detector.backbone
    assert config["detector.anchor_sizes"] == str(plan.detector.anchor_sizes)
    assert config["stage.iterations"] == plan.stages[0].iterations
    assert config["stage.windows"] == str(plan.stages[0].windows)
    assert config["settings.trackers"] == "('wandb',)"
    assert config["settings.clip_norm"] == 10.0
    assert "settings.seed" not in config
    assert config["channels"] == plan.channels(plan.stages[0])


def test_the_real_settings_can_be_told():
    assert "settings.log_every" in tracked_config(PLAN, PLAN.stages[0], TrainerSettings())
