"""Judgements as a table and as JSON: one row per object, or per case where cases are judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.results import Call, Judged
from nndet_psma.core.atomic import write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.schema import to_plain

JUDGEMENTS_CSV = "judgements.csv"
JUDGEMENTS_JSON = "judgements.json"

_CONVENTIONS = {
    "box_voxels": "(z0, y0, x0, z1, y1, x1) in the image file's array order, voxel edges: voxel i spans [i, i + 1)",
    "centre_mm": "LPS (x, y, z) of the box's centre, mm",
    "probabilities": "calibrated, by class; they sum to 1",
    "decision": "class that the tuned decision takes",
}
_PLACE = ("z0", "y0", "x0", "z1", "y1", "x1", "centre_x_mm", "centre_y_mm", "centre_z_mm")


def write_judgements_csv(folder: Path, results: Sequence[Judged | Call]) -> list[Path]:
    """``judgements.csv``: ``case_id``, ``object_id`` and box (empty where cases are judged), ``decision``, and
    ``p_CLASS`` of every class.
    """
    classes = list(dict.fromkeys(name for values in _probabilities(results) for name in values))
    columns = ("case_id", "object_id", "decision", *(f"p_{name}" for name in classes), *_PLACE)
    write_table(folder / JUDGEMENTS_CSV, columns, _rows(results, classes))
    return [folder / JUDGEMENTS_CSV]


def write_judgements_json(folder: Path, results: Sequence[Judged | Call]) -> list[Path]:
    """``judgements.json``: all cases in one file."""
    content = {
        "schema": "nndet_psma.judgements",
        "version": 1,
        "conventions": _CONVENTIONS,
        "cases": [_json_case(result) for result in results],
    }
    write_json(folder / JUDGEMENTS_JSON, content)
    return [folder / JUDGEMENTS_JSON]


def number_of_judgements(result: Judged | Call) -> int:
    """Objects of a case; 1 where the case itself is judged."""
    return len(result.objects) if isinstance(result, Judged) else 1


def _probabilities(results: Sequence[Judged | Call]) -> Iterator[dict[str, float]]:
    for result in results:
        if isinstance(result, Judged):
            yield from (each.probabilities for each in result.objects)
        else:
            yield result.probabilities


def _rows(results: Sequence[Judged | Call], classes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for result in results:
        if isinstance(result, Call):
            values = (result.probabilities.get(name, "") for name in classes)
            yield (result.case_id, "", result.decision, *values, *[""] * len(_PLACE))
            continue
        for each in result.objects:
            values = (each.probabilities.get(name, "") for name in classes)
            yield (result.case_id, each.object_id, each.decision, *values, *each.box, *each.centre_mm)


def _json_case(result: Judged | Call) -> dict[str, Any]:
    if isinstance(result, Call):
        return {
            "case_id": result.case_id,
            "decision": result.decision,
            "probabilities": result.probabilities,
        }
    return {
        "case_id": result.case_id,
        "objects": [
            {
                "object_id": each.object_id,
                "decision": each.decision,
                "probabilities": each.probabilities,
                "box_voxels": list(each.box),
                "centre_mm": to_plain(each.centre_mm),
            }
            for each in result.objects
        ],
    }
