"""One setting through the whole post-processing and scored: slow, and right by construction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.postproc.slice_metrics import find_hits
from nndet_psma.postproc.steps import postprocess_case
from nndet_psma.postproc.sweep_case import SweepCase


def count_setting(cases: Sequence[SweepCase], settings: PostprocSettings) -> tuple[int, int, int]:
    """Slice boxes that are left, those that hit a lesion, lesions that are hit, over all cases."""
    boxes = true = found = 0
    for case in cases:
        slices = postprocess_case(case.raw, settings, spacing=case.spacing).slices
        hits = find_hits(slices, case.truth, num_lesions=case.num_lesions, hit_iou=settings.hit_iou)
        boxes += len(slices)
        true += int(hits.box_hits.sum())
        found += len(np.unique(hits.pairs[1]))
    return boxes, true, found
