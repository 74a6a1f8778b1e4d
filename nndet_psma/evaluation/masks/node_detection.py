"""Which nodes of a mask another mask finds: a node is found when the two share a voxel (dwi2022).

Precision is the share of the predicted nodes that touch a true one, recall that of the true nodes that are touched.
Where one prediction covers two true nodes both are found, and the prediction is right once; ``found`` and ``right``
then differ. The paper gives one number for both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.proportion import Proportion


@dataclass(frozen=True)
class NodeDetection:
    """Counts of one case, or of many added up.

    Attributes:
        found: true nodes that a prediction touches.
        missed: true nodes that none touches.
        right: predicted nodes that touch a true one.
        false: predicted nodes that touch none.
    """

    found: int = 0
    missed: int = 0
    right: int = 0
    false: int = 0

    def __add__(self, other: NodeDetection) -> NodeDetection:
        return NodeDetection(
            self.found + other.found,
            self.missed + other.missed,
            self.right + other.right,
            self.false + other.false,
        )

    @property
    def precision(self) -> float | None:
        """Share of the predicted nodes that are right; None without predictions."""
        return Proportion.of(self.right, self.right + self.false).value

    @property
    def recall(self) -> float | None:
        """Share of the true nodes that are found; None without true nodes."""
        return Proportion.of(self.found, self.found + self.missed).value

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; 0 when both are 0, None when one is undefined."""
        precision, recall = self.precision, self.recall
        if precision is None or recall is None:
            return None
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def detect_nodes(
    shared: Mapping[tuple[int, int], int], predicted: Collection[int], true: Collection[int]
) -> NodeDetection:
    """Count found and false nodes.

    Args:
        shared: from :func:`touching_nodes`.
        predicted: predicted ids that count, for example the suspicious ones or the largest.
        true: true ids that count. A node that counts is touched only by nodes that count.
    """
    pairs = [(one, other) for one, other in shared if one in predicted and other in true]
    right, found = {one for one, _ in pairs}, {other for _, other in pairs}
    return NodeDetection(
        len(found), len(set(true)) - len(found), len(right), len(set(predicted)) - len(right)
    )


def touching_nodes(prediction: NDArray[Any], truth: NDArray[Any]) -> dict[tuple[int, int], int]:
    """Voxels that each pair (predicted id, true id) shares; pairs that share none are left out.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {truth.shape}")
    shared = (prediction != 0) & (truth != 0)
    both = np.stack([prediction[shared], truth[shared]], axis=1).astype(np.int64)
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    return {(int(one), int(other)): int(count) for (one, other), count in zip(pairs, counts, strict=True)}


def paired_nodes(
    shared: Mapping[tuple[int, int], int], predicted: Collection[int], true: Collection[int]
) -> list[tuple[int, int]]:
    """One-to-one pairs (predicted id, true id) whose sizes are compared: most shared voxels first, ties by ids.

    Args:
        shared: from :func:`touching_nodes`.
        predicted: predicted ids that count.
        true: true ids that count.
    """
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for one, other in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        if one in predicted and other in true and one not in taken[0] and other not in taken[1]:
            pairs.append((one, other))
            taken[0].add(one)
            taken[1].add(other)
    return sorted(pairs)
