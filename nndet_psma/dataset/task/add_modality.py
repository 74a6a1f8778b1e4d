"""Add a mask as a modality to a raw task: files ``<case>_000N.nii.gz`` and an entry in ``dataset.json``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import atomic_file, read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import DatasetDescription, find_description
from nndet_psma.dataset.task.paths import TaskPaths

SPLITS = ("Tr", "Ts")


def modality_index(description: DatasetDescription, name: str) -> tuple[int, bool]:
    """File number of modality ``name``, and whether the task has it already."""
    for index, existing in description.modalities.items():
        if existing.strip().upper() == name.upper():
            return index, True
    return len(description.modalities), False


def add_modality(
    paths: TaskPaths,
    description: DatasetDescription,
    name: str,
    masks: Mapping[str, Mapping[str, Path]],
    *,
    replace: bool,
) -> int:
    """Put a mask beside the images of every case; returns its file number.

    The description is changed last, so that a run that is interrupted and started again ends the same.

    Args:
        paths: of the task.
        description: of the task as it is.
        name: of the modality, such as CTV.
        masks: by split ("Tr", "Ts") and case id, the finished ``.nii.gz``; they are linked, or copied where the file
            system cannot.
        replace: files that are there already are replaced.

    Raises:
        UserError: the task has that modality and ``replace`` is off, or its description is YAML.
    """
    index, exists = modality_index(description, name)
    file = find_description(paths.root)
    if exists and not replace:
        raise UserError(
            f"the task has a modality {name} already", file=file, remedy="Replace it with --overwrite"
        )
    if file.suffix != ".json":
        raise UserError(
            "a description in YAML is not changed by us, for its comments would be lost",
            file=file,
            remedy=f'Add the line "{index}: {name}" to its modalities',
        )
    for split in SPLITS:
        for case_id, mask in masks.get(split, {}).items():
            _place(mask, paths.images(split) / f"{case_id}_{index:04d}.nii.gz")
    if not exists:
        content: dict[str, Any] = read_json(file)
        content["modalities"] = {**content["modalities"], str(index): name}
        write_json(file, content)
    return index


def _place(source: Path, target: Path) -> None:
    """The file at ``target``, whole or not at all."""
    if target.exists() and source.samefile(target):
        return
    with atomic_file(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
