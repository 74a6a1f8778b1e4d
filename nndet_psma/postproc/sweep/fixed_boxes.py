"""What a sweep may treat as given: the boxes of every voter before the first step that is tuned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.builtin_steps import ScoreThreshold, WindowBagging
from nndet_psma.postproc.steps.order import StepOrder, step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.step import FilterStep, Spacing
from nndet_psma.postproc.steps.steps import present_voters, voter_boxes
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.variants import FilterVariants


@dataclass(frozen=True)
class FixedBoxes:
    """Boxes of all cases and voters, and the steps that are still to come before the vote.

    Attributes:
        boxes: 2D with column ``slice``, or 3D; case by case, voter by voter, in the order the voter gives them.
        case: ``[N]`` index of the case.
        voter: ``[N]`` index of the voter.
        names: of the voters.
        masks: steps to come, each judging every box by itself; the score threshold is not among them.
        thresholded: whether one of the steps to come is the score threshold.
    """

    boxes: Detections
    case: NDArray[np.int64]
    voter: NDArray[np.int64]
    names: list[str]
    masks: list[FilterStep]
    thresholded: bool

    def kept_by(self, variants: FilterVariants, cases: Sequence[SweepCase]) -> NDArray[np.bool_]:
        """Which boxes each combination of filters keeps, ``[F, N]``."""
        spacings = self._spacings(cases)
        if len(spacings) == 1:
            return variants.masks(self.boxes, spacings[0][0])
        masks = np.zeros((len(variants), len(self.boxes)), dtype=bool)
        for spacing, rows in spacings:
            masks[:, rows] = variants.masks(self.boxes.select(rows), spacing)
        return masks

    def _spacings(self, cases: Sequence[SweepCase]) -> list[tuple[Spacing, NDArray[np.int64]]]:
        """Each voxel size and the rows that have it."""
        sizes = sorted({case.spacing for case in cases})
        of_case = np.array([sizes.index(case.spacing) for case in cases])
        return [(size, np.flatnonzero(of_case[self.case] == index)) for index, size in enumerate(sizes)]


def fixed_boxes(cases: Sequence[SweepCase], base: PostprocSettings, tuned: Collection[str]) -> FixedBoxes:
    """Pool the voters' boxes of all cases, after fusion, suppression and every other step that looks at several boxes.

    Args:
        cases: with the same voters.
        base: settings of the steps that are not tuned.
        tuned: settings that will be.

    Raises:
        UserError: a step between there and the vote is no mask, or filters follow the vote: then thresholds cannot be
            told apart from the boxes they act on.
    """
    order = step_order(base.steps)
    fixed, masks = _split(order, base, tuned)
    names = list(cases[0].raw)
    parts, case_of, voter_of = [], [], []
    for index, case in enumerate(cases):
        asked = present_voters(case.raw)
        for name, folds in asked.items():
            boxes = voter_boxes(folds, base, case.spacing, fixed)
            parts.append(boxes)
            case_of.append(np.full(len(boxes), index))
            voter_of.append(np.full(len(boxes), names.index(name)))
    filled = [part for part in parts if len(part)] or parts[:1]
    return FixedBoxes(
        Detections.concatenate(filled, dim=order.dim),
        np.concatenate(case_of).astype(np.int64),
        np.concatenate(voter_of).astype(np.int64),
        names,
        [step for step in masks if not isinstance(step, ScoreThreshold)],
        any(isinstance(step, ScoreThreshold) for step in masks),
    )


def _split(
    order: StepOrder, base: PostprocSettings, tuned: Collection[str]
) -> tuple[list[FilterStep], list[FilterStep]]:
    place = max((i + 1 for i, step in enumerate(order.on_voters) if not step.alone), default=0)
    fixed, masks = order.on_voters[:place], order.on_voters[place:]
    before = [*order.on_folds, *fixed]
    early = [step for step in before if isinstance(step, ScoreThreshold) or set(step.fields) & set(tuned)]
    behind = [*order.on_consensus, *order.on_lesions]
    if early or behind or not isinstance(order.vote, WindowBagging):
        wrong = [type(step).__name__ for step in [*early, *behind]] or [type(order.vote).__name__]
        raise UserError(
            f"{', '.join(wrong)} cannot be tuned as masks of boxes",
            expected="filters and score threshold behind NMS and before WindowBagging",
            found=", ".join(base.steps),
            remedy="Use sweep.search=coarse, which runs every setting it tries",
        )
    return fixed, masks
