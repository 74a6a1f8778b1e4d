"""What classifiers of crops share: stored crops, training, calibration, decision, the table of shortcuts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from nndet_psma.artifacts.candidate_table import UNKNOWN_STATION, CandidateTable
from nndet_psma.artifacts.classified import Classified, ClassifiedObject
from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.instance_notes import read_stations, read_unknown
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.inference.case_predictor import CaseJob
from nndet_psma.inference.volumes import canonical
from nndet_psma.planners.classifier_options import ClassifierOptions
from nndet_psma.postproc.calibration import CalibratedCutoff, fit_temperature
from nndet_psma.postproc.cutoff import CutCriterion, Cutoff
from nndet_psma.postproc.fusion import DETECTOR_SCORE, Fusion, fit_fusion
from nndet_psma.preprocess.crop_store import build_crops, crops_hash, cut_case, numbered, read_table
from nndet_psma.preprocess.crops import ObjectCrops, cut_objects
from nndet_psma.systems.judged_rows import judged_rows
from nndet_psma.systems.judging_system import JudgingPredictor, JudgingSystem, Tuned
from nndet_psma.systems.staged_system import StagedSystem
from nndet_psma.systems.system import Facts, OpenOptions, PlanJob, TrainJob, TuneJob
from nndet_psma.trainers.settings import TrainerSettings

CP = TypeVar("CP", bound=ClassifierPlan)


class ClassifyingSystem(
    StagedSystem[CP, ClassifierOptions], JudgingSystem[CP, ClassifierOptions, TrainerSettings], Generic[CP]
):
    """A network that classifies crops round given objects."""

    options_type = ClassifierOptions
    given_objects = True
    result_type: ClassVar[type[Classified]] = Classified
    cutoff_type: ClassVar[type[Cutoff]] = CalibratedCutoff

    def prepare(self, job: PlanJob[CP, ClassifierOptions, TrainerSettings], plan: CP) -> list[str]:
        """Cut the crops."""
        clinical = read_clinical(job.paths)
        return build_crops(
            job.paths.store(plan.crops_identifier),
            job.cases,
            plan,
            patients=lambda case_id: patient_of(case_id, clinical),
            tracers=lambda case_id: clinical.get(case_id, {}).get("tracer", ""),
            processes=job.processes,
        )

    def check_prepared(
        self, job: TrainJob[CP, ClassifierOptions, TrainerSettings], prepared: CP
    ) -> list[str]:
        """Cases whose crops are stored; raw data need not be on the machine that trains."""
        if (job.plan.crops_identifier, job.plan.spacing) != (prepared.crops_identifier, prepared.spacing):
            raise UserError(
                "plan_overwrites change how crops are cut, which has happened already",
                file=job.paths.plan(job.config.plan),
                remedy="Give these overwrites to nndet_prep, too (with -o prep.overwrite=true)",
            )
        store = job.paths.store(job.plan.crops_identifier)
        if not store.is_dir():
            raise UserError("the crops are not cut for this plan", file=store, remedy="Run nndet_prep")
        return [each.name for each in store.iterdir() if each.is_dir() and not each.name.startswith(".")]

    def train(self, job: TrainJob[CP, ClassifierOptions, TrainerSettings]) -> None:
        """Train the members, and the network that sees the mask only."""
        from nndet_psma.trainers.classifier.stage import ClassifierStages
        from nndet_psma.trainers.registry import FoldJob
        from nndet_psma.trainers.stage_run import train_stages

        store = job.paths.store(job.plan.crops_identifier)
        settings, voter = job.config.trainer_cfg, job.config.exp.voter
        plan: ClassifierPlan = job.plan
        fold = FoldJob(plan, job.fold, store, job.folder, settings, job.overwrite, voter)
        train_stages(fold, ClassifierStages())

    def inputs(self, job: TrainJob[CP, ClassifierOptions, TrainerSettings]) -> dict[str, str]:
        """Hash of every prepared case of the fold."""
        fold, store = job.plan.folds[job.fold], job.paths.store(job.plan.crops_identifier)
        return {case_id: crops_hash(store, case_id) for case_id in (*fold.train, *fold.val)}

    def untuned(self, plan: CP, folds: list[int]) -> InferencePlan:
        """One half of probabilities at the prevalence of the training objects."""
        start = CalibratedCutoff(self.positive(plan), prevalence=plan.prevalence)
        return replace(super().untuned(plan, folds), settings=to_plain(start))

    def fit(
        self,
        job: TuneJob[ClassifierOptions, TrainerSettings],
        plan: CP,
        results: Sequence[Judged | Call],
        criterion: CutCriterion,
    ) -> Tuned:
        """Temperature first, then the cut-off on calibrated probabilities."""
        rows, _ = judged_rows(self, job.paths, results)
        objects = [each for result in results if isinstance(result, Classified) for each in result.objects]
        known = [(each, row) for each, row in zip(objects, rows, strict=True) if row.truth is not None]
        truth = np.array([row.truth == self.positive(plan) for _, row in known], dtype=bool)
        temperature, note = fit_temperature([each.logits for each, _ in known], truth, plan.prevalence)
        start = CalibratedCutoff(self.positive(plan), 0.5, temperature, plan.prevalence)
        tuned = super().fit(job, plan, [self.decided(result, start) for result in results], criterion)
        fusion, fused = _fitted_fusion(plan, tuned.results, rows)
        cutoff = replace(start, threshold=tuned.cutoff.threshold, fusion=fusion)
        told = f"{note}; {fused}" if fused else note
        return Tuned(cutoff, [self.decided(result, cutoff) for result in results], tuned.value, told)

    def decided(self, result: Judged | Call, cutoff: Cutoff) -> Judged | Call:
        """Probabilities calibrated anew from what the networks said, then decided."""
        if isinstance(result, Classified) and isinstance(cutoff, CalibratedCutoff):
            objects = [_calibrated(each, cutoff) for each in result.objects]
            return replace(result, objects=objects, threshold=cutoff.threshold)
        return super().decided(result, cutoff)

    def object_truth(self, case: RawCase, description: DatasetDescription) -> dict[int, str | None]:
        """Class by number; None where ``status`` says null."""
        unknown = read_unknown(case)
        found = super().object_truth(case, description)
        return {number: None if number in unknown else name for number, name in found.items()}

    def simpler_rows(
        self,
        paths: TaskPaths,
        model: ModelFolder,
        fold: int,
        results: Sequence[Any],
        rows: Sequence[JudgedRow],
        test: bool,
    ) -> tuple[dict[str, list[JudgedRow]], dict[str, list[JudgedRow]]]:
        """Rules, regressions and forests on the table, fitted in the model's folds, and the network without its image.

        Models on the table need the prepared crops of the task; without them only the last is there. Controls: the
        network on surroundings only, on the object only, and on objects of equal size.
        """
        from nndet_psma.systems.simple_rows import control_rows, simple_rows
        from nndet_psma.trainers.classifier.controls import BLIND

        plan = model.plan(fold, self.plan_type)
        store = paths.store(plan.crops_identifier)
        folds = plan.folds
        table = read_table(store, plan.case_ids) if folds and store.is_dir() else CandidateTable([])
        if test:
            seen = plan.case_ids if fold == CONSOLIDATED else folds[fold].train
            parts = [(table.of_cases(seen), list(results))]
        else:
            used = self.inference(model, plan, fold).folds if fold == CONSOLIDATED else [fold]
            parts = [
                (table.of_cases(folds[k].train), [each for each in results if each.case_id in folds[k].val])
                for k in used
            ]
        by_object = {(row.case_id, int(row.object_id or 0)): row for row in rows}
        simple = simple_rows(plan, parts, by_object)
        cutoff = self.cutoff(plan, self.inference(model, plan, fold))
        if not isinstance(cutoff, CalibratedCutoff):
            raise TypeError("classifiers decide by calibrated probabilities")
        controls = control_rows(plan, list(results), by_object, cutoff)
        blind = {name: controls.pop(name) for name in (BLIND,) if name in controls}
        return simple | blind, controls

    def open(self, model: ModelFolder, fold: int, options: OpenOptions) -> ClassifyingPredictor:
        """All members of the fold, or of all consolidated folds."""
        return ClassifyingPredictor(self, model, fold, options)

    def facts(self, plan: CP, precision: str = "no") -> Facts:
        """What the networks look at."""
        crop, side = plan.crop, plan.crop.size[1] * plan.spacing[1]
        seen = {"2d": "axial slices", "2.5d": "three orthogonal slices", "3d": "a cube"}[crop.dimension]
        return Facts(
            f"{len(plan.voters)} network(s) per fold look at {seen} of {side:g} mm round every object ({crop.input}).",
            spacing=plan.spacing,
            windows=plan.windows,
            trainings=len(plan.stages),
            cost_note="the cost of classifiers is not estimated",
        )


class ClassifyingPredictor(JudgingPredictor):
    """The networks of a classifier."""

    def __init__(
        self, system: JudgingSystem[Any, Any, Any], model: ModelFolder, fold: int, options: OpenOptions
    ) -> None:
        from nndet_psma.inference.classifying import CropEnsemble
        from nndet_psma.inference.predictor import choose_device

        super().__init__(system, model, fold, options)
        self.explain = options.explain
        self.plan: ClassifierPlan
        files: dict[str, list[Path]] = {stage.name: [] for stage in self.plan.stages}
        for file in self.files:
            files[file.parent.name].append(file)
        batch = options.batch_size or self.plan.batch_size
        self.ensemble = CropEnsemble(self.plan, files, choose_device(options.device), batch)

    def inputs(self, case: RawCase) -> list[Path]:
        """Images and the mask; the JSON tells stations."""
        return [*case.images, *(file for file in (case.label, case.instances) if file is not None)]

    def kept(self, job: CaseJob) -> Result | None:
        """An earlier result, but where it is to be explained and was not."""
        from nndet_psma.inference.explanations import explanation_folder

        if self.explain and not explanation_folder(job.folder, job.case_id).is_dir():
            return None
        return super().kept(job)

    def predict(self, job: CaseJob) -> Classified:
        """Every object of the mask in the label's place."""
        from nndet_psma.inference.explanations import explain, explanation_folder

        cut = cut_case(job.case, self.plan)
        result = self._judged(job.case_id, job.made_from, cut, read_stations(job.case) or {})
        target = explanation_folder(job.folder, job.case_id)
        if target.is_dir():
            shutil.rmtree(target)  # of other images or weights
        if self.explain:
            explain(target, result, cut, self.ensemble)
        return result

    def predict_objects(
        self,
        case_id: str,
        volumes: Mapping[str, Volume],
        ctv: Volume | None,
        objects: Volume,
        stations: Mapping[int, str],
        measured: Mapping[int, Mapping[str, float]],
    ) -> Classified:
        """Every object of the mask; boxes in voxels of the image as it was given."""
        given = volumes[str(self.plan.ct_name)]
        region = None if ctv is None else canonical(ctv)
        mask = numbered(canonical(objects), Path(case_id))
        cut = cut_objects(
            canonical(given), mask, self.plan, image=given.geometry, ctv=region, measured=measured
        )
        return self._judged(case_id, self.weights_hash, cut, stations)

    def _judged(
        self, case_id: str, made_from: str, cut: ObjectCrops, stations: Mapping[int, str]
    ) -> Classified:
        cutoff, logits = self.cutoff, self.ensemble.logits(cut)
        if not isinstance(cutoff, CalibratedCutoff):
            raise TypeError("classifiers decide by calibrated probabilities")
        negative = next(name for name in self.plan.classes.values() if name != cutoff.positive)
        raw = CalibratedCutoff(cutoff.positive, 0.5, 1.0, cutoff.prevalence)
        objects = []
        for index, found in enumerate(cut.objects):
            station = stations.get(found.object_id) or UNKNOWN_STATION
            said = logits.voting[:, index].tolist()
            controls = {name: told[:, index].tolist() for name, told in logits.controls.items()}
            nothing = {negative: 1.0, cutoff.positive: 0.0}
            start = ClassifiedObject(
                found.object_id, found.box, found.centre_mm, nothing, negative,
                said, controls, raw.calibrated(said)[0], 0.0, station, found.features,
            )  # fmt: skip
            objects.append(_calibrated(start, cutoff))
        kind: Any = self.result_type
        result: Classified = kind(case_id, made_from, objects, cutoff.threshold)
        return result


