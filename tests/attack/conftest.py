"""A model archive that is whole; read only."""

from __future__ import annotations

from pathlib import Path

import pytest

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.stages.export_model import ExportJob, export_model


@pytest.fixture(scope="package")
def whole(trained, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "model.zip"
    export_model(ExportJob(ModelFolder(trained.model), file))
    return file
