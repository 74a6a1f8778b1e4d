"""Networks of all folds and members of a classifier, asked about the crops of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.preprocess.crops import ObjectCrops
from nndet_psma.trainers.classifier.controls import BLIND, CONTROLS
from nndet_psma.trainers.classifier.network import CropClassifier, ask, load_classifier
from nndet_psma.trainers.classifier.stage import stacked
from nndet_psma.trainers.classifier.views import STILL, CropDraw


@dataclass(frozen=True)
class ObjectLogits:
    """Log odds ``[networks, objects]`` of those that vote, and the same by control."""

    voting: NDArray[np.float64]
    controls: dict[str, NDArray[np.float64]]


class CropEnsemble:
    """Networks in memory.

    Args:
        plan: of the model.
        files: weights by stage, one per fold.
        device: where to run.
        batch_size: crops per forward pass.

    Raises:
        UserError: weights do not fit.
    """

    def __init__(
        self, plan: ClassifierPlan, files: Mapping[str, Sequence[Path]], device: torch.device, batch_size: int
    ) -> None:
        self.plan, self.device, self.batch_size = plan, device, batch_size
        self.members: list[tuple[Stage, list[CropClassifier]]] = [
            (stage, [load_classifier(plan, stage, file, device) for file in files[stage.name]])
            for stage in plan.stages
        ]

    def logits(self, cut: ObjectCrops) -> ObjectLogits:
        """What every network says of every object, and of what controls make of it."""
        features = [each.features for each in cut.objects]
        controls = {}
        for name, control in CONTROLS.items():
            pairs = [
                control(ct, codes, f, self.plan)
                for ct, codes, f in zip(cut.ct, cut.codes, features, strict=True)
            ]
            controls[name] = self._asked(
                [ct for ct, _ in pairs], cut.codes, [draw for _, draw in pairs], votes=True
            )
        still = [STILL] * len(features)
        if len(self.plan.voters) < len(self.plan.stages):
            controls[BLIND] = self._asked(cut.ct, cut.codes, still, votes=False)
        return ObjectLogits(self.voting(cut.ct, cut.codes), controls)

    def voting(
        self, ct: Sequence[NDArray[np.int16]] | NDArray[np.int16], codes: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Log odds ``[networks, N]`` of stored crops ``[N, z, y, x]``, by the networks that vote."""
        return self._asked(ct, codes, [STILL] * len(ct), votes=True)

    def _asked(
        self, ct: Sequence[NDArray[np.int16]] | NDArray[np.int16], codes: NDArray[np.uint8], draws: Sequence[CropDraw],
        *, votes: bool,
    ) -> NDArray[np.float64]:  # fmt: skip
        found = []
        for stage, models in self.members:
            if stage.voter == votes:
                images = stacked(ct, codes, self.plan, stage, draws)
                found += [ask(model, images, self.device, self.batch_size) for model in models]
        return np.array(found, dtype=np.float64).reshape(len(found), len(draws))
