"""Tables from elsewhere: CSV as spreadsheets, scripts and challenges write it, with errors that name the line.

Accepted: UTF-8 with or without byte-order mark; any line ending; commas, semicolons or tabs between cells (whichever
the header has most of); blanks around cells; empty lines; empty cells beyond the header; with semicolons also a comma
as decimal point. Column names are compared as written first, then without regard to case.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError

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
    records, decimal_comma = _records(file)
    if not records:
        raise UserError("the file is empty", file=file, expected="a header line with column names")
    header = tuple(records[0][1])
    return CsvTable(
        file,
        header,
        [_fitted(cells, len(header), line, file) for line, cells in records[1:]],
        [line for line, _ in records[1:]],
        decimal_comma,
    )


def read_names(file: Path, column: str) -> list[str]:
    """Distinct values of ``column`` in order; also a plain list without header, one value a line.

    Raises:
        UserError: as :func:`read_table`, or several columns and none of that name.
    """
    records, _ = _records(file)
    plain = records and all(len([cell for cell in cells if cell]) == 1 for _, cells in records)
    if plain and records[0][1][0].lower() != column.lower():
        return list(dict.fromkeys(cells[0] for _, cells in records))
    return list(dict.fromkeys(read_table(file).texts(column)))


def _records(file: Path) -> tuple[list[tuple[int, list[str]]], bool]:
    """(line, stripped cells) of every line that holds something, and whether semicolons part the cells."""
    text = _text(file)
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    records = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                records.append((reader.line_num, stripped))
    except csv.Error as error:
        raise UserError(
            f"line {reader.line_num}: {error}", file=file, expected="comma-separated values"
        ) from None
    return records, delimiter == ";"


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise UserError("file does not exist", file=file) from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(
            f"line {line}: not UTF-8 text", file=file, expected="comma-separated values in UTF-8"
        ) from None
    except OSError as error:
        raise UserError("cannot be read", file=file, found=str(error.strerror)) from None


def _fitted(cells: Sequence[str], width: int, line: int, file: Path) -> list[str]:
    spare = cells[width:]
    if len(cells) < width or any(spare):
        raise UserError(f"line {line}", file=file, expected=f"{width} values", found=str(len(cells)))
    return list(cells[:width])
