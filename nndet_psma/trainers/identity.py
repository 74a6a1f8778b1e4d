"""What a stage's weights depend on, as one hash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

_PLAN_KEYS = (
    "detector",
    "augmentation",
    "windows",
    "scalings",
    "neighbours",
    "spacing",
    "margin_mm",
    "seed",
    "positive_fraction",
    "hard_negative_fraction",
    "optimizer",
)


def stage_hash(
    plan: DetectorPlan, stage: Stage, fold: int, settings: TrainerSettings, inputs: Sequence[str] = ()
) -> str:
    """Hash of what determines a stage's weights, its ancestors included; the number of processes is not among it.

    Args:
        plan: of the fold.
        stage: as adjusted by ``settings``.
        fold: index of the fold.
        settings: ``trainer_cfg``.
        inputs: hashes of the prepared cases that the training reads.
    """
    parent = None
    if stage.start_from is not None:
        ancestor = adjusted_stage(plan.stage(stage.start_from), settings)
        parent = stage_hash(plan, ancestor, fold, settings, inputs)
    kept = {name: to_plain(getattr(plan, name)) for name in _PLAN_KEYS}
    if plan.detector3d is not None:
        kept["detector3d"] = to_plain(plan.detector3d)
    batch = settings.batch_size or plan.batch_size
    content = [
        kept,
        batch,
        to_plain(stage),
        plan.folds[fold].train,
        settings.result_keys(stage.iterations),
        parent,
        list(inputs),
    ]
    if settings.start_weights is not None and parent is None:
        content.append(_file_hash(settings.start_weights))
    if settings.select == "best":
        content.append(plan.folds[fold].val)
    return hash_json(content)


def _file_hash(file: str) -> str:
    if not Path(file).is_file():
        raise UserError("weights file does not exist", file=file, remedy="Correct trainer_cfg.start_weights")
    return hash_files([Path(file)])
