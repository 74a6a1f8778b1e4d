"""Lesions as COCO: every axial slice an image, every slice box an annotation with a score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nndet_psma.artifacts.prediction import PredictedLesion
from nndet_psma.core.atomic import write_text
from nndet_psma.submission.forms import SubmittedCase, axial_axis, voxel_range

COCO_JSON = "coco.json"
COCO_RESULTS_JSON = "coco_results.json"


def write_coco(folder: Path, cases: Sequence[SubmittedCase], classes: Mapping[int, str]) -> list[Path]:
    """``coco.json`` (images, categories, annotations with scores) and ``coco_results.json`` (results for ``loadRes``).

    Images are all axial slices of all cases, numbered from 1 in the order of the case ids; ``case_id`` and ``slice``
    tell which. The category of class ``c`` is ``c + 1``. ``bbox`` is (x, y, width, height) in pixels, edges.

    Args:
        folder: to write to.
        cases: lesions with their slice boxes.
        classes: names by class index.
    """
    content = coco_content(cases, classes)
    keys = ("image_id", "category_id", "bbox", "score")
    results = [{key: each[key] for key in keys} for each in content["annotations"]]
    write_text(folder / COCO_JSON, json.dumps(content) + "\n")
    write_text(folder / COCO_RESULTS_JSON, json.dumps(results) + "\n")
    return [folder / COCO_JSON, folder / COCO_RESULTS_JSON]


def coco_content(cases: Sequence[SubmittedCase], classes: Mapping[int, str]) -> dict[str, Any]:
    """The content of ``coco.json``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for case in cases:
        axis = axial_axis(case.image)
        height, width = (n for other, n in enumerate(case.image.shape) if other != axis)
        first = len(images) + 1
        images += [
            {
                "id": first + index,
                "file_name": f"{case.case_id}_slice{index:04d}",
                "width": width,
                "height": height,
                "case_id": case.case_id,
                "slice": index,
            }
            for index in range(case.image.shape[axis])
        ]
        for lesion in case.lesions:
            for index, box, score in slice_boxes(lesion, case, axis):
                annotation: dict[str, Any] = {"id": len(annotations) + 1, "image_id": first + index}
                annotation |= {
                    "category_id": lesion.label + 1,
                    "bbox": box,
                    "area": round(box[2] * box[3], 4),
                }
                annotations.append({**annotation, "iscrowd": 0, "score": score})
    categories = [{"id": index + 1, "name": name} for index, name in sorted(classes.items())]
    return {"images": images, "categories": categories, "annotations": annotations}


def slice_boxes(
    lesion: PredictedLesion, case: SubmittedCase, axis: int
) -> Iterator[tuple[int, list[float], float]]:
    """(slice, (x, y, width, height), score): one box per lesion and slice of the image, the best one.

    The model's slices may be thicker or thinner than the image's; a box goes to the slices whose centres it covers.
    """
    best: dict[int, tuple[list[float], float]] = {}
    rows, columns = (other for other in range(3) if other != axis)
    for part in lesion.slices:
        low, high = np.array(part.box[:3]), np.array(part.box[3:])
        first, end = voxel_range(low, high, np.array(case.image.shape))
        y, x = float(low[rows]), float(low[columns])
        box = [x, y, round(float(high[columns]) - x, 4), round(float(high[rows]) - y, 4)]
        for index in range(int(first[axis]), int(end[axis])):
            if index not in best or part.score > best[index][1]:
                best[index] = (box, part.score)
    for index, (box, score) in sorted(best.items()):
        yield index, box, score
