"""The cases that have a mask as a task of their own, whose only class is that mask.

Everything that prepares and trains node segmentation then segments the organ: fingerprint, folds, export, plan. It
lies below ``preprocessed/roi/NAME`` of the one it was made from, and its images are links.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndet_psma.core.atomic import atomic_file, read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.images.images import original_geometry, write_volume
from nndet_psma.dataset.task.cases import RawCase, list_cases, split_suffix
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.dataset.task.splits import Fold, read_splits, write_splits
from nndet_psma.roi.organ_masks import KnownMasks, roi_folder
from nndet_psma.systems.nodeseg.nnunet.export import link

_MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class OrganTask:
    """A task made from another.

    Attributes:
        paths: of the new one.
        patients: patient of every case in it.
        without: cases that have no mask.
    """

    paths: TaskPaths
    patients: dict[str, str]
    without: list[str]


def write_organ_task(
    paths: TaskPaths,
    description: DatasetDescription,
    masks: KnownMasks,
    images: Sequence[str] | None,
    say: Callable[[str], None],
) -> OrganTask:
    """Write the task of the training cases that have a mask; what is current stays.

    Args:
        paths: of the task that the cases are from.
        description: of it.
        masks: where they are.
        images: names of the modalities to look at; None takes all but the mask itself and the CTV.
        say: takes one line of progress.

    Raises:
        UserError: no case has a mask, or a modality is unknown.
    """
    kept = chosen_modalities(description, masks.name, images)
    target = TaskPaths(roi_folder(paths, masks.name) / "task" / paths.name)
    cases = list_cases(paths, description)
    found = [(case, file) for case in cases if (file := masks.file(case)) is not None]
    if not found:
        raise _no_masks(paths, masks)
    _clean(target, {case.case_id for case, _ in found}, len(kept))
    marker = target.root / _MADE_FROM
    known = read_json(marker) if marker.is_file() else {}
    signatures = {}
    for case, file in found:
        signatures[case.case_id] = _signature(case, file, masks, kept)
        if known.get(case.case_id) != signatures[case.case_id] or not _label(target, case).is_file():
            _write_case(target, case, masks, kept)
            write_json(marker, {k: v for k, v in {**known, **signatures}.items() if k != case.case_id})
    write_json(marker, signatures)
    _write_description(target, description, masks.name, kept)
    clinical = read_clinical(paths)
    patients = {case.case_id: patient_of(case.case_id, clinical) for case, _ in found}
    _copy_table(paths, target)
    _write_splits(paths, target, [case.case_id for case in cases], clinical, set(patients), say)
    return OrganTask(target, patients, sorted({case.case_id for case in cases} - set(patients)))


def chosen_modalities(
    description: DatasetDescription, name: str, images: Sequence[str] | None
) -> dict[int, str]:
    """Modalities that the network sees, by their number in the task.

    Raises:
        UserError: a name is unknown or the mask itself, or nothing is left.
    """
    all_images = {i: description.modalities[i] for i in description.image_modalities}
    usable = {i: m for i, m in all_images.items() if m.strip().upper() != name}
    by_name = {m.strip().upper(): i for i, m in usable.items()}
    unknown = [each for each in images or () if each.strip().upper() not in by_name]
    if unknown or not usable:
        raise UserError(
            f"no image modality {unknown[0]}" if unknown else "no modality is left to look at",
            expected=", ".join(usable.values()) or f"an image beside {name}",
        )
    wanted = {by_name[each.strip().upper()] for each in images} if images else set(usable)
    return {i: m for i, m in usable.items() if i in wanted}


def _write_case(target: TaskPaths, case: RawCase, masks: KnownMasks, kept: dict[int, str]) -> None:
    """Links to the images; the mask on the grid of the first as the one instance of the one class."""
    for number, index in enumerate(kept):
        source = case.images[index]
        link(source, target.images("Tr") / f"{case.case_id}_{number:04d}{split_suffix(source)[1]}")
    grid = original_geometry(case.images[next(iter(kept))])
    mask = masks.read(case, grid)
    if mask is None:
        raise UserError(f"the mask of case {case.case_id} has gone", remedy="Start again")
    write_volume(_label(target, case), mask.astype(np.uint8), grid)
    classes = {"1": 0} if mask.any() else {}
    write_json(target.labels("Tr") / f"{case.case_id}.json", {"instances": classes})


def _label(target: TaskPaths, case: RawCase) -> Path:
    return target.labels("Tr") / f"{case.case_id}.nii.gz"


def _signature(case: RawCase, file: Path, masks: KnownMasks, kept: dict[int, str]) -> str:
    images = [str(case.images[index].resolve()) for index in kept]
    labels = dict(sorted((masks.labels or {}).items()))
    return hash_json([images, hash_files([file, case.images[next(iter(kept))]]), labels, list(kept.items())])


def _clean(target: TaskPaths, cases: set[str], channels: int) -> None:
    """Remove files of cases that are gone, and of modalities that are no longer looked at."""
    for file in target.images("Tr").glob("*"):
        stem = split_suffix(file)[0]
        if stem[:-5] not in cases or int(stem[-4:]) >= channels:
            file.unlink()
    for file in target.labels("Tr").glob("*"):
        if (split_suffix(file)[0] if split_suffix(file)[1] else file.stem) not in cases:
            file.unlink()


def _write_description(
    target: TaskPaths, description: DatasetDescription, name: str, kept: dict[int, str]
) -> None:
    content = {
        "task": target.name,
        "name": f"{name} of {description.name}",
        "dim": description.dim,
        "labels": {"0": name},
        "modalities": {str(number): kept[index] for number, index in enumerate(kept)},
    }
    write_json(target.root / "dataset.json", content)


def _copy_table(paths: TaskPaths, target: TaskPaths) -> None:
    if not paths.clinical.is_file():
        target.clinical.unlink(missing_ok=True)
        return
    with atomic_file(target.clinical) as temporary:
        shutil.copyfile(paths.clinical, temporary)


def _write_splits(
    paths: TaskPaths,
    target: TaskPaths,
    everything: list[str],
    clinical: dict[str, dict[str, str]],
    cases: set[str],
    say: Callable[[str], None],
) -> None:
    """The user's own folds without the cases that have no mask; none where a side of a fold is empty then."""
    target.splits.unlink(missing_ok=True)
    if not paths.splits.is_file():
        return
    patients = {name: patient_of(name, clinical) for name in everything}
    folds = [
        _among(fold, cases) for fold in read_splits(paths.splits, case_ids=everything, patients=patients)
    ]
    if all(fold.train and fold.val for fold in folds):
        write_splits(target.splits, folds)
    else:
        say("splits.json is not used: a fold would have no case with a mask on one side")


def _among(fold: Fold, cases: set[str]) -> Fold:
    train, val = (tuple(name for name in side if name in cases) for side in (fold.train, fold.val))
    return Fold(train, val)


def _no_masks(paths: TaskPaths, masks: KnownMasks) -> UserError:
    if masks.folder is not None:
        expected = f"CASE.nii.gz or CASE/{masks.name}.nii.gz named after the training cases"
        return UserError(f"no case has a mask {masks.name} there", file=masks.folder, expected=expected)
    return UserError(
        f"the task has no masks {masks.name} that somebody drew",
        file=paths.root,
        expected=f"a modality {masks.name}, or --masks DIR with CASE.nii.gz or CASE/{masks.name}.nii.gz",
        found="masks of nndet_psma roi apply only" if masks.modality is not None else None,
    )
