"""One setting through the whole post-processing and scored: slow, and right by construction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.search_space import Judge
from nndet_psma.postproc.sweep.slices.metrics import find_hits, metrics_of


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


def slice_judge(cases: Sequence[SweepCase], goal: Criterion) -> Judge:
    """Scores settings by their slice boxes.

    Raises:
        UserError: the criterion judges whole curves, which single settings do not have.
    """
    if goal.of_ranking:
        raise UserError(
            f"criterion {goal.metric} leaves the score threshold open",
            remedy="Use sweep.search=joint or two_phase",
        )
    if goal.of_curve:
        raise UserError(
            f"criterion {goal.metric} needs every score threshold", remedy="Use sweep.search=joint"
        )
    lesions = sum(case.num_lesions for case in cases)

    def judge(settings: PostprocSettings) -> tuple[dict[str, float], float]:
        counts = (np.array(each) for each in count_setting(cases, settings))
        metrics = metrics_of(*counts, num_lesions=lesions, num_cases=len(cases))
        return {name: float(each) for name, each in metrics.items()}, float(goal.value(metrics))

    return judge
