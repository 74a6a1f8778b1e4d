"""A trained detector that is asked case by case: raw boxes of every voter on disk, then the thresholds."""

from __future__ import annotations

from pathlib import Path

from nndet_psma.artifacts.model_folder import RAW, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.artifacts.results import Result
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predictor import VoterEnsemble, choose_device
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.preprocess.build import load_case
from nndet_psma.systems.system import OpenOptions


class DetectorPredictor(CasePredictor):
    """Every voter of a model, its raw boxes on disk, and the thresholds."""

    result_type: type[Result] = Prediction

    def __init__(self, model: ModelFolder, fold: int, options: OpenOptions) -> None:
        inference = model.inference_plan(fold)
        self.settings = PostprocSettings(**inference.settings)
        self.voters = VoterEnsemble(
            model,
            fold,
            source_folds=list(inference.folds if options.folds is None else options.folds),
            device=choose_device(options.device),
            batch_size=options.batch_size,
            tta=options.tta,
            whole_slices=options.without_ctv and model.plan(fold).ctv_modality is not None,
        )
        self.plan = self.voters.plan
        self.weights_hash = self.voters.weights_hash

    def predict(self, job: CaseJob) -> Prediction:
        """Raw boxes into ``raw/CASE.npz``, then the thresholds."""
        case = load_case(job.case, job.description, self.voters.plan, with_labels=False)
        raw = self.voters.predict(case, original_geometry(job.case.images[0]), job.made_from)
        write_raw(_raw_file(job), raw)
        return self._judged(job)

    def kept(self, job: CaseJob) -> Prediction | None:
        """The thresholds on the raw boxes of an earlier run."""
        return self._judged(job) if is_current(_raw_file(job), job.made_from) else None

    def _judged(self, job: CaseJob) -> Prediction:
        # read back, so that a case predicted now and one kept give the same bytes
        return make_prediction(read_raw(_raw_file(job)), self.settings, self.plan.classes)


def _raw_file(job: CaseJob) -> Path:
    return job.folder / RAW / f"{job.case_id}.npz"
