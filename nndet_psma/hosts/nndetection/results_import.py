"""A model folder of genuine nnDetection as one of ours: evaluated, compared, reported and submitted like our own.

Its boxes, not its weights: the folder gets a plan, an inference plan and ``<case>_boxes.json`` of every fold, so that
``nndet_eval``, ``nndet_psma report`` and ``nndet_psma submit`` work on it. Several models vote as HU windows do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, PLAN, ModelFolder
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.hosts.boxes_pkl.files import BOXES_SUFFIX, read_nndetection_boxes
from nndet_psma.hosts.nndetection.foreign_plan import PLAN_FILE, foreign_plan
from nndet_psma.inference.records import make_record, read_truth
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.submission.foreign_boxes import foreign_prediction

PREDICTIONS = {"Tr": "val_predictions", "Ts": "test_predictions"}
"""nnDetection's folders of restored predictions by split; ours have the same names."""

DEFAULT_THRESHOLD = 0.5  # where there are no validation predictions to choose one on

_CRITERION = "f1 of lesions, IoU 0.1"
_STEPS = ("ScoreThreshold", "WindowBagging", "BoxSlicing")


@dataclass(frozen=True)
class ImportSettings:
    """How boxes become lesions.

    Attributes:
        score_threshold: of accepted lesions, in [0, 1]; None takes the best F1 on the validation predictions.
        vote_iou: IoU from which on two models agree.
        min_votes: models that must agree.
    """

    score_threshold: float | None = None
    vote_iou: float = 0.5
    min_votes: int = 1

    def __post_init__(self) -> None:
        threshold = 0.0 if self.score_threshold is None else self.score_threshold
        if not (0 <= threshold <= 1 and 0 < self.vote_iou <= 1 and self.min_votes >= 1):
            raise UserError(
                "thresholds lie between 0 and 1, votes from 1 on",
                found=str(self),
                remedy="Correct the thresholds",
            )


@dataclass(frozen=True)
class ImportedFold:
    """What became of one fold folder.

    Attributes:
        fold: its number, -1 for the consolidated model.
        score_threshold: of accepted lesions.
        validation: validation cases.
        test: test cases.
    """

    fold: int
    score_threshold: float
    validation: list[str]
    test: list[str]


def import_results(
    paths: TaskPaths, sources: Sequence[Path], target: ModelFolder, settings: ImportSettings | None = None
) -> list[ImportedFold]:
    """Bring the restored predictions of every fold and of the consolidated model into ``target``.

    Args:
        paths: the task; its images tell the grids, its labels the threshold.
        sources: nnDetection's model folders (``det_models/<task>/<exp.id>``), one per voter; all need the same folds
            and cases.
        target: our model folder; not one of the sources, whose results would be overwritten.
        settings: thresholds.

    Raises:
        UserError: no predictions, a case without an image, sources that do not fit together, or a target that holds
            a trained model.
    """
    settings = settings or ImportSettings()
    _check(sources, target, settings)
    description = read_description(paths.root)
    folds = _folds(sources[0])
    cases = {split: {c.case_id: c for c in list_cases(paths, description, split)} for split in _splits(paths)}
    fold_plans = _fold_plans(sources[0], list(cases["Tr"]))
    plans = [foreign_plan(_plan_folder(source), description, fold_plans) for source in sources]
    reader = _Reader(paths, description, cases, settings, [plan.spacing for plan in plans])
    imported = []
    for fold in folds:
        found, predictions = reader.read(fold, [_fold_folder(source, fold) for source in sources])
        folder = target.fold(fold)
        plans[0].write(folder / PLAN)
        for split, of_split in predictions.items():
            _write_predictions(folder / PREDICTIONS[split], of_split)
        _inference_plan(found, folds, settings, predictions).write(folder / INFERENCE_PLAN)
        imported.append(found)
    return imported


class _Reader:
    """Predictions of a fold from all sources, with the threshold chosen on its validation cases."""

    def __init__(
        self,
        paths: TaskPaths,
        description: DatasetDescription,
        cases: Mapping[str, Mapping[str, RawCase]],
        settings: ImportSettings,
        spacings: Sequence[Sequence[float]],
    ) -> None:
        self.description, self.cases, self.settings = description, cases, settings
        self.spacings = spacings  # of the grid that each source predicts in
        self.clinical = read_clinical(paths)

    def read(self, fold: int, folders: Sequence[Path]) -> tuple[ImportedFold, dict[str, list[Prediction]]]:
        """What was found, and the predictions by split."""
        ranked = {split: self._predictions(folders, split) for split in self.cases}
        threshold = self.settings.score_threshold
        if threshold is None:
            threshold = self._best_threshold(ranked["Tr"])
        predictions = {split: [_accepted(p, threshold) for p in found] for split, found in ranked.items()}
        ids = {split: [p.case_id for p in predictions.get(split, [])] for split in PREDICTIONS}
        return ImportedFold(fold, threshold, ids["Tr"], ids["Ts"]), predictions

    def _predictions(self, folders: Sequence[Path], split: str) -> list[Prediction]:
        """Every case of a split, with all boxes as lesions that enough models voted for."""
        return [self._prediction(folders, split, case_id) for case_id in _case_ids(folders, split)]

    def _prediction(self, folders: Sequence[Path], split: str, case_id: str) -> Prediction:
        files = [folder / PREDICTIONS[split] / f"{case_id}{BOXES_SUFFIX}" for folder in folders]
        case = self.cases[split].get(case_id)
        if case is None:
            raise UserError(
                f"the task has no case '{case_id}'",
                file=files[0],
                remedy="Give the task that the model was trained on",
            )
        return foreign_prediction(
            [
                read_nndetection_boxes(file, predicted_at=spacing)
                for file, spacing in zip(files, self.spacings, strict=True)
            ],
            self.description.labels,
            image=original_geometry(case.images[0]),
            score_threshold=0.0,
            vote_iou=self.settings.vote_iou,
            min_votes=self.settings.min_votes,
        )

    def _best_threshold(self, predictions: Sequence[Prediction]) -> float:
        records = []
        for prediction in predictions:
            truth, grid = read_truth(self.cases["Tr"][prediction.case_id], self.description)
            patient = patient_of(prediction.case_id, self.clinical)
            records.append(
                make_record(prediction, truth, grid, patient, slice_iou=PostprocSettings().hit_iou)
            )
        names = [self.description.labels[index] for index in sorted(self.description.labels)]
        best = score_records(records, classes=names, bootstrap_draws=0).best_f1 if records else None
        return DEFAULT_THRESHOLD if best is None else best.point.threshold


