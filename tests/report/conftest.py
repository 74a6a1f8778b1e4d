"""Fixtures round the tiny model of ``tiny_model.py``."""

import json
import shutil
from types import SimpleNamespace

import pytest
from tiny_model import build_model, sweep_content

from nndet_psma.artifacts.model_folder import ModelFolder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """``paths``, ``folder`` and ``root`` of the tiny model; not to be written to."""
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_tiny(tiny, tmp_path) -> SimpleNamespace:
    """A copy of the tiny model's folder, to take files away from; the task data are shared."""
    root = tmp_path / "models" / "Task007_Tiny" / "MaskRCNN25D_PSMA25D"
    shutil.copytree(tiny.folder.root, root)
    return SimpleNamespace(paths=tiny.paths, folder=ModelFolder(root), root=tmp_path)


@pytest.fixture
def sweep_table() -> dict:
    """Content of the tiny model's sweep.json."""
    return json.loads(json.dumps(sweep_content()))
