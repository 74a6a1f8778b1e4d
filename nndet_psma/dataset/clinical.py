"""The optional table ``clinical.csv``: one row per case, with the patient and whatever else is known."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.paths import TaskPaths

ClinicalTable = dict[str, dict[str, str]]


def read_clinical(paths: TaskPaths) -> ClinicalTable:
    """Columns (texts, without ``case_id``) by case id; empty when there is no table.

    Comma or semicolon separates the columns, whichever the header uses.

    Raises:
        UserError: no column ``case_id``, a case without id or with two rows, or a row of the wrong length.
    """
    file = paths.clinical
    if not file.is_file():
        return {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError("not a UTF-8 text", file=file, remedy="Save the table as CSV UTF-8") from None
    header_line = lines[0] if lines else ""
    separator = ";" if ";" in header_line and "," not in header_line else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    header = rows[0] if rows else []
    _check_header(header, file)
    table: ClinicalTable = {}
    for number, row in enumerate(rows[1:], start=2):
        if any(row):
            _add_row(table, header, row, number, file)
    return table


def patient_of(case_id: str, clinical: Mapping[str, Mapping[str, str]]) -> str:
    """The patient a case belongs to: column ``patient_id``, or the case id where that is absent or empty."""
    return clinical.get(case_id, {}).get("patient_id") or case_id


def _check_header(header: list[str], file: Path) -> None:
    if "case_id" not in header:
        raise UserError(
            "no column 'case_id'",
            file=file,
            found=", ".join(header) or "an empty file",
            remedy="Name the columns in the first line",
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"column '{twice[0]}' occurs twice", file=file, remedy="Rename one of them")


def _add_row(table: ClinicalTable, header: list[str], row: list[str], number: int, file: Path) -> None:
    if len(row) != len(header):
        raise UserError(
            f"line {number} has the wrong number of cells",
            file=file,
            expected=str(len(header)),
            found=str(len(row)),
            remedy="Put texts that hold the separator in double quotes",
        )
    columns = dict(zip(header, row, strict=True))
    case_id = columns.pop("case_id")
    if not case_id:
        raise UserError(f"line {number} has no case_id", file=file, remedy="Fill it in or remove the line")
    if case_id in table:
        raise UserError(f"case {case_id} has two rows", file=file, found=f"again in line {number}")
    table[case_id] = columns
