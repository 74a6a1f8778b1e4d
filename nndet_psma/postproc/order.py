"""The order of the steps: fuse, vote and link once each and in this order, filters anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.builtin_steps import NMS, ScoreThreshold
from nndet_psma.postproc.step import STEPS, FilterStep, FuseStep, LinkStep, Step, VoteStep


@dataclass(frozen=True)
class StepOrder:
    """Steps by what they act on.

    Attributes:
        on_folds: filters on the boxes of every fold.
        fuse: folds to voter.
        on_voters: filters on the boxes of every voter.
        vote: voters to consensus.
        on_consensus: filters on the consensus boxes.
        link: slice boxes to lesions.
        on_lesions: filters on 3D lesions.
    """

    on_folds: list[FilterStep]
    fuse: FuseStep
    on_voters: list[FilterStep]
    vote: VoteStep
    on_consensus: list[FilterStep]
    link: LinkStep
    on_lesions: list[FilterStep]


def step_order(names: Sequence[str]) -> StepOrder:
    """The steps called ``names``.

    Raises:
        UserError: a step is unknown, is none of the four kinds, or they stand in an impossible order.
    """
    steps = [STEPS[name]() for name in names]
    for name, step in zip(names, steps, strict=True):
        if not isinstance(step, FuseStep | FilterStep | VoteStep | LinkStep):
            raise UserError(
                f"post-processing step '{name}' is of no known kind",
                expected="a subclass of FuseStep, FilterStep, VoteStep or LinkStep",
            )
    fuse, vote, link = (_only(steps, kind, names) for kind in (FuseStep, VoteStep, LinkStep))
    if not fuse < vote < link:
        raise UserError(
            "post-processing steps stand in an impossible order",
            expected="fusing the folds, then the vote, then the linking",
            found=", ".join(names),
            remedy="Correct postproc_defaults.steps of the plan",
        )
    return StepOrder(
        _filters(steps[:fuse]),
        steps[fuse],  # type: ignore[arg-type]
        _filters(steps[fuse:vote]),
        steps[vote],  # type: ignore[arg-type]
        _filters(steps[vote:link]),
        steps[link],  # type: ignore[arg-type]
        _filters(steps[link:]),
    )


def _only(steps: Sequence[Step], kind: type[Step], names: Sequence[str]) -> int:
    places = [place for place, step in enumerate(steps) if isinstance(step, kind)]
    if len(places) != 1:
        raise UserError(
            f"post-processing needs exactly one {kind.__name__}",
            found=f"{len(places)} in {', '.join(names) or 'no steps'}",
            remedy="Correct postproc_defaults.steps of the plan",
        )
    return places[0]


def _filters(steps: Sequence[Step]) -> list[FilterStep]:
    return [step for step in steps if isinstance(step, FilterStep)]


def without_filters(names: Sequence[str]) -> tuple[str, ...]:
    """The order without the filters that choose among a detector's boxes: suppression and score threshold stay."""
    own = (NMS.__name__, ScoreThreshold.__name__)
    return tuple(name for name in names if name in own or not issubclass(STEPS[name], FilterStep))
