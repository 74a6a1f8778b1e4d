"""What the detectors said about a case before any post-processing: the file from which everything else is derived."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.budget import Budget, read_npz
from nndet_psma.core.errors import UserError
from nndet_psma.core.parsing import parse_json
from nndet_psma.core.schema import from_plain, to_plain

VERSION = 1
_MOST_BYTES = 512 << 20  # ten folds of ten voters with 30 000 boxes each take 400 MB

# what zipfile, zlib, NumPy and json raise on a damaged file (RuntimeError: a flag that says "encrypted")
_DAMAGE = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, SyntaxError, tokenize.TokenError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class RawMeta:
    """Everything but the boxes.

    Attributes:
        case_id: name of the case.
        made_from: hash of weights, plan and image files.
        region: "ctv" when the grown CTV was searched, "body" without CTV.
        store: grid of the boxes.
        image: the image file's own grid.
        examined: box (z0, y0, x0, z1, y1, x1) that was searched, store voxels.
        parts: folds (times mirrored views) per voter.
    """

    case_id: str
    made_from: str
    region: Literal["ctv", "body"]
    store: Geometry
    image: Geometry
    examined: tuple[float, ...]
    parts: dict[str, int]


@dataclass(frozen=True)
class RawPrediction:
    """Boxes of a case by voter and part on the store grid, 2D with ``slice`` or 3D; ``zone_mm``, ``hu_quantiles``."""

    meta: RawMeta
    voters: dict[str, list[Detections]]


def write_raw(file: Path, prediction: RawPrediction) -> None:
    """Write one ``.npz`` without pickle, atomically."""
    arrays: dict[str, Any] = {"meta": np.array(json.dumps({"version": VERSION, **to_plain(prediction.meta)}))}
    for voter, parts in prediction.voters.items():
        for index, part in enumerate(parts):
            prefix = f"{voter}/{index}/"
            arrays |= {f"{prefix}boxes": part.boxes, f"{prefix}scores": part.scores}
            arrays[f"{prefix}labels"] = part.labels
            arrays |= {f"{prefix}column/{name}": column for name, column in part.columns.items()}
    with atomic_file(file) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)


def read_raw(file: Path) -> RawPrediction:
    """Read a file of :func:`write_raw`.

    Raises:
        UserError: damaged, or of another version.
    """
    try:
        arrays = read_npz(file, Budget(_MOST_BYTES))
        meta = parse_json(str(arrays.pop("meta")))
        version = meta.pop("version")
        if version != VERSION:
            raise UserError(
                "raw predictions of another version", file=file, remedy="Run the prediction again"
            )
        parsed = from_plain(RawMeta, meta)
        return RawPrediction(
            parsed,
            {voter: [_part(arrays, f"{voter}/{i}/") for i in range(n)] for voter, n in parsed.parts.items()},
        )
    except _DAMAGE as error:
        raise UserError(
            "raw predictions cannot be read",
            file=file,
            found=str(error),
            remedy="Delete the file and predict again",
        ) from None


def is_current(file: Path, made_from: str) -> bool:
    """Whether the file exists, is whole and was made from the same weights and images."""
    if not file.is_file():
        return False
    try:
        return read_raw(file).meta.made_from == made_from
    except UserError:
        return False


def _part(arrays: dict[str, np.ndarray], prefix: str) -> Detections:
    start = f"{prefix}column/"
    columns = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    part = Detections(arrays[f"{prefix}boxes"], arrays[f"{prefix}scores"], arrays[f"{prefix}labels"], columns)
    odd = [array.dtype for array in (part.boxes, part.scores, part.labels) if array.dtype.kind not in "fiu"]
    if odd:
        raise ValueError(f"boxes, scores and labels are numbers, not {odd[0]}")
    return part
