"""Scores of a part of the lesions: by short axis, by class, by station, by distance to the CTV.

Only lesions can be told apart by what is true of them; a false positive belongs to no stratum. So in every stratum the
sensitivity is that of its own lesions against the false positives of **all** cases and classes (a class: of that
class), and a prediction that claims a lesion of another stratum counts neither way. Hits are IoU 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.draws import drawn_curves, drawn_share
from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve
from nndet_psma.evaluation.detection.paper_protocol import SliceTable
from nndet_psma.evaluation.detection.ranking import DetectionColumns, RankedDetections
from nndet_psma.evaluation.detection.record import LesionRecord
from nndet_psma.evaluation.detection.score import Score, scored
from nndet_psma.evaluation.statistics.resampling import Resampling

STRATUM_RULE = "0.10"
UNKNOWN = "unknown"

_EMPTY = "there are no lesions"


@dataclass(frozen=True)
class Stratum:
    """Scores of the lesions of one stratum.

    Attributes:
        group: ``short_axis_mm``, ``class``, ``station`` or ``outside_ctv_mm``.
        name: such as ``5 to <8``.
        lesions: how many.
        found: those claimed by a prediction of any score.
        sensitivity: found / lesions.
        froc: mean of ``sensitivity_at_fp``.
        sensitivity_at_fp: false positives per case (``0.125`` .. ``8``) to sensitivity.
        paper_sensitivity: lesions with a hit slice among the accepted boxes; undefined without slice-wise detections.
    """

    group: str
    name: str
    lesions: int
    found: int
    sensitivity: Score
    froc: Score
    sensitivity_at_fp: dict[str, Score]
    paper_sensitivity: Score


def short_axis_stratum(lesion: LesionRecord) -> str:
    """Below 5, 5 to below 8, 8 to 10, above 10 mm."""
    size = lesion.short_axis_mm
    if size is None:
        return UNKNOWN
    if size < 5:
        return "<5"
    if size < 8:
        return "5 to <8"
    return "8 to 10" if size <= 10 else ">10"


def ctv_stratum(lesion: LesionRecord) -> str:
    """How far the lesion reaches out of the CTV: not at all, up to 5 mm, further."""
    outside = lesion.outside_ctv_mm
    if outside is None:
        return UNKNOWN
    if outside <= 0:
        return "inside"
    return "0 to 5" if outside <= 5 else ">5"


def strata_scores(
    columns: DetectionColumns,
    slices: SliceTable | None,
    classes: Sequence[str],
    resampling: Resampling,
) -> tuple[Stratum, ...]:
    """Every stratum that holds a lesion; a group in which nothing is known is left out.

    Args:
        columns: predictions and lesions.
        slices: slice-wise part; None when a record has none.
        classes: name of each class index.
        resampling: draws of patients.
    """
    found = []
    for group, name, chosen, label in _strata(columns, classes):
        ranked = columns.rank([STRATUM_RULE], label=label, lesions=chosen)[0]
        found.append(_stratum(group, name, ranked, slices, chosen, resampling))
    return tuple(found)


_Chosen = NDArray[np.bool_]


def _strata(
    columns: DetectionColumns, classes: Sequence[str]
) -> Iterator[tuple[str, str, _Chosen, int | None]]:
    lesions = [lesion for record in columns.records for lesion in record.lesions]
    for group, names, order in (
        ("short_axis_mm", [short_axis_stratum(lesion) for lesion in lesions], _SIZES),
        ("outside_ctv_mm", [ctv_stratum(lesion) for lesion in lesions], _DISTANCES),
        ("station", [lesion.station or UNKNOWN for lesion in lesions], None),
    ):
        known = set(names) - {UNKNOWN}
        for name in [*(order or sorted(known)), UNKNOWN] if known else []:
            chosen = np.array([each == name for each in names], dtype=bool)
            if chosen.any():
                yield group, name, chosen, None
    for label, name in enumerate(classes if len(classes) > 1 else []):
        chosen = columns.lesion_labels == label
        if chosen.any():
            yield "class", name, chosen, label


_SIZES = ("<5", "5 to <8", "8 to 10", ">10")
_DISTANCES = ("inside", "0 to 5", ">5")


def _stratum(
    group: str,
    name: str,
    ranked: RankedDetections,
    slices: SliceTable | None,
    chosen: _Chosen,
    resampling: Resampling,
) -> Stratum:
    curve = froc_curve(ranked)
    values = np.full(len(FP_RATES), np.nan) if curve is None else curve.sensitivity_at()
    drawn = drawn_curves([ranked], resampling.weights)[0].sensitivities
    lesions, found = int(ranked.lesions_per_case.sum()), int(ranked.hits.sum())
    hits = np.zeros(lesions, dtype=bool)
    hits[:found] = True  # which of them does not matter, only in which case
    missed = ranked.lesions_per_case - np.bincount(
        ranked.cases[ranked.hits], minlength=len(ranked.lesions_per_case)
    )
    cases = np.append(ranked.cases[ranked.hits], np.repeat(np.arange(len(missed)), missed)).astype(np.int64)
    return Stratum(
        group,
        name,
        lesions,
        found,
        scored(found / lesions, drawn_share(hits, cases, resampling.weights), resampling, _EMPTY),
        scored(float(values.mean()), drawn.mean(axis=1), resampling, _EMPTY),
        {
            f"{rate:g}": scored(float(values[place]), drawn[:, place], resampling, _EMPTY)
            for place, rate in enumerate(FP_RATES)
        },
        _paper_sensitivity(slices, chosen, resampling),
    )


def _paper_sensitivity(slices: SliceTable | None, chosen: _Chosen, resampling: Resampling) -> Score:
    if slices is None:
        return Score(None, None, None, why="there are cases without slice-wise detections")
    hit, cases = slices.lesion_hit[chosen], slices.lesion_cases[chosen]
    return scored(float(hit.mean()), drawn_share(hit, cases, resampling.weights), resampling, _EMPTY)
