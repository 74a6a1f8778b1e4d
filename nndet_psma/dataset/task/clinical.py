"""The optional table ``clinical.csv``: one row per case, with the patient and whatever else is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nndet_psma.core.csv_table import read_rows
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.faults.kinds import Fault, first_error
from nndet_psma.dataset.task.paths import TaskPaths

ClinicalTable = dict[str, dict[str, str]]


def read_clinical(paths: TaskPaths) -> ClinicalTable:
    """Columns (texts, without ``case_id``) by case id; empty when there is no table.

    Cells are texts as they are written, numbers with a decimal comma too.

    Raises:
        UserError: no column ``case_id``, a case without id or with two rows, or a row of the wrong length.
    """
    table, faults = scan_clinical(paths)
    error = first_error(faults)
    if error is not None:
        raise error
    return table


def scan_clinical(paths: TaskPaths) -> tuple[ClinicalTable, list[Fault]]:
    """The good rows of the table, and every fault of it."""
    file = paths.clinical
    if not file.is_file():
        return {}, []
    try:
        rows, _ = read_rows(file)
    except UserError as error:
        return {}, [Fault("table not readable", error.what, file=file, remedy="Save it as CSV UTF-8")]
    header = rows[0][1] if rows else []
    faults = list(_header_faults(header, file))
    if faults:
        return {}, faults
    table: ClinicalTable = {}
    for number, row in rows[1:]:
        fault = _add_row(table, header, row, number, file)
        if fault is not None:
            faults.append(fault)
    return table, faults


def patient_of(case_id: str, clinical: Mapping[str, Mapping[str, str]]) -> str:
    """The patient a case belongs to: column ``patient_id``, or the case id where that is absent or empty."""
    return clinical.get(case_id, {}).get("patient_id") or case_id


def _header_faults(header: list[str], file: Path) -> Iterator[Fault]:
    if "case_id" not in header:
        yield Fault(
            "no case_id column",
            "no column 'case_id'",
            file=file,
            found=", ".join(header) or "an empty file",
            remedy="Name the columns in the first line",
        )
    for name in sorted({name for name in header if header.count(name) > 1}):
        yield Fault("column twice", f"column '{name}' occurs twice", file=file, remedy="Rename one of them")


def _add_row(
    table: ClinicalTable, header: list[str], row: list[str], number: int, file: Path
) -> Fault | None:
    """Add a row to the table, or say why not."""
    if len(row) != len(header):
        return Fault(
            "row of wrong length",
            f"line {number} has the wrong number of cells",
            file=file,
            expected=str(len(header)),
            found=str(len(row)),
            remedy="Put texts that hold the separator in double quotes",
        )
    columns = dict(zip(header, row, strict=True))
    case_id = columns.pop("case_id")
    if not case_id:
        return Fault(
            "row without case_id",
            f"line {number} has no case_id",
            file=file,
            remedy="Fill it in or remove the line",
        )
    if case_id in table:
        return Fault(
            "case twice in table",
            f"case {case_id} has two rows",
            file=file,
            found=f"again in line {number}",
            remedy="Keep one of them",
        )
    table[case_id] = columns
    return None
