"""Genuine nnDetection where it is installed, and a raw task with hand-made results."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from nndet_place import PREDICTED, TASK, BoxTask, write_genuine_model, write_raw_task

from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.nndetection.availability import HOME


@pytest.fixture(scope="session")
def nndetection() -> Path:
    """Folder of genuine nnDetection, with the repairs made; skips the test where it is not installed."""
    for package in ("nndet", "pytorch_lightning", "nnunet", "nevergrad", "loguru", "mlflow"):
        if find_spec(package) is None:
            pytest.skip(f"needs genuine nnDetection ({HOME}): package '{package}' is not installed")
    from nndet_psma.hosts.nndetection.availability import require_nndetection
    from nndet_psma.hosts.nndetection.compat import apply_repairs

    root = require_nndetection()
    apply_repairs()
    return root


@pytest.fixture
def without_nndetection():
    """As if no nnDetection were installed or imported; yields a monkeypatch."""
    theirs = ("nndet", "scripts")
    names = [name for name in sys.modules if name.partition(".")[0] in theirs]
    saved, path = {name: sys.modules.pop(name) for name in names}, list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        sys.path[:] = [folder for folder in path if not (Path(folder) / "nndet").is_dir()]
        yield patch
    sys.path[:] = path  # last: the context has put back what it found
    for name in [name for name in sys.modules if name.partition(".")[0] in theirs]:
        del sys.modules[name]
    sys.modules.update(saved)


@pytest.fixture
def box_task(tmp_path, monkeypatch) -> BoxTask:
    """Four cases with the lesions of TRUTH, and a model folder as nnDetection leaves it, with PREDICTED."""
    task = BoxTask(TaskPaths(tmp_path / "data" / TASK), tmp_path / "models")
    monkeypatch.setenv("det_data", str(tmp_path / "data"))
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    write_raw_task(task.paths)
    write_genuine_model(task.source(), PREDICTED)
    return task
