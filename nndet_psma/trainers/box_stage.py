"""Stages whose networks find boxes: weights are valued by the average precision on validation cases."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

from torch import nn

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.trainers.distributed import gather
from nndet_psma.trainers.registry import P
from nndet_psma.trainers.selection import BoxHits, find_hits
from nndet_psma.trainers.stage_system import StageRun, StageSystem


class BoxStageSystem(StageSystem[P], Generic[P]):
    """What a detector gives to the running of its stages."""

    @abstractmethod
    def predict(self, run: StageRun[P], model: nn.Module, case: PreparedCase) -> Detections:
        """Boxes that the model, in evaluation mode, finds in a validation case."""

    @abstractmethod
    def match(self, run: StageRun[P], found: Detections, case: PreparedCase) -> BoxHits:
        """What was ``found`` against the lesions of the case, as far as the stage's region shows them."""

    def value(self, run: StageRun[P], model: nn.Module) -> float:
        """Average precision on the fold's validation cases, of which every process predicts its share."""
        classes = len(run.job.plan.classes)
        share = find_hits(
            run.job.store,
            run.validation_share,
            lambda case: self.predict(run, model, case),
            lambda found, case: self.match(run, found, case),
            classes=classes,
            advance=run.lock.beat,
        )
        total = BoxHits.none(classes)
        for part in gather(run.accelerator, share):
            total.add(part)
        value = total.average_precision()
        if value is None:
            raise UserError(
                f"no validation case of fold {run.job.fold} has a lesion in the region of stage '{run.stage.name}'",
                remedy="Select the last weights with trainer_cfg.select=last and trainer_cfg.validate_every=null",
            )
        return value
