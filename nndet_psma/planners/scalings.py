"""Ranges in which modalities other than CT are shown to the network."""

from __future__ import annotations

import numpy as np

from nndet_psma.artifacts.channels import Scaling
from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import Role
from nndet_psma.planners.ledger import Ledger

# In a unit that means the same in every patient (SUV, mm2/s) or no intensities at all; the rest is arbitrary.
_SAME_UNIT = (Role.CT, Role.PET, Role.ADC)
_ORGANS = (Role.BLADDER, Role.PROSTATE)
_ORGAN_NAMES = ("VESSELS", "BOWEL", "ORGANS")
"""Modalities that hold a mask, 0 and 1; z-scores of a mask would depend on the size of the organ."""


def plan_scalings(
    ledger: Ledger,
    fingerprint: Fingerprint,
    ct: int | None,
    ctv: int | None,
    *,
    ctv_distance_mm: float | None = None,
) -> list[Scaling]:
    """Every modality but CT and CTV: 0.5 % of the body to its 99.5 %, or the lesions' median; masks as they are.

    With ``ctv_distance_mm`` the CTV follows: it is shown as the distance to it, from 0 (inside) to so many mm.

    Raises:
        UserError: the distance is to be shown, and there is no CTV.

    Source: nnU-Net and nnDetection clip CT to the 0.5 % and 99.5 % quantiles; lesions brighter than nearly everything
    (PET) would be cut off there. As there, images in arbitrary units (DWI, T2, unknown names) are z-scored case by
    case.
    """
    scalings = []
    for index, name in fingerprint.modalities.items():
        if int(index) in (ct, ctv):
            continue
        if _role(name) in _ORGANS or name.strip().upper() in _ORGAN_NAMES:
            scalings.append(Scaling(int(index), name, 0.0, 1.0))
        else:
            zscore = _role(name) not in _SAME_UNIT
            scalings.append(Scaling(int(index), name, *_limits(fingerprint, name, zscore), zscore))
    if ctv_distance_mm is not None:
        if ctv is None:
            raise UserError(
                "the distance to the CTV cannot be shown: no modality is the CTV",
                found=", ".join(fingerprint.modalities.values()),
                remedy="Leave out plan_cfg.ctv_distance_mm",
            )
        scalings.append(Scaling(ctv, fingerprint.modalities[str(ctv)], 0.0, ctv_distance_mm))
    evidence = "; ".join(
        f"{s.name}: {s.lower:.4g} to {s.upper:.4g}{' standard deviations of the case' if s.zscore else ''}"
        for s in scalings
    )
    ledger.note("scalings", "scalings.plan_scalings", evidence or "every modality is CT or CTV")
    return scalings


def _limits(fingerprint: Fingerprint, name: str, zscore: bool) -> tuple[float, float]:
    """Medians over the cases of the lower and upper limit."""
    lows, highs, lesions = [], [], []
    for case in fingerprint.cases:
        body = _body(case, name)
        mean, std = (body.mean, body.std or 1.0) if zscore else (0.0, 1.0)
        lows.append((body.percentile_00_5 - mean) / std)
        highs.append((body.percentile_99_5 - mean) / std)
        lesion = case.intensities[name].get("lesion")
        if lesion is not None:
            lesions.append((lesion.percentile_50 - mean) / std)
    lower = float(np.median(lows))
    upper = max([float(np.median(highs)), *([float(np.median(lesions))] if lesions else [])])
    return lower, upper if upper > lower else lower + 1.0


def _body(case: CaseFingerprint, name: str) -> IntensityStatistics:
    found = case.intensities[name]
    return found.get("body") or found["outside"]  # no body found: the whole image


def _role(name: str) -> Role:
    try:
        return Role(name.strip().upper())
    except ValueError:
        return Role.OTHER
