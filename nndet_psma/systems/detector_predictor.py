"""A trained detector that is asked case by case: raw boxes of every voter on disk, then the thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.model_folder import RAW, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.artifacts.results import Result
from nndet_psma.dataset.images.images import Volume, original_geometry
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor
from nndet_psma.inference.postprocessing import make_prediction, tuned_settings
from nndet_psma.inference.predictor import VoterEnsemble, choose_device, whole_slice_stages
from nndet_psma.inference.volumes import canonical
from nndet_psma.preprocess.build import load_case
from nndet_psma.preprocess.prepare import prepare_case
from nndet_psma.systems.system import OpenOptions


class DetectorPredictor(CasePredictor):
    """Every voter of a model, its raw boxes on disk, and the thresholds."""

    result_type: type[Result] = Prediction

    def __init__(self, model: ModelFolder, fold: int, options: OpenOptions) -> None:
        inference = model.inference_plan(fold)

        def ensemble(*, whole_slices: bool) -> VoterEnsemble:
            return VoterEnsemble(
                model,
                fold,
                source_folds=list(inference.folds if options.folds is None else options.folds),
                device=choose_device(options.device),
                batch_size=options.batch_size,
                tta=options.tta,
                whole_slices=whole_slices,
            )

        needs_ctv = model.plan(fold).ctv_modality is not None
        self.voters = ensemble(whole_slices=options.without_ctv and needs_ctv)
        self.plan: DetectorPlan = self.voters.plan
        self.settings = tuned_settings(self.plan, inference)
        self.weights_hash = self.voters.weights_hash
        has_whole = needs_ctv and any(stage.region == "body" for stage in self.plan.stages)
        self._whole = ensemble(whole_slices=True) if options.from_memory and has_whole else self.voters

    def predict(self, job: CaseJob) -> Prediction:
        """Raw boxes into ``raw/CASE.npz``, then the thresholds."""
        case = load_case(job.case, job.description, self.voters.plan, with_labels=False)
        raw = self.voters.predict(case, original_geometry(job.case.images[0]), job.made_from)
        write_raw(_raw_file(job), raw)
        return self._judged(job)

    def kept(self, job: CaseJob) -> Prediction | None:
        """The thresholds on the raw boxes of an earlier run."""
        return self._judged(job) if is_current(_raw_file(job), job.made_from) else None

    def predict_volumes(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> Prediction:
        """Lesions in images in memory; ``made_from`` covers the model only."""
        voters = self._voters_for(ctv)
        case = prepare_case(
            case_id,
            {name: canonical(volume) for name, volume in volumes.items()},
            self.plan,
            ctv=None if ctv is None else canonical(replace(ctv, array=ctv.array > 0)),
        )
        first = next(iter(volumes.values()))
        raw = voters.predict(case, first.geometry, voters.weights_hash)
        return make_prediction(raw, self.settings, self.plan.classes)

    def _voters_for(self, ctv: Volume | None) -> VoterEnsemble:
        """The whole-slice detector where the voters need a CTV that is not there."""
        if ctv is not None or self.plan.ctv_modality is None:
            return self.voters
        whole_slice_stages(self.plan)  # without them there is nobody to ask
        return self._whole

    def _judged(self, job: CaseJob) -> Prediction:
        # read back, so that a case predicted now and one kept give the same bytes
        return make_prediction(read_raw(_raw_file(job)), self.settings, self.plan.classes)


def _raw_file(job: CaseJob) -> Path:
    return job.folder / RAW / f"{job.case_id}.npz"
