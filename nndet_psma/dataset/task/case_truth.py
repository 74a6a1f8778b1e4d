"""The class of a case from ``clinical.csv``, as the block ``psma`` of ``dataset.json`` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, find_description
from nndet_psma.dataset.task.paths import TaskPaths

CASE = "case"
"""``psma.target`` of a data set whose cases have a class each."""

_EXAMPLE = '{"target": "case", "column": "local_recurrence", "positive": ["1"]}'


def read_case_truth(
    paths: TaskPaths, description: DatasetDescription, case_ids: Sequence[str]
) -> dict[str, str]:
    """Class name by case id: class 1 where the column holds one of the positive values, else class 0.

    A case without a row or with an empty cell is left out: its class is not known.

    Raises:
        UserError: the block does not say where the truth stands, there are not two classes, there is no such column, or
            no case has a value in it.
    """
    column, positive = _block(paths, description)
    clinical = read_clinical(paths)
    columns = list(next(iter(clinical.values()), {}))
    if column not in columns:
        raise UserError(
            f"there is no column '{column}', which holds the class of a case",
            file=paths.clinical,
            found=", ".join(columns) or "no table",
            remedy="Add it, or correct psma.column in the description",
        )
    found = {}
    for case_id in case_ids:
        value = clinical.get(case_id, {}).get(column, "")
        if value:
            found[case_id] = description.labels[int(value in positive)]
    if case_ids and not found:
        raise UserError(
            f"no case has a value in column '{column}'",
            file=paths.clinical,
            expected=f"{', '.join(sorted(positive))} or another value for each case",
            found=f"{len(clinical)} rows, of none of the {len(case_ids)} cases with a value",
            remedy="Fill the column in; case_id must be the name of the image files",
        )
    return found


def _block(paths: TaskPaths, description: DatasetDescription) -> tuple[str, set[str]]:
    """Column and positive values."""
    block: dict[str, Any] = description.psma
    column, positive = block.get("column"), block.get("positive")
    texts = isinstance(positive, list) and positive and all(isinstance(each, str) for each in positive)
    if block.get("target") != CASE or not isinstance(column, str) or not texts:
        raise UserError(
            "does not say where the class of a case stands",
            file=find_description(paths.root),
            expected=f'"psma": {_EXAMPLE}',
            found=f'"psma": {block}' if block else "no block 'psma'",
            remedy="Add these keys to the description",
        )
    if len(description.labels) != 2:
        raise UserError(
            "cases are told apart by a column, which needs two classes",
            file=find_description(paths.root),
            expected='"labels": {"0": NEGATIVE, "1": POSITIVE}',
            found=", ".join(description.labels.values()),
            remedy="Name two classes, the negative one first",
        )
    return column, set(positive or ())
