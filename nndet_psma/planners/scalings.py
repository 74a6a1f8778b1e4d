"""Ranges in which modalities other than CT are shown to the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Scaling
from nndet_psma.planners.ledger import Ledger


def plan_scalings(ledger: Ledger, fingerprint: Fingerprint, without: Sequence[int | None]) -> list[Scaling]:
    """Every modality but those of ``without`` (CT, CTV): 0.5 % of the body to its 99.5 %, or to the lesions' median.

    Source: nnU-Net and nnDetection clip to the 0.5 % and 99.5 % quantiles; lesions brighter than nearly everything
    (PET) would be cut off there.
    """
    scalings = []
    for index, name in fingerprint.modalities.items():
        if int(index) in without:
            continue
        regions = [case.intensities[name] for case in fingerprint.cases]
        body = [found.get("body") or found["outside"] for found in regions]  # no body found: the whole image
        lower = float(np.median([f.percentile_00_5 for f in body]))
        medians = [found["lesion"].percentile_50 for found in regions if "lesion" in found]
        upper = max(float(np.median([f.percentile_99_5 for f in body])), float(np.median(medians or [0.0])))
        scalings.append(Scaling(int(index), name, lower, upper if upper > lower else lower + 1.0))
    evidence = "; ".join(f"{s.name}: {s.lower:.4g} to {s.upper:.4g}" for s in scalings)
    ledger.note("scalings", "scalings.plan_scalings", evidence or "every modality is CT or CTV")
    return scalings