def _accepted(prediction: Prediction, threshold: float) -> Prediction:
    """Only lesions from the threshold on; it is compared with the scores as written, on which it was chosen."""
    return replace(
        prediction,
        made_from=hash_json([prediction.made_from, threshold]),
        lesions=[lesion for lesion in prediction.lesions if lesion.score >= threshold],
    )


def _check(sources: Sequence[Path], target: ModelFolder, settings: ImportSettings) -> None:
    if not 1 <= settings.min_votes <= len(sources):
        raise UserError(f"{settings.min_votes} votes needed", expected=f"from 1 to the {len(sources)} models")
    if target.root.resolve() in [source.resolve() for source in sources]:
        raise UserError(
            "is nnDetection's own folder; its results would be overwritten",
            file=target.root,
            remedy="Choose another name for the imported model",
        )
    if any(target.root.rglob("model.safetensors")):
        raise UserError("holds a trained model", file=target.root, remedy="Choose another name")


def _splits(paths: TaskPaths) -> list[str]:
    return [split for split in PREDICTIONS if split == "Tr" or paths.images(split).is_dir()]


def _fold_folder(source: Path, fold: int) -> Path:
    return ModelFolder(source).fold(fold)


def _folds(source: Path) -> list[int]:
    """Folds that hold predictions, the consolidated model last."""
    numbers = [*ModelFolder(source).trained_folds(), CONSOLIDATED]
    folds = [
        fold
        for fold in numbers
        if any(
            any((_fold_folder(source, fold) / name).glob(f"*{BOXES_SUFFIX}")) for name in PREDICTIONS.values()
        )
    ]
    if not folds:
        raise UserError(
            "holds no predictions of nnDetection",
            file=source,
            expected=f"fold<k>/val_predictions/*{BOXES_SUFFIX} or consolidated/test_predictions/*{BOXES_SUFFIX}",
            remedy="Run nnDetection's nndet_train --sweep, or nndet_predict, first",
        )
    return folds


def _plan_folder(source: Path) -> Path:
    """A fold folder that tells the plan in text."""
    for fold in ModelFolder(source).trained_folds():
        if (_fold_folder(source, fold) / PLAN_FILE).is_file():
            return _fold_folder(source, fold)
    raise UserError(
        f"no fold folder holds {PLAN_FILE}", file=source, expected="a model folder of nnDetection"
    )


def _fold_plans(source: Path, labelled: Sequence[str]) -> list[FoldPlan]:
    """What each fold validated, told by its predictions; as many folds from 0 on as are complete."""
    plans: list[FoldPlan] = []
    for fold in ModelFolder(source).trained_folds():
        val = _case_ids([_fold_folder(source, fold)], "Tr")
        train = [case_id for case_id in labelled if case_id not in val]
        if fold != len(plans) or not val or not train:
            break
        plans.append(FoldPlan(train, val))
    return plans


def _case_ids(folders: Sequence[Path], split: str) -> list[str]:
    """Cases that every source predicted; they must be the same."""
    names = [
        sorted(
            file.name.removesuffix(BOXES_SUFFIX)
            for file in (folder / PREDICTIONS[split]).glob(f"*{BOXES_SUFFIX}")
        )
        for folder in folders
    ]
    for folder, other in zip(folders[1:], names[1:], strict=True):
        if other != names[0]:
            different = sorted(set(other) ^ set(names[0]))[0]
            raise UserError(
                f"case {different} is not predicted by every model",
                file=folder / PREDICTIONS[split],
                remedy="Predict the same cases with every model",
            )
    return names[0]


def _write_predictions(folder: Path, predictions: Sequence[Prediction]) -> None:
    """Write all, and drop those of an earlier import."""
    names = {f"{prediction.case_id}_boxes.json": prediction for prediction in predictions}
    for old in folder.glob("*_boxes.json"):
        if old.name not in names:
            old.unlink()
    for name, prediction in names.items():
        prediction.write(folder / name)


def _inference_plan(
    found: ImportedFold,
    folds: Sequence[int],
    settings: ImportSettings,
    predictions: Mapping[str, Sequence[Prediction]],
) -> InferencePlan:
    tuned = settings.score_threshold is None and bool(found.validation)
    chosen = PostprocSettings(
        score_threshold=found.score_threshold,
        vote_iou=settings.vote_iou,
        min_votes=settings.min_votes,
        steps=_STEPS,
    )
    source = "boxes of nnDetection, post-processed by its own sweep; score threshold "
    source += f"of the best F1 on {len(found.validation)} validation cases" if tuned else "given, not tuned"
    return InferencePlan(
        made_from=hash_json([p.made_from for p in predictions["Tr"]]),
        folds=[fold for fold in folds if fold != CONSOLIDATED]
        if found.fold == CONSOLIDATED
        else [found.fold],
        settings=to_plain(chosen),
        criterion=_CRITERION if tuned else "",
        value=None,
        source=source,
        cases=found.validation,
    )
