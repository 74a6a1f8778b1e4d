"""Prepare a task for nnU-Net: export, its fingerprint, our planner, our folds, its preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Decision, Target
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.planners.folds import FoldChoice, choose_folds
from nndet_psma.planners.machine import choose_target
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths, entered, environment
from nndet_psma.systems.nodeseg.nnunet.export import export_dataset, write_splits
from nndet_psma.systems.nodeseg.nnunet.plan_file import check_export, kept_or_written, overwritten, put_back
from nndet_psma.systems.nodeseg.nnunet.planner import PLANNERS, exported_choices
from nndet_psma.systems.nodeseg.nnunet.preprocess import extract_fingerprint, preprocess_cases, quiet
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.planner import NodeSegChoices, choose_nodeseg, dataset_name
from nndet_psma.systems.nodeseg.sampling import PLANS_KEY, TRAINER


@dataclass(frozen=True)
class NodeSegPrep:
    """What a preparation made.

    Attributes:
        plan: written or kept.
        kept_plan: an earlier one was kept.
        exported: cases linked or written now.
        made: cases preprocessed now.
        total: training cases.
    """

    plan: NodeSegPlan
    kept_plan: bool
    exported: list[str]
    made: list[str]
    total: int


def prepare(paths: TaskPaths, config: Any, say: Callable[[str], None], *, processes: int = 1) -> NodeSegPrep:
    """Run the parts ``fingerprint``, ``plan`` and ``process`` of ``config.prep`` for nnU-Net.

    Everything nnU-Net reads lies below ``preprocessed/nnunet`` of the task; the plan is ``preprocessed/PLAN.json``.

    Args:
        paths: of the task.
        config: composed configuration with ``train=nodeseg``.
        say: takes one line of progress.
        processes: at once.

    Raises:
        UserError: the data cannot be planned for, or another plan of this name exists.
    """
    description = read_description(paths.root)
    options = NodeSegOptions.parse(_plain(config.plan_cfg))
    cases = list_cases(paths, description)
    fingerprint = _fingerprint(paths, config, description, options, processes, say)
    nnunet = NnunetPaths.of(paths, dataset_name(fingerprint.task))
    exported: list[str] = []
    # nnU-Net's planner takes this number for threads, too, and fails on 0
    with entered({**environment(nnunet, nnunet.root / "results"), "nnUNet_n_proc_DA": "1"}):
        if config.prep.plan:
            plan, kept, exported = _export_and_plan(
                paths, config, description, fingerprint, nnunet, options, processes, say
            )
        else:
            plan, kept = NodeSegPlan.read(paths.plan(config.plan)), True
        say(f"plan {plan.plan_id}: {'kept' if kept else 'written'}")
        write_splits(nnunet, plan.folds)
        _hand_over_training(nnunet, plan)
        done: list[str] = []
        if config.prep.process:
            done = preprocess_cases(nnunet, plan.plan_id, plan.configuration, processes)
            say(f"preprocessed {len(done)} cases, {len(cases) - len(done)} were current")
    return NodeSegPrep(plan, kept, exported, done, len(cases))


def _export_and_plan(
    paths: TaskPaths,
    config: Any,
    description: DatasetDescription,
    fingerprint: Fingerprint,
    nnunet: NnunetPaths,
    options: NodeSegOptions,
    processes: int,
    say: Callable[[str], None],
) -> tuple[NodeSegPlan, bool, list[str]]:
    """The plan, whether an earlier one was kept, and the cases exported now."""
    machine = PlannerOptions(
        target=options.target, gpu_memory_gb=options.gpu_memory_gb, num_gpus=options.num_gpus
    )
    target = choose_target(machine)
    choices = choose_nodeseg(fingerprint, options, target)
    check_export(paths, config, choices)
    folds = choose_folds(
        fingerprint,
        paths.splits,
        num_folds=options.num_folds,
        stratify_by=options.stratify_by,
        seed=options.seed,
    )
    test = list_cases(paths, description, "Ts") if paths.images("Ts").is_dir() else []
    descriptions = [folder / "dataset.json" for folder in (nnunet.raw, nnunet.preprocessed)]
    with put_back([nnunet.plans(config.plan), *descriptions]):
        result = export_dataset(
            nnunet,
            list_cases(paths, description),
            test,
            description,
            choices,
            extra=exported_choices(choices),
            processes=processes,
        )
        say(
            f"nnU-Net data set {nnunet.dataset}: {len(result.made)} cases new, "
            f"{result.linked} images linked, {result.written} written"
        )
        made = _planned(nnunet, config, fingerprint, choices, target, folds, options.seed, processes)
        plan, kept = kept_or_written(paths, config, made)
    return plan, kept, result.made


def _fingerprint(
    paths: TaskPaths,
    config: Any,
    description: DatasetDescription,
    options: NodeSegOptions,
    processes: int,
    say: Callable[[str], None],
) -> Fingerprint:
    if not config.prep.fingerprint:
        return Fingerprint.read(paths.fingerprint)
    cases = list_cases(paths, description)
    say(f"fingerprint of {len(cases)} cases")
    found = measure_fingerprint(
        cases,
        description,
        read_clinical(paths),
        stratify_by=options.stratify_by,
        cache=paths.preprocessed / "fingerprints",
        processes=processes,
    )
    found.write(paths.fingerprint)
    return found


def _planned(
    nnunet: NnunetPaths,
    config: Any,
    fingerprint: Fingerprint,
    choices: NodeSegChoices,
    target: Target,
    folds: FoldChoice,
    seed: int,
    processes: int,
) -> NodeSegPlan:
    """nnU-Net plans with our choices; the plan in our form."""
    extract_fingerprint(nnunet, processes)
    with quiet():
        planner = PLANNERS[choices.budget.network](nnunet.dataset, plans_name=config.plan)
        plans = planner.plan_experiment()
    found = plans["configurations"].get(choices.configuration)
    if found is None:
        raise UserError(
            f"nnU-Net plans no configuration {choices.configuration} for this data set",
            found=", ".join(plans["configurations"]),
            remedy="Choose one of these with -o plan_cfg.configuration",
        )
    ending = str(read_json(nnunet.raw / "dataset.json")["file_ending"])
    made = _our_form(config, fingerprint, choices, target, folds, seed, plans, ending)
    return overwritten(made, _plain(config.plan_overwrites) or {})


def _our_form(
    config: Any,
    fingerprint: Fingerprint,
    choices: NodeSegChoices,
    target: Target,
    folds: FoldChoice,
    seed: int,
    plans: dict[str, Any],
    ending: str,
) -> NodeSegPlan:
    found = plans["configurations"][choices.configuration]
    spacing = [float(step) for step in found["spacing"]]
    spacing = [float(plans["original_median_spacing_after_transp"][0])][: 3 - len(spacing)] + spacing
    z, y, x = (round(spacing[i], 6) for i in plans["transpose_backward"])
    architecture = found["architecture"]["arch_kwargs"]
    content = dict(vars(choices))
    budget, decisions = content.pop("budget"), content.pop("decisions")
    content.update(
        spacing=(z, y, x),
        patch_size=tuple(int(side) for side in found["patch_size"]),
        batch_size=int(found["batch_size"]),
        features=[int(width) for width in architecture["features_per_stage"]],
        network=budget.network,
        decisions={**decisions, **_nnunet_decisions(found), **_fold_decisions(folds)},
    )
    return NodeSegPlan(
        plan_id=config.plan,
        planner=config.planner,
        trainer=TRAINER,
        task=fingerprint.task,
        made_from=fingerprint.content_hash(),
        target=target,
        modalities=fingerprint.modalities,
        classes=fingerprint.labels,
        file_ending=ending,
        folds=folds.folds,
        seed=seed,
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


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)
