"""Finding tasks and their folders."""

from __future__ import annotations

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths, data_root, find_task, models_root


@pytest.fixture
def tasks(tmp_path):
    for name in ("Task000_Example", "Task100_PSMA", "Task101_PSMA2", "notes"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_layout(tmp_path):
    paths = TaskPaths(tmp_path / "Task100_PSMA")
    relative = lambda path: path.relative_to(paths.root).as_posix()  # noqa: E731
    assert paths.name == "Task100_PSMA"
    assert relative(paths.images("Tr")) == "raw_splitted/imagesTr"
    assert relative(paths.labels("Ts")) == "raw_splitted/labelsTs"
    assert relative(paths.fingerprint) == "preprocessed/fingerprint.json"
    assert relative(paths.plan("P25D")) == "preprocessed/P25D.json"
    assert relative(paths.store("grid")) == "preprocessed/store/grid"
    assert relative(paths.analysis) == "preprocessed/analysis"
    assert relative(paths.clinical) == "clinical.csv"
    assert relative(paths.splits) == "splits.json"
    with pytest.raises(ValueError, match="'Tr' or 'Ts'"):
        paths.images("Tx")


@pytest.mark.parametrize("task", ["100", "0100", "PSMA", "Task100_PSMA"])
def test_find(tasks, task):
    assert find_task(task, tasks).name == "Task100_PSMA"


def test_zero_is_a_number(tasks):
    assert find_task("0", tasks).name == "Task000_Example"
    assert find_task("000", tasks).name == "Task000_Example"


def test_unknown_lists_what_exists(tasks):
    with pytest.raises(UserError, match=r"no task '7'.*Task000_Example, Task100_PSMA, Task101_PSMA2"):
        find_task("7", tasks)
    with pytest.raises(UserError, match="no task folders"):
        find_task("7", tasks / "notes")


def test_ambiguous(tasks):
    (tasks / "Task100_Other").mkdir()
    with pytest.raises(UserError, match=r"several tasks.*Task100_Other, Task100_PSMA"):
        find_task("100", tasks)
    assert find_task("Task100_Other", tasks).name == "Task100_Other"


def test_roots_from_the_environment(tasks, monkeypatch, tmp_path):
    monkeypatch.setenv("det_data", str(tasks))
    assert data_root() == tasks
    assert find_task("100").name == "Task100_PSMA"
    monkeypatch.setenv("det_models", str(tmp_path / "deep" / "models"))
    assert models_root().is_dir()


def test_roots_missing(monkeypatch, tmp_path):
    monkeypatch.delenv("det_data", raising=False)
    monkeypatch.delenv("det_models", raising=False)
    with pytest.raises(UserError, match="export det_data="):
        data_root()
    with pytest.raises(UserError, match="export det_models="):
        models_root()
    monkeypatch.setenv("det_data", str(tmp_path / "none"))
    with pytest.raises(UserError, match="names no folder"):
        data_root()
    (tmp_path / "file").touch()
    monkeypatch.setenv("det_models", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="cannot be created"):
        models_root()
