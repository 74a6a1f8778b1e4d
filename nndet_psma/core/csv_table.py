"""CSV: tables as spreadsheets, scripts and challenges write them, with errors that name the line; and our own.

Read are: UTF-8 with or without byte-order mark; any line ending; commas, semicolons or tabs between cells (whichever
the header has most of); blanks around cells; empty lines; empty cells beyond the header; with semicolons also a comma
as decimal point. Column names are compared as written first, then without regard to case.

Spreadsheets take a text that begins with = + - or @ for a formula and run it, and names of cases and regions come from
others. Such texts (no numbers) are written with an apostrophe before them, which is taken away where tables are read.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError

_END = "\x1f"
_FORMULA = re.compile("'*[=+@\t\r-]")
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


@dataclass(frozen=True)
class CsvTable:
    """A table of text cells.

    Attributes:
        file: where it was read from.
        header: column names.
        rows: cells, each row as long as the header.
        lines: line of each row in the file, from 1.
        decimal_comma: numbers may be written with a comma.
    """

    file: Path
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    decimal_comma: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return bool(self._places(name))

    def texts(self, name: str) -> list[str]:
        """Cells of a column.

        Raises:
            UserError: no such column, several, or an empty cell.
        """
        column = self._column(name)
        cells = [row[column] for row in self.rows]
        for line, cell in zip(self.lines, cells, strict=True):
            if not cell:
                raise self._fault(line, name, "a value", "an empty cell")
        return cells

    def numbers(self, *names: str) -> NDArray[np.float64]:
        """Finite numbers ``[N]`` of one column, or ``[N, K]`` of several.

        Raises:
            UserError: no such column, several, or a cell that is no finite number.
        """
        columns = [self._numbers(name) for name in names]
        return columns[0] if len(names) == 1 else np.stack(columns, axis=1)

    def truths(self, name: str) -> NDArray[np.bool_]:
        """Yes or no ``[N]`` of a column of 1 and 0 (also true and false, yes and no).

        Raises:
            UserError: no such column, several, or another value.
        """
        values = []
        for line, cell in zip(self.lines, self.texts(name), strict=True):
            word = cell.lower()
            if word not in _TRUE | _FALSE:
                number = self._number(cell)
                if number not in (0.0, 1.0):
                    raise self._fault(line, name, "0 or 1", repr(cell))
                word = str(int(number))
            values.append(word in _TRUE)
        return np.array(values, dtype=bool)

    def _numbers(self, name: str) -> NDArray[np.float64]:
        values = []
        for line, cell in zip(self.lines, self.texts(name), strict=True):
            number = self._number(cell)
            if number is None:
                raise self._fault(line, name, "a finite number", repr(cell))
            values.append(number)
        return np.array(values, dtype=np.float64)

    def _number(self, cell: str) -> float | None:
        if self.decimal_comma and "." not in cell:
            cell = cell.replace(",", ".")
        try:
            number = float(cell)
        except ValueError:
            return None
        return number if math.isfinite(number) and "_" not in cell else None

    def _places(self, name: str) -> list[int]:
        exact = [place for place, known in enumerate(self.header) if known == name]
        folded = [place for place, known in enumerate(self.header) if known.lower() == name.lower()]
        return exact or folded

    def _column(self, name: str) -> int:
        places = self._places(name)
        if len(places) != 1:
            raise UserError(
                f"line 1: {len(places) or 'no'} columns '{name}'"
                if places
                else f"line 1: no column '{name}'",
                file=self.file,
                expected=f"one column '{name}'",
                found=", ".join(self.header) or "no column",
            )
        return places[0]

    def _fault(self, line: int, name: str, expected: str, found: str) -> UserError:
        return UserError(f"line {line}, column '{name}'", file=self.file, expected=expected, found=found)


def read_table(file: Path) -> CsvTable:
    """Read a CSV file with a header line.

    Raises:
        UserError: the file is missing, empty or no text, or a row has more or fewer cells than the header.
    """
    records, decimal_comma = read_rows(file)
    if not records:
        raise UserError("the file is empty", file=file, expected="a header line with column names")
    header = tuple(records[0][1])
    for line, cells in records[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"line {line}", file=file, expected=f"{len(header)} values", found=str(len(cells))
            )
    lines, rows = [line for line, _ in records[1:]], [cells for _, cells in records[1:]]
    return CsvTable(file, header, rows, lines, decimal_comma)


def read_names(file: Path, column: str) -> list[str]:
    """Distinct values of ``column`` in order; also a plain list without header, one value a line.

    Raises:
        UserError: as :func:`read_table`, or several columns and none of that name.
    """
    records, _ = read_rows(file)
    plain = records and all(len([cell for cell in cells if cell]) == 1 for _, cells in records)
    if plain and records[0][1][0].lower() != column.lower():
        return list(dict.fromkeys(cells[0] for _, cells in records))
    return list(dict.fromkeys(read_table(file).texts(column)))


def read_rows(file: Path) -> tuple[list[tuple[int, list[str]]], bool]:
    """(line, cells) of every line that holds something, the header first, and whether semicolons part the cells.

    Raises:
        UserError: the file is missing or no text, or a quoted cell is not closed.
    """
    import pandas as pd

    text = _text(file).rstrip("\n") + "\n"
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    mark = f"{delimiter}{_END}"  # ends every line: pandas fills up short ones, and nothing else would tell
    text = text.replace("\n", f"{mark}\n")
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=delimiter, skipinitialspace=True, header=None, skip_blank_lines=False,
            names=range(max(line.count(delimiter) for line in text.split("\n")) + 1), dtype=str, keep_default_na=False,
        )  # fmt: skip
    except pd.errors.ParserError as error:
        text = str(error).rpartition("error: ")[2].strip()
        what = re.sub(r"row (\d+)", lambda row: f"line {int(row[1]) + 1}", text)  # rows count from 0
        raise UserError(what, file=file, expected="a table with every quote closed") from None
    rows: list[tuple[int, list[str]]] = []
    line = 0
    for row in frame.to_numpy().tolist():
        line += 1 + sum(cell.count("\n") for cell in row)
        cells = [_bare(cell.replace(mark, "").strip()) for cell in row[: row.index(_END)]]
        width = len(rows[0][1]) if rows else 0
        while len(cells) > width and not cells[-1]:
            cells.pop()
        if any(cells):
            rows.append((line, cells))
    return rows, delimiter == ";"


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically; see :func:`table_text`."""
    write_text(file, table_text(columns, rows))


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Header and rows as CSV (RFC 4180 quoting, line feeds), no text a formula (:func:`read_rows` undoes that)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_guarded(cell) for cell in row] for row in (columns, *rows))
    return text.getvalue()


def _guarded(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula, with an apostrophe before it."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _bare(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise UserError("file does not exist", file=file, remedy="Correct the path") from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(
            f"line {line}: not UTF-8 text", file=file, expected="comma-separated values in UTF-8"
        ) from None
    except OSError as error:
        raise UserError(
            "cannot be read",
            file=file,
            found=str(error.strerror),
            remedy="Correct the path, or the rights of the file",
        ) from None
