"""The evaluation protocol of Xu et al., Scientific Reports 13:1696 (2023): "Model evaluation" and table 4.

What the text says, and how it is read here:

* Sensitivity is "at the metastasis level": a model that locates one slice of a metastasis has hit it. =
  lesions with at least one hit slice / lesions.
* Precision is "defined as the slice level, which counts each slice of metastases captured by the detection
  box predictions". Read as: slice-wise predictions that hit a lesion / slice-wise predictions. The other
  reading (lesion slices captured / predictions) is lower where several boxes share a lesion slice and higher
  where one box covers two lesions.
* A hit: IoU of at least (``>=``) tau3 with the lesion's box on that very slice, same class. One to one is not
  asked for: two boxes on one lesion slice are two hits, and a box may hit two lesions.
* F1 is the harmonic mean of these two unlike quantities. In the last rows of table 4 each number is the best
  over its own tuning: F1 of 83.351 and 58.621 would be 68.8, not the 60.021 printed. Here all belong to one
  threshold.
* AUC is "image-based": the score of an image is the highest score of its predictions, 0 without one. An image
  is an axial slice, of all ``num_slices`` of a case; it is positive when it holds a lesion. The text does not
  say whether slices outside the search region count; leaving out such easy negatives would lower the AUC. An
  image counts as found whatever the box hits. A score that ranks must see everything that is ranked: the images are
  scored by all candidates (``auc``), not by the boxes that tuned thresholds and votes leave. Cut by those, most images
  tie at 0, and the area says how well the cut was chosen; it is kept beside (``auc_accepted``).

A prediction counts when its score is at least the threshold, which ``auc`` does not see. Metrics are per lesion, per
prediction and per image over all cases together, not averages over patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.detection.record import CaseRecord, SliceRecord
from nndet_psma.evaluation.statistics.auc import dense_ranks, rank_auc


@dataclass(frozen=True)
class PaperScores:
    """Scores of the protocol at one threshold.

    Attributes:
        sensitivity: lesions hit on any slice / lesions; None without lesions.
        precision: hitting slice predictions / slice predictions; None without predictions.
        f1: harmonic mean of the two; 0 when lesions are there and none is hit; None without lesions.
        auc: image-level area under the ROC curve of all candidates; None when all images are alike, or when a record
            does not hold its candidates.
        auc_accepted: the same of the counted slice predictions alone.
    """

    sensitivity: float | None
    precision: float | None
    f1: float | None
    auc: float | None
    auc_accepted: float | None


@dataclass(frozen=True)
class SliceTable:
    """Slice-wise facts of all cases at one score threshold; ``..._cases`` is the index of the case.

    Attributes:
        lesion_hit: ``[L]`` whether any counted prediction hits the lesion.
        lesion_cases: ``[L]``.
        prediction_hit: ``[P]`` whether the counted prediction hits a lesion.
        prediction_cases: ``[P]``.
        image_ranks: ``[I]`` rank of the image score by all candidates; None when a record does not hold them.
        accepted_ranks: ``[I]`` rank of the image score by the counted predictions.
        image_positive: ``[I]`` whether the slice holds a lesion.
        image_cases: ``[I]``.
    """

    lesion_hit: NDArray[np.bool_]
    lesion_cases: NDArray[np.int64]
    prediction_hit: NDArray[np.bool_]
    prediction_cases: NDArray[np.int64]
    image_ranks: NDArray[np.int64] | None
    accepted_ranks: NDArray[np.int64]
    image_positive: NDArray[np.bool_]
    image_cases: NDArray[np.int64]


def slice_table(records: Sequence[CaseRecord], *, threshold: float = 0.0) -> SliceTable | None:
    """Gather the slice-wise part of ``records``; None when a record has none.

    Args:
        records: cases.
        threshold: lowest score of a slice prediction that counts.
    """
    lesion_hit, prediction_hit, accepted, image_positive = [], [], [], []
    ranked: list[tuple[float, ...] | None] = []
    for record in records:
        if record.slices is None:
            return None
        lesions, predictions = _hits(record.slices, len(record.lesions), threshold)
        scores, positive = _images(record.slices, threshold)
        lesion_hit.append(lesions)
        prediction_hit.append(predictions)
        accepted.append(scores)
        image_positive.append(positive)
        ranked.append(record.slices.image_scores)
    return SliceTable(
        _join(lesion_hit, bool),
        _cases(lesion_hit),
        _join(prediction_hit, bool),
        _cases(prediction_hit),
        _image_ranks(ranked),
        dense_ranks(_join(accepted, np.float64)),
        _join(image_positive, bool),
        _cases(image_positive),
    )


def paper_scores(table: SliceTable, weights: Weights | None = None) -> PaperScores:
    """Scores of the protocol.

    Args:
        table: from :func:`slice_table`, which sets the threshold.
        weights: ``[C]`` how often each case counts.
    """
    sensitivity = _fraction(table.lesion_hit, table.lesion_cases, weights)
    precision = _fraction(table.prediction_hit, table.prediction_cases, weights)
    image_weights = None if weights is None else weights[table.image_cases]
    auc, accepted = (
        None if ranks is None else rank_auc(ranks, table.image_positive, image_weights)
        for ranks in (table.image_ranks, table.accepted_ranks)
    )
    return PaperScores(sensitivity, precision, _harmonic_mean(sensitivity, precision), auc, accepted)


def _image_ranks(scores: Sequence[tuple[float, ...] | None]) -> NDArray[np.int64] | None:
    known = [np.array(each) for each in scores if each is not None]
    return dense_ranks(_join(known, np.float64)) if len(known) == len(scores) else None


def _hits(
    slices: SliceRecord, num_lesions: int, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    counted = [prediction for prediction in slices.predictions if prediction.score >= threshold]
    lesion_hit = np.zeros(num_lesions, dtype=bool)
    lesion_hit[[lesion for prediction in counted for lesion in prediction.hits]] = True
    return lesion_hit, np.array([bool(prediction.hits) for prediction in counted], dtype=bool)


def _images(slices: SliceRecord, threshold: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.zeros(slices.num_slices)
    for prediction in slices.predictions:
        if prediction.score >= threshold:
            scores[prediction.slice_index] = max(scores[prediction.slice_index], prediction.score)
    positive = np.zeros(slices.num_slices, dtype=bool)
    positive[[truth.slice_index for truth in slices.truth]] = True
    return scores, positive


def _fraction(
    hit: NDArray[np.bool_], cases: NDArray[np.int64], weights: Weights | None = None
) -> float | None:
    times = np.ones(len(hit)) if weights is None else weights[cases]
    total = times.sum()
    return float((times * hit).sum() / total) if total else None


def _harmonic_mean(sensitivity: float | None, precision: float | None) -> float | None:
    if sensitivity is None:
        return None
    if precision is None or sensitivity + precision == 0:
        return 0.0
    return 2 * sensitivity * precision / (sensitivity + precision)


def _join(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype=dtype)


def _cases(parts: list[NDArray[Any]]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int64)
