"""What a sweep found: the chosen thresholds, every setting tried, and how optimistic the value is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.postproc.steps.settings import PostprocSettings

JOINT, FILTERS, VOTING, SEARCH = 0, 1, 2, 3
"""Phases of a :class:`SweepRow`: all thresholds at once; the two of the two-phase search; a search that skips some."""

SLICES, LESIONS = "slices", "lesions"
"""What a sweep counts: slice boxes, or lesions in 3D (see :mod:`nndet_psma.postproc.sweep.volumes.sweep`)."""

TIE_RULE = (
    "of equal values (to 1e-12) the milder setting, compared in this order: zone filter off, then larger zone_mm; "
    "HU filter off, then larger hu_threshold; smaller hu_quantile; size filter off, then smaller min_size_mm, larger "
    "max_size_mm, smaller min_short_axis_mm, smaller min_extent_mm (filters in the order of the steps; those from "
    "elsewhere in the order of the plan's candidates); fewer min_votes; lower vote_iou; higher hit_iou where it is "
    "tuned; lower score_threshold"
)


@dataclass(frozen=True)
class SweepRow:
    """One setting that was tried and what it scored; in phase 1 the mean over the voters, each on its own.

    ``vote_iou`` and ``min_votes`` are ``None`` in phase 1. ``value`` is that of the criterion, negative where its limit
    is missed.
    """

    phase: int
    zone_mm: float | None
    hu_threshold: float | None
    hu_quantile: float
    vote_iou: float | None
    min_votes: int | None
    score_threshold: float
    sensitivity: float
    precision: float
    f1: float
    fp_per_case: float
    value: float
    hit_iou: float = 0.1
    min_size_mm: float | None = None
    max_size_mm: float | None = None
    min_short_axis_mm: float | None = None
    min_extent_mm: float | None = None
    nms_iou: float | None = None
    fold_iou: float | None = None
    fold_score: str | None = None
    options: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Nested:
    """The criterion on cases that had no part in the choice: for each group, thresholds tuned on all the others.

    Attributes:
        groups: cases of each group; a patient lies in one.
        settings: what was chosen for each group, on the others.
        sensitivity: of all groups together, each at its own thresholds; so the next three.
        precision: see :mod:`nndet_psma.postproc.sweep.slices.metrics`.
        f1: see there.
        fp_per_case: see there.
        value: of the criterion.
        optimism: by how much the plain value is better.
    """

    groups: list[list[str]]
    settings: list[PostprocSettings]
    sensitivity: float
    precision: float
    f1: float
    fp_per_case: float
    value: float
    optimism: float


@dataclass(frozen=True)
class SweepTable:
    """Every setting of a joint sweep, each at the score threshold that is best for it.

    Attributes:
        variants: settings of the filters, the mildest first, ``[F]``.
        min_votes: ``[V]``.
        vote_iou: ``[I]``.
        hit_iou: ``[H]``.
        score_threshold: ``[F, V, I, H]``.
        boxes: slice boxes (of a detector on volumes: lesions) that are left, ``[F, V, I, H]``; so the next two.
        true: those that hit a lesion.
        found: lesions that are hit.
        value: of the criterion.
        num_lesions: lesions.
        num_cases: cases.
    """

    variants: list[dict[str, Any]]
    min_votes: NDArray[np.int64]
    vote_iou: NDArray[np.float64]
    hit_iou: NDArray[np.float64]
    score_threshold: NDArray[np.float64]
    boxes: NDArray[np.int64]
    true: NDArray[np.int64]
    found: NDArray[np.int64]
    value: NDArray[np.float64]
    num_lesions: int
    num_cases: int

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Everything as arrays of numbers (or texts), in the smallest types; a filter that is off is NaN."""
        for name in sorted({name for variant in self.variants for name in variant}):
            column = [variant.get(name) for variant in self.variants]
            if any(isinstance(value, str) for value in column):
                yield f"variant/{name}", np.array([str(value) for value in column])
                continue
            numbers = [np.nan if value is None else value for value in column]
            yield f"variant/{name}", np.array(numbers, dtype=np.float64)
        for name in ("min_votes", "vote_iou", "hit_iou", "boxes", "true", "found"):
            array = getattr(self, name)
            yield name, array if array.dtype == np.float64 else array.astype(np.int32)
        yield "score_threshold", self.score_threshold
        yield "value", self.value.astype(np.float32)
        yield "totals", np.array([self.num_lesions, self.num_cases])


@dataclass(frozen=True)
class SweepResult:
    """The chosen settings and what was tried.

    Attributes:
        settings: the base settings with the tuned thresholds put in.
        criterion: its name.
        best: the row of the chosen settings.
        num_settings: settings tried, with every score threshold and every tolerance.
        num_cases: cases they were tried on.
        num_lesions: lesions in them.
        tie_rule: how equal settings were told apart.
        rows: every setting tried; of a joint sweep those that are best for some pair of values of two thresholds.
        search: how the settings were searched.
        nested: the honest value, ``None`` where the cases cannot be parted.
        table: of a joint sweep.
        judged: :data:`SLICES` or :data:`LESIONS`.
    """

    settings: PostprocSettings
    criterion: str
    best: SweepRow
    num_settings: int
    num_cases: int
    num_lesions: int
    tie_rule: str
    rows: tuple[SweepRow, ...]
    search: str = "joint"
    nested: Nested | None = None
    table: SweepTable | None = field(default=None, compare=False)
    judged: str = SLICES


FILTER_FIELDS = (
    "zone_mm",
    "hu_threshold",
    "hu_quantile",
    "min_size_mm",
    "max_size_mm",
    "min_short_axis_mm",
    "min_extent_mm",
)
"""Thresholds of the package's filters, as rows and settings name them."""


def make_row(
    phase: int, settings: PostprocSettings, metrics: Mapping[str, float], value: float, *, voted: bool
) -> SweepRow:
    """The row of a setting; ``voted``: the voters were asked together."""
    return SweepRow(
        phase=phase,
        **{name: getattr(settings, name) for name in FILTER_FIELDS},
        nms_iou=settings.nms_iou,
        fold_iou=settings.fold_iou,
        fold_score=settings.fold_score,
        vote_iou=settings.vote_iou if voted else None,
        min_votes=settings.min_votes if voted else None,
        hit_iou=settings.hit_iou,
        score_threshold=settings.score_threshold,
        **{name: float(metrics[name]) for name in ("sensitivity", "precision", "f1", "fp_per_case")},
        value=float(value),
        options=dict(settings.options),
    )


ROW_COLUMNS = [each.name for each in fields(SweepRow)]


def best_cells(table: SweepTable, tolerance: int) -> list[tuple[int, int, int]]:
    """Settings (f, v, i) that are best for some pair of values of two thresholds, in the order of the table.

    From their rows the landscape of any two thresholds can be drawn.
    """
    value = table.value[..., tolerance]
    f, v, i = (each.reshape(-1) for each in np.indices(value.shape))
    parameters = [v, i]
    for name in sorted({name for variant in table.variants for name in variant}):
        values = [variant.get(name) for variant in table.variants]
        distinct = list(dict.fromkeys(values))
        parameters.append(np.array([distinct.index(value) for value in values])[f])
    best_first = np.argsort(-value.reshape(-1), kind="stable")
    chosen: set[int] = set()
    for one, other in combinations(parameters, 2):
        key = (one * (int(other.max()) + 1) + other)[best_first]
        chosen |= set(best_first[np.unique(key, return_index=True)[1]].tolist())
    return [(int(f[c]), int(v[c]), int(i[c])) for c in sorted(chosen)]
