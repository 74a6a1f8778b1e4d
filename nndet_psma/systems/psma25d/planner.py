"""Planner of the central system: CT + CTV -> PSMA-positive nodes by a 2.5D two-stage detector (Xu et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import CLIP_NORM
from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.plane_rules import plane_sizes
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.planners.scalings import plan_scalings
from nndet_psma.planners.shared import (
    BODY_MARGIN_MM,
    find_modality,
    note_machine,
    refuse_options,
    require_lesions,
    search_margin,
)
from nndet_psma.planners.sweep_values import paper_grid, postproc_defaults, postproc_grid
from nndet_psma.planners.windows import (
    WindowChoice,
    distinct_windows,
    most_different_windows,
    quantile_windows,
)
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.planning.augmentation import choose_augmentation
from nndet_psma.systems.psma25d.planning.detector import plan_detector
from nndet_psma.systems.psma25d.planning.profile import choose_profile
from nndet_psma.systems.psma25d.planning.schedule import schedule_for
from nndet_psma.systems.psma25d.planning.settled import is_own, settled
from nndet_psma.systems.psma25d.planning.stages import plan_stages


@PLANNERS.register
class PSMA25DPlanner:
    """Plans ``psma25d``; every value is recorded with its rule and evidence."""

    def plan(
        self,
        fingerprint: Fingerprint,
        options: DetectorOptions,
        *,
        plan_id: str,
        trainer: str,
        target: Target,
        folds: FoldChoice,
    ) -> PSMA25DPlan:
        """The plan.

        Raises:
            UserError: no training case has a lesion, or the target machine is too small.
        """
        require_lesions(fingerprint)
        refuse_options(options, type(self).__name__, {"patch_size": None})
        ledger = Ledger()
        own = options if isinstance(options, SliceOptions) else SliceOptions(**vars(options))
        inputs = _plan_inputs(ledger, fingerprint, own, target)
        learning = _plan_learning(ledger, fingerprint, own, target, inputs)
        ledger.note("folds", folds.rule, folds.evidence)
        ledger.note("seed", "plan_cfg.seed", "the same seed, the same folds, batches and bootstrap")
        zone = inputs["margin_mm"] if inputs["ctv_modality"] is not None else None
        voters = sum(stage.voter for stage in learning["stages"])
        return PSMA25DPlan(
            plan_id=plan_id,
            planner=type(self).__name__,
            trainer=trainer,
            task=fingerprint.task,
            made_from=fingerprint.content_hash(),
            training_images=fingerprint.training_images,
            target=target,
            modalities=fingerprint.modalities,
            classes=fingerprint.labels,
            **inputs,
            **learning,
            folds=folds.folds,
            seed=options.seed,
            postproc_defaults=_defaults(ledger, zone),
            postproc_grid=_grid(ledger, fingerprint, own, zone, voters),
            decisions=ledger.decisions,
        )


def _plan_inputs(
    ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions, target: Target
) -> dict[str, Any]:
    """Fields of the plan that say what the network sees."""
    note_machine(ledger, target)
    ct, ctv = (find_modality(ledger, fingerprint, name) for name in ("CT", "CTV"))
    spacing = _spacing(ledger, fingerprint, options)
    return {
        "ct_modality": ct,
        "ctv_modality": ctv,
        "spacing": spacing,
        "margin_mm": search_margin(ledger, fingerprint, options, ctv is not None),
        "body_margin_mm": BODY_MARGIN_MM,
        "windows": _windows(ledger, fingerprint, options, choose_profile(target).voters, ct is not None),
        "scalings": plan_scalings(ledger, fingerprint, ct, ctv, ctv_distance_mm=options.ctv_distance_mm),
        "neighbours": _neighbours(ledger, fingerprint, options, spacing),
    }


def _plan_learning(
    ledger: Ledger,
    fingerprint: Fingerprint,
    options: SliceOptions,
    target: Target,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Fields of the plan that say how the network learns."""
    windows = inputs["windows"]
    augmentation, rule, evidence = choose_augmentation(options.augmentation, target)
    shown = len(windows) if options.channels == "multiwindow" else min(1, len(windows))
    network = plan_detector(
        ledger,
        options,
        target,
        choose_profile(target),
        plane_sizes(fingerprint, inputs["spacing"], inputs["margin_mm"], BODY_MARGIN_MM),
        augmentation=augmentation,
        draw=_positive_draw(ledger, fingerprint, options),
        channels=(shown + len(inputs["scalings"])) * (2 * inputs["neighbours"] + 1),
        classes=len(fingerprint.labels),
    )
    positive = _positive_fraction(ledger, fingerprint, options)
    warmup = settled(ledger, options, "warmup", None, "stages.warmup")
    schedule = schedule_for(
        target,
        _positive_slices(fingerprint),
        network.batch,
        positive,
        options.iterations_factor,
        paper=options.schedule == "paper",
        warmup=warmup,
    )
    ledger.note("stages", "schedule.schedule_for, stages.plan_stages", schedule.reason)
    why = "SGD as in the paper" if schedule.optimizer == "sgd" else "AdamW: short schedules from scratch"
    ledger.note("optimizer", "schedule.schedule_for", why)
    ledger.note("augmentation", rule, evidence)
    return {
        "detector": network.detector,
        "batch_size": network.batch,
        "positive_fraction": positive,
        "hard_negative_fraction": _hard_negative_fraction(ledger, options),
        "stages": plan_stages(windows, options.channels, options.wsi_pretraining, schedule),
        "optimizer": schedule.optimizer,
        "augmentation": replace(augmentation, rotation_degrees=network.rotation_degrees),
        "clip_norm": settled(ledger, options, "clip_norm", CLIP_NORM),
        "norm_decay": settled(ledger, options, "norm_decay", True),
    }


