"""Where a segmentation model keeps what: our folds beside nnU-Net's own results folder.

``det_models/TASK/nnUNetTrainerNodeSeg_PLAN/fold0/`` holds plan, thresholds and predictions in our forms;
``.../nnunet/DatasetXXX_Name/nnUNetTrainerNodeSeg__PLAN__3d_fullres/fold_0/`` holds what nnU-Net writes, with ``nnunet``
as its ``nnUNet_results``. The consolidated model has an ``nnunet`` of its own with lean checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.model_folder import CONSOLIDATED, WEIGHTS, ModelFolder
from nndet_psma.systems.nodeseg.nnunet.environment import RESULTS
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
BEST = "checkpoint_best.pth"
CHECKPOINT = "checkpoint.json"
"""In a model that is passed on: what its checkpoints hold beside weights."""

_DESCRIPTIONS = ("plans.json", "dataset.json", "dataset_fingerprint.json")


@dataclass(frozen=True)
class SegmentationModel:
    """A model folder seen with nnU-Net's results in it.

    Attributes:
        folder: of the model.
    """

    folder: ModelFolder

    def results(self, fold: int) -> Path:
        """``nnUNet_results`` of a fold or of the consolidated model."""
        return (self.folder.fold(CONSOLIDATED) if fold == CONSOLIDATED else self.folder.root) / RESULTS

    def trained(self, plan: NodeSegPlan, fold: int) -> Path:
        """nnU-Net's folder with ``plans.json`` and ``fold_K``."""
        return self.results(fold).parent / inside(plan)

    def checkpoint(self, plan: NodeSegPlan, fold: int, source_fold: int | None = None) -> Path:
        """Final weights of a fold; in the consolidated model those of ``source_fold``."""
        number = source_fold if fold == CONSOLIDATED else fold
        return self.trained(plan, fold) / f"fold_{number}" / FINAL

    def files(self, plan: NodeSegPlan, fold: int) -> dict[str, Path]:
        """What a trained fold consists of, by its place in the consolidated model."""
        trained = self.trained(plan, fold)
        place = inside(plan)
        found = {(place / f"fold_{fold}" / FINAL).as_posix(): self.checkpoint(plan, fold)}
        for name in _DESCRIPTIONS:
            if (trained / name).is_file():
                found[(place / name).as_posix()] = trained / name
        return found


def inside(plan: NodeSegPlan) -> Path:
    """nnU-Net's folder of a model, below the model folder or its consolidated model."""
    return Path(RESULTS) / plan.dataset / f"{plan.trainer}__{plan.plan_id}__{plan.configuration}"


def weights_place(fold: int) -> str:
    """Name of the weights of a fold in a model that is passed on."""
    return f"fold{fold}/{RESULTS}/{WEIGHTS}"
