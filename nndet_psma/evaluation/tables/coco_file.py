"""COCO's files: ground truth and a list of results, checked and sorted by class and image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import reach_outside
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.tables.coco import CocoImage
from nndet_psma.evaluation.tables.identifiers import Identifier, Named, Spelling, check_meeting, remedy_of


def read_coco(
    truth: Path, predictions: Path, spelling: Spelling
) -> tuple[dict[int, list[CocoImage]], list[str]]:
    """The images of every category, and the names of the categories.

    Args:
        truth: images, categories, annotations.
        predictions: list of results.
        spelling: how ids of images and categories are compared.

    Raises:
        UserError: a file is malformed, has a box of no size or outside its image, a result is of an image that the
            truth does not have, or no result of a category that it has.
    """
    content = read_json(truth)
    if not isinstance(content, dict):
        raise UserError("no COCO ground truth", file=truth, expected="an object with images and annotations")
    images = _numbers(content, "images", truth, spelling)
    shapes = dict(zip(images, map(_shape, content["images"]), strict=True))
    places = {
        number: place for place, number in enumerate(sorted(images, key=lambda n: (isinstance(n, str), n)))
    }
    labels = _numbers(content, "categories", truth, spelling)
    names = [str(entry.get("name", entry["id"])) for entry in content["categories"]]
    if len(set(names)) < len(names):
        names = [str(label) for label in labels]
    annotations = _boxes(content.get("annotations"), "annotations", truth, shapes, spelling, scored=False)
    _check_own_ids(annotations, truth)
    results = read_json(predictions)
    if isinstance(results, dict):
        results = results.get("annotations")
    found = _boxes(results, "results", predictions, shapes, spelling, scored=True)
    for file, rows in ((truth, annotations), (predictions, found)):
        given = Named(file, [row["category_id"] for row in rows])
        check_meeting(Named(truth, labels), given, "categories", all_known=False)
    return _by_class(labels, places, annotations, found), names


def _numbers(content: Mapping[str, Any], key: str, file: Path, spelling: Spelling) -> list[Identifier]:
    """The ``id`` of every entry of a list."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise UserError(
            f"no list '{key}'", file=file, expected="COCO ground truth: images, annotations, categories"
        )
    numbers = [_entry(entry, ("id",), f"{key}[{i}]", file)["id"] for i, entry in enumerate(entries)]
    seen: set[Identifier] = set()
    for index, number in enumerate(numbers):
        if not _is_identifier(number):
            raise UserError(
                f"{key}[{index}]", file=file, expected="a number or a name as id", found=repr(number)
            )
        if number in seen:
            raise UserError(
                f"{key}[{index}] has an id that another has",
                file=file,
                found=repr(number),
                remedy="Give every entry an id of its own",
            )
        seen.add(number)
    return spelling.keys(numbers, file)


def _check_own_ids(annotations: Sequence[Mapping[str, Any]], file: Path) -> None:
    """An annotation that stands twice would have to be found twice."""
    seen: set[Any] = set()
    for index, number in enumerate(entry.get("id") for entry in annotations):
        if number is None:  # COCO's own scorer does not need them
            continue
        if not _is_identifier(number) or number in seen:
            raise UserError(
                f"annotations[{index}]", file=file, expected="an id of its own", found=repr(number)
            )
        seen.add(number)


def _shape(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Height and width of an image where its entry tells them."""
    height, width = image.get("height"), image.get("width")
    if not (_is_number(height) and _is_number(width)):
        return None
    return float(height), float(width)


def _entry(entry: Any, keys: Sequence[str], name: str, file: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{name} is no object", file=file, expected=f"an object with {', '.join(keys)}")
    for key in keys:
        if key not in entry:
            raise UserError(f"{name} has no '{key}'", file=file, expected=f"an object with {', '.join(keys)}")
    return entry


def _boxes(
    entries: Any,
    name: str,
    file: Path,
    shapes: Mapping[Identifier, tuple[float, float] | None],
    spelling: Spelling,
    *,
    scored: bool,
) -> list[dict[str, Any]]:
    """Checked entries, their ids as they are compared."""
    if not isinstance(entries, list):
        raise UserError(f"no list of {name}", file=file, expected="COCO's list of boxes")
    keys = ("image_id", "category_id", "bbox", *(("score",) if scored else ()))
    for index, entry in enumerate(entries):
        row = _entry(entry, keys, f"{name}[{index}]", file)
        area = [row["area"]] if row.get("area") is not None else []
        numbers = [*row["bbox"], *([row["score"]] if scored else [])] if isinstance(row["bbox"], list) else []
        if len(numbers) != 4 + scored or not all(map(_is_number, numbers + area)) or min(numbers[2:4]) < 0:
            raise UserError(
                f"{name}[{index}]",
                file=file,
                expected="a bbox of four numbers (x, y, width, height; no size below 0)"
                + (" and a score" if scored else ""),
                found=f"{row['bbox']}" + (f" and {row['score']!r}" if scored else ""),
            )
        if not all(_is_identifier(row[key]) for key in keys[:2]):
            raise _no_image(f"{name}[{index}]", file, row, None)
    ids = [spelling.keys([row[key] for row in entries], file) for key in keys[:2]]
    rows = [{**r, keys[0]: i, keys[1]: c} for r, i, c in zip(entries, *ids, strict=True)]
    for index, row in enumerate(rows):
        if row["image_id"] not in shapes:
            raise _no_image(f"{name}[{index}]", file, row, remedy_of(ids[0], list(shapes)))
    _check_places(rows, name, file, shapes)
    return rows


def _no_image(place: str, file: Path, row: Mapping[str, Any], remedy: str | None) -> UserError:
    return UserError(
        place,
        file=file,
        expected="an image of the truth and a category, by id",
        found=f"image_id {row['image_id']!r}",
        remedy=remedy,
    )


def _check_places(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    file: Path,
    shapes: Mapping[Identifier, tuple[float, float] | None],
) -> None:
    for index, (row, edges) in enumerate(zip(rows, _edges(rows), strict=True)):
        shape = shapes[row["image_id"]]
        if shape is not None and reach_outside(edges[None], shape)[0]:
            raise UserError(
                f"{name}[{index}] lies outside its image of {shape[1]:g} x {shape[0]:g} pixels",
                file=file,
                expected="a bbox of x, y, width, height in pixels",
                found=str(row["bbox"]),
            )


def _is_identifier(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_class(
    labels: Sequence[Identifier],
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
