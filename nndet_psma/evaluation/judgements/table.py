"""``objects.csv``: one row per judged object with its truth, for spreadsheets and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nndet_psma.core.csv_table import read_table, write_table
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.judgements.row import JudgedRow

COLUMNS = ("case_id", "patient_id", "object_id", "truth", "decision")
_PROBABILITY = "p_"


def write_objects(file: Path, rows: Sequence[JudgedRow], classes: Sequence[str]) -> None:
    """Write the rows: ``case_id``, ``patient_id``, ``object_id`` (empty where a case is judged), ``truth`` (empty where
    it is not known), ``decision``, and ``p_CLASS`` for every class.
    """
    cells = []
    for row in rows:
        number = "" if row.object_id is None else row.object_id
        values = (row.probabilities.get(name, 0.0) for name in classes)
        cells.append((row.case_id, row.patient_id, number, row.truth or "", row.decision, *values))
    write_table(file, (*COLUMNS, *(f"{_PROBABILITY}{name}" for name in classes)), cells)


def read_objects(file: Path) -> list[JudgedRow]:
    """The rows of :func:`write_objects`.

    Raises:
        UserError: the file is missing or is another table.
    """
    table = read_table(file)
    if table.header[: len(COLUMNS)] != COLUMNS:
        raise UserError(
            "is another table", file=file, expected=", ".join(COLUMNS), found=", ".join(table.header[:5])
        )
    names = [name.removeprefix(_PROBABILITY) for name in table.header[len(COLUMNS) :]]
    found = []
    for line, (case_id, patient, number, truth, decision, *values) in zip(
        table.lines, table.rows, strict=True
    ):
        try:
            probabilities = dict(zip(names, map(float, values), strict=True))
            object_id = int(number) if number else None
        except ValueError as error:
            raise UserError(
                f"line {line}: {error}", file=file, remedy="Correct the line, or predict again"
            ) from None
        found.append(JudgedRow(case_id, patient, object_id, truth or None, decision, probabilities))
    return found
