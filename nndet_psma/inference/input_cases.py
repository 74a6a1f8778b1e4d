"""Which cases to predict: a folder or a single file, numbered as the model knows its modalities; no task tree."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES, RawCase, list_folder_cases, split_suffix
from nndet_psma.dataset.task.description import DatasetDescription

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<index>\d{4})")


def description_from_plan(plan: Plan) -> DatasetDescription:
    """Modalities and classes as the model knows them; no task folder is needed."""
    return DatasetDescription(
        task=plan.task,
        name=plan.task,
        dim=3,
        labels={int(i): name for i, name in plan.classes.items()},
        modalities={int(i): name for i, name in plan.modalities.items()},
        target_class=None,
        test_labels=False,
        psma={},
    )


def without_ctv_modality(description: DatasetDescription) -> DatasetDescription:
    """The same without the CTV modality, which must be the last one.

    Raises:
        UserError: modalities follow the CTV, so that files could not be numbered without it.
    """
    index = description.ctv_modality
    if index is None:
        return description
    if index != max(description.modalities):
        raise UserError(
            "the CTV is not the last modality, so images without it cannot be numbered",
            remedy="Provide a CTV file for every case",
        )
    return replace(description, modalities={i: n for i, n in description.modalities.items() if i != index})


def input_cases(
    path: Path, description: DatasetDescription, *, without_ctv: bool, ctv: Path | None = None
) -> list[RawCase]:
    """Cases of a folder or of one image file, sorted by id.

    Args:
        path: folder, or a file of one case; files of its other modalities lie beside it.
        description: all modalities of the model, the CTV included.
        without_ctv: the CTV file may be missing, and is not used.
        ctv: CTV file of the single case, wherever it lies.

    Raises:
        UserError: no cases, or files are missing; a missing CTV names ``--region body`` as the way without it.
    """
    find = _single_case if path.is_file() else list_folder_cases
    if ctv is not None:
        return [_with_ctv_file(path, description, ctv)]
    if not without_ctv:
        try:
            return find(path, description)
        except UserError as error:
            raise _explain_missing_ctv(error, description) from None
    try:
        return find(path, without_ctv_modality(description))
    except UserError as error:
        try:
            return find(path, description)  # CTV files are there and stay unused
        except UserError:
            raise error from None


def part_of(cases: list[RawCase], num_parts: int, part_id: int) -> list[RawCase]:
    """Every ``num_parts``-th case from ``part_id`` on, as nnU-Net shares cases out; parts never overlap.

    Raises:
        UserError: there is no such part.
    """
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise UserError(
            f"part {part_id} of {num_parts} parts", expected="--num_parts from 1, --part_id from 0 below it"
        )
    return cases[part_id::num_parts]


def _single_case(file: Path, description: DatasetDescription) -> list[RawCase]:
    stem, suffix = split_suffix(file)
    if suffix is None:
        raise UserError("is no image", file=file, expected=", ".join(IMAGE_SUFFIXES))
    numbered = _NUMBERED.fullmatch(stem)
    case_id = numbered["case"] if numbered else stem
    given = int(numbered["index"]) if numbered else _plain_modality(file, description)
    if given not in description.modalities:
        known = ", ".join(f"_{i:04d} ({name})" for i, name in description.modalities.items())
        raise UserError("file of a modality that the model does not have", file=file, expected=known)
    images = [
        file if index == given else _beside(file, case_id, index, name, suffix)
        for index, name in sorted(description.modalities.items())
    ]
    return [RawCase(case_id, tuple(images))]


def _plain_modality(file: Path, description: DatasetDescription) -> int:
    """A file without number is the only image; a CTV may come beside it."""
    images = description.image_modalities
    if len(images) > 1:
        raise UserError(
            "image without modality number",
            file=file,
            expected=", ".join(f"_{index:04d} ({description.modalities[index]})" for index in images),
            remedy="Rename the files of the case, and give one of them",
        )
    return images[0]


def _beside(file: Path, case_id: str, index: int, name: str, suffix: str) -> Path:
    stem = f"{case_id}_{index:04d}"
    found = [file.with_name(stem + other) for other in (suffix, *IMAGE_SUFFIXES)]
    for candidate in found:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"the {name} of case {case_id} is missing", file=found[0], remedy=f"Put {found[0].name} there"
    )


def _with_ctv_file(path: Path, description: DatasetDescription, ctv: Path) -> RawCase:
    if not path.is_file():
        raise UserError("--ctv names the CTV of one case", file=path, expected="one image file with -i")
    if description.ctv_modality is None:
        raise UserError("the model was trained without a CTV", remedy="Leave --ctv out")
    if not ctv.is_file():
        raise UserError("file does not exist", file=ctv, remedy="Correct the path of the CTV")
    case = _single_case(path, without_ctv_modality(description))[0]
    return replace(case, images=(*case.images, ctv))


def _explain_missing_ctv(error: UserError, description: DatasetDescription) -> UserError:
    ctv = description.ctv_modality
    if ctv is None or not error.what.startswith(f"the {description.modalities[ctv]} of case"):
        return error
    remedy = "Add it, or search whole slices instead with --region body"
    return UserError(error.what, file=error.file, found=error.found, remedy=remedy)
