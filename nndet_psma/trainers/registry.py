"""The trainers: found by name, entry point or dotted path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.artifacts.staged_plan import StagedPlan
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.registry import Registry
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.trainers.settings import TrainerSettings

P = TypeVar("P", bound=DetectorPlan)
SP = TypeVar("SP", bound=StagedPlan)


@dataclass(frozen=True)
class FoldJob(Generic[SP]):
    """One fold to train.

    Attributes:
        plan: with overrides already applied.
        fold: index into ``plan.folds``.
        store: preprocessed cases.
        folder: model folder of the fold; one sub-folder per stage.
        settings: ``trainer_cfg`` of the configuration.
        overwrite: forget what is there instead of going on.
        voter: train only this stage (and what it starts from); None trains all.
    """

    plan: SP
    fold: int
    store: Path
    folder: Path
    settings: TrainerSettings
    overwrite: bool = False
    voter: str | None = None


class Trainer(Protocol[P]):
    """Trains the stages of one fold and asks what it trained; built without arguments. ``P`` is the plan it trains."""

    def train(self, job: FoldJob[P]) -> None:
        """Train; leaves ``folder/<stage>/model.safetensors`` for every stage."""
        ...

    def load(self, plan: P, stage: Stage, file: Path, device: torch.device) -> nn.Module:
        """The trained model of a stage on ``device`` in evaluation mode.

        Raises:
            UserError: the file does not fit the plan.
        """
        ...

    def predict(
        self,
        models: Sequence[nn.Module],
        case: PreparedCase,
        plan: P,
        stage: Stage,
        *,
        device: torch.device,
        batch_size: int,
        mirrored: bool,
    ) -> list[Detections]:
        """Boxes on the store grid that each of the models (folds of one stage) finds in a case.

        2D boxes have a column ``slice``; 3D boxes have none. Both have ``zone_mm`` and ``hu_quantiles``, see
        :mod:`nndet_psma.trainers.networks.box_evidence`. ``mirrored`` looks at mirror images instead; the boxes come
        back unmirrored.
        """
        ...


TRAINERS: Registry[Trainer[Any]] = Registry("trainer (module)", "nndet_psma.trainers")
