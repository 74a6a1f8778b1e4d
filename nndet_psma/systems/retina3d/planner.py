"""Planner of the one-stage 3D detector: any modalities and classes, with or without CT and CTV (nnDetection's task)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.ledger import Ledger
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
from nndet_psma.planners.volume_rules import Triple, affordable_spacing, volume_sizes, volume_spacing
from nndet_psma.planners.windows import distinct_windows, make_window, quantile_windows
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.systems.retina3d.planning.detector import plan_patch_detector
from nndet_psma.systems.retina3d.planning.profile import choose_patch_profile
from nndet_psma.systems.retina3d.planning.schedule import patch_augmentation, patch_schedule
from nndet_psma.systems.retina3d.planning.sweep_values import patch_defaults, patch_grid

STAGE = "retina3d"
_POSITIVE_FRACTION = 0.5  # nnDetection's oversample_foreground_percent
_CLIP = 0.005  # nnDetection and nnU-Net clip CT to these quantiles of the lesions on both sides
_MEANINGLESS: dict[str, object] = {
    "backbone": None,
    "weights": "none",
    "input_side": None,
    "neighbours": 0,
    "max_voters": None,
    "anchors": "fitted",
}


@PLANNERS.register
class Retina3DPlanner:
    """Plans ``retina3d``; every value is recorded with its rule and evidence."""

    def plan(
        self,
        fingerprint: Fingerprint,
        options: DetectorOptions,
        *,
        plan_id: str,
        trainer: str,
        target: Target,
        folds: FoldChoice,
    ) -> Retina3DPlan:
        """The plan.

        Raises:
            UserError: no training case has a lesion, an option means nothing here, or the target machine is too small.
        """
        require_lesions(fingerprint)
        refuse_options(options, type(self).__name__, _MEANINGLESS)
        ledger = Ledger()
        inputs = _plan_inputs(ledger, fingerprint, options, target)
        learning = _plan_learning(ledger, fingerprint, options, target, inputs)
        ledger.note("folds", folds.rule, folds.evidence)
        ledger.note("seed", "plan_cfg.seed", "the same seed, the same folds, batches and bootstrap")
        return Retina3DPlan(
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
            **_plan_postprocessing(ledger, fingerprint, options, inputs),
            decisions=ledger.decisions,
        )


def _plan_inputs(
    ledger: Ledger, fingerprint: Fingerprint, options: DetectorOptions, target: Target
) -> dict[str, Any]:
    """Fields of the plan that say what the network sees."""
    note_machine(ledger, target)
    ct, ctv = (find_modality(ledger, fingerprint, name) for name in ("CT", "CTV"))
    ledger.note("neighbours", "0: a patch has its neighbours", "3D convolutions")
    return {
        "ct_modality": ct,
        "ctv_modality": ctv,
        "spacing": _spacing(ledger, fingerprint, options, target),
        "margin_mm": search_margin(ledger, fingerprint, options, ctv is not None),
        "body_margin_mm": BODY_MARGIN_MM,
        "windows": _windows(ledger, fingerprint, options, ct is not None),
        "scalings": plan_scalings(ledger, fingerprint, ct, ctv, ctv_distance_mm=options.ctv_distance_mm),
        "neighbours": 0,
    }


def _plan_learning(
    ledger: Ledger,
    fingerprint: Fingerprint,
    options: DetectorOptions,
    target: Target,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Fields of the plan that say how the network learns."""
    patches = plan_patch_detector(
        ledger,
        options,
        target,
        volume_sizes(fingerprint, inputs["spacing"], inputs["margin_mm"], BODY_MARGIN_MM),
        inputs["spacing"],
        channels=len(inputs["windows"]) + len(inputs["scalings"]),
        classes=len(fingerprint.labels),
    )
    lesions = len(fingerprint.lesions)
    full = options.schedule == "paper"
    schedule = patch_schedule(target, lesions, patches.batch, options.iterations_factor, full=full)
    ledger.note("stages", "patch_schedule.patch_schedule: one stage, one voter", schedule.reason)
    why = (
        "SGD with nnDetection's rate"
        if schedule.optimizer == "sgd"
        else "AdamW: short schedules from scratch"
    )
    ledger.note("optimizer", "patch_schedule.patch_schedule", why)
    augmentation, rule, evidence = patch_augmentation(options.augmentation, target)
    ledger.note("augmentation", rule, evidence)
    _note_sampling(ledger, fingerprint)
    region: Literal["body", "search"] = "body" if inputs["ctv_modality"] is None else "search"
    windows = [window.name for window in inputs["windows"]]
    return {
        "detector": None,
        "detector3d": patches.detector,
        "batch_size": patches.batch,
        "positive_fraction": _POSITIVE_FRACTION,
        "hard_negative_fraction": 0.0,
        "stages": [Stage(STAGE, region, windows, None, True, *schedule.stage)],
        "optimizer": schedule.optimizer,
        "augmentation": augmentation,
    }