def _fitted_fusion(
    plan: ClassifierPlan, results: Sequence[Judged | Call], rows: Sequence[JudgedRow]
) -> tuple[Fusion | None, str]:
    """One score of a detector's score and the calibrated probability; None where objects are not of a detector."""
    positive = list(plan.classes.values())[-1]
    fold_of = {case_id: number for number, fold in enumerate(plan.folds) for case_id in fold.val}
    objects = [
        (result, each) for result in results if isinstance(result, Classified) for each in result.objects
    ]
    found = [
        (
            each.features[DETECTOR_SCORE],
            each.probabilities[positive],
            row.truth == positive,
            fold_of[result.case_id],
        )
        for (result, each), row in zip(objects, rows, strict=True)
        if row.truth is not None and each.features.get(DETECTOR_SCORE) is not None
    ]
    if not found:
        return None, ""
    detector, status, truth, groups = zip(*found, strict=True)
    return fit_fusion(detector, status, np.array(truth, dtype=bool), groups)


def _calibrated(each: ClassifiedObject, cutoff: CalibratedCutoff) -> ClassifiedObject:
    mean, spread = cutoff.calibrated(each.logits)
    probabilities = {name: mean if name == cutoff.positive else 1 - mean for name in each.probabilities}
    detector = each.features.get(DETECTOR_SCORE)
    fused = None if cutoff.fusion is None or detector is None else cutoff.fusion.score(detector, mean)
    return replace(
        each, probabilities=probabilities, decision=cutoff(probabilities), uncertainty=spread, fused=fused
    )
