"""The tiny task, prepared and trained once per session; tests that write must copy it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tiny_place import MODEL, PREP_OPTIONS, TRAIN_OPTIONS, Workplace, write_task

# Continuous integration tries the same examples every time, so that a change is judged by itself; runs by hand explore.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def raw_place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The raw tiny task; read only."""
    root = tmp_path_factory.mktemp("raw_place")
    write_task(root / "data")
    return Workplace(root / "data", root / "models")


@pytest.fixture(scope="session")
def tiny_task(raw_place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The tiny task prepared by ``nndet_prep``; read only."""
    from nndet_psma.cli.prep import main

    place = raw_place.copy(tmp_path_factory.mktemp("tiny_task"))
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        assert main(["900", "-np", "1", "-npp", "1", "--full_check", "-o", *PREP_OPTIONS]) == 0
    return place


@pytest.fixture(scope="session")
def trained(tiny_task: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The tiny task after train, sweep, consolidate, predict and eval; read only."""
    from nndet_psma.cli import consolidate, eval, predict, train

    place = tiny_task.copy(tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        assert train.main(["900", "--sweep", "-o", "exp.fold=all", *TRAIN_OPTIONS]) == 0
        assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
        assert predict.main(["900", MODEL, "--fold", "-1"]) == 0
        assert eval.main(["900", MODEL, "-1", "--test", "--boxes", "--case", "--analyze_boxes"]) == 0
    return place


@pytest.fixture
def in_task(tiny_task: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The prepared task with an empty folder of models of the test's own; the data are read only."""
    place = Workplace(tiny_task.data, tmp_path / "models")
    place.models.mkdir()
    place.enter(monkeypatch)
    return place


@pytest.fixture
def own_copy(trained: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A copy of everything that the test may spoil, with det_data and det_models set to it."""
    place = trained.copy(tmp_path)
    place.enter(monkeypatch)
    return place
