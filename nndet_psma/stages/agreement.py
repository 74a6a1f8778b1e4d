"""Stage agreement: readers and a model who staged or measured the same patients, from one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nndet_psma.core.csv_table import read_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.evaluation.statistics.agreement import reader_agreement
from nndet_psma.evaluation.statistics.bland_altman import bland_altman
from nndet_psma.evaluation.statistics.pearson import pearson


def score_readers(
    table: Path, readers: Sequence[str], *, order: Sequence[str] | None = None
) -> dict[str, Any]:
    """Cohen's kappa of every pair of columns: ``{"kappa": {"expert, model": {...}}}``.

    Args:
        table: CSV, one row per patient, one column of categories per reader.
        readers: column names, at least two.
        order: all categories that may occur.

    Raises:
        UserError: the table is malformed, fewer than two readers, a cell is empty, or a category is not in ``order``.
    """
    if len(set(readers)) < 2:
        raise UserError("agreement needs two readers", expected="at least two different columns")
    content = read_table(table)
    readings = {reader: content.texts(reader) for reader in readers}
    for reader, values in readings.items():
        unknown = sorted(set(values) - set(order)) if order else []
        if unknown:
            raise UserError(
                f"unknown category of reader {reader}", file=table, expected=", ".join(order or ()), found=unknown[0]
            )  # fmt: skip
    pairs = reader_agreement(readings, order=order)
    return {"kappa": {", ".join(pair): to_plain(kappa) for pair, kappa in pairs.items()}}


def score_sizes(table: Path, first: str, second: str) -> dict[str, Any]:
    """Pearson's r and the limits of agreement of two columns of numbers.

    Raises:
        UserError: the table is malformed.
    """
    numbers = read_table(table).numbers(first, second)
    columns = numbers[:, 0], numbers[:, 1]
    return {"pearson": to_plain(pearson(*columns)), "bland_altman": to_plain(bland_altman(*columns))}
