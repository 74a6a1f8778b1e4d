"""A trained model that is asked case by case, whatever it finds; what is finished is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.results import InputWarning, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription


@dataclass(frozen=True)
class CaseJob:
    """One case to predict.

    Attributes:
        case: image files.
        description: modalities and classes.
        folder: of the predictions; what a system leaves beside its result goes there, too.
        made_from: hash of weights, plan, views and image files.
    """

    case: RawCase
    description: DatasetDescription
    folder: Path
    made_from: str

    @property
    def case_id(self) -> str:
        """Name of the case."""
        return self.case.case_id


@dataclass(frozen=True)
class Masks:
    """What a model that segments says of an image, on the grid of that image as it was given.

    Attributes:
        labels: (z, y, x) class index + 1 per voxel, 0 outside.
        instances: (z, y, x) a number per object, best first from 1, 0 outside.
        result: of the same image.
    """

    labels: NDArray[Any]
    instances: NDArray[Any]
    result: Result


class CasePredictor(ABC):
    """The networks of a model in memory.

    Attributes:
        plan: the model was trained with.
        result_type: of what it says.
        weights_hash: of everything that determines what it says of an image, thresholds excepted.
    """

    plan: Plan
    result_type: type[Result]
    weights_hash: str

    @abstractmethod
    def predict(self, job: CaseJob) -> Result:
        """What the model says of a case.

        Raises:
            UserError: the images cannot be read or prepared.
        """

    def inputs(self, case: RawCase) -> list[Path]:
        """Files of a case that determine what the model says of it."""
        return list(case.images)

    def decided(self, result: Result) -> Result:
        """An earlier result with the tuned settings that hold now; as it is where nothing is tuned."""
        return result

    def kept(self, job: CaseJob) -> Result | None:
        """What an earlier run said of the same images with the same weights; tuned settings are applied again."""
        file = self.result_type.file(job.folder, job.case_id)
        with suppress(UserError):  # of another version, or damaged: predicted anew
            if file.is_file():
                found = self.result_type.read(file)
                return self.decided(found) if found.made_from == job.made_from else None
        return None

    def predict_volumes(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> Result:
        """What the model says of images in memory; nothing is written.

        Args:
            case_id: name for the result.
            volumes: images by the name of their modality, in the plan's order, in axes of their own, on one grid.
            ctv: mask of the search region (above 0) on that grid; None where there is none.

        Raises:
            UserError: images cannot be prepared, or the model cannot be asked in this way.
        """
        raise UserError(
            "models of this kind cannot be asked from Python", remedy="Use nndet_predict on image files"
        )

    def predict_objects(
        self,
        case_id: str,
        volumes: Mapping[str, Volume],
        ctv: Volume | None,
        objects: Volume,
        stations: Mapping[int, str],
        measured: Mapping[int, Mapping[str, float]],
    ) -> Judged:
        """Verdicts on given objects of images in memory; nothing is written.

        Args:
            case_id: name for the result.
            volumes: as in :meth:`predict_volumes`.
            ctv: as in :meth:`predict_volumes`.
            objects: mask of numbered objects on the same grid.
            stations: where objects lie, by number.
            measured: what else is known of objects, by number and name.

        Raises:
            UserError: the model judges no given objects, or images cannot be prepared.
        """
        raise UserError("the model judges no given objects", remedy="Ask with predict or predict_result")

    def predict_masks(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> Masks:
        """The same with every voxel's class and object.

        Raises:
            UserError: as :meth:`predict_volumes`, or the model draws no masks.
        """
        raise UserError("the model draws no masks", remedy="Ask for its result: predict or predict_result")


def predict_case(
    predictor: CasePredictor,
    case: RawCase,
    description: DatasetDescription,
    folder: Path,
    *,
    overwrite: bool = False,
    warnings: Sequence[InputWarning] = (),
) -> tuple[Result, bool]:
    """The result of a case, written into ``folder`` unless the same stands there; and whether it was kept.

    Args:
        predictor: the model.
        case: image files.
        description: modalities and classes.
        folder: of the results.
        overwrite: predict a finished case again.
        warnings: what is unusual about the images, for the result.

    Raises:
        UserError: the images cannot be read or prepared.
    """
    job = CaseJob(
        case, description, folder, hash_json([predictor.weights_hash, _hash_files(predictor.inputs(case))])
    )
    found = None if overwrite else predictor.kept(job)
    result = replace(predictor.predict(job) if found is None else found, warnings=list(warnings))
    _write_if_new(result, result.file(folder, case.case_id))
    return result, found is not None


def _hash_files(files: list[Path]) -> str:
    try:
        return hash_files(files)
    except OSError as error:
        raise UserError(
            "cannot be read",
            file=error.filename,
            found=str(error.strerror),
            remedy="Correct the path, or the rights of the file",
        ) from None


def _write_if_new(result: Result, file: Path) -> None:
    """Leave a file alone that says the same, so that its time tells when the prediction was made."""
    with suppress(UserError):  # of another version, or damaged: written anew
        if file.is_file() and type(result).read(file) == result:
            return
    result.write(file)
