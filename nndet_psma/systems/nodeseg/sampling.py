"""Training of node segmentation as far as no host is needed: settings, loss, and where patches are centred."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain
from nndet_psma.systems.nodeseg.plan import SegmentationTraining

TRAINER = "nnUNetTrainerNodeSeg"
"""Name of the trainer; stands in checkpoints, so it never changes."""

PLANS_KEY = "nodeseg"
"""Key of our settings in nnU-Net's plans."""

SETTINGS_VARIABLE = "NNDET_PSMA_NODESEG"
"""Environment variable with JSON that overrides single settings of the plans for one training."""

VALIDATION_VARIABLE = "NNDET_PSMA_NODESEG_VALIDATION"
"""Environment variable: 0 leaves out nnU-Net's own prediction of the validation cases behind the training."""

_MOST_CENTRES = 10000  # per case and class, as nnU-Net keeps
_SMOOTH = 1e-5


def training_settings(plans: Mapping[str, Any], environment: Mapping[str, str]) -> SegmentationTraining:
    """Settings in nnU-Net's plans, single ones overridden by the variable :data:`SETTINGS_VARIABLE`.

    Plans of nnU-Net's own planners hold none: the defaults are nnU-Net's.

    Raises:
        UserError: the variable is no JSON object, or a setting is unknown or out of range.
    """
    text = environment.get(SETTINGS_VARIABLE, "").strip()
    try:
        changes = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise UserError(
            f"{SETTINGS_VARIABLE} is no JSON ({error})", expected='such as {"epochs": 5}', found=text
        ) from None
    if not isinstance(changes, dict):
        raise UserError(f"{SETTINGS_VARIABLE} is no JSON object", expected='{"epochs": 5}', found=text)
    try:
        return from_plain(SegmentationTraining, {**plans.get(PLANS_KEY, {}), **changes})
    except (SchemaError, ValueError) as error:
        raise UserError(f"settings of {TRAINER}: {error}", remedy=f"Correct {SETTINGS_VARIABLE}") from None


