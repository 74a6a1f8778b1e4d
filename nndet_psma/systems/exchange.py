"""Models that are passed on: what an archive must hold to be one."""

from __future__ import annotations

from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import INFERENCE_PLAN, PLAN
from nndet_psma.artifacts.model_manifest import ModelManifest
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.core.errors import UserError
from nndet_psma.inference.model_archive import JSON_NAMES, refuse
from nndet_psma.systems.system import system_of


def check_contents(folder: Path, manifest: ModelManifest, file: Path) -> None:
    """Plan and thresholds are valid, and there are weights of every fold and no others.

    Raises:
        UserError: says what makes no sense.
    """
    try:
        plan, inference = read_plan(folder / PLAN), InferencePlan.read(folder / INFERENCE_PLAN)
        system = system_of(plan)
        system.check_inference(inference)
    except UserError as error:
        raise refuse(file, "has an invalid plan", error.what) from None
    except (TypeError, ValueError) as error:
        raise refuse(file, "has thresholds that make no sense", str(error)) from None
    wanted = system.places(plan, inference.folds)
    held = set(manifest.files) - set(JSON_NAMES)
    if wanted != held or manifest.folds != inference.folds or not wanted:
        different = sorted(wanted ^ held) or [f"folds {manifest.folds} and {inference.folds}"]
        raise refuse(file, "has weights that do not fit its plan", different[0])
