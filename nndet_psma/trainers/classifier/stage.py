"""What a classifier gives to the running of its stages."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.statistics.auc import auc
from nndet_psma.preprocess.crop_store import crops_hash, read_crops
from nndet_psma.trainers.classifier.batches import CropBatches
from nndet_psma.trainers.classifier.network import CropClassifier, ask, cross_entropy
from nndet_psma.trainers.classifier.views import STILL, CropDraw, crop_channels
from nndet_psma.trainers.distributed import gather, together
from nndet_psma.trainers.networks.weights import read_model
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.stage_system import StageRun, StageSystem

Run = StageRun[ClassifierPlan]


class ClassifierStages(StageSystem[ClassifierPlan]):
    """Cross entropy on drawn crops; weights are valued by the AUC of the validation objects."""

    criterion = "AUC of objects"

    def __init__(self) -> None:
        self._counted = 0

    def inputs(self, job: FoldJob[ClassifierPlan], case_ids: list[str]) -> list[str]:
        """Hashes of the stored crops."""
        return [crops_hash(job.store, case_id) for case_id in case_ids]

    def model(self, run: Run) -> nn.Module:
        """A network with drawn weights, or those of the user."""
        model = CropClassifier(run.job.plan, run.stage)
        if run.start is not None:
            read_model(model, run.start)
        return model

    def batches(self, run: Run) -> CropBatches:
        """Crops of the fold's training cases."""
        batches: CropBatches = together(run.accelerator, lambda: CropBatches(
            run.job.store, run.job.plan, run.stage, run.train_cases, run.batch_size, run.seed
        ))  # fmt: skip
        self._weights = torch.tensor(class_weights(run.job.plan))
        self._smoothing = run.job.plan.network.label_smoothing
        return batches

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Class-weighted cross entropy."""
        labels = batch["labels"]
        self._counted = int((labels >= 0).sum())
        weights = self._weights.to(labels.device)
        return {"loss_class": cross_entropy(model(batch["images"]), labels, weights, self._smoothing)}

    def counts(self, model: nn.Module) -> dict[str, int]:
        """Crops of known class."""
        return {"loss_class": self._counted}

    def value(self, run: Run, model: nn.Module) -> float:
        """AUC of the fold's validation objects, of which every process asks its share."""
        found: list[tuple[float, int]] = []
        for case_id in run.validation_share:
            case = read_crops(run.job.store, case_id)
            images = stacked(case.ct, case.codes, run.job.plan, run.stage)
            scores = ask(model, images, run.accelerator.device, run.images)
            found += [
                (float(s), r.label) for s, r in zip(scores, case.rows, strict=True) if r.label is not None
            ]
            run.lock.beat()
        pairs = [pair for part in gather(run.accelerator, found) for pair in part]
        value = auc([score for score, _ in pairs], [label == 1 for _, label in pairs])
        if value is None:
            raise UserError(
                f"the validation cases of fold {run.job.fold} do not hold objects of both classes",
                remedy="Select the last weights with trainer_cfg.select=last and trainer_cfg.validate_every=null",
            )
        return value


def class_weights(plan: ClassifierPlan) -> tuple[float, float]:
    """Weights of the classes in the loss: 1 where draws are balanced, else such that both classes weigh alike."""
    if plan.sampling != "natural":
        return 1.0, 1.0
    return 0.5 / (1 - plan.prevalence), 0.5 / plan.prevalence


def stacked(
    ct: Iterable[NDArray[np.int16]],
    codes: NDArray[np.uint8],
    plan: ClassifierPlan,
    stage: Stage,
    draws: Iterable[CropDraw] = repeat(STILL),
) -> NDArray[np.float32]:
    """Inputs ``[N, C, *image_size]`` of a stage's network from stored crops ``[N, z, y, x]``; still unless told."""
    shape = (plan.channels(stage), *plan.crop.image_size)
    images = [crop_channels(a, b, plan, stage, draw).reshape(shape) for a, b, draw in zip(ct, codes, draws)]  # noqa: B905
    found: NDArray[np.float32] = np.stack(images) if images else np.zeros((0, *shape), np.float32)
    return found
