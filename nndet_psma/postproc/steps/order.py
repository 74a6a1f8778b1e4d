"""The order of the steps: fuse, vote and link once each and in this order, filters anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.builtin_steps import NMS, BoxSlicing, ScoreThreshold, SliceLinking
from nndet_psma.postproc.steps.step import STEPS, FilterStep, FuseStep, LinkStep, Step, VoteStep


@dataclass(frozen=True)
class StepOrder:
    """Steps by what they act on.

    Attributes:
        on_folds: filters on the boxes of every fold.
        fuse: folds to voter.
        on_voters: filters on the boxes of every voter.
        vote: voters to consensus.
        on_consensus: filters on the consensus boxes.
        link: slice boxes to lesions, or lesions to slice boxes.
        on_lesions: filters on 3D lesions.
    """

    on_folds: list[FilterStep]
    fuse: FuseStep
    on_voters: list[FilterStep]
    vote: VoteStep
    on_consensus: list[FilterStep]
    link: LinkStep
    on_lesions: list[FilterStep]

    @property
    def dim(self) -> int:
        """Dimension of the boxes that the steps take: 2 with a column ``slice``, or 3."""
        return self.link.dim

    def check_boxes(self, parts: Iterable[Detections]) -> None:
        """Refuse boxes of the other dimension; parts without boxes have none.

        Raises:
            UserError: slice boxes for steps that take 3D boxes, or the other way round.
        """
        wrong = {part.dim for part in parts if len(part)} - {self.dim}
        if wrong:
            _refuse_dimension(self.link, wrong.pop())


def step_order(names: Sequence[str], dim: int | None = None) -> StepOrder:
    """The steps called ``names``.

    Args:
        names: in their order.
        dim: of the boxes that the detector gives, where it is known.

    Raises:
        UserError: a step is unknown, is none of the four kinds, they stand in an impossible order, or they take boxes
            of another dimension.
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
    order = StepOrder(
        _filters(steps[:fuse]),
        steps[fuse],  # type: ignore[arg-type]
        _filters(steps[fuse:vote]),
        steps[vote],  # type: ignore[arg-type]
        _filters(steps[vote:link]),
        steps[link],  # type: ignore[arg-type]
        _filters(steps[link:]),
    )
    if dim not in (None, order.dim):
        _refuse_dimension(order.link, int(dim or 0))
    return order


def _refuse_dimension(link: LinkStep, found: int) -> NoReturn:
    kinds = {2: "slice boxes", 3: "boxes in 3D"}
    fitting = BoxSlicing if found == BoxSlicing.dim else SliceLinking
    raise UserError(
        f"post-processing step {type(link).__name__} does not fit the detector",
        expected=kinds[link.dim],
        found=kinds[found],
        remedy=f"Put {fitting.__name__} in its place in postproc_defaults.steps of the plan",
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
