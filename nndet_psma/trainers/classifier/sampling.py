"""Which objects a batch shows: at natural frequency, balanced by class, or balanced by class within each station."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.classifier_plan import Sampling
from nndet_psma.core.errors import UserError

Indices = NDArray[np.int64]


def mixed_stations(labels: NDArray[np.int64], stations: Sequence[str]) -> dict[str, tuple[Indices, Indices]]:
    """Indices of negative and of positive objects of each station that holds both, in alphabetical order."""
    names = np.asarray(stations, dtype=str)
    found = {}
    for name in sorted(set(stations)):
        here = names == name
        negative, positive = np.flatnonzero(here & (labels == 0)), np.flatnonzero(here & (labels == 1))
        if len(negative) and len(positive):
            found[name] = (negative, positive)
    return found


def status_set(labels: NDArray[np.int64], seed: int) -> Indices:
    """As many objects of either class as there are of the rarer one, each once, ascending.

    Source: Hartenstein et al. 2020, "status balanced" (366 + 366).
    """
    kinds = [np.flatnonzero(labels == label) for label in (0, 1)]
    return _drawn(kinds, np.random.default_rng(seed))


def location_set(labels: NDArray[np.int64], stations: Sequence[str], seed: int) -> Indices:
    """In each station as many objects of either class as there are of the rarer one, each once, ascending.

    Source: Hartenstein et al. 2020, "location balanced" (274 + 274): the smaller of both numbers per station.
    """
    rng = np.random.default_rng(seed)
    parts = [_drawn(kinds, rng) for kinds in mixed_stations(labels, stations).values()]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)


def _drawn(kinds: Sequence[Indices], rng: np.random.Generator) -> Indices:
    least = min(len(kind) for kind in kinds)
    return np.sort(np.concatenate([rng.choice(kind, least, replace=False) for kind in kinds]))


class Sampler:
    """Draws the objects of batches.

    Args:
        sampling: the plan's.
        labels: ``[N]`` class of each object, 0 or 1.
        stations: of each.
        seed: of fixed sets and of the order in which they are shown.

    Raises:
        UserError: a class is missing, or no station holds both classes where stations are balanced.
    """

    def __init__(
        self, sampling: Sampling, labels: NDArray[np.int64], stations: Sequence[str], seed: int
    ) -> None:
        self.sampling, self.seed = sampling, seed
        self.kinds = [np.flatnonzero(labels == label) for label in (0, 1)]
        if not all(map(len, self.kinds)):
            raise UserError(
                "a class has no training object",
                found=f"{len(self.kinds[0])} and {len(self.kinds[1])}",
                expected="objects of both classes in every fold",
            )
        self.mixed = mixed_stations(labels, stations)
        if sampling.startswith("location") and not self.mixed:
            raise UserError(
                "no station holds nodes of both classes, so stations cannot be balanced",
                found=", ".join(sorted(set(stations))),
                remedy="Use -o plan_cfg.sampling=status, or add stations to the JSON of the cases",
            )
        self.pool = {
            "status_set": lambda: status_set(labels, seed),
            "location_set": lambda: location_set(labels, stations, seed),
        }.get(sampling, lambda: np.flatnonzero(labels >= 0))()

    def draw(self, step: int, size: int, rng: np.random.Generator) -> Indices:
        """Indices ``[size]`` of the objects of batch ``step``; ``rng`` is that of the batch."""
        if self.sampling in ("status", "location"):
            return self._pairs(size, rng)
        positions = np.arange(step * size, (step + 1) * size)  # of the endless row of epochs
        epochs, places = np.divmod(positions, len(self.pool))
        orders = {
            e: np.random.default_rng((self.seed, int(e))).permutation(self.pool) for e in set(epochs.tolist())
        }
        return np.array([orders[int(e)][place] for e, place in zip(epochs, places, strict=True)])

    def _pairs(self, size: int, rng: np.random.Generator) -> Indices:
        """A negative and a positive object in turn; of one station where stations are balanced."""
        groups = (
            list(self.mixed.values()) if self.sampling == "location" else [(self.kinds[0], self.kinds[1])]
        )
        shares = np.array([len(positive) for _, positive in groups], dtype=float)
        chosen: list[int] = []
        for group in rng.choice(len(groups), -(-size // 2), p=shares / shares.sum()):
            chosen += [int(rng.choice(kind)) for kind in groups[int(group)]]
        return np.array(chosen[:size])

    @property
    def balanced_size(self) -> int:
        """Objects of an epoch: of the fixed set, or of the one that is as balanced as the draws."""
        if self.sampling == "location":
            return 2 * sum(min(len(negative), len(positive)) for negative, positive in self.mixed.values())
        return 2 * min(map(len, self.kinds)) if self.sampling == "status" else len(self.pool)