class TverskyLoss(nn.Module):
    """Minus the mean Tversky index of the classes but the background, to take the place of nnU-Net's Dice.

    The index is TP / (TP + alpha FP + beta FN) of soft counts; alpha = beta = 1/2 is Dice. A weight of misses above
    that of false alarms suits nodes, which are small (Salehi et al. 2017, cited by dwi2022).

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        batch: count over the whole batch instead of image by image.
        smooth: added to numerator and denominator.
        gather: sums counts over processes; None without.
    """

    def __init__(
        self,
        alpha: float,
        beta: float,
        *,
        batch: bool = False,
        smooth: float = _SMOOTH,
        gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.batch, self.smooth, self.gather = batch, smooth, gather

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, loss_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of logits ``[B, C, ...]`` against labels ``[B, 1, ...]``; voxels of ``loss_mask`` 0 do not count."""
        probability = torch.softmax(x, 1)[:, 1:]
        truth = torch.zeros_like(x).scatter_(1, y.long(), 1)[:, 1:]
        if loss_mask is not None:
            probability, truth = probability * loss_mask, truth * loss_mask
        axes = tuple(range(2, x.ndim))
        hit = (probability * truth).sum(axes)
        false = probability.sum(axes) - hit
        missed = truth.sum(axes) - hit
        if self.batch:
            hit, false, missed = (self._over_batch(count) for count in (hit, false, missed))
        index = (hit + self.smooth) / (hit + self.alpha * false + self.beta * missed + self.smooth)
        return -index.mean()

    def _over_batch(self, count: torch.Tensor) -> torch.Tensor:
        return (count if self.gather is None else self.gather(count)).sum(0)


class Dataset(Protocol):
    """What nnU-Net's data loader asks of a data set."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image, labels ``[1, z, y, x]``, labels of an earlier stage, properties with ``class_locations``."""
        ...


class BalancedNodes:
    """A data set of nnU-Net whose patches are centred on every node, and drawn from cases with nodes, often enough.

    nnU-Net centres a patch on a random voxel of a class, so a node of 20 mm draws a thousand times as many patches
    as one of 2 mm.

    Args:
        dataset: of nnU-Net.
        balance: 1 centres on every node equally often, 0 as nnU-Net.
        case_share: least share of draws that take a case with a node.
    """

    def __init__(self, dataset: Dataset, balance: float, case_share: float) -> None:
        self._dataset = dataset
        self._balance = balance
        self._centres: dict[str, dict[Any, Any]] = {}
        self.identifiers = list(dataset.identifiers)
        if case_share > 0:
            self.identifiers = repeated_cases(self.identifiers, self._positive(), case_share)

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As nnU-Net's, with centres of patches by node in ``class_locations``."""
        data, seg, previous, properties = self._dataset.load_case(identifier)
        if self._balance > 0:
            if identifier not in self._centres:
                locations = properties["class_locations"]
                self._centres[identifier] = balanced_centres(np.asarray(seg[:]), locations, self._balance)
            properties = {**properties, "class_locations": self._centres[identifier]}
        return data, seg, previous, properties

    def _positive(self) -> set[str]:
        """Cases with a node."""
        found = set()
        for name in self.identifiers:
            locations = self._dataset.load_case(name)[3]["class_locations"]
            if any(len(voxels) for voxels in locations.values()):
                found.add(name)
        return found


def repeated_cases(names: Sequence[str], positive: set[str], share: float) -> list[str]:
    """Names with those in ``positive`` repeated until uniform draws take one of them with at least ``share``.

    Unchanged where there are no positive cases, or enough.
    """
    inside = [name for name in names if name in positive]
    others = len(names) - len(inside)
    if not inside:
        return list(names)
    times = 1
    while times * len(inside) < share * (times * len(inside) + others):
        times += 1
    return [name for name in names for _ in range(times if name in positive else 1)]


def balanced_centres(
    seg: NDArray[Any], locations: Mapping[Any, Any], balance: float
) -> dict[Any, NDArray[np.int64]]:
    """Centres of patches of each class, nodes weighted by their volume to the power ``1 - balance``.

    Deterministic: of every node evenly spaced voxels, some of them repeatedly where a small node weighs much.

    Args:
        seg: labels ``[1, z, y, x]``, -1 outside.
        locations: nnU-Net's centres by class ``[N, 4]`` (leading 0); keys that are no single class stay as they are.
        balance: 1 all nodes alike, 0 all voxels alike.
    """
    found = {}
    for label, voxels in locations.items():
        single = isinstance(label, int | np.integer) and len(voxels)
        found[label] = _centres_of(seg[0] == label, balance) if single else voxels
    return found


@dataclass(frozen=True)
class _Nodes:
    """Voxels ``[N, 3]`` sorted by node, and how many each node has."""

    voxels: NDArray[np.int64]
    sizes: NDArray[np.int64]


def _centres_of(mask: NDArray[np.bool_], balance: float) -> NDArray[np.int64]:
    nodes = _nodes(mask)
    weight = nodes.sizes.astype(np.float64) ** (1 - balance)
    rows = min(_MOST_CENTRES, int(nodes.sizes.sum()))
    wanted = np.maximum(1, np.rint(weight / weight.sum() * rows)).astype(np.int64)
    starts = np.cumsum(nodes.sizes) - nodes.sizes
    picks = [
        start + np.arange(count) * size // count if count <= size else start + np.arange(count) % size
        for start, size, count in zip(starts, nodes.sizes, wanted, strict=True)
    ]
    chosen = nodes.voxels[np.concatenate(picks)]
    return np.concatenate([np.zeros((len(chosen), 1), dtype=np.int64), chosen], axis=1)


def _nodes(mask: NDArray[np.bool_]) -> _Nodes:
    ids, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    voxels = np.argwhere(mask)
    of_voxel = ids[tuple(voxels.T)]
    order = np.argsort(of_voxel, kind="stable")
    return _Nodes(voxels[order], np.bincount(of_voxel, minlength=count + 1)[1:])
