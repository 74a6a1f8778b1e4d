"""Tables a user opens in a spreadsheet: one row per lesion, one row per case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nndet_psma.core.csv_table import write_table
from nndet_psma.evaluation.detection.record import CaseRecord, iou_key

TABLE_IOU = 0.1

LESION_COLUMNS = ("case_id", "lesion", "label", "volume_mm3", "short_axis_mm", "score", "found")
CASE_COLUMNS = (
    "case_id",
    "patient_id",
    "lesions",
    "predictions",
    "found",
    "missed",
    "false_positives",
    "max_score",
    "accepted",
    "accepted_found",
    "accepted_false",
)


def write_lesion_table(records: Sequence[CaseRecord], file: Path) -> None:
    """Write one row per lesion as CSV.

    Columns: ``case_id``; ``lesion`` row of the truth from 0; ``label`` class index; ``volume_mm3`` and
    ``short_axis_mm`` (empty when not measured); ``score`` of the prediction that claims it at IoU 0.1 (empty
    when none); ``found`` 1 or 0.

    Raises:
        ValueError: a record was not matched at IoU 0.1.
        UserError: the file cannot be written.
    """
    write_table(file, LESION_COLUMNS, (row for record in records for row in _lesion_rows(record)))


def write_case_table(records: Sequence[CaseRecord], file: Path) -> None:
    """Write one row per case as CSV.

    Columns: ``case_id``, ``patient_id``, number of ``lesions`` and ``predictions`` (of any score), lesions
    ``found`` and ``missed`` and ``false_positives`` at IoU 0.1, ``max_score`` (0 without predictions); of the lesions
    that the tuned thresholds accept (empty where they are not known) the number ``accepted``, the lesions of the truth
    ``accepted_found`` and the accepted ones that find none, ``accepted_false``, at IoU 0.1.

    Raises:
        ValueError: a record was not matched at IoU 0.1.
        UserError: the file cannot be written.
    """
    write_table(file, CASE_COLUMNS, (_case_row(record) for record in records))


def _lesion_rows(record: CaseRecord) -> Iterable[tuple[Any, ...]]:
    score_of = {
        lesion: prediction.score
        for lesion, prediction in zip(record.claims(TABLE_IOU), record.predictions, strict=True)
        if lesion >= 0
    }
    for index, lesion in enumerate(record.lesions):
        yield (
            record.case_id,
            index,
            lesion.label,
            lesion.volume_mm3,
            lesion.short_axis_mm,
            score_of.get(index),
            int(index in score_of),
        )


def _case_row(record: CaseRecord) -> tuple[Any, ...]:
    found = sum(lesion >= 0 for lesion in record.claims(TABLE_IOU))
    return (
        record.case_id,
        record.patient_id,
        len(record.lesions),
        len(record.predictions),
        found,
        len(record.lesions) - found,
        len(record.predictions) - found,
        max((prediction.score for prediction in record.predictions), default=0.0),
        *_accepted(record),
    )


def _accepted(record: CaseRecord) -> tuple[int | None, int | None, int | None]:
    if record.accepted is None:
        return None, None, None
    claims = record.accepted.matches[iou_key(TABLE_IOU)]
    found = sum(lesion >= 0 for lesion in claims)
    return len(claims), found, len(claims) - found
