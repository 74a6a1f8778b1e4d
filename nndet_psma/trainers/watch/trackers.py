"""TensorBoard, MLflow or Weights & Biases through accelerate's trackers: ``trainer_cfg.trackers=[tensorboard]``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.staged_plan import StagedPlan
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.metrics_log import StepMeans
from nndet_psma.trainers.observer import StepReport

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


class _Tracker(NamedTuple):
    """Modules of which one is needed, and what pip calls it."""

    modules: tuple[str, ...]
    package: str


TRACKERS = {
    "tensorboard": _Tracker(("tensorboard", "tensorboardX"), "tensorboard"),
    "mlflow": _Tracker(("mlflow",), "mlflow"),
    "wandb": _Tracker(("wandb",), "wandb"),
}
Plain = bool | int | float | str
_NAME = re.compile(r"[\w+-]+")  # of a window or a network: no dot, slash or space, as paths have


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before anything is trained.

    Raises:
        UserError: names the known ones, or the pip command.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"unknown tracker '{name}'", expected=f"some of {', '.join(TRACKERS)}")
        if not any(find_spec(module) for module in TRACKERS[name].modules):
            raise UserError(
                f"trainer_cfg.trackers names {name}, which is not installed",
                remedy=f"Install it with: pip install {TRACKERS[name].package}",
            )


def tracker_arguments(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Keyword arguments of ``accelerate.Accelerator`` for these trackers; none without any.

    Args:
        names: ``trainer_cfg.trackers``.
        folder: of the stage; TensorBoard writes below it.

    Raises:
        UserError: see :func:`check_trackers`.
    """
    check_trackers(names)
    return {"log_with": list(names), "project_dir": str(folder)} if names else {}


class TrackerLog:
    """Sends the columns of ``metrics.csv`` to the trackers of an ``Accelerator``; an observer of the loop.

    A tracker that fails while training runs (a server that went away) is logged, and nothing more is sent: training
    goes on.

    Args:
        accelerator: made with :func:`tracker_arguments`.
        project: what MLflow calls experiment and Weights & Biases project; a folder's name for TensorBoard.
        run: name of this run in it, such as "fold0 wsi".
        config: numbers and short texts only; see :func:`tracked_config`.
        every: steps between two sendings; losses are means over them.

    Raises:
        UserError: at the first step, when a tracker cannot start; nothing is lost then.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        project: str,
        run: str,
        config: Mapping[str, Plain],
        every: int = 10,
    ) -> None:
        self._accelerator, self._every = accelerator, every
        self._means = StepMeans()
        self._started = self._broken = False
        self._project, self._run, self._config = project, run, dict(config)

    def _start(self, step: int) -> None:
        """Before the first step, since only that tells where a resumed run goes on."""
        specific = {
            "tensorboard": {"purge_step": step},  # what an interrupted run sent beyond its checkpoint
            "wandb": {"name": self._run},
            "mlflow": {"run_name": self._run},
        }
        try:
            self._accelerator.init_trackers(self._project, config=self._config, init_kwargs=specific)
        except Exception as error:  # every tracker has errors of its own
            raise UserError(
                f"a tracker cannot start ({type(error).__name__}: {error})",
                remedy="Mend its own settings (server, login), or leave it out of trainer_cfg.trackers",
            ) from error
        self._started = True

    def note(self, **values: float) -> None:
        """Send values, such as ``val_ap``, with the next row."""
        self._means.note(**values)

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Count the step; send every few of them."""
        if not self._started:
            self._start(report.step)
        self._means.add(report)
        if report.step % self._every and report.step != report.iterations:
            return
        row = self._means.take(report)
        row.pop("step")
        self._or_never_again(lambda: self._accelerator.log(row, step=report.step))

    def on_end(self, finished: bool) -> None:
        """Close the trackers.

        Not by ``Accelerator.end_training``: besides, that ends the process group, which the next stage needs.
        """
        for tracker in self._accelerator.trackers:
            self._broken = False  # each has its own chance to close
            self._or_never_again(tracker.finish)
        self._accelerator.trackers.clear()

    def _or_never_again(self, send: Any) -> None:
        if self._broken:
            return
        try:
            send()
        except Exception as error:  # every tracker has errors of its own
            self._broken = True
            LOGGER.warning("nothing more is sent to trackers: %s: %s", type(error).__name__, error)


def tracked_config(plan: StagedPlan, stage: Stage, settings: Any) -> dict[str, Plain]:
    """What a tracker may know of a run: flat, numbers and names, no path, no case.

    Args:
        plan: its detector, augmentation, machine, batch and optimiser are told; folds only as a number.
        stage: that is trained, as adjusted by the settings.
        settings: a dataclass, such as ``TrainerSettings``; texts that could be paths are left out.
    """
    config: dict[str, Plain] = {"plan": plan.plan_id, "plan_hash": plan.content_hash()}
    for name in ("batch_size", "optimizer", "positive_fraction", "hard_negative_fraction", "neighbours"):
        if hasattr(plan, name):
            config[name] = getattr(plan, name)
    config["folds"] = len(plan.folds)
    config["channels"] = plan.channels(stage)
    parts = {field.name: getattr(plan, field.name) for field in fields(cast("Any", plan))}
    parts = {name: part for name, part in parts.items() if is_dataclass(part)}
    for prefix, part in {"stage": stage, **parts, "settings": settings}.items():
        _flatten(prefix, part, config)
    return config


def _flatten(prefix: str, value: Any, into: dict[str, Plain]) -> None:
    if is_dataclass(value):
        for field in fields(value):
            _flatten(f"{prefix}.{field.name}", getattr(value, field.name), into)
    elif isinstance(value, bool | int | float):
        into[prefix] = value
    elif isinstance(value, str):
        if _NAME.fullmatch(value):
            into[prefix] = value
    elif isinstance(value, list | tuple) and not any(_is_text(item) for item in value):
        into[prefix] = str(value)


def _is_text(value: Any) -> bool:
    """Whether a value is a text that is no mere name, or holds one."""
    if isinstance(value, list | tuple):
        return any(_is_text(item) for item in value)
    return not isinstance(value, bool | int | float) and not (
        isinstance(value, str) and _NAME.fullmatch(value)
    )
