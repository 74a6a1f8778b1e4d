"""Boxes scored: records, scores, tables and the ablation of predicted cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.model_folder import (
    PLAN,
    RAW,
    TEST_PREDICTIONS,
    VALIDATION_RAW,
    ModelFolder,
)
from nndet_psma.artifacts.prediction import FusedPrediction, Prediction
from nndet_psma.artifacts.raw_predictions import RawPrediction, read_raw
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.instance_notes import read_stations
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.accepted import MAIN_RULE, TunedThresholds
from nndet_psma.evaluation.detection.case_scores import case_scores
from nndet_psma.evaluation.detection.compare import Comparison, compare_records
from nndet_psma.evaluation.detection.operating_points import RATES
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.score import Score
from nndet_psma.evaluation.detection.scores import Scores, score_records
from nndet_psma.evaluation.detection.tables import write_case_table, write_lesion_table
from nndet_psma.evaluation.detection.truth import Truth, truth_from_instances
from nndet_psma.inference.ablation import AblationRow, ablation
from nndet_psma.inference.postprocessing import read_settings
from nndet_psma.inference.records import make_record
from nndet_psma.stages.scored_cases import (
    box_type,
    labelled_cases,
    predictions_folder,
    read_results,
    results_folder,
)

BOTH_STAGES, DETECTOR_ALONE = "both_stages", "detector_alone"
"""Names of the two in the comparison of a second stage with the detector alone."""

BOOTSTRAP_DRAWS = 1000
_ABLATION_DRAWS = 200


@dataclass(frozen=True)
class BoxEvaluation:
    """Everything that was scored; also written to ``folder``."""

    folder: Path
    records: list[CaseRecord]
    scores: Scores
    cases: dict[str, float | None]
    ablation: list[AblationRow]
    comparison: Comparison | None = None
    both_stages: Comparison | None = None


def evaluate_boxes(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    *,
    test: bool,
    seed: int,
    compare: ModelFolder | None = None,
) -> BoxEvaluation:
    """Score the validation or the test predictions of a model.

    Writes ``scores.json``, ``results_boxes.json`` and ``results_case.json`` (nnDetection's names and keys),
    ``records.json``, ``lesions.csv``, ``cases.csv`` and ``ablation.json`` into ``val_results`` or ``test_results``;
    with another model to ``compare`` with (the same fold, the same cases) also ``comparison_<model>.json``, and where
    a second stage has left its scores beside the predictions, ``comparison_detector_alone.json``.

    Raises:
        UserError: no predictions, or no labels for them.
    """
    description = read_description(paths.root)
    inference = folder.inference_plan(fold)
    plan, kind = folder.plan(fold), box_type(folder, fold)
    settings = read_settings(inference)
    cases = labelled_cases(paths, description, "Ts" if test else "Tr")
    predictions = read_results(kind, predictions_folder(folder, fold, test), cases, test)
    clinical = read_clinical(paths)
    truths = {p.case_id: read_full_truth(cases[p.case_id], description) for p in predictions}

    def to_record(prediction: Prediction) -> CaseRecord:
        truth, grid = truths[prediction.case_id]
        patient = patient_of(prediction.case_id, clinical)
        return make_record(prediction, truth, grid, patient, slice_iou=settings.hit_iou)

    records = [to_record(prediction) for prediction in predictions]
    scores = score_records(
        records,
        classes=list(plan.classes.values()),
        slice_iou=settings.hit_iou,
        bootstrap_draws=BOOTSTRAP_DRAWS,
        seed=seed,
        thresholds=TunedThresholds(inference.source, bool(inference.criterion), inference.cases),
    )
    raw = _read_raw(folder, fold, [p.case_id for p in predictions], test, inference.folds)
    rows = ablation(raw, settings, plan.classes, to_record, bootstrap_draws=_ABLATION_DRAWS, seed=seed)
    target = results_folder(folder, fold, test)

    def compared(
        first: Sequence[CaseRecord], second: Sequence[CaseRecord], names: tuple[str, str]
    ) -> Comparison:
        return compare_records(
            first,
            second,
            classes=list(plan.classes.values()),
            names=names,
            slice_iou=settings.hit_iou,
            draws=BOOTSTRAP_DRAWS,
            seed=seed,
        )

    comparison = None
    if compare is not None:
        others = [to_record(other) for other in _same_cases(compare, fold, test, cases, predictions)]
        comparison = compared(records, others, (folder.root.name, compare.root.name))
    fused = _fused(predictions_folder(folder, fold, test), predictions)
    both = None
    if fused:
        both = compared([to_record(each) for each in fused], records, (BOTH_STAGES, DETECTOR_ALONE))
    by_case = case_scores(records, description.target_class)
    evaluation = BoxEvaluation(target, records, scores, by_case, rows, comparison, both)
    _write(evaluation)
    return evaluation


def _fused(folder: Path, predictions: Sequence[Prediction]) -> list[FusedPrediction]:
    """The candidates by the scores of both stages, of all cases; [] where a case has none, or one that is outdated."""
    files = [FusedPrediction.file(folder, each.case_id) for each in predictions]
    if not all(file.is_file() for file in files):
        return []
    fused = [FusedPrediction.read(file) for file in files]
    if any(both.detector != alone.made_from for both, alone in zip(fused, predictions, strict=True)):
        LOGGER.warning("%s: the scores of both stages are outdated: predict again with --status", folder)
        return []
    return fused


def read_full_truth(case: RawCase, description: DatasetDescription) -> tuple[Truth, Geometry]:
    """Lesions of a labelled case with all that strata ask for, and the canonical grid they are given on.

    Names of stations may stand beside the classes in the case's JSON: ``{"instances": {"1": 0}, "stations": {"1":
    "left obturator"}}``.

    Raises:
        UserError: a file cannot be read, or the CTV lies on another grid.
    """
    labels, classes = read_labels(case, description)
    ctv = None
    if description.ctv_modality is not None:
        volume = read_volume(case.images[description.ctv_modality])
        ctv = volume.array
        if ctv.shape != labels.array.shape:
            raise UserError(
                "CTV and label have different sizes",
                file=case.images[description.ctv_modality],
                expected=str(labels.array.shape),
                found=str(ctv.shape),
            )
    truth = truth_from_instances(
        labels.array, classes, labels.geometry.spacing, ctv=ctv, stations=read_stations(case)
    )
    return truth, labels.geometry


def _same_cases(
    other: ModelFolder, fold: int, test: bool, cases: dict[str, RawCase], predictions: list[Prediction]
) -> list[Prediction]:
    """Predictions of the other model; they must be of the same cases."""
    folder = predictions_folder(other, fold, test)
    planned = (other.fold(fold) / PLAN).is_file()  # boxes from elsewhere have none
    kind = box_type(other, fold) if planned else Prediction
    found = read_results(kind, folder, cases, test)
    differing = {p.case_id for p in found} ^ {p.case_id for p in predictions}
    if differing:
        raise UserError(
            f"the two models were not run on the same cases: {sorted(differing)[0]} has predictions of one only",
            file=folder,
            remedy="Compare models that were predicted on the same cases",
        )
    return found


def _read_raw(
    folder: ModelFolder, fold: int, cases: list[str], test: bool, folds: list[int]
) -> list[RawPrediction]:
    if test:
        places = [folder.fold(fold) / TEST_PREDICTIONS / RAW]
    else:
        places = [folder.fold(each) / VALIDATION_RAW for each in folds]
    files = [place / f"{case_id}.npz" for case_id in cases for place in places]
    return [read_raw(file) for file in files if file.is_file()]


def _write(evaluation: BoxEvaluation) -> None:
    folder = evaluation.folder
    write_json(folder / "scores.json", to_plain(evaluation.scores))
    write_json(folder / "results_boxes.json", evaluation.scores.results_boxes())
    write_json(folder / "results_case.json", evaluation.cases)
    write_text(folder / "records.json", json.dumps(to_plain(evaluation.records)) + "\n")
    write_json(folder / "ablation.json", to_plain(evaluation.ablation))
    for comparison in (evaluation.comparison, evaluation.both_stages):
        if comparison is not None:
            write_json(folder / f"comparison_{comparison.second}.json", to_plain(comparison))
    write_lesion_table(evaluation.records, folder / "lesions.csv")
    write_case_table(evaluation.records, folder / "cases.csv")


def summary_rows(evaluation: BoxEvaluation) -> list[tuple[str, str, str]]:
    """(score, value, interval) rows for the terminal: accepted lesions first, the further hit rules at the end."""
    rows: list[tuple[str, str, str]] = []
    named = {**accepted_by_name(evaluation), **evaluation.scores.scores, **evaluation.scores.other_hits}
    for key, score in named.items():
        if repeats_the_only_class(key, evaluation) or score.value is None:
            continue
        interval = "" if score.ci_low is None else f"{score.ci_low:.3f} to {score.ci_high:.3f}"
        rows.append((key, f"{score.value:.3f}", interval))
    return rows


def accepted_by_name(evaluation: BoxEvaluation) -> dict[str, Score]:
    """Rates of the accepted lesions at IoU 0.1, as ``accepted_sensitivity`` and so on; empty where not known."""
    accepted = evaluation.scores.accepted
    if accepted is None:
        return {}
    return {f"accepted_{name}": getattr(accepted.by_rule[MAIN_RULE], name) for name in RATES}


def repeats_the_only_class(key: str, evaluation: BoxEvaluation) -> bool:
    """Whether this is the score of a class and there is no other class: the same as the score of all."""
    classes = evaluation.scores.classes
    return len(classes) == 1 and key.startswith(f"{classes[0]}_")


def plain_case_scores(evaluation: BoxEvaluation) -> dict[str, Any]:
    """Case-level scores, rounded."""
    return {name: None if value is None else round(value, 4) for name, value in evaluation.cases.items()}
