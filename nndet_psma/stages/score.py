"""Stage score: tables and COCO files from elsewhere, so that published results can be recomputed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import read_json
from nndet_psma.core.csv_table import CsvTable, read_names, read_table
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.statistics.reader_study import study_scores
from nndet_psma.evaluation.tables.coco import CocoImage, coco_scores
from nndet_psma.evaluation.tables.luna import Marks, luna_ranking, luna_scores
from nndet_psma.evaluation.tables.points import PointSet, score_points

_ONLY_CASE = ""


def score_froc(
    truth: Path,
    predictions: Path,
    *,
    cases: Path | None = None,
    excluded: Path | None = None,
    radius_mm: float | None = None,
    max_per_case: int | None = None,
) -> dict[str, object]:
    """FROC of tables in LUNA16's form; rules in :mod:`nndet_psma.evaluation.tables.luna`.

    Args:
        truth: columns seriesuid, coordX, coordY, coordZ, and diameter_mm unless a radius is given.
        predictions: seriesuid, coordX, coordY, coordZ, probability.
        cases: all scans that count (column seriesuid, or a plain list); None takes those of the other tables.
        excluded: findings that count neither way, columns as ``truth``.
        radius_mm: radius of a hit; None takes half of each diameter.
        max_per_case: only so many best candidates of a scan.

    Raises:
        UserError: a table is malformed.
    """
    parts = [_findings(truth, radius_mm), _findings(excluded, radius_mm), _candidates(predictions)]
    listed = (
        [case for part in parts for case in part.cases] if cases is None else read_names(cases, "seriesuid")
    )
    ranked = luna_ranking(
        parts[0],
        parts[2],
        list(dict.fromkeys(listed)),
        excluded=parts[1],
        radius_mm=radius_mm,
        max_per_case=max_per_case,
    )
    return luna_scores(ranked)


def score_roc(table: Path, label: str, score: str, other: str | None = None) -> dict[str, object]:
    """Scores of a yes-or-no question; see :func:`nndet_psma.evaluation.statistics.reader_study.study_scores`.

    Args:
        table: one row per patient, or whatever is judged.
        label: column of the truth, 0 and 1.
        score: column of the score, or of the decision (0 and 1).
        other: second score column, compared with the first.

    Raises:
        UserError: the table is malformed.
    """
    content = read_table(table)
    second = None if other is None else _scores(content, other)
    return study_scores(content.truths(label), _scores(content, score), second)


def score_point_tables(truth: Path, predictions: Path, radius: float) -> dict[str, int]:
    """Counts of points within a radius: columns x, y, optional z, case and (predictions) score.

    Raises:
        UserError: a table is malformed, or only one of the two has a column z or case.
    """
    tables = [read_table(truth), read_table(predictions)]
    axes = ["x", "y"] + [name for name in ("z",) if _in_both(tables, name)]
    by_case = _in_both(tables, "case")
    cases = [table.texts("case") if by_case else [_ONLY_CASE] * len(table) for table in tables]
    places = [table.numbers(*axes) for table in tables]
    scores = tables[1].numbers("score") if tables[1].has("score") else None
    return score_points(PointSet(cases[0], places[0]), PointSet(cases[1], places[1], scores), radius)


def score_coco(truth: Path, predictions: Path) -> dict[str, float | None]:
    """Average precision and recall of COCO files: ground truth, and a list of results.

    Raises:
        UserError: a file is malformed, or a result is of an image that the truth does not have.
    """
    content = read_json(truth)
    if not isinstance(content, dict):
        raise UserError("no COCO ground truth", file=truth, expected="an object with images and annotations")
    numbers = _numbers(content, "images", truth)
    places = {
        number: place for place, number in enumerate(sorted(numbers, key=lambda n: (isinstance(n, str), n)))
    }
    labels = _numbers(content, "categories", truth)
    annotations = _boxes(content.get("annotations"), "annotations", truth, places, scored=False)
    results = read_json(predictions)
    if isinstance(results, dict):
        results = results.get("annotations")
    found = _boxes(results, "results", predictions, places, scored=True)
    return coco_scores(_by_class(labels, places, annotations, found))


def _findings(file: Path | None, radius_mm: float | None) -> Marks:
    if file is None:
        return Marks.none()
    table = read_table(file)
    diameters = np.zeros(len(table)) if radius_mm is not None else table.numbers("diameter_mm")
    return Marks(table.texts("seriesuid"), table.numbers("coordX", "coordY", "coordZ"), diameters)


def _candidates(file: Path) -> Marks:
    table = read_table(file)
    return Marks(
        table.texts("seriesuid"), table.numbers("coordX", "coordY", "coordZ"), table.numbers("probability")
    )


def _scores(table: CsvTable, column: str) -> NDArray[np.float64]:
    try:
        return table.numbers(column)
    except UserError:
        with suppress(UserError):  # neither: what was said of the numbers stands
            return table.truths(column).astype(np.float64)  # true and false
        raise


def _in_both(tables: Sequence[CsvTable], column: str) -> bool:
    have = [table.has(column) for table in tables]
    if any(have) and not all(have):
        with_it, without = tables[have.index(True)], tables[have.index(False)]
        raise UserError(
            f"line 1: no column '{column}', which {with_it.file.name} has",
            file=without.file,
            expected=f"a column '{column}' in both tables or in none",
            found=", ".join(without.header),
        )
    return all(have)


def _numbers(content: Mapping[str, Any], key: str, file: Path) -> list[int | str]:
    """The ``id`` of every entry of a list."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise UserError(
            f"no list '{key}'", file=file, expected="COCO ground truth: images, annotations, categories"
        )
    numbers = [_entry(entry, ("id",), f"{key}[{i}]", file)["id"] for i, entry in enumerate(entries)]
    for index, number in enumerate(numbers):
        if not isinstance(number, int | str):
            raise UserError(
                f"{key}[{index}]", file=file, expected="a number or a name as id", found=repr(number)
            )
    return numbers


