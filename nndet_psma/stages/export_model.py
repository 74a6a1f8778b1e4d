"""Stage export-model: a consolidated model as one zip that can be passed on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nndet_psma import __version__
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, PLAN, ModelFolder
from nndet_psma.artifacts.model_manifest import MANIFEST, ModelManifest
from nndet_psma.artifacts.plan import Decision, Plan
from nndet_psma.core.atomic import remove_leftovers, scratch_folder
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.inference.model_archive import entry_of, weight_blocks, write_archive
from nndet_psma.systems.system import AnySystem, model_system

NO_LICENCE = "none stated: ask the sender before using or passing on these weights"
_LEFT_OUT = "left out of the export: it names a case or a file"
_PATH = re.compile(r"(?<![\w.])(?:/|~/|[A-Za-z]:\\)\w")


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
    system, plan = model_system(job.folder, source)
    system.require()
    remove_leftovers(job.target.parent, job.target.name)
    with scratch_folder(job.target) as scratch:
        weights = system.exported(job.folder, plan, source, inference.folds, scratch)
        return _written(job, inference, source, weights)


def _written(
    job: ExportJob, inference: InferencePlan, source: int, weights: dict[str, Path]
) -> ModelManifest:
    """The zip of ``weights`` and what belongs to them."""
    system, plan = model_system(job.folder, source)
    for file in weights.values():
        if not file.is_file():
            raise UserError(
                "weights are missing", file=file, remedy="Run nndet_train and nndet_consolidate again"
            )
    texts = {
        PLAN: _text(anonymous_plan(system, plan, inference.cases).to_json()),
        INFERENCE_PLAN: _text(replace(inference, cases=[]).file_content()),
    }
    more = system.exported_texts(job.folder, plan, source, inference.folds)
    texts |= {name: _text(content) for name, content in more.items()}
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


def anonymous_plan(system: AnySystem, plan: Plan, more_cases: list[str]) -> Plan:
    """The plan without case ids and paths.

    Args:
        system: of the plan.
        plan: as trained.
        more_cases: further case ids that must not be named.
    """
    public, hidden = system.without_paths(plan)
    names = sorted({*plan.case_ids, *more_cases, *hidden})
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names) or r"(?!)")
    decisions = {key: _anonymous(decision, pattern) for key, decision in plan.decisions.items()}
    anonymous: Plan = replace(public, folds=[], decisions=decisions)
    return anonymous


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


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n").encode()
