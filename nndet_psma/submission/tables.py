"""Lesions as JSON and as tables: voxels and millimetres, LUNA16's columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nndet_psma.boxes.geometry import box_corners
from nndet_psma.core.atomic import write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.schema import to_plain
from nndet_psma.submission.forms import SubmittedCase

BOXES_JSON = "boxes.json"
LESIONS_CSV = "lesions.csv"
CASES_CSV = "cases.csv"
LUNA_CSV = "luna.csv"
LUNA_CASES_CSV = "luna_cases.csv"

_CONVENTIONS = {
    "box_voxels": "(z0, y0, x0, z1, y1, x1) in the image file's array order, voxel edges: voxel i spans [i, i + 1)",
    "box_mm": "lowest and highest LPS (x, y, z) of the box's eight corners, mm; they are voxel edges, not centres",
    "centre_mm": "LPS (x, y, z) of the box's centre, mm",
    "size_mm": "extent along the image's own (z, y, x) axes, mm",
    "score": "0 to 1; higher is more suspicious",
}
LESION_COLUMNS = (
    *("case_id", "lesion", "score", "label", "name"),
    *("z0", "y0", "x0", "z1", "y1", "x1"),
    *("centre_x_mm", "centre_y_mm", "centre_z_mm", "size_z_mm", "size_y_mm", "size_x_mm", "slices", "votes"),
)


def write_boxes_json(folder: Path, cases: Sequence[SubmittedCase]) -> list[Path]:
    """All cases in one file, boxes in voxels and in millimetres, with the grid of every image."""
    content = {
        "schema": "nndet_psma.boxes",
        "version": 1,
        "conventions": _CONVENTIONS,
        "cases": [
            {
                "case_id": case.case_id,
                "search_region": case.search_region,
                "image": to_plain(case.image),
                "lesions": _json_lesions(case),
            }
            for case in cases
        ],
    }
    write_json(folder / BOXES_JSON, content)
    return [folder / BOXES_JSON]


def write_lesion_tables(folder: Path, cases: Sequence[SubmittedCase]) -> list[Path]:
    """``lesions.csv``, one row per lesion, and ``cases.csv``, one per case: a case without lesions is in the latter."""
    write_table(folder / LESIONS_CSV, LESION_COLUMNS, lesion_rows(cases))
    rows = (
        (
            case.case_id,
            case.search_region,
            len(case.lesions),
            max((o.score for o in case.lesions), default=0.0),
        )
        for case in cases
    )
    write_table(folder / CASES_CSV, ("case_id", "search_region", "lesions", "best_score"), rows)
    return [folder / LESIONS_CSV, folder / CASES_CSV]


def write_luna_tables(folder: Path, cases: Sequence[SubmittedCase]) -> list[Path]:
    """``luna.csv`` in LUNA16's columns (LPS mm), classes pooled, and ``luna_cases.csv``: all cases looked at."""
    rows = ((case.case_id, *lesion.centre_mm, lesion.score) for case in cases for lesion in case.lesions)
    write_table(folder / LUNA_CSV, ("seriesuid", "coordX", "coordY", "coordZ", "probability"), rows)
    write_table(folder / LUNA_CASES_CSV, ("seriesuid",), ((case.case_id,) for case in cases))
    return [folder / LUNA_CSV, folder / LUNA_CASES_CSV]


def lesion_rows(cases: Sequence[SubmittedCase]) -> Iterable[tuple[Any, ...]]:
    """Rows of ``lesions.csv``; ``lesion`` counts from 1, best first, as in the label map."""
    for case in cases:
        for number, lesion in enumerate(case.lesions, start=1):
            votes = max((part.votes for part in lesion.slices), default=1)
            yield (
                *(case.case_id, number, lesion.score, lesion.label, lesion.name),
                *lesion.box,
                *(*lesion.centre_mm, *lesion.size_mm, len(lesion.slices), votes),
            )


def _json_lesions(case: SubmittedCase) -> list[dict[str, Any]]:
    corners = box_corners(case.boxes)
    found = []
    for lesion, of_box in zip(case.lesions, corners, strict=True):
        places = case.image.to_patient(of_box)
        found.append(
            {
                "score": lesion.score,
                "label": lesion.label,
                "name": lesion.name,
                "box_voxels": list(lesion.box),
                "box_mm": {
                    "min": np.round(places.min(axis=0), 4).tolist(),
                    "max": np.round(places.max(axis=0), 4).tolist(),
                },
                "centre_mm": list(lesion.centre_mm),
                "size_mm": list(lesion.size_mm),
                "slices": to_plain(lesion.slices),
            }
        )
    return found
