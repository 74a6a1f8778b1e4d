"""Which cases a folder of images holds for a segmenter, beside masks that are there already."""

from __future__ import annotations

import re
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import RawCase, split_suffix, visible_files
from nndet_psma.roi.organ_model import OrganModel

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<index>\d{4})")


def folder_cases(folder: Path, model: OrganModel, number: int) -> list[RawCase]:
    """Cases of a folder with the model's modalities; files of modality ``number`` are passed over.

    Raises:
        UserError: an image is missing, or a file is none of the model's.
    """
    modalities = {int(key): name for key, name in model.plan.modalities.items()}
    found: dict[str, dict[int, Path]] = {}
    for file in visible_files(folder):
        stem, suffix = split_suffix(file)
        parts = _NUMBERED.fullmatch(stem)
        index = int(parts["index"]) if parts else 0
        if suffix is None or index == number:
            continue
        if index not in modalities or (parts is None and len(modalities) > 1):
            raise UserError(
                "this file is none of the images that the network looks at",
                file=file,
                expected=listed_images(model),
                remedy=f"Number the images as these; the mask becomes _{number:04d} (--index changes that)",
            )
        found.setdefault(parts["case"] if parts else stem, {})[index] = file
    if not found:
        raise UserError("no images in this folder", file=folder, expected=f"CASE{listed_images(model)}")
    for case_id, files in found.items():
        if missing := sorted(set(modalities) - set(files)):
            raise UserError(
                f"the {modalities[missing[0]]} of case {case_id} is missing",
                file=folder,
                expected=f"{case_id}_{missing[0]:04d}",
            )
    return [
        RawCase(case_id, tuple(files[i] for i in sorted(files))) for case_id, files in sorted(found.items())
    ]


def listed_images(model: OrganModel) -> str:
    """File numbers and names of the images that the network looks at."""
    return ", ".join(f"_{int(key):04d} ({name})" for key, name in sorted(model.plan.modalities.items()))