def _note_sampling(ledger: Ledger, fingerprint: Fingerprint) -> None:
    cases = len(fingerprint.cases)
    evidence = f"{len(fingerprint.lesions)} lesions in {cases} cases; a patch anywhere rarely shows one"
    ledger.note("positive_fraction", "half of the patches lie round a lesion (nnDetection)", evidence)
    ledger.note(
        "hard_negative_fraction",
        "0: no earlier stage to mine with",
        "the loss takes the worst anchors itself",
    )


def _spacing(ledger: Ledger, fingerprint: Fingerprint, options: DetectorOptions, target: Target) -> Triple:
    spacings = np.array([case.spacing for case in fingerprint.cases], dtype=np.float64)
    shapes = np.array([case.shape for case in fingerprint.cases], dtype=np.float64)
    low, high = (np.round(fold(spacings, axis=0), 3).tolist() for fold in (np.min, np.max))
    evidence = f"{len(spacings)} cases, from {low} to {high} mm"
    if options.spacing is not None:
        ledger.note("spacing", "plan_cfg.spacing", evidence)
        return options.spacing
    spacing, rule = volume_spacing(spacings, shapes)
    lesions = np.array([lesion.size_mm for lesion in fingerprint.lesions], dtype=np.float64)
    longest = choose_patch_profile(target).longest_side
    coarser = affordable_spacing(spacing, lesions, longest)
    if coarser != spacing:
        rule += "; volume.affordable_spacing: the larger lesions fit into a patch"
        evidence += (
            f"; at {', '.join(f'{s:g}' for s in spacing)} mm they would take more than {longest} voxels"
        )
    ledger.note("spacing", rule, evidence)
    return coarser


def _windows(
    ledger: Ledger, fingerprint: Fingerprint, options: DetectorOptions, has_ct: bool
) -> list[Window]:
    """Channels of the CT: one wide window, or those of the central system."""
    if not has_ct:
        ledger.note("windows", "no modality is CT", "modalities are scaled instead")
        return []
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    if options.windows:
        *others, general = options.windows
        choice = distinct_windows(others, general)
        ledger.note(
            "windows",
            "plan_cfg.windows: all are channels",
            "; ".join([f"{pooled.total} lesion voxels", *choice.notes]),
        )
        return choice.windows
    if options.channels == "multiwindow":
        choice = quantile_windows(pooled, options.quantiles, options.soft_tissue)
        rule = f"windows.quantile_windows: tails {options.quantiles} %, all are channels"
        ledger.note("windows", rule, "; ".join([f"{pooled.total} lesion voxels", *choice.notes]))
        return choice.windows
    window = wide_window(pooled, options.soft_tissue)
    evidence = f"{pooled.total} lesion voxels"
    if pooled.total:
        evidence += f", 99 % of them from {pooled.quantile(_CLIP):g} to {pooled.quantile(1 - _CLIP):g} HU"
    ledger.note("windows", "retina3d.wide_window: soft tissue and 99 % of lesion voxels", evidence)
    return [window]


def wide_window(lesion_hu: Histogram, soft_tissue: tuple[float, float]) -> Window:
    """The window (HU) that holds soft tissue and the lesions' voxels without their outermost 0.5 % on each side.

    Source: nnDetection and nnU-Net clip CT to these quantiles; soft tissue is held so that all organs stay visible.
    """
    lower, upper = soft_tissue
    if lesion_hu.total:
        lower = min(lower, lesion_hu.quantile(_CLIP))
        upper = max(upper, lesion_hu.quantile(1 - _CLIP))
    return make_window((lower, upper))


def _plan_postprocessing(
    ledger: Ledger, fingerprint: Fingerprint, options: DetectorOptions, inputs: dict[str, Any]
) -> dict[str, Any]:
    zone = inputs["margin_mm"] if inputs["ctv_modality"] is not None else None
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    shortest = [min(lesion.size_mm) for lesion in fingerprint.lesions]
    ledger.note(
        "postproc_defaults", "patch_grids.patch_defaults", "filters off until the sweep has tuned them"
    )
    rule = "patch_grids.patch_grid: nnDetection's sweep, zone and HU as for slices"
    smallest = float(np.quantile(shortest, 0.05))
    ledger.note("postproc_grid", rule, f"shortest side of the smallest lesions (5 %): {smallest:.1f} mm")
    return {
        "postproc_defaults": patch_defaults(zone),
        "postproc_grid": patch_grid(pooled, zone, min(inputs["spacing"]), shortest, options.grids),
    }
