"""Decisions that every planner takes alike: machine, modalities, growth of the search region."""

from __future__ import annotations

import numpy as np

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.options import PlannerOptions

BODY_MARGIN_MM = 5.0
_MEANING = {"CT": "HU windows and the HU filter", "CTV": "crop, mask and the zone filter"}


def require_lesions(fingerprint: Fingerprint) -> None:
    """Raises UserError when no training case has a lesion."""
    if not fingerprint.lesions:
        raise UserError(
            "no training case has a lesion, so there is nothing to learn",
            remedy="Check labelsTr, or add cases with lesions",
        )


def note_machine(ledger: Ledger, target: Target) -> None:
    """Why the plan is for this machine."""
    evidence = (
        "no GPU visible or asked for" if target.device == "cpu" else "visible, or plan_cfg.gpu_memory_gb"
    )
    ledger.note("target", "prepare.choose_target", evidence)


def find_modality(ledger: Ledger, fingerprint: Fingerprint, name: str) -> int | None:
    """Index of the modality called ``name`` ("CT" or "CTV"); None without it."""
    found = next(
        (int(i) for i, modality in fingerprint.modalities.items() if modality.strip().upper() == name), None
    )
    meaning = _MEANING[name]
    evidence = f"gives {meaning}" if found is not None else f"no modality of this name: without {meaning}"
    ledger.note(f"{name.lower()}_modality", f"the modality named {name} in dataset.json", evidence)
    return found


def search_margin(ledger: Ledger, fingerprint: Fingerprint, options: PlannerOptions, has_ctv: bool) -> float:
    """Growth of the CTV in mm (``rules.ctv_margin``, or the user's); 0 without CTV."""
    ledger.note("body_margin_mm", "fixed", "skin and fat round the body; the air beyond is cut off")
    if not has_ctv:
        ledger.note("margin_mm", "no modality is named CTV", "the body is searched; nothing is masked")
        return 0.0
    outside = [lesion.outside_ctv_mm or 0.0 for lesion in fingerprint.lesions]
    margin, share = rules.ctv_margin(outside, options.margin_coverage, options.min_margin_mm)
    least = f"at least {options.min_margin_mm:g} mm (Xu et al. 2023)"
    rule = f"rules.ctv_margin: {options.margin_coverage:.0%} of lesions, {least}"
    if options.margin_mm is not None:
        margin, rule = options.margin_mm, "plan_cfg.margin_mm"
        share = float(np.mean(np.array(outside) <= margin))
    evidence = f"contains {share:.1%} of {len(outside)} lesions; farthest voxel {max(outside):.2f} mm outside"
    ledger.note("margin_mm", rule, evidence)
    return margin


def refuse_options(options: PlannerOptions, planner: str, meaningless: dict[str, object]) -> None:
    """Options that a planner cannot honour must not be passed over in silence.

    Args:
        options: of the user.
        planner: its name, for the message.
        meaningless: the value of every such option that says nothing.

    Raises:
        UserError: one has another value.
    """
    for name, silent in meaningless.items():
        value = getattr(options, name)
        if value is not None and value != silent:
            raise UserError(
                f"configuration: plan_cfg.{name} means nothing to {planner}",
                expected="null" if silent is None else f"{silent}",
                found=str(value),
            )
