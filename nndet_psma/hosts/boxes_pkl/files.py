"""nnDetection's prediction files, ``<case>_boxes.pkl``: read without running them, and written for its own tools.

A file holds ``pred_boxes`` [N, 6], ``pred_scores`` [N], ``pred_labels`` [N] (float32), ``restore``,
``original_size_of_raw_data`` (array order z, y, x) and ``itk_origin``, ``itk_spacing``, ``itk_direction`` (ITK order).
Its boxes are ``(a0_min, a1_min, a0_max, a1_max, a2_min, a2_max)`` in the raw image's array order and, as nnDetection
makes boxes from masks, one voxel longer than the object. That voxel is one of the grid it predicts in: in the image it
is as long as the ratio of the two spacings. Files of this package have the voxel of the image instead, as nnDetection's
truth has, and say so by ``extra_voxels`` (z, y, x), which nnDetection ignores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, from_nndetection, to_nndetection
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.hosts.boxes_pkl.read import load_plain
from nndet_psma.hosts.boxes_pkl.stand_ins import UnsafePickleError
from nndet_psma.hosts.boxes_pkl.write import dump_plain

BOXES_SUFFIX = "_boxes.pkl"

EXTRA = "extra_voxels"
"""Key of our files: voxels of the image that boxes are longer than the object, by axis."""

CORNERS = ("z0", "y0", "z1", "y1", "x0", "x1")
"""nnDetection's order of the columns: lower corners 0, upper corners 1, axes of the array."""

_MAX_BYTES = 16 << 20  # a thousand times what nnDetection's 100 boxes take, and more
_MAX_SIDE = 1 << 16  # voxels; NIfTI's own limit is half of it
_TURNED = 1e-2  # of a direction matrix times its transpose: far beyond rounding, as tolerant as readers of images are
_SPACINGS = (1e-3, 1e3)  # mm
_MAX_ORIGIN = 1e5  # mm from the centre of the scanner
_MAX_EXTRA = 1e3  # voxels: nothing is resampled by more
_MAX_LABEL = 999  # far more classes than a detector has; beyond, the numbers are no labels
_KEYS = ("pred_boxes", "pred_scores", "pred_labels")


@dataclass(frozen=True)
class ForeignBoxes:
    """Boxes of one case that nnDetection predicted.

    Attributes:
        case_id: from the file's name.
        detections: 3D, our convention, voxels of the raw image in its own array order.
        geometry: grid of the raw image, None where the file does not tell.
        file: where they were read from.
    """

    case_id: str
    detections: Detections
    geometry: Geometry | None
    file: Path


def read_nndetection_boxes(
    file: Path, order: Sequence[str] = CORNERS, *, predicted_at: Sequence[float] | None = None
) -> ForeignBoxes:
    """Read one ``<case>_boxes.pkl``. Nothing in the file is executed.

    Args:
        file: to read.
        order: what the columns of its boxes are, a permutation of :data:`CORNERS`; the boxes are one voxel longer than
            the object in any order.
        predicted_at: spacing (z, y, x) in mm of the grid that nnDetection predicted in, its plan's target spacing;
            None: that of the image. Files that say how much longer their boxes are need none.

    Raises:
        UserError: the file is missing, damaged, holds other than numbers (a class, a function), is no prediction,
            was predicted with ``restore`` off, in the preprocessed grid, has its corners in another order, or does not
            tell the spacing of the image where ``predicted_at`` is given.
    """
    content = _read_plain(file)
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            "is no prediction of nnDetection", file=file, expected=", ".join(_KEYS), found=found or "nothing"
        )
    if not content.get("restore", True):
        raise UserError(
            "its boxes are in nnDetection's preprocessed grid, not in the image's",
            file=file,
            remedy="Predict with restore, which is nnDetection's default",
        )
    case_id = file.name.removesuffix(BOXES_SUFFIX)
    geometry = _geometry(content, file)
    extra = _extra(content, file, geometry, predicted_at)
    return ForeignBoxes(case_id, _detections(content, file, order, extra), geometry, file)


def refuse_boxes(boxes: Boxes, wrong: NDArray[np.bool_], what: str, file: Path) -> None:
    """UserError for the first of the boxes ``[N, 6]`` that are ``wrong`` ``[N]``.

    Raises:
        UserError: one is.
    """
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"box {row + 1} of {len(boxes)} {what}",
            file=file,
            expected=f"corners in the order {', '.join(CORNERS)}, in voxels of the image",
            found=", ".join(f"{value:g}" for value in boxes[row]),
            remedy="If the corners have another order, name it: nndet_psma convert nndet-boxes --order",
        )


def write_nndetection_boxes(file: Path, detections: Detections, geometry: Geometry) -> None:
    """Write one ``<case>_boxes.pkl`` that nnDetection's evaluation reads (NumPy 1 or 2).

    Args:
        file: to write, atomically.
        detections: 3D boxes in voxels of ``geometry``, the image file's own array order.
        geometry: grid of the image file.
    """
    content = {
        "pred_boxes": to_nndetection(detections.boxes).astype(np.float32),
        "pred_scores": detections.scores.astype(np.float32),
        "pred_labels": detections.labels.astype(np.float32),
        "restore": True,
        EXTRA: (1.0, 1.0, 1.0),
        "original_size_of_raw_data": np.array(geometry.shape, dtype=np.int64),
        "itk_origin": tuple(float(v) for v in geometry.origin),
        "itk_spacing": tuple(float(v) for v in geometry.spacing[::-1]),
        "itk_direction": tuple(float(v) for v in geometry.direction),
    }
    with atomic_file(file) as temporary:
        temporary.write_bytes(dump_plain(content))


