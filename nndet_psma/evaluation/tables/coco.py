"""Average precision and recall of 2D boxes as COCO's own evaluation computes them, for its JSON files.

IoU 0.50, 0.55 .. 0.95; precision read at the recalls 0, 0.01 .. 1; mean over classes that have boxes. A crowd region
and, in the scores by size, a box of another size count neither way; the IoU with a crowd is the intersection over the
*prediction*. At most 100 predictions of an image and class. Matching is that of
:mod:`nndet_psma.evaluation.detection.matching`; of lesions that overlap a prediction exactly equally COCO takes the
last, this one the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_volumes, pairwise_intersection
from nndet_psma.evaluation.detection.average_precision import mean_of_defined
from nndet_psma.evaluation.detection.matching import claim_at_each

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
ELEVEN = 10  # steps between the recalls 0, 0.1 .. 1
MOST = (1, 10, 100)
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class CocoImage:
    """Boxes of one class on one image.

    Attributes:
        truth: ``[L, 4]`` voxel edges.
        areas: ``[L]`` area of each object, which may be smaller than its box.
        crowd: ``[L]`` region of many.
        found: ``[P, 4]``.
        scores: ``[P]``.
    """

    truth: Boxes
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    found: Boxes
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class _Judged:
    """Predictions of one image and size, best first: scores ``[P]``, hits and ignored ``[T, P]``; boxes that count."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    lesions: int


def coco_scores(classes: Mapping[int, Sequence[CocoImage]]) -> dict[str, float | None]:
    """``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``, ``AR1``, ``AR10``, ``AR100``, ``ARs``, ``ARm``, ``ARl``.

    Args:
        classes: class to its images, in the order of the image numbers.

    Returns:
        Values in [0, 1]; None where there is nothing to find.
    """
    judged = {
        size: {label: [_judge(image, limits, IOUS) for image in images] for label, images in classes.items()}
        for size, limits in SIZES.items()
    }
    every = {(size, MOST[-1]): _curves(by_class, MOST[-1]) for size, by_class in judged.items()}
    every |= {("all", most): _curves(judged["all"], most) for most in MOST[:-1]}
    precision = every["all", MOST[-1]][0]
    scores = {
        "AP": _mean(precision),
        "AP50": _mean(precision[:, :1]),
        "AP75": _mean(precision[:, 5:6]),
    }
    scores |= {f"AP{size[0]}": _mean(every[size, MOST[-1]][0]) for size in ("small", "medium", "large")}
    scores |= {f"AR{most}": _mean(every["all", most][1]) for most in MOST}
    scores |= {f"AR{size[0]}": _mean(every[size, MOST[-1]][1]) for size in ("small", "medium", "large")}
    return scores


def precision_averages(
    classes: Mapping[int, Sequence[CocoImage]], iou: float, names: Sequence[str]
) -> dict[str, object]:
    """Average precision at one IoU: ``ap_all_points`` and ``ap_11_points``, means over classes, and ``classes``.

    Precision at a recall is the highest one at this or any higher recall (0 where none reaches it). All points: the
    area under that curve; eleven points: its mean at the recalls 0, 0.1 .. 1, as PASCAL VOC had it until 2009
    (Everingham 2010, Int J Comput Vis 88:303). Matching, crowds and the limit of 100 are those of :func:`coco_scores`;
    recalls are compared in integers, which its rounded fractions may miss by one prediction.

    Args:
        classes: class to its images, in the order of the image numbers.
        iou: smallest IoU of a hit, in (0, 1].
        names: of the classes.

    Returns:
        Values in [0, 1]; None where there is nothing to find.
    """
    kinds = ("ap_all_points", "ap_11_points")
    found: dict[str, dict[str, float | None]] = {}
    for name, images in zip(names, classes.values(), strict=True):
        judged = [_judge(image, SIZES["all"], np.array([iou])) for image in images]
        found[name] = dict(zip(kinds, _averages(judged), strict=True))
    means = {kind: mean_of_defined(each[kind] for each in found.values()) for kind in kinds}
    return {**means, "classes": found}


def _averages(images: Sequence[_Judged]) -> tuple[float | None, float | None]:
    lesions = sum(image.lesions for image in images)
    if lesions == 0:
        return None, None
    hits, ignored = _ranked(images, MOST[-1])
    counted = hits[0][~ignored[0]]
    tp = np.cumsum(counted)
    envelope = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
    reached = np.searchsorted(ELEVEN * tp, np.arange(ELEVEN + 1) * lesions, side="left")
    return (
        float(envelope[counted].sum() / lesions),
        float(envelope[reached[reached < len(tp)]].sum() / (ELEVEN + 1)),
    )


def _judge(image: CocoImage, limits: tuple[float, float], ious: NDArray[np.float64]) -> _Judged:
    order = np.argsort(-image.scores, kind="stable")[: MOST[-1]]
    found, scores = image.found[order], image.scores[order]
    small, large = limits
    ignored = image.crowd | (image.areas < small) | (image.areas > large)
    claims = claim_at_each(_overlaps(image, found), scores, ious.tolist(), ignored=ignored, crowd=image.crowd)
    sizes = box_volumes(found)
    outside = (sizes < small) | (sizes > large)
    claimed = claims >= 0
    on_ignored = claimed & np.append(ignored, False)[claims]  # -1 reads the appended value
    return _Judged(
        scores, claimed & ~on_ignored, on_ignored | (~claimed & outside[None]), int((~ignored).sum())
    )


def _overlaps(image: CocoImage, found: Boxes) -> NDArray[np.float64]:
    shared = pairwise_intersection(found, image.truth)
    own = box_volumes(found)[:, None]
    whole = np.where(image.crowd[None], own, own + box_volumes(image.truth)[None] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _curves(
    by_class: Mapping[int, Sequence[_Judged]], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean precision over the recalls and final recall, ``[K, T]`` each, of the classes that have boxes."""
    rows = [_class_curves(images, most) for images in by_class.values()]
    defined = [row for row in rows if row is not None]
    if not defined:
        return np.zeros((0, len(IOUS))), np.zeros((0, len(IOUS)))
    return np.stack([row[0] for row in defined]), np.stack([row[1] for row in defined])


def _class_curves(
    images: Sequence[_Judged], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    lesions = sum(image.lesions for image in images)
    if lesions == 0:
        return None
    hits, ignored = _ranked(images, most)
    tp = np.cumsum(hits, axis=1)
    fp = np.cumsum(~hits & ~ignored, axis=1)
    precisions, recalls = np.zeros(len(IOUS)), np.zeros(len(IOUS))
    for row in range(len(IOUS) if tp.shape[1] else 0):
        precision = tp[row] / np.maximum(tp[row] + fp[row], np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(tp[row] / lesions, RECALLS, side="left")
        precisions[row] = envelope[reached[reached < len(envelope)]].sum() / len(RECALLS)
        recalls[row] = tp[row, -1] / lesions
    return precisions, recalls


def _ranked(images: Sequence[_Judged], most: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hits and ignored ``[T, P]`` of all images, best score first."""
    order = np.argsort(-np.concatenate([image.scores[:most] for image in images]), kind="stable")
    hits = np.concatenate([image.hits[:, :most] for image in images], axis=1)[:, order]
    return hits, np.concatenate([image.ignored[:, :most] for image in images], axis=1)[:, order]


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None
