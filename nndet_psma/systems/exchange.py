"""Models that are passed on: what an archive must hold to be one, and how it becomes a consolidated model again."""

from __future__ import annotations

from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import INFERENCE_PLAN, PLAN
from nndet_psma.artifacts.model_manifest import ModelManifest
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.core.errors import UserError
from nndet_psma.inference.model_archive import JSON_NAMES, read_manifest, refuse, unpack_model
from nndet_psma.systems.system import SYSTEMS, system_of


def manifest_of(file: Path) -> ModelManifest:
    """What an archive says it holds; names and sizes are checked.

    Raises:
        UserError: it is no archive of a model.
    """
    return read_manifest(file, _known_texts())


def take_in_archive(file: Path, target: Path) -> ModelManifest:
    """Unpack an archive into ``target``, a folder that can be opened as a consolidated model.

    Raises:
        UserError: it is no archive of a model, is damaged, or contains something else.
    """
    manifest = unpack_model(file, target, check_contents, _known_texts())
    plan = read_plan(target / PLAN)
    system_of(plan).take_in(target, plan, manifest.folds)
    return manifest


def check_contents(folder: Path, manifest: ModelManifest, file: Path) -> None:
    """Plan and thresholds are valid, and there are weights of every fold and no others.

    Raises:
        UserError: says what makes no sense.
    """
    try:
        plan, inference = read_plan(folder / PLAN), InferencePlan.read(folder / INFERENCE_PLAN)
        system = system_of(plan)
    except UserError as error:
        raise refuse(file, "has an invalid plan", error.what) from None
    try:
        system.check_inference(plan, inference)
    except UserError as error:
        found = " ".join(str(part) for part in (error.what, error.found) if part)
        raise refuse(file, "has thresholds that make no sense", found, error.remedy) from None
    except (TypeError, ValueError) as error:
        raise refuse(file, "has thresholds that make no sense", str(error)) from None
    wanted = system.places(plan, inference.folds)
    texts = set(system.texts)
    held = set(manifest.files) - set(JSON_NAMES)
    if wanted | texts != held or manifest.folds != inference.folds or not wanted:
        different = sorted((wanted | texts) ^ held) or [f"folds {manifest.folds} and {inference.folds}"]
        raise refuse(file, "has weights that do not fit its plan", different[0])
    system.require()
    try:
        system.check_texts(folder, plan)
    except UserError as error:
        name = "plan" if error.file is None else Path(error.file).name
        reason = error.what if error.found is None else f"{error.what}: {error.found}"
        raise refuse(file, f"has an invalid {name}", reason) from None


def _known_texts() -> set[str]:
    """Of all systems: which one an archive belongs to is known once its plan is unpacked."""
    return {text for name in SYSTEMS for text in SYSTEMS[name].texts}
