"""The class of a case: dataset.json says which column, clinical.csv what stands there."""

from __future__ import annotations

import json

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.case_truth import read_case_truth
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths

BLOCK = {"target": "case", "column": "local_recurrence", "positive": ["1", "biopsy"]}
TABLE = "case_id,patient_id,local_recurrence\na,p,1\nb,p,0\nc,q,biopsy\nd,q,\n"


@pytest.fixture
def task(tmp_path):
    def write(block, labels=("no", "yes"), table=TABLE):
        paths = TaskPaths(tmp_path / "Task001_T")
        paths.root.mkdir()
        content = {"task": "Task001_T", "dim": 3, "modalities": {"0": "CT"}, "psma": block}
        content["labels"] = {str(index): name for index, name in enumerate(labels)}
        (paths.root / "dataset.json").write_text(json.dumps(content))
        if table is not None:
            paths.clinical.write_text(table)
        return paths

    return write


def read(paths, cases=("a", "b", "c", "d", "e")):
    return read_case_truth(paths, read_description(paths.root), cases)


def test_positive_values_are_class_1(task):
    """d has an empty cell and e no row: their classes are not known."""
    paths = task(BLOCK)
    assert read_description(paths.root).target == "case"
    assert read(paths) == {"a": "yes", "b": "no", "c": "yes"}
    assert read(paths, []) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": {}}, "does not say where the class of a case stands.*no block 'psma'"),
        ({"block": {**BLOCK, "target": "objects"}}, "does not say where the class of a case stands"),
        ({"block": {**BLOCK, "positive": [1]}}, "does not say where the class of a case stands"),
        ({"block": {**BLOCK, "column": "psa"}}, "no column 'psa'.*found patient_id, local_recurrence"),
        ({"table": None}, "no column 'local_recurrence'.*found no table"),
        ({"labels": ("a", "b", "c")}, "needs two classes.*found a, b, c"),
        ({"table": TABLE.replace("1", "").replace("0", "").replace("biopsy", "")}, "no case has a value"),
    ],
)
def test_what_is_missing_is_told(task, changes, message):
    paths = task(**{"block": BLOCK, **changes})
    with pytest.raises(UserError, match=message):
        read(paths)
