"""The kinds of synthetic task there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.case import draw_case
from nndet_psma.dataset.phantom.dwi import draw_dwi_case, dwi_options, plan_dwi
from nndet_psma.dataset.phantom.node_status import (
    NodeStatusCase,
    NodeStatusOptions,
    draw_node_status,
    plan_node_status,
)
from nndet_psma.dataset.phantom.options import PhantomOptions
from nndet_psma.dataset.phantom.schedule import CaseSpec, Split, plan_case
from nndet_psma.dataset.phantom.squares import SquaresOptions, draw_squares, plan_square


class DrawnCase(Protocol):
    """What is written of a case."""

    @property
    def geometry(self) -> Geometry:
        """Header of all volumes."""

    @property
    def images(self) -> tuple[NDArray[Any], ...]:
        """Volumes ``[z, y, x]`` in the order of the modalities."""

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """``[z, y, x]`` instance ids 1..n."""

    @property
    def classes(self) -> Mapping[int, int]:
        """Class by instance id."""


@dataclass(frozen=True)
class TaskKind:
    """A kind of synthetic task.

    Attributes:
        modalities: names in the order of the images.
        labels: class names.
        stem: how the names of its cases begin.
        options: makes the options from those that were given by name.
        plan: specification of a case from seed, split and index.
        draw: makes a case from its specification and the options.
        patients: cases belong to patients with clinical data.
        target_class: class of the case-level scores, or None.
        notes: what stands beside the classes of the instances of a case that was drawn.
        psma: block of this name in the description.
    """

    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    stem: str
    options: Callable[..., Any]
    plan: Callable[[int, Split, int], CaseSpec]
    draw: Callable[[CaseSpec, Any], DrawnCase]
    patients: bool = True
    target_class: int | None = 0
    notes: Callable[[Any], Mapping[str, Any]] = lambda case: {}
    psma: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[str, TaskKind] = {
    "psma": TaskKind(("CT", "CTV"), ("positive_node",), "psma", PhantomOptions, plan_case, draw_case),
    "dwi": TaskKind(("DWI", "ADC"), ("lymph_node",), "dwi", dwi_options, plan_dwi, draw_dwi_case),
    "squares": TaskKind(
        ("MRI",),
        ("Square", "SquareHole"),
        "case",
        SquaresOptions,
        plan_square,
        draw_squares,
        patients=False,
        target_class=None,
    ),
    "node_status": TaskKind(
        ("CT",),
        ("negative_node", "positive_node"),
        "nodes",
        NodeStatusOptions,
        plan_node_status,
        draw_node_status,
        target_class=1,
        notes=NodeStatusCase.notes,
        psma={"target": "node_status"},
    ),
}


def find_kind(kind: str) -> TaskKind:
    """The kind called so.

    Raises:
        UserError: there is none; lists those there are.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of task '{kind}'", expected=f"one of {', '.join(KINDS)}")
    return KINDS[kind]


def make_options(kind: str, given: Mapping[str, Any]) -> Any:
    """Options of a kind of task; what is not given has the default of the kind.

    Raises:
        UserError: an option means nothing to this kind, or its value is out of range.
    """
    chosen = find_kind(kind)
    known = {field.name for field in fields(chosen.options(**{}))}
    foreign = sorted(set(given) - known)
    if foreign:
        raise UserError(
            f"a task of kind '{kind}' has no such option",
            expected=f"one of {', '.join(sorted(known))}",
            found=", ".join(foreign),
        )
    return chosen.options(**given)
