"""Find lesions from Python: one image in, lesions out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder, open_model
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.artifacts.results import InputWarning, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.registry import trusted_code
from nndet_psma.dataset.images.images import Volume
from nndet_psma.inference.case_predictor import Masks
from nndet_psma.inference.input_check import NOT_COMPARED, check_volumes, refuse_warned
from nndet_psma.inference.volumes import as_volume
from nndet_psma.systems.exchange import take_in_archive
from nndet_psma.systems.system import model_system
from nndet_psma.systems.work import OpenOptions


class Predictor:
    """A trained model in memory; make it with :meth:`from_folder`.

    Several threads may share one: their images are taken one after the other.

    Attributes:
        plan: what the model was trained with: modalities, classes, windows.
        settings: what was tuned, such as the thresholds that accept a lesion.
    """

    def __init__(
        self,
        folder: ModelFolder,
        fold: int,
        options: OpenOptions,
        *,
        tta: bool | None = None,
        strict: bool = False,
    ) -> None:
        system, self.plan = model_system(folder, fold)
        inference = folder.inference_plan(fold)
        sources = list(inference.folds) if options.folds is None else list(options.folds)
        wrong = sorted(set(sources) - set(inference.folds))
        if wrong or not sources:
            raise UserError(
                f"the model has no fold {wrong[0] if wrong else ''}".strip(),
                file=folder.fold(fold),
                expected=f"some of {list(inference.folds)}",
            )
        self.settings = inference.settings
        self._lock = Lock()
        self._strict = strict
        if self.plan.training_images is None:
            LOGGER.warning(NOT_COMPARED)
        opened = replace(options, folds=sources, tta=system.tta if tta is None else tta, from_memory=True)
        self._predictor = system.open(folder, fold, opened)

    @classmethod
    def from_folder(
        cls,
        path: str | PathLike[str],
        device: str = "auto",
        folds: Sequence[int] | None = None,
        *,
        tta: bool | None = None,
        batch_size: int | None = None,
        trust_code: bool = False,
        strict: bool = False,
    ) -> Predictor:
        """Load a model; neither ``$det_data`` nor ``$det_models`` is needed.

        Args:
            path: model folder (``det_models/TASK/MODEL``; its consolidated model is used), one of its folds
                (``.../fold0``), or a zip of ``nndet_psma export-model``.
            device: "auto" (first GPU, else CPU), "cpu", "cuda" or "cuda:N".
            folds: use these folds of a consolidated model; all when omitted.
            tta: look at mirror images, too; None as ``nndet_predict`` does unless told otherwise.
            batch_size: slices or patches at once; None takes that of the training.
            trust_code: import the classes outside this package that the model names by dotted path; their code runs.
            strict: refuse images that a check would warn of, or that are unlike those of the training; otherwise
                the result lists the warnings and the package's logger says them.

        Raises:
            UserError: no model there, or it is damaged.
        """
        options = OpenOptions(device=device, batch_size=batch_size, folds=folds)
        path = Path(path)
        with trusted_code(trust_code), tempfile.TemporaryDirectory() as scratch:
            if not path.is_file():
                return cls(*open_model(path), options, tta=tta, strict=strict)
            take_in_archive(path, Path(scratch) / "consolidated")
            return cls(ModelFolder(Path(scratch)), CONSOLIDATED, options, tta=tta, strict=strict)

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
            ctv: mask of the search region on the same grid, in any of these forms. Without one a model that was
                trained with it searches the body, or refuses.
            spacing: mm along (z, y, x), for arrays without a grid.
            score_threshold: accept all ranked candidates from this score on, instead of the tuned thresholds.

        Raises:
            UserError: not an image, grids differ, a modality is missing, the CTV is empty, or strict and warned of.
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
        """The same with everything that ``<case>_boxes.json`` holds; ``made_from`` covers the model only.

        Raises:
            UserError: as :meth:`predict`.
        """
        result = self.predict_result(image, ctv, spacing=spacing, case_id=case_id)
        if not isinstance(result, Prediction):
            raise UserError("the model finds no lesions", remedy="Ask for what it says with predict_result")
        return result

    def predict_result(
        self,
        image: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        case_id: str = "case",
    ) -> Result:
        """What the model says of a patient, of whatever type: a ``Prediction``, or what its system judges.

        Raises:
            UserError: as :meth:`predict`, or the model cannot be asked from Python.
        """
        volumes, mask = self._images(image, ctv, spacing)
        warnings = self._checked(case_id, volumes, mask)
        with self._lock:
            result = self._predictor.predict_volumes(case_id, volumes, mask)
        return replace(result, warnings=warnings)

    def predict_objects(
        self,
        image: Any,
        objects: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        stations: Mapping[int, str] | None = None,
        measured: Mapping[int, Mapping[str, float]] | None = None,
        case_id: str = "case",
    ) -> Judged:
        """Verdicts of a model that classifies given objects; ``made_from`` covers the model only.

        Args:
            image: as in :meth:`predict`.
            objects: mask of numbered objects on the grid of the image, in any of these forms.
            ctv: as in :meth:`predict`; only the distance to it is measured.
            spacing: as in :meth:`predict`.
            stations: where objects lie, by number.
            measured: what else is known of objects, by number and name, such as ``detector_score``.
            case_id: name for the result.

        Raises:
            UserError: as :meth:`predict`, or the model judges no given objects.
        """
        volumes, mask = self._images(image, ctv, spacing)
        given = _on_grid(as_volume(objects, spacing), next(iter(volumes.values())), "the mask of the objects")
        with self._lock:
            return self._predictor.predict_objects(
                case_id, volumes, mask, given, stations or {}, measured or {}
            )

    def predict_masks(
        self,
        image: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        case_id: str = "case",
    ) -> Masks:
        """Class and object of every voxel on the grid of the image, with the result they belong to.

        Only models that segment draw masks.

        Raises:
            UserError: as :meth:`predict`, or the model draws no masks.
        """
        volumes, mask = self._images(image, ctv, spacing)
        warnings = self._checked(case_id, volumes, mask)
        with self._lock:
            masks = self._predictor.predict_masks(case_id, volumes, mask)
        return replace(masks, result=replace(masks.result, warnings=warnings))

    def _checked(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> list[InputWarning]:
        warnings = check_volumes(case_id, volumes, ctv, self.plan)
        if self._strict:
            refuse_warned(case_id, warnings)
        for warning in warnings:
            LOGGER.warning("%s: %s", case_id, warning.to_error())
        return warnings

    def _images(
        self, image: Any, ctv: Any, spacing: tuple[float, float, float] | None
    ) -> tuple[dict[str, Volume], Volume | None]:
        volumes = self._volumes(image, spacing)
        first = next(iter(volumes.values()))
        mask = None if ctv is None else _on_grid(as_volume(ctv, spacing), first, "the CTV")
        return volumes, mask

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


def _on_grid(volume: Volume, first: Volume, name: str) -> Volume:
    if not first.geometry.same_grid(volume.geometry):
        raise UserError(
            f"{name} lies on another grid than the image",
            expected=str(first.geometry),
            found=str(volume.geometry),
            remedy="Resample it to the image",
        )
    return volume
