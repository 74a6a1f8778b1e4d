"""Stage predict: test cases of a task, any folder of images, or one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import RAW, ModelFolder
from nndet_psma.artifacts.results import Result
from nndet_psma.core.atomic import remove_leftovers, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import progress_bar
from nndet_psma.core.shortages import memory_explained
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES, RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.case_predictor import CasePredictor, predict_case
from nndet_psma.inference.input_cases import part_of
from nndet_psma.inference.input_check import NOT_COMPARED, check_files, refuse_warned
from nndet_psma.systems.system import AnySystem, OpenOptions, model_system

INDEX = "predictions.json"


@dataclass(frozen=True)
class PredictJob:
    """What to predict.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated ensemble.
        cases: image files.
        description: modalities and classes.
        target: folder of the results.
        options: how the model is opened.
        num_parts: jobs that share the cases.
        part_id: which of them this is, from 0.
        overwrite: predict finished cases again.
        strict: refuse cases with warnings.
    """

    folder: ModelFolder
    fold: int
    cases: Sequence[RawCase]
    description: DatasetDescription
    target: Path
    options: OpenOptions = field(default_factory=OpenOptions)
    num_parts: int = 1
    part_id: int = 0
    overwrite: bool = False
    strict: bool = False


@dataclass
class PredictResult:
    """What became of the cases of a job.

    Attributes:
        results: of the cases that could be predicted, in their order.
        kept: cases that were finished before.
        failed: what was wrong, by case id.
    """

    results: list[Result] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, UserError] = field(default_factory=dict)


def with_objects(cases: Sequence[RawCase], folder: Path, system: AnySystem) -> list[RawCase]:
    """The cases with the masks of the objects to judge, ``CASE.nii.gz`` in ``folder``; stations stand in ``CASE.json``.

    Raises:
        UserError: the system judges no given objects, or a mask is missing.
    """
    if not system.given_objects:
        raise UserError(f"models of {system.name} judge no given objects", remedy="Leave --objects out")
    found = []
    for case in cases:
        mask = next((f for s in IMAGE_SUFFIXES if (f := folder / f"{case.case_id}{s}").is_file()), None)
        if mask is None:
            raise UserError(
                f"the mask of the objects of case {case.case_id} is missing",
                file=folder / f"{case.case_id}.nii.gz",
                remedy="Put the mask of the objects beside the images",
            )
        notes = folder / f"{case.case_id}.json"
        found.append(replace(case, label=mask, instances=notes if notes.is_file() else None))
    return found


def explainable(system: AnySystem) -> None:
    """UserError where the models of a system do not tell where they look."""
    if not system.given_objects:
        raise UserError(f"models of {system.name} are not explained", remedy="Leave --explain out")


def predict_job(job: PredictJob, say: Callable[[str], None]) -> PredictResult:
    """Predict the cases of the job's part. Writes the result of each, and what the system leaves beside it.

    Every case is checked as ``nndet_psma check --full`` does and compared with the training cases; what is found
    stands in the result and is said, or the case is refused (``strict``).

    A case is kept when it was predicted from the same image bytes, weights, plan and views; its thresholds are
    applied again. A case that cannot be read or prepared does not stop the others.

    Raises:
        UserError: the model is missing or damaged, there is no such part, or the disk is full.
    """
    system, _ = model_system(job.folder, job.fold)
    cases = part_of(list(job.cases), job.num_parts, job.part_id)
    predictor = system.open(job.folder, job.fold, job.options)
    if job.num_parts == 1 and job.target.is_dir():
        for folder in (job.target, job.target / RAW):
            remove_leftovers(folder)  # not beside other parts: they may be writing
    size = job.options.batch_size or "the training batch"
    remedy = f"Lower inference_kwargs.batch_size (now {size}), or end other programs"
    if predictor.plan.training_images is None:
        say(NOT_COMPARED)
    done = PredictResult()
    with progress_bar("predict", len(cases)) as advance:
        for number, case in enumerate(cases, start=1):
            try:
                with memory_explained(remedy):
                    result, kept = _checked_and_predicted(job, predictor, case)
            except UserError as error:
                done.failed[case.case_id] = error
                say(f"{case.case_id}: FAILED: {error}")
            else:
                done.results.append(result)
                done.kept += [case.case_id] if kept else []
                say(f"{case.case_id}: {result.told()}" + (" (finished before)" if kept else ""))
                for warning in result.warnings:
                    say(f"{case.case_id}: warning: {warning.to_error()}")
            advance(number, case.case_id)
    return done


def _checked_and_predicted(job: PredictJob, predictor: CasePredictor, case: RawCase) -> tuple[Result, bool]:
    warnings = check_files(case, job.description, predictor.plan.training_images)
    if job.strict:
        refuse_warned(case.case_id, warnings)
    return predict_case(
        predictor, case, job.description, job.target, overwrite=job.overwrite, warnings=warnings
    )


def predict_cases(job: PredictJob, say: Callable[[str], None]) -> list[Result]:
    """As :func:`predict_job`, but the first case that fails is an error in the end.

    Raises:
        UserError: a case could not be predicted; the others are finished.
    """
    done = predict_job(job, say)
    for error in done.failed.values():
        raise error
    return done.results


def write_index(
    job: PredictJob, done: PredictResult, inference: InferencePlan, command: dict[str, Any]
) -> Path:
    """``predictions.json``: one line per case with the kinds of its warnings, thresholds and their source, what failed,
    and whether the images could be compared with those of the training.

    The cases of other parts are listed, too, as far as they are finished: whichever part ends last lists all.
    """
    found = {result.case_id: _line(result) for result in done.results}
    if job.num_parts > 1:
        result_type = model_system(job.folder, job.fold)[0].result_type
        for case in job.cases:
            file = result_type.file(job.target, case.case_id)
            if case.case_id not in found and case.case_id not in done.failed and file.is_file():
                found[case.case_id] = _line(result_type.read(file))
    content = {
        "thresholds": inference.settings,
        "thresholds_source": inference.source,
        "options": command,
        "compared_with_training": job.folder.plan(job.fold).training_images is not None,
        "cases": [found[case.case_id] for case in job.cases if case.case_id in found],
        "failed": [{"case_id": case_id, "error": str(error)} for case_id, error in done.failed.items()],
    }
    write_text(job.target / INDEX, json.dumps(content, indent=2) + "\n")
    return job.target / INDEX


def _line(result: Result) -> dict[str, Any]:
    return {**result.summary(), "warnings": [warning.kind for warning in result.warnings]}