def _spacing(ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions) -> tuple[float, float, float]:
    spacings = np.array([case.spacing for case in fingerprint.cases])
    low, high = (np.round(fold(spacings, axis=0), 3).tolist() for fold in (np.min, np.max))
    evidence = f"{len(spacings)} cases, from {low} to {high} mm"
    if options.spacing is not None:
        ledger.note("spacing", "plan_cfg.spacing", evidence)
        return options.spacing
    ledger.note("spacing", "rules.target_spacing: median", evidence)
    return rules.target_spacing(spacings)


def _windows(
    ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions, affordable: int | None, has_ct: bool
) -> list[Window]:
    if not has_ct:
        ledger.note("windows", "no modality is CT", "modalities are scaled instead")
        return []
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    choice = _candidates(pooled, options)
    limit = (
        affordable if options.channels == "voters" else None
    )  # channels cost little, voters a training each
    chosen = most_different_windows(choice.windows, options.max_voters or limit or len(choice.windows))
    dropped = [f"{w.lower:g}..{w.upper:g}" for w in choice.windows if w not in chosen]
    notes = [f"{pooled.total} lesion voxels", *choice.notes]
    notes += [f"left out as most alike: {', '.join(dropped)}"] if dropped else []
    rule = (
        "plan_cfg.windows"
        if options.windows
        else f"windows.quantile_windows: tails {options.quantiles} % (Xu et al. 2023, table 2)"
    )
    ledger.note("windows", rule, "; ".join(notes))
    return chosen


def _candidates(pooled: Histogram, options: SliceOptions) -> WindowChoice:
    if options.windows:
        *others, general = options.windows
        return distinct_windows(others, general)
    return quantile_windows(pooled, options.quantiles, options.soft_tissue)


def _neighbours(
    ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions, spacing: tuple[float, float, float]
) -> int:
    height = float(np.median([lesion.size_mm[0] for lesion in fingerprint.lesions]))
    evidence = f"median lesion height {height:.1f} mm, slices {spacing[0]:g} mm"
    if options.neighbours is not None:
        ledger.note("neighbours", "plan_cfg.neighbours", evidence)
        return options.neighbours
    ledger.note("neighbours", "rules.neighbour_slices: 1 (Xu et al. 2023) to 3", evidence)
    return rules.neighbour_slices(height, spacing[0], max(case.shape[0] for case in fingerprint.cases))


def _positive_fraction(ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions) -> float:
    if not is_own(options, "positive_fraction"):
        return float(settled(ledger, options, "positive_fraction", None))
    positive = _positive_slices(fingerprint)
    total = sum(case.search_slices for case in fingerprint.cases)
    ledger.note("positive_fraction", "rules.positive_fraction", f"{positive} of {total} slices hold a lesion")
    return rules.positive_fraction(positive, total)


def _hard_negative_fraction(ledger: Ledger, options: SliceOptions) -> float:
    if not is_own(options, "hard_negative_fraction"):
        share = float(settled(ledger, options, "hard_negative_fraction", None))
        if share and not options.wsi_pretraining:
            raise UserError(
                "plan_cfg.hard_negative_fraction asks for slices that no stage can mine",
                expected="0 where plan_cfg.wsi_pretraining is false",
                found=f"{share:g}",
            )
        return share
    share = 0.5 if options.wsi_pretraining else 0.0
    evidence = "half of the slices without a lesion are those the whole-slice stage mistook"
    ledger.note(
        "hard_negative_fraction",
        "half where an earlier stage can mine them; our choice",
        evidence if share else "no whole-slice stage to mine with",
    )
    return share


def _positive_draw(ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions) -> Any:
    """Every slice alike unless the slices of few cases, or of few lesions, are most of them."""
    by_case = [case.positive_slices for case in fingerprint.cases]
    by_lesion = [lesion.slices for lesion in fingerprint.lesions]
    draw = rules.positive_draw(by_case, by_lesion)
    if draw != "slices" and is_own(options, "positive_draw"):
        cases, lesions = (rules.effective_count(counts) for counts in (by_case, by_lesion))
        evidence = f"{sum(count > 0 for count in by_case)} cases count as {cases:.1f}, "
        evidence += f"{len(by_lesion)} lesions as {lesions:.1f} by their slices"
        ledger.note("detector.positive_draw", "rules.positive_draw: below half of their number", evidence)
    return settled(ledger, options, "positive_draw", draw, "detector.positive_draw")


def _positive_slices(fingerprint: Fingerprint) -> int:
    return sum(case.positive_slices for case in fingerprint.cases)


def _defaults(ledger: Ledger, zone: float | None) -> dict[str, Any]:
    evidence = "filters off and one vote until the sweep has tuned them"
    ledger.note("postproc_defaults", "grids.postproc_defaults", evidence)
    return postproc_defaults(zone)


def _grid(
    ledger: Ledger, fingerprint: Fingerprint, options: SliceOptions, zone: float | None, voters: int
) -> dict[str, list[Any]]:
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    if options.grids == "paper":
        ledger.note("postproc_grid", "grids.paper_grid: Xu et al. 2023, table 3", "1 pixel is 0.648 mm")
        return paper_grid(pooled.total > 0, zone, voters)
    quantiles = f"{pooled.quantile(0.75):.0f}, {pooled.quantile(0.99):.0f}" if pooled.total else "no CT"
    evidence = f"HU 75 % and 99 % of lesion voxels: {quantiles}"
    found = fingerprint.summary.hu_separability
    evidence += f"; lesion against other voxels of the region: AUC {found.auc:.2f}" if found else ""
    ledger.note("postproc_grid", "grids.postproc_grid: table 3, HU thresholds from the lesions", evidence)
    return postproc_grid(pooled, zone, voters)
