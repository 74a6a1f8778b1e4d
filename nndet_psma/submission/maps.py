"""Lesions as images on the grid of the image file: detection maps for grand challenges, and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.core.csv_table import write_table
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.submission.forms import SubmittedCase, voxel_range
from nndet_psma.submission.tables import LESION_COLUMNS, LESIONS_CSV, lesion_rows

Shape = Literal["box", "ellipsoid"]

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)  # corners count, as in picai_eval


def write_detection_maps(
    folder: Path, cases: Sequence[SubmittedCase], *, suffix: str, shape: Shape
) -> tuple[list[Path], dict[str, int]]:
    """``<case>_detection_map``: every lesion's voxels carry its score, 0 elsewhere (float32).

    Args:
        folder: to write to.
        cases: lesions, best first.
        suffix: ``.nii.gz`` or ``.mha``.
        shape: voxels of the whole box, or of the ellipsoid in it.

    Returns:
        files, and by case how many lesions have no voxel left beside better ones (see :func:`detection_map`).
    """
    files, lost = [], {}
    for case in cases:
        array, missing = detection_map(case, shape)
        files.append(folder / f"{case.case_id}_detection_map{suffix}")
        write_volume(files[-1], array, case.image)
        if missing:
            lost[case.case_id] = missing
    return files, lost


def detection_map(case: SubmittedCase, shape: Shape = "box") -> tuple[NDArray[np.float32], int]:
    """Scores on the image's grid (its own array order), and how many lesions found no place.

    picai_eval and its kind take connected components (of 26 neighbours) apart and give each its highest score, so
    lesions must not touch. They are painted best first: where two overlap the better score stays, the worse lesion
    keeps one voxel of distance, and of what is left of it the largest piece.
    """
    painted = np.zeros(case.image.shape, dtype=np.float32)
    lost = 0
    for lesion in case.lesions:
        box, mask = lesion_voxels(lesion.box, case.image.shape, shape)
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        inner = tuple(slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))
        near = ndimage.binary_dilation(painted[around] > 0, _NEIGHBOURS)[inner]
        free = _largest_piece(mask & ~near)
        if not free.any() or np.float32(lesion.score) <= 0:
            lost += 1
            continue
        painted[box][free] = lesion.score
    return painted, lost


def write_label_maps(
    folder: Path, cases: Sequence[SubmittedCase], *, suffix: str, shape: Shape
) -> tuple[list[Path], dict[str, int]]:
    """``<case>_lesions``: voxels carry the lesion's number (1 is the best), and ``lesions.csv`` with its score.

    Where lesions overlap, the better one has the voxel; the column ``voxels`` tells what each has in the end.
    """
    files, rows, lost = [], [], {}
    for case in cases:
        array = label_map(case, shape)
        counts = np.bincount(array.ravel(), minlength=len(case.lesions) + 1)[1:].tolist()
        rows += [(*row, count) for row, count in zip(lesion_rows([case]), counts, strict=True)]
        if 0 in counts:
            lost[case.case_id] = counts.count(0)
        files.append(folder / f"{case.case_id}_lesions{suffix}")
        write_volume(files[-1], array, case.image)
    write_table(folder / LESIONS_CSV, (*LESION_COLUMNS, "voxels"), rows)
    return [*files, folder / LESIONS_CSV], lost


def label_map(case: SubmittedCase, shape: Shape = "box") -> NDArray[np.uint16]:
    """Lesion numbers from 1, best first, on the image's grid."""
    painted = np.zeros(case.image.shape, dtype=np.uint16)
    for number, lesion in reversed(list(enumerate(case.lesions, start=1))):
        box, mask = lesion_voxels(lesion.box, case.image.shape, shape)
        painted[box][mask] = number
    return painted


def lesion_voxels(
    box: Sequence[float], image_shape: tuple[int, int, int], shape: Shape
) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Voxels of a lesion: slices of its box in the image, and which voxels in there are its own.

    Args:
        box: ``(z0, y0, x0, z1, y1, x1)``, image voxels.
        image_shape: of the image (z, y, x).
        shape: ``box``: voxels whose centres lie in the box; ``ellipsoid``: in the ellipsoid that fills it. The voxel in
            the middle always belongs.
    """
    low, high = np.array(box[:3], dtype=np.float64), np.array(box[3:], dtype=np.float64)
    first, end = voxel_range(low, high, np.array(image_shape))
    slices = tuple(slice(int(a), int(b)) for a, b in zip(first, end, strict=True))
    extent = [int(b - a) for a, b in zip(first, end, strict=True)]
    if shape == "box" or 0 in extent:
        return slices, np.ones(extent, dtype=bool)
    centre, radius = (low + high) / 2, np.maximum((high - low) / 2, 0.5)
    axes = [(np.arange(a, b) + 0.5 - c) / r for a, b, c, r in zip(first, end, centre, radius, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = z**2 + y**2 + x**2 <= 1
    middle = tuple(
        int(np.clip(np.floor(c) - a, 0, n - 1)) for c, a, n in zip(centre, first, extent, strict=True)
    )
    inside[middle] = True
    return slices, inside


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndimage.label(mask, _NEIGHBOURS)
    if count <= 1:
        return mask
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray(pieces == int(sizes.argmax()) + 1)
