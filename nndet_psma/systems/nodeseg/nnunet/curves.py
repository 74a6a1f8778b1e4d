"""Training curves of a fold from what nnU-Net keeps in its checkpoint."""

from __future__ import annotations

from typing import Any

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.core.errors import UserError
from nndet_psma.core.parsing import parse_yaml, read_text
from nndet_psma.core.schema import from_plain
from nndet_psma.systems.nodeseg.nnunet.model import FINAL, LATEST, SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.trainers.metrics_log import VALIDATION


def training_curve(folder: ModelFolder, fold: int, plan: NodeSegPlan) -> list[dict[str, float]]:
    """One row per epoch: ``step``, ``loss``, and nnU-Net's pseudo Dice of its validation patches (mean of the classes).

    Nothing where no checkpoint with a log is left: that of a consolidated model has none.

    Raises:
        UserError: the fold holds no segmentation model, or a damaged checkpoint.
    """
    model = SegmentationModel(folder)
    place = model.trained(plan, fold) / f"fold_{fold}"
    file = next((place / name for name in (FINAL, LATEST) if (place / name).is_file()), None)
    log = {} if file is None else read_checkpoint(file).get("logging", {})
    if not isinstance(log, dict):
        return []
    losses, dice = log.get("train_losses", []), log.get("mean_fg_dice", [])
    steps = _steps_per_epoch(folder, plan, fold)
    rows = []
    for epoch, loss in enumerate(losses, start=1):
        row = {"step": float(epoch * steps), "loss": float(loss)}
        if epoch <= len(dice):
            row[f"{VALIDATION}dice"] = float(dice[epoch - 1])
        rows.append(row)
    return rows


def _steps_per_epoch(folder: ModelFolder, plan: NodeSegPlan, fold: int) -> int:
    """As trained: the plan's, or what ``trainer_cfg`` said for this run."""
    file = folder.fold(fold) / "config.yaml"
    try:
        content: Any = parse_yaml(read_text(file)) if file.is_file() else {}
        chosen = content.get("trainer_cfg", {}) if isinstance(content, dict) else {}
        settings = from_plain(
            NodeSegSettings, {k: v for k, v in chosen.items() if v is not None}, "trainer_cfg"
        )
        return settings.training(plan.training).iterations
    except (UserError, ValueError):  # of another version
        return plan.training.iterations