def _entry(entry: Any, keys: Sequence[str], name: str, file: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{name} is no object", file=file, expected=f"an object with {', '.join(keys)}")
    for key in keys:
        if key not in entry:
            raise UserError(f"{name} has no '{key}'", file=file, expected=f"an object with {', '.join(keys)}")
    return entry


def _boxes(
    entries: Any, name: str, file: Path, places: Mapping[Any, int], *, scored: bool
) -> list[dict[str, Any]]:
    if not isinstance(entries, list):
        raise UserError(f"no list of {name}", file=file, expected="COCO's list of boxes")
    keys = ("image_id", "category_id", "bbox", *(("score",) if scored else ()))
    for index, entry in enumerate(entries):
        row = _entry(entry, keys, f"{name}[{index}]", file)
        area = [row["area"]] if row.get("area") is not None else []
        numbers = [*row["bbox"], *([row["score"]] if scored else [])] if isinstance(row["bbox"], list) else []
        if len(numbers) != 4 + scored or not all(map(_is_number, numbers + area)):
            raise UserError(
                f"{name}[{index}]",
                file=file,
                expected="a bbox of four numbers (x, y, width, height)" + (" and a score" if scored else ""),
                found=f"{row['bbox']}" + (f" and {row['score']!r}" if scored else ""),
            )
        if not all(isinstance(row[key], int | str) for key in keys[:2]) or row["image_id"] not in places:
            raise UserError(
                f"{name}[{index}]",
                file=file,
                expected="an image of the truth and a category, by id",
                found=f"image_id {row['image_id']!r}",
            )
    return entries


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_class(
    labels: Sequence[int | str],
    places: Mapping[Any, int],
    annotations: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
) -> dict[int, list[CocoImage]]:
    """Images that have boxes of a class, by class; classes that the truth does not name are left out, as COCO does."""
    rows: dict[Any, dict[int, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]]] = {
        label: {} for label in labels
    }
    for side, entries in enumerate((annotations, results)):
        for entry in entries:
            if entry["category_id"] in rows:
                image = rows[entry["category_id"]].setdefault(places[entry["image_id"]], ([], []))
                image[side].append(entry)
    return {
        number: [_image(*by_image[place]) for place in sorted(by_image)]
        for number, by_image in enumerate(rows.values())
    }


def _image(truth: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> CocoImage:
    return CocoImage(
        truth=_edges(truth),
        areas=np.array([_area(row) for row in truth], dtype=np.float64),
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in truth], dtype=bool),
        found=_edges(found),
        scores=np.array([row["score"] for row in found], dtype=np.float64),
    )


def _area(row: Mapping[str, Any]) -> float:
    area = row.get("area")
    return float(row["bbox"][2] * row["bbox"][3] if area is None else area)


def _edges(entries: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    boxes = np.array([row["bbox"] for row in entries], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1)
