"""Stage export-model: a consolidated model as one zip that can be passed on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nndet_psma import __version__
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, PLAN, WEIGHTS, ModelFolder
from nndet_psma.artifacts.model_manifest import MANIFEST, ModelManifest
from nndet_psma.artifacts.plan import Decision, Plan
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.inference.model_archive import entry_of, weight_blocks, write_archive
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

NO_LICENCE = "none stated: ask the sender before using or passing on these weights"
_LEFT_OUT = "left out of the export: it names a case or a file"
_PATH = re.compile(r"(?<![\w.])(?:/|~/|[A-Za-z]:\\)\w")
_PUBLIC_WEIGHTS = ("none", "imagenet")


@dataclass(frozen=True)
class ExportJob:
    """What to export.

    Attributes:
        folder: the model.
        target: zip to write.
        folds: which folds; None takes those of the consolidated model.
        licence: stated in the manifest.
    """

    folder: ModelFolder
    target: Path
    folds: list[int] | None = None
    licence: str = NO_LICENCE


def export_model(job: ExportJob) -> ModelManifest:
    """Write the zip: weights of every stage and fold, plan, thresholds, manifest. Equal models give equal bytes.

    Names of cases stay here: the folds of the plan and the validation cases of the thresholds are left out (a hash of a
    name could be guessed), as is every decision whose evidence names a case or a path.

    Raises:
        UserError: not consolidated, a fold is missing, or weights are missing.
    """
    inference, source = _source(job)
    plan = _plan(job.folder, source)
    weights = {
        f"fold{fold}/{stage.name}/{WEIGHTS}": _weights(job.folder, source, fold, stage.name)
        for fold in inference.folds
        for stage in plan.stages
    }
    texts = {
        PLAN: _text(anonymous_plan(plan, inference.cases).to_json()),
        INFERENCE_PLAN: _text(replace(inference, cases=[]).to_json()),
    }
    entries = {name: entry_of(iter([text])) for name, text in texts.items()}
    entries |= {name: entry_of(weight_blocks(file)) for name, file in weights.items()}
    manifest = ModelManifest(
        package_version=__version__,
        task=job.folder.root.parent.name if plan.task == "" else plan.task,
        model=job.folder.root.name,
        folds=inference.folds,
        training_cases=[(len(fold.train), len(fold.val)) for fold in plan.folds],
        licence=job.licence,
        files=dict(sorted(entries.items())),
    )
    write_archive(job.target, {MANIFEST: _text(manifest.to_json()), **texts}, weights)
    return manifest


def _plan(folder: ModelFolder, source: int) -> Plan:
    plan = folder.plan(source)
    if isinstance(plan, NodeSegPlan):
        raise UserError(
            "a segmentation by nnU-Net cannot be written into an archive, which holds no checkpoints",
            file=folder.fold(source),
            remedy="Pass on the folder 'consolidated': its checkpoints hold plain weights only; plan.json and "
            "plan_inference.json in it name cases",
        )
    return plan


def anonymous_plan(plan: Plan, more_cases: list[str]) -> Plan:
    """The plan without case ids and paths.

    Args:
        plan: as trained.
        more_cases: further case ids that must not be named.
    """
    ids = {case_id for fold in plan.folds for case_id in (*fold.train, *fold.val)} | set(more_cases)
    start = None if plan.detector is None else plan.detector.weights
    private = start is not None and start not in _PUBLIC_WEIGHTS
    names = [*sorted(ids), str(start)] if private else sorted(ids)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names) or r"(?!)")
    decisions = {key: _anonymous(decision, pattern) for key, decision in plan.decisions.items()}
    detector = replace(plan.slice_detector, weights="none") if private else plan.detector
    return replace(plan, folds=[], detector=detector, decisions=decisions)


def _anonymous(decision: Decision, names: re.Pattern[str]) -> Decision:
    def kept(text: str) -> str:
        return _LEFT_OUT if names.search(text) or _PATH.search(text) else text

    return Decision(kept(decision.rule), kept(decision.evidence))


def _source(job: ExportJob) -> tuple[InferencePlan, int]:
    """Thresholds with the folds to export, and the model (consolidated or a fold) that they belong to."""
    folder, folds = job.folder, job.folds
    if folds is not None and len(folds) == 1 and (folder.fold(folds[0]) / INFERENCE_PLAN).is_file():
        return replace(folder.inference_plan(folds[0]), folds=folds), folds[0]
    inference = folder.inference_plan(CONSOLIDATED)
    if folds is None or folds == inference.folds:
        return inference, CONSOLIDATED
    wrong = [fold for fold in folds if fold not in inference.folds]
    if wrong or not folds or len(set(folds)) != len(folds):
        raise UserError(
            f"fold {wrong[0]} is not in the consolidated model" if wrong else "no folds, or one twice",
            file=folder.fold(CONSOLIDATED),
            expected=f"some of {inference.folds}",
            remedy="Run nndet_consolidate with the folds you want",
        )
    source = f"{inference.source}; of these, folds {folds} were exported"
    return replace(inference, folds=list(folds), source=source), CONSOLIDATED


def _weights(folder: ModelFolder, source: int, fold: int, stage: str) -> Path:
    file = folder.weights(source, stage, fold)
    if not file.is_file():
        raise UserError(
            "weights are missing", file=file, remedy="Run nndet_train and nndet_consolidate again"
        )
    return file


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n").encode()
