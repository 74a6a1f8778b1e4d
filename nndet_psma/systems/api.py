"""Find lesions from Python: one image in, lesions out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder, open_model
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume
from nndet_psma.inference.model_archive import unpack_model
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predictor import VoterEnsemble, choose_device
from nndet_psma.inference.volumes import as_volume, canonical
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.preprocess.prepare import prepare_case
from nndet_psma.systems.exchange import check_contents
from nndet_psma.systems.system import model_system


class Predictor:
    """A trained model in memory; make it with :meth:`from_folder`.

    Several threads may share one: their images are taken one after the other.

    Attributes:
        plan: what the model was trained with: modalities, classes, windows.
        settings: thresholds that accept a lesion.
    """

    def __init__(
        self, folder: ModelFolder, fold: int, folds: Sequence[int] | None, options: Mapping[str, Any]
    ) -> None:
        inference = folder.inference_plan(fold)
        system, _ = model_system(folder, fold)
        if not issubclass(system.result_type, Prediction):
            raise UserError(
                f"models of {system.name} find no lesions", file=folder.fold(fold), remedy="Use nndet_predict"
            )
        sources = list(inference.folds) if folds is None else list(folds)
        wrong = sorted(set(sources) - set(inference.folds))
        if wrong or not sources:
            raise UserError(
                f"the model has no fold {wrong[0] if wrong else ''}".strip(),
                file=folder.fold(fold),
                expected=f"some of {list(inference.folds)}",
            )
        self.settings = PostprocSettings(**inference.settings)
        self._options = {**options, "source_folds": sources}
        self._folder, self._fold = folder, fold
        self._lock = Lock()
        self._voters = VoterEnsemble(folder, fold, **self._options)
        self._whole: VoterEnsemble | None = None
        self.plan: DetectorPlan = self._voters.plan
        if self._without_ctv_possible():
            self._whole_slices()  # now, while an unpacked zip is still there

    @classmethod
    def from_folder(
        cls,
        path: str | PathLike[str],
        device: str = "auto",
        folds: Sequence[int] | None = None,
        *,
        tta: bool = False,
        batch_size: int | None = None,
    ) -> Predictor:
        """Load a model; neither ``$det_data`` nor ``$det_models`` is needed.

        Args:
            path: model folder (``det_models/TASK/MODEL``; its consolidated model is used), one of its folds
                (``.../fold0``), or a zip of ``nndet_psma export-model``.
            device: "auto" (first GPU, else CPU), "cpu", "cuda" or "cuda:N".
            folds: use these folds of a consolidated model; all when omitted.
            tta: look at mirror images, too.
            batch_size: slices at once; None takes that of the training.

        Raises:
            UserError: no model there, or it is damaged.
        """
        options = {"device": choose_device(device), "tta": tta, "batch_size": batch_size}
        path = Path(path)
        if not path.is_file():
            return cls(*open_model(path), folds, options)
        with tempfile.TemporaryDirectory() as scratch:
            unpack_model(path, Path(scratch) / "consolidated", check_contents)
            return cls(ModelFolder(Path(scratch)), CONSOLIDATED, folds, options)

    def predict(
        self,
        image: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        score_threshold: float | None = None,
    ) -> list[PredictedLesion]:
        """Lesions of one patient, best first; boxes in voxels of the image as it was given.

        Args:
            image: file, SimpleITK image, ``(array, Geometry)``, or array (z, y, x) with ``spacing``; CT in HU. A
                model of several modalities takes a dictionary of them by name, ``{"CT": ..., "PET": ...}``.
            ctv: mask of the search region on the same grid, in any of these forms. Without one the whole body is
                searched by the model's whole-slice detector.
            spacing: mm along (z, y, x), for arrays without a grid.
            score_threshold: accept all ranked candidates from this score on, instead of the tuned thresholds.

        Raises:
            UserError: not an image, grids differ, a modality is missing, or the CTV is empty.
        """
        prediction = self.predict_case(image, ctv, spacing=spacing)
        if score_threshold is None:
            return prediction.lesions
        return [lesion for lesion in prediction.candidates if lesion.score >= score_threshold]

    def predict_case(
        self,
        image: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        case_id: str = "case",
    ) -> Prediction:
        """The same with everything that ``<case>_boxes.json`` holds; ``made_from`` covers the model only."""
        volumes = self._volumes(image, spacing)
        first = next(iter(volumes.values()))
        mask = None if ctv is None else _on_grid(as_volume(ctv, spacing), first, "the CTV")
        predictor = self._voters if mask is not None or not self._needs_ctv() else self._whole_slices()
        with self._lock:
            case = prepare_case(
                case_id,
                {name: canonical(volume) for name, volume in volumes.items()},
                self.plan,
                ctv=None if mask is None else canonical(replace(mask, array=mask.array > 0)),
            )
            raw = predictor.predict(case, first.geometry, predictor.weights_hash)
        return make_prediction(raw, self.settings, self.plan.classes)

    def _volumes(self, image: Any, spacing: tuple[float, float, float] | None) -> dict[str, Volume]:
        """By name, in the order of the plan, all on one grid."""
        ctv = None if self.plan.ctv_modality is None else str(self.plan.ctv_modality)
        names = [name for index, name in self.plan.modalities.items() if index != ctv]
        given = image if isinstance(image, Mapping) else {names[0]: image}
        if set(given) != set(names):
            raise UserError(
                "the images are not those the model was trained on",
                expected=", ".join(names),
                found=", ".join(map(str, given))
                if isinstance(image, Mapping)
                else "one image without a name",
                remedy="Give a dictionary of images by modality",
            )
        volumes = {name: as_volume(given[name], spacing) for name in names}
        first = volumes[names[0]]
        return {name: _on_grid(volume, first, name) for name, volume in volumes.items()}

    def _needs_ctv(self) -> bool:
        return self.plan.ctv_modality is not None

    def _without_ctv_possible(self) -> bool:
        return self._needs_ctv() and any(stage.region == "body" for stage in self.plan.stages)

    def _whole_slices(self) -> VoterEnsemble:
        if self._whole is None:
            self._whole = VoterEnsemble(self._folder, self._fold, whole_slices=True, **self._options)
        return self._whole


def _on_grid(volume: Volume, first: Volume, name: str) -> Volume:
    if not first.geometry.same_grid(volume.geometry):
        raise UserError(
            f"{name} lies on another grid than the image",
            expected=str(first.geometry),
            found=str(volume.geometry),
            remedy="Resample it to the image",
        )
    return volume
