"""The table of a sweep folded onto two axes: the best value over everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.report.texts import count

JOINT_PHASE, FILTER_PHASE, VOTING_PHASE, SEARCH_PHASE = 0, 1, 2, 3
_TOGETHER = (JOINT_PHASE, SEARCH_PHASE)  # all thresholds at once


@dataclass(frozen=True)
class Landscape:
    """A heat map.

    Attributes:
        row_name: what the rows are.
        row_labels: texts.
        column_name: what the columns are.
        column_labels: texts.
        values: ``[rows, columns]`` best value of the criterion, NaN where nothing was tried.
        chosen: (row, column) of the chosen setting, None when it lies outside the map.
        caption: what it shows.
        chosen_text: where the chosen setting lies, in words.
    """

    row_name: str
    row_labels: list[str]
    column_name: str
    column_labels: list[str]
    values: NDArray[np.float64]
    chosen: tuple[int, int] | None
    caption: str
    chosen_text: str


def voting_landscape(sweep: Mapping[str, Any]) -> Landscape | None:
    """Vote IoU x votes needed; None when there was nothing to vote."""
    best = sweep["best"]
    folded = fold_rows(sweep, VOTING_PHASE, "min_votes", "vote_iou")
    if not folded:
        return None
    values, rows, columns = _as_grid(folded)
    chosen = _cell(rows, columns, best["min_votes"], best["vote_iou"])
    text = ""
    if chosen is not None:
        text = f"Chosen (red frame): {count(best['min_votes'], 'vote')} at IoU {best['vote_iou']:g}."
    return Landscape(
        "votes needed",
        [f"{v:g}" for v in rows],
        "voting overlap (IoU)",
        [f"{v:g}" for v in columns],
        values,
        chosen,
        f"Voting: best value over all {'filters and ' if is_joint(sweep) else ''}score thresholds"
        f"{'' if is_joint(sweep) else ', behind the chosen filters'}.",
        text,
    )


def overlap_landscape(sweep: Mapping[str, Any]) -> Landscape | None:
    """Suppression x fold overlap; None where neither was tuned, as for detectors on slices."""
    columns = list(sweep["columns"])
    if not {"nms_iou", "fold_iou"} <= set(columns) or not is_joint(sweep):
        return None
    folded = fold_rows(sweep, FILTER_PHASE, "nms_iou", "fold_iou")
    if len(folded) < 2:
        return None
    best = sweep["best"]
    values, rows, columns = _as_grid(folded)
    chosen = _cell(rows, columns, best["nms_iou"], best["fold_iou"])
    return Landscape(
        "suppression overlap (IoU)",
        [f"{v:g}" for v in rows],
        "fold overlap (IoU)",
        [f"{v:g}" for v in columns],
        values,
        chosen,
        "Overlaps: best value over all filters and score thresholds.",
        f"Chosen (red frame): suppression at {best['nms_iou']:g}, folds fused at {best['fold_iou']:g}.",
    )


def hu_landscape(sweep: Mapping[str, Any]) -> Landscape | None:
    """HU threshold x quantile; None when no HU filter was tried. "Off" has no place in it: see the text."""
    best = sweep["best"]
    folded = fold_rows(sweep, FILTER_PHASE, "hu_quantile", "hu_threshold")
    filled = {key: value for key, value in folded.items() if key[1] is not None}
    if not filled:
        return None
    values, rows, columns = _as_grid(filled)
    chosen = _cell(rows, columns, best["hu_quantile"], best["hu_threshold"])
    off = max((value for key, value in folded.items() if key[1] is None), default=None)
    without = "" if off is None else f" Without HU filter the best value is {off:.3f}."
    text = "Chosen: HU filter off."
    if chosen is not None:
        text = f"Chosen (red frame): {best['hu_threshold']:g} HU at quantile {best['hu_quantile']:g}."
    return Landscape(
        "quantile of the HU in a box",
        [f"{v:g}" for v in rows],
        "highest HU that is kept",
        [f"{v:g}" for v in columns],
        values,
        chosen,
        f"HU filter: best value over all zone filters{', votes' if is_joint(sweep) else ''} and score thresholds"
        f"{'' if is_joint(sweep) else ', mean of the windows, each alone'}.{without}",
        text,
    )


def zone_values(sweep: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Best value at each setting of the zone filter ("off" first), and the name of the chosen one."""
    folded = fold_rows(sweep, FILTER_PHASE, "zone_mm", "zone_mm")
    order = sorted(folded, key=lambda key: -1.0 if key[0] is None else key[0])
    return {_zone_name(key[0]): folded[key] for key in order}, _zone_name(sweep["best"]["zone_mm"])


def is_joint(sweep: Mapping[str, Any]) -> bool:
    """Whether all thresholds were tuned together."""
    return bool(sweep["rows"]) and sweep["rows"][0][list(sweep["columns"]).index("phase")] in _TOGETHER


def fold_rows(sweep: Mapping[str, Any], phase: int, first: str, second: str) -> dict[tuple[Any, Any], float]:
    """(value of ``first``, value of ``second``) to the best value of the criterion in the rows of ``phase``.

    Rows that hold all thresholds belong to every phase: a joint sweep keeps the best setting of every pair of values.
    """
    place = {name: index for index, name in enumerate(sweep["columns"])}
    folded: dict[tuple[Any, Any], float] = {}
    for row in sweep["rows"]:
        if row[place["phase"]] in (phase, *_TOGETHER) and None not in _voted(row, place, phase):
            key = (row[place[first]], row[place[second]])
            folded[key] = max(folded.get(key, -np.inf), row[place["value"]])
    return folded


def _voted(row: Sequence[Any], place: Mapping[str, int], phase: int) -> tuple[Any, ...]:
    """What a row of the vote must have: a joint sweep of one window has none."""
    return (row[place["vote_iou"]], row[place["min_votes"]]) if phase == VOTING_PHASE else ()


def _zone_name(zone: float | None) -> str:
    return "off" if zone is None else f"{zone:.3g}"


def _as_grid(
    folded: Mapping[tuple[Any, Any], float],
) -> tuple[NDArray[np.float64], list[float], list[float]]:
    rows = sorted({key[0] for key in folded})
    columns = sorted({key[1] for key in folded})
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), value in folded.items():
        values[rows.index(row), columns.index(column)] = value
    return values, rows, columns


def _cell(
    rows: Sequence[float], columns: Sequence[float], row: float | None, column: float | None
) -> tuple[int, int] | None:
    if row is None or column is None or row not in rows or column not in columns:
        return None
    return list(rows).index(row), list(columns).index(column)
