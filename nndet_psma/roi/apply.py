"""Give the cases of a task, or of a folder of images, the mask of a trained segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import original_geometry, read_volume, write_volume
from nndet_psma.dataset.task.add_modality import SPLITS, add_modality, modality_index
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.masks.segmentation_scores import segmentation_scores
from nndet_psma.roi.organ_folder import folder_cases, listed_images
from nndet_psma.roi.organ_masks import KnownMasks, known_masks, note_applied, roi_folder
from nndet_psma.roi.organ_model import OrganModel

SCORES = "scores.json"


@dataclass(frozen=True)
class RoiApplication:
    """How masks are made and what they are compared with.

    Attributes:
        largest: contiguous regions to keep; None keeps all.
        masks: folder of masks that somebody drew; None compares with the task's modality of that name.
        labels: numbers of the structures in them.
        check: only predict and compare cases that no fold learned from; the task stays as it is.
        overwrite: replace the modality that the task has, or the files that the folder has.
    """

    largest: int | None = None
    masks: Path | None = None
    labels: Mapping[str, int] | None = None
    check: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.largest is not None and self.largest < 1:
            raise UserError(
                "no region would be left", expected="--largest 1 or more", found=str(self.largest)
            )


@dataclass(frozen=True)
class RoiResult:
    """What came of it.

    Attributes:
        index: file number of the modality; None where the task stays as it is.
        scores: a row per case that somebody drew: Dice, HD95 (mm), whether the case is held out.
        dice: mean of the held-out cases, None without such.
    """

    index: int | None
    scores: list[dict[str, Any]]
    dice: float | None


@dataclass(frozen=True)
class _Wanted:
    """A case to segment: as the task numbers it, as the network does, and who predicts it."""

    split: str
    case: RawCase
    given: RawCase
    folds: tuple[int, ...]
    held_out: bool


def apply_to_task(
    paths: TaskPaths, model: OrganModel, how: RoiApplication, say: Callable[[str], None]
) -> RoiResult:
    """Segment every training and test case and make the masks a modality of the task.

    A case whose patient was trained on is segmented by the folds that did not learn from that patient, as far as such
    folds are trained. Masks are made below ``preprocessed/roi/NAME`` first; the task itself changes only when all
    exist. Finished masks are kept while images and weights are the same.

    Args:
        paths: of the task.
        model: whose mask.
        how: choices.
        say: told a line per case.

    Raises:
        UserError: the task has the modality already or lacks an image, a case cannot be read, or a search region
            comes out empty.
    """
    description = read_description(paths.root)
    exists = modality_index(description, model.name)[1]
    if exists and not (how.overwrite or how.check):
        raise UserError(
            f"the task has a modality {model.name} already",
            file=paths.root,
            remedy="Compare with it by --check, replace it with --overwrite, or keep it",
        )
    truth = known_masks(paths, description, model.name, how.masks, how.labels)
    wanted = list(_wanted(paths, description, model))
    if how.check:
        wanted = [each for each in wanted if each.held_out and truth.file(each.case) is not None]
        if not wanted:
            raise UserError(
                "no case has a mask and is held out from a trained fold",
                file=paths.root,
                remedy="Train further folds, or name masks of other cases with --masks",
            )
    target = roi_folder(paths, model.name)
    made: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
    scores = []
    for each in sorted(wanted, key=lambda one: one.folds):  # networks are loaded once per set of folds
        file = _mask_file(each, model, how, target / "masks", say)
        made[each.split][each.case.case_id] = file
        scores += _compared(each, file, truth, say)
    result = RoiResult(None, scores, _mean_dice(scores))
    _write_scores(target, model, result)
    if how.check:
        return result
    _refuse_empty(made, model)
    note_applied(paths, model.name, [file for files in made.values() for file in files.values()])
    index = add_modality(paths, description, model.name, made, replace=how.overwrite)
    return replace(result, index=index)


def apply_to_folder(
    folder: Path, model: OrganModel, how: RoiApplication, index: int | None, say: Callable[[str], None]
) -> RoiResult:
    """Write the mask ``<case>_000N.nii.gz`` beside the images of a folder, where it is missing.

    Args:
        folder: images numbered in the order of the model's modalities; a single one may go without number.
        model: whose mask.
        how: choices.
        index: N; None takes the number behind the model's modalities.
        say: told a line per case.

    Raises:
        UserError: an image is missing or cannot be read, or a search region comes out empty.
    """
    number = len(model.plan.modalities) if index is None else index
    if str(number) in model.plan.modalities or not 0 <= number <= 9999:
        raise UserError(
            f"{number} is no free file number",
            found=f"the model's images are {listed_images(model)}",
            expected="the next number of the task's modalities",
        )
    truth = KnownMasks(model.name, None, how.masks, how.labels)
    scores: list[dict[str, Any]] = []
    for case in folder_cases(folder, model, number):
        folds, held_out = model.folds_for([case.case_id])
        each = _Wanted("", case, case, folds, held_out)
        file = folder / f"{case.case_id}_{number:04d}.nii.gz"
        known = truth.file(case) is not None
        if how.check and not (known and held_out):
            continue
        if file.is_file() and not (how.overwrite or how.check):
            say(f"{case.case_id}: has {file.name} already")
            continue
        mask = model.segment(case, folds, how.largest)
        _refuse_if_empty(bool(mask.any()), model.name, case.case_id)
        if not how.check:
            write_volume(file, mask, original_geometry(case.images[0]))
        say(f"{case.case_id}: {_millilitres(mask, case):.0f} ml")
        if known:
            scores += _scored(each, mask, truth, say)
    return RoiResult(None if how.check else number, scores, _mean_dice(scores))


def _wanted(paths: TaskPaths, description: DatasetDescription, model: OrganModel) -> Iterator[_Wanted]:
    clinical = read_clinical(paths)
    by_name = {name.strip().upper(): index for index, name in description.modalities.items()}
    names = [model.plan.modalities[key] for key in sorted(model.plan.modalities, key=int)]
    missing = [name for name in names if name.strip().upper() not in by_name]
    if missing:
        raise UserError(
            f"the task has no {missing[0]}, which the network looks at",
            file=paths.root,
            found=", ".join(description.modalities.values()),
            remedy="Add the modality, or take a model of these modalities",
        )
    for split in SPLITS:
        if split == "Ts" and not paths.images(split).is_dir():
            continue
        for case in list_cases(paths, description, split):
            images = tuple(case.images[by_name[name.strip().upper()]] for name in names)
            patient = patient_of(case.case_id, clinical)
            folds, held_out = model.folds_for([case.case_id, patient])
            yield _Wanted(split, case, RawCase(case.case_id, images), folds, held_out)


def _mask_file(
    each: _Wanted, model: OrganModel, how: RoiApplication, folder: Path, say: Callable[[str], None]
) -> Path:
    """The finished mask of a case on the grid of the first image that the network looks at."""
    made_from = model.made_from(each.given, each.folds, how.largest)
    file = folder / f"{each.case.case_id}_{made_from}.nii.gz"
    if file.is_file():
        say(f"{each.case.case_id}: finished before")
        return file
    mask = model.segment(each.given, each.folds, how.largest)
    write_volume(file, mask, original_geometry(each.given.images[0]))
    listed = ", ".join(map(str, each.folds))
    whose = "" if each.held_out else ", trained on this patient"
    say(f"{each.case.case_id}: {_millilitres(mask, each.given):.0f} ml (fold {listed}{whose})")
    return file


def _compared(
    each: _Wanted, file: Path, truth: KnownMasks, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    if truth.file(each.case) is None:
        return []
    return _scored(each, read_volume(file, canonical=False).array, truth, say)


def _scored(each: _Wanted, mask: Any, truth: KnownMasks, say: Callable[[str], None]) -> list[dict[str, Any]]:
    grid = original_geometry(each.given.images[0])
    drawn = truth.read(each.case, grid)
    if drawn is None:
        return []
    found = segmentation_scores(mask > 0, drawn, grid.spacing)
    row = {
        "case_id": each.case.case_id,
        "folds": list(each.folds),
        "held_out": each.held_out,
        "dice": found.dice,
        "hd95_mm": found.hd95_mm,
    }
    if found.dice is not None:
        say(f"{each.case.case_id}: Dice {found.dice:.3f}" + ("" if each.held_out else " (trained on)"))
    return [row]


def _mean_dice(scores: list[dict[str, Any]]) -> float | None:
    values = [row["dice"] for row in scores if row["held_out"] and row["dice"] is not None]
    return float(np.mean(values)) if values else None


def _write_scores(folder: Path, model: OrganModel, result: RoiResult) -> None:
    if result.scores:
        content = {
            "model": model.plan.content_hash(),
            "mean_dice_held_out": result.dice,
            "cases": sorted(result.scores, key=lambda row: str(row["case_id"])),
        }
        write_json(folder / SCORES, content)


def _refuse_empty(made: Mapping[str, Mapping[str, Path]], model: OrganModel) -> None:
    for files in made.values():
        for case_id, file in files.items():
            _refuse_if_empty(bool(read_volume(file).array.any()), model.name, case_id)


def _refuse_if_empty(filled: bool, name: str, case_id: str) -> None:
    """A search region must hold something; an organ may be gone."""
    if name == "CTV" and not filled:
        raise UserError(
            f"the network finds no {name} in case {case_id}, and a search region must not be empty",
            remedy="Train longer or on more cases, or contour this case; nothing was changed in the task",
        )


def _millilitres(mask: Any, case: RawCase) -> float:
    return float(np.count_nonzero(mask) * np.prod(original_geometry(case.images[0]).spacing) / 1000)
