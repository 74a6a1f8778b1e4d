"""What a stage's weights depend on, as one hash: the whole plan and all settings, but for what is named here."""

from __future__ import annotations

from collections.abc import Sequence

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.staged_plan import StagedPlan
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

FREE_KEYS = {
    "plan_id": "a name",
    "planner": "a name; what it chose stands in the plan",
    "trainer": "a name; the folder of the model bears it",
    "made_from": "hash of the fingerprint; what was chosen by it stands in the plan",
    "target": "what was chosen for the machine stands in the plan",
    "decisions": "words",
    "training_images": "measured on the prepared cases, which are counted apart; compared with in prediction",
    "postproc_defaults": "used after training",
    "postproc_grid": "used after training",
    "folds": "the cases of the stage's own fold are counted apart",
    "stages": "the stage and those it descends from are counted apart",
}
"""Fields of a plan that may change under a training that goes on, and why. Every other field counts."""


def stage_hash(
    plan: StagedPlan, stage: Stage, fold: int, settings: TrainerSettings, inputs: Sequence[str] = ()
) -> str:
    """Hash of what determines a stage's weights, its ancestors included; the number of processes is not among it.

    Args:
        plan: of the fold.
        stage: as adjusted by ``settings``.
        fold: index of the fold.
        settings: ``trainer_cfg``.
        inputs: hashes of the prepared cases that the training reads.

    Raises:
        UserError: the file of ``start_weights`` does not exist.
    """
    parent = None
    if stage.start_from is not None:
        ancestor = adjusted_stage(plan.stage(stage.start_from), settings)
        parent = stage_hash(plan, ancestor, fold, settings, inputs)
    content = [
        {name: value for name, value in to_plain(plan).items() if name not in FREE_KEYS},
        to_plain(stage),
        plan.folds[fold].train,
        settings.result_keys(),
        parent,
        list(inputs),
    ]
    if settings.select == "best":
        content.append(plan.folds[fold].val)
    return hash_json(content)
