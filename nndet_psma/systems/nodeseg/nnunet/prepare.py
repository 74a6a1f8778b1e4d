"""Prepare a task for nnU-Net: export, its fingerprint, our planner, our folds, its preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from nndet_psma.artifacts.plan import Decision
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.kept_plan import refuse_other_plan
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths, entered, environment
from nndet_psma.systems.nodeseg.nnunet.export import export_dataset, write_splits
from nndet_psma.systems.nodeseg.nnunet.plan_file import check_export, put_back
from nndet_psma.systems.nodeseg.nnunet.planner import PLANNERS, exported_choices
from nndet_psma.systems.nodeseg.nnunet.preprocess import extract_fingerprint, preprocess_cases, quiet
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.planner import NodeSegChoices, choose_nodeseg
from nndet_psma.systems.nodeseg.sampling import PLANS_KEY
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.systems.nodeseg.training import epoch_steps
from nndet_psma.systems.system import PlanJob

Job = PlanJob[NodeSegPlan, NodeSegOptions, NodeSegSettings]


def make_plan(job: Job, overwritten: Callable[[NodeSegPlan], NodeSegPlan]) -> NodeSegPlan:
    """Export the cases, then nnU-Net's fingerprint and its plan with our choices.

    Everything nnU-Net reads lies below ``preprocessed/nnunet`` of the task. Where another plan of this name is kept,
    nnU-Net's files are put back before it is refused.

    Args:
        job: what is planned for.
        overwritten: puts ``plan_overwrites`` in.

    Raises:
        UserError: the data cannot be planned for, or another plan of this name exists.
    """
    choices = choose_nodeseg(job.fingerprint, job.config.plan_cfg, job.target)
    file = job.paths.plan(job.config.plan)
    check_export(file, job.there, choices)
    nnunet = NnunetPaths.of(job.paths, choices.dataset)
    test = list_cases(job.paths, job.description, "Ts") if job.paths.images("Ts").is_dir() else []
    descriptions = [folder / "dataset.json" for folder in (nnunet.raw, nnunet.preprocessed)]
    with _entered(nnunet), put_back([nnunet.plans(job.config.plan), *descriptions]):
        result = export_dataset(
            nnunet,
            list(job.cases),
            test,
            job.description,
            choices,
            extra=exported_choices(choices),
            processes=job.processes,
        )
        job.say(
            f"nnU-Net data set {nnunet.dataset}: {len(result.made)} cases new, "
            f"{result.linked} images linked, {result.written} written"
        )
        made = _planned(nnunet, job, choices)
        if job.there is not None:
            refuse_other_plan(file, job.there, overwritten(made))
    return made


def hand_over(job: Job, plan: NodeSegPlan) -> None:
    """Folds and training settings into nnU-Net's files, where its own commands find them."""
    nnunet = NnunetPaths.of(job.paths, plan.dataset)
    write_splits(nnunet, plan.folds)
    _hand_over_training(nnunet, plan)


def prepare(job: Job, plan: NodeSegPlan) -> list[str]:
    """nnU-Net's preprocessing; ids of the cases made now."""
    nnunet = NnunetPaths.of(job.paths, plan.dataset)
    with _entered(nnunet):
        return preprocess_cases(nnunet, plan.plan_id, plan.configuration, job.processes)


def _entered(nnunet: NnunetPaths) -> AbstractContextManager[None]:
    # nnU-Net's planner takes this number for threads, too, and fails on 0
    return entered({**environment(nnunet, nnunet.root / "results"), "nnUNet_n_proc_DA": "1"})


def _planned(nnunet: NnunetPaths, job: Job, choices: NodeSegChoices) -> NodeSegPlan:
    """nnU-Net plans with our choices; the plan in our form."""
    extract_fingerprint(nnunet, job.processes)
    with quiet():
        planner = PLANNERS[choices.budget.network](nnunet.dataset, plans_name=job.config.plan)
        plans = planner.plan_experiment()
    found = plans["configurations"].get(choices.configuration)
    if found is None:
        raise UserError(
            f"nnU-Net plans no configuration {choices.configuration} for this data set",
            found=", ".join(plans["configurations"]),
            remedy="Choose one of these with -o plan_cfg.configuration",
        )
    ending = str(read_json(nnunet.raw / "dataset.json")["file_ending"])
    return _our_form(job, choices, plans, ending)


def _our_form(job: Job, choices: NodeSegChoices, plans: dict[str, Any], ending: str) -> NodeSegPlan:
    found = plans["configurations"][choices.configuration]
    spacing = [float(step) for step in found["spacing"]]
    spacing = [float(plans["original_median_spacing_after_transp"][0])][: 3 - len(spacing)] + spacing
    z, y, x = (round(spacing[i], 6) for i in plans["transpose_backward"])
    architecture = found["architecture"]["arch_kwargs"]
    content = dict(vars(choices))
    budget, decisions = content.pop("budget"), content.pop("decisions")
    batch = int(found["batch_size"])
    training, epoch = epoch_steps(choices.training, job.config.plan_cfg, batch)
    content.update(
        training=training,
        spacing=(z, y, x),
        patch_size=tuple(int(side) for side in found["patch_size"]),
        batch_size=batch,
        features=[int(width) for width in architecture["features_per_stage"]],
        network=budget.network,
        decisions={**decisions, **epoch, **_nnunet_decisions(found), **_fold_decisions(job.folds)},
    )
    return NodeSegPlan(
        plan_id=job.config.plan,
        planner=job.config.planner,
        trainer=job.config.module,
        task=job.fingerprint.task,
        made_from=job.fingerprint.content_hash(),
        training_images=job.fingerprint.training_images,
        target=job.target,
        modalities=job.fingerprint.modalities,
        classes=job.fingerprint.labels,
        file_ending=ending,
        folds=job.folds.folds,
        seed=job.config.plan_cfg.seed,
        **content,
    )


def _nnunet_decisions(found: dict[str, Any]) -> dict[str, Decision]:
    median = ", ".join(f"{float(side):g}" for side in found["median_image_size_in_voxels"])
    return {
        "patch_size": Decision("nnU-Net: what memory holds of a median image", f"median {median} voxels"),
        "batch_size": Decision("nnU-Net: what memory holds, at most 5 % of all voxels", "at least 2"),
        "features": Decision(
            "nnU-Net: doubled at every stage", f"{found['architecture']['arch_kwargs']['n_stages']} stages"
        ),
    }


def _fold_decisions(folds: FoldChoice) -> dict[str, Decision]:
    seeded = Decision("plan_cfg.seed", "the same seed, the same folds, weights and patches")
    return {"folds": Decision(folds.rule, folds.evidence), "seed": seeded}


def _hand_over_training(nnunet: NnunetPaths, plan: NodeSegPlan) -> None:
    """The plan's training settings into nnU-Net's plans, where its own command finds them."""
    file = nnunet.plans(plan.plan_id)
    plans = read_json(file)
    wanted = plan.to_json()["training"]
    if plans.get(PLANS_KEY) != wanted:
        write_json(file, {**plans, PLANS_KEY: wanted})
