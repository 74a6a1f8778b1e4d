"""Detections of one case: boxes with scores, labels and further columns, always of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nndet_psma.boxes.box import Boxes, empty_boxes


@dataclass(frozen=True)
class Detections:
    """Boxes of one case, 3D, or 2D with a ``slice`` column.

    Attributes:
        boxes: ``[N, 2 * dim]``, convention of :mod:`nndet_psma.boxes.box`.
        scores: ``[N]`` in [0, 1].
        labels: ``[N]`` class indices from 0.
        columns: further values per box, each with first axis N (``slice``: index of the axial slice of a 2D box).

    Raises:
        ValueError: lengths differ or the box shape is neither ``[N, 4]`` nor ``[N, 6]``.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] not in (4, 6):
            raise ValueError(f"boxes must be [N, 4] or [N, 6], got {list(self.boxes.shape)}")
        lengths = {"scores": len(self.scores), "labels": len(self.labels)}
        lengths |= {name: len(column) for name, column in self.columns.items()}
        wrong = {name: length for name, length in lengths.items() if length != len(self.boxes)}
        if wrong:
            raise ValueError(f"{len(self.boxes)} boxes, but columns of other lengths: {wrong}")

    @classmethod
    def build(
        cls,
        boxes: ArrayLike,
        scores: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        dim: int = 3,
        **columns: ArrayLike,
    ) -> Detections:
        """Make detections from anything array-like; labels default to 0; no boxes take their shape from ``dim``."""
        box_array = np.asarray(boxes, dtype=np.float64)
        if box_array.size == 0:
            box_array = empty_boxes(dim)
        label_array = np.zeros(len(box_array)) if labels is None else np.asarray(labels)
        return cls(
            box_array,
            np.asarray(scores, dtype=np.float64).reshape(-1),
            label_array.astype(np.int64).reshape(-1),
            {name: np.asarray(column) for name, column in columns.items()},
        )

    @classmethod
    def empty(cls, dim: int = 3, columns: Mapping[str, NDArray[Any]] | None = None) -> Detections:
        """No detections; ``columns`` gives names, types and trailing shapes of further columns."""
        none = {name: column[:0] for name, column in (columns or {}).items()}
        return cls(empty_boxes(dim), np.zeros(0), np.zeros(0, dtype=np.int64), none)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections], dim: int = 3) -> Detections:
        """All rows of ``parts`` in order; every part must have the same columns.

        Raises:
            ValueError: the parts have different columns.
        """
        if not parts:
            return cls.empty(dim)
        names = set(parts[0].columns)
        if any(set(part.columns) != names for part in parts):
            raise ValueError(f"parts have different columns: {[sorted(part.columns) for part in parts]}")
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
            {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def dim(self) -> int:
        """2 or 3."""
        return int(self.boxes.shape[1]) // 2

    def select(self, keep: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Detections:
        """Rows chosen by a boolean mask ``[N]`` or by indices (which also order them)."""
        return Detections(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            {name: column[keep] for name, column in self.columns.items()},
        )

    def sorted_by_score(self) -> Detections:
        """Best score first; equal scores keep their order."""
        return self.select(np.argsort(-self.scores, kind="stable"))

    def with_columns(self, **columns: ArrayLike) -> Detections:
        """The same rows with columns added or replaced."""
        added = {name: np.asarray(column) for name, column in columns.items()}
        return Detections(self.boxes, self.scores, self.labels, {**self.columns, **added})