def _read_plain(file: Path) -> Any:
    if not file.is_file():
        raise UserError("file does not exist", file=file, remedy="Correct the path")
    if file.stat().st_size > _MAX_BYTES:
        raise UserError("is too large for a file of boxes", file=file, expected=f"at most {_MAX_BYTES} bytes")
    try:
        return load_plain(file.read_bytes())
    except UnsafePickleError as error:
        raise UserError(
            "holds more than numbers, so it was not read",
            file=file,
            found=str(error),
            remedy="Do not trust this file; predict again with nnDetection",
        ) from None
    except ValueError as error:
        raise UserError(
            "cannot be read",
            file=file,
            found=str(error).splitlines()[0],
            remedy="Copy or predict it again",
        ) from None


def _extra(
    content: dict[Any, Any], file: Path, geometry: Geometry | None, predicted_at: Sequence[float] | None
) -> NDArray[np.float64]:
    """Voxels of the image that the boxes are longer than the objects, by axis."""
    if EXTRA in content:
        told = _numbers(content[EXTRA], EXTRA, file).ravel()
        if told.size != 3 or told.min() < 0 or told.max() > _MAX_EXTRA:
            raise UserError(
                f"{EXTRA} makes no sense",
                file=file,
                expected=f"three numbers from 0 to {_MAX_EXTRA:g}",
                found=str(told.tolist()[:9]),
            )
        return told
    if predicted_at is None:
        return np.ones(3)
    if geometry is None:
        raise UserError(
            "does not tell the spacing of the image, without which its boxes cannot be made tight",
            file=file,
            remedy="Name the folder of the images with --images",
        )
    ratio: NDArray[np.float64] = np.asarray(predicted_at, dtype=np.float64) / np.asarray(geometry.spacing)
    return ratio


def _detections(
    content: dict[Any, Any], file: Path, order: Sequence[str], extra: NDArray[np.float64]
) -> Detections:
    """Boxes with a volume; rows that nnDetection clipped to nothing are dropped, and counted in a warning."""
    boxes, scores, labels = (_numbers(content[key], key, file) for key in _KEYS)
    boxes = boxes.reshape(-1, 6) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 6 or not len(boxes) == scores.size == labels.size:
        shapes = ", ".join(f"{key} {list(_numbers(content[key], key, file).shape)}" for key in _KEYS)
        raise UserError(
            "boxes, scores and labels do not fit", file=file, expected="[N, 6], [N], [N]", found=shapes
        )
    if len(boxes) == 0:
        return Detections.empty(3)
    boxes, scores, labels = boxes[:, [order.index(name) for name in CORNERS]], scores.ravel(), labels.ravel()
    turned = np.asarray((boxes[:, [2, 3, 5]] < boxes[:, [0, 1, 4]]).any(axis=1))
    refuse_boxes(boxes, turned, "has an upper corner below its lower one", file)
    refuse_boxes(boxes, np.asarray((np.abs(boxes) > _MAX_SIDE).any(axis=1)), "lies outside every image", file)
    if scores.min() < 0 or scores.max() > 1:
        raise UserError(
            "a score is outside [0, 1]",
            file=file,
            found=f"{scores.min():g} to {scores.max():g}",
            remedy="Rescale the scores of the file",
        )
    if (labels != np.rint(labels)).any() or labels.min() < 0 or labels.max() > _MAX_LABEL:
        raise UserError(
            "a label is no class from 0 on",
            file=file,
            found=", ".join(map(str, labels[:5])),
            expected="whole numbers from 0 on, as nnDetection writes",
        )
    ours = from_nndetection(boxes, extra)
    kept = np.asarray((ours[:, 3:] > ours[:, :3]).all(axis=1))
    if not kept.all():
        LOGGER.warning("%s: %d of %d boxes have no volume; left out", file, (~kept).sum(), len(kept))
    return Detections.build(ours, scores, labels).select(kept)


def _numbers(value: Any, key: str, file: Path) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if not np.isfinite(numbers).all():
        raise UserError(f"{key} holds values that are no numbers", file=file, expected="finite numbers")
    return numbers


def _geometry(content: dict[Any, Any], file: Path) -> Geometry | None:
    keys = {"original_size_of_raw_data": 3, "itk_spacing": 3, "itk_origin": 3, "itk_direction": 9}
    if any(content.get(key) is None for key in keys):
        return None
    values = {key: _numbers(content[key], key, file).ravel().tolist() for key in keys}
    wrong = [key for key, count in keys.items() if len(values[key]) != count]
    if wrong or not _is_grid(values):
        raise UserError(
            "the grid of the image makes no sense",
            file=file,
            found=str(values)[:300],
            expected="positive spacing, finite origin and an orthonormal direction",
        )
    z, y, x = values["original_size_of_raw_data"]
    spacing, origin = values["itk_spacing"], values["itk_origin"]
    return Geometry(
        (int(z), int(y), int(x)),
        (spacing[2], spacing[1], spacing[0]),
        (origin[0], origin[1], origin[2]),
        tuple(values["itk_direction"]),
    )


def _is_grid(values: dict[str, list[float]]) -> bool:
    """Whole voxels in a number that an image has, a spacing and a place that scans have, and axes at right angles."""
    size, axes = np.array(values["original_size_of_raw_data"]), np.reshape(values["itk_direction"], (3, 3))
    whole = (size == np.rint(size)).all() and size.min() >= 1 and size.max() <= _MAX_SIDE
    turned = np.abs(axes @ axes.T - np.eye(3)).max()
    spacing, origin = values["itk_spacing"], np.abs(values["itk_origin"]).max()
    placed = _SPACINGS[0] <= min(spacing) and max(spacing) <= _SPACINGS[1] and origin <= _MAX_ORIGIN
    return bool(whole and placed and turned < _TURNED)
