"""The store: prepared cases on disk as memory-mapped arrays; CT once as int16, windows applied when read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import atomic_folder, read_json
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase

_META = "case.json"
_DISTANCE = "ctv_distance"
_INSTANCES = "instances"


@dataclass(frozen=True)
class StoredCase(Artifact):
    """Description beside the arrays of one case; ``made_from`` hashes its inputs and the preprocessing choices."""

    schema: ClassVar[str] = "nndet_psma.stored_case"
    version: ClassVar[int] = 2
    remade_by: ClassVar[str] = "nndet_prep"

    case_id: str
    made_from: str
    modalities: list[str]
    geometry: Geometry
    source: Geometry
    has_ctv: bool
    has_instances: bool
    classes: dict[str, int]
    lost_instances: list[int]


def write_case(store: Path, case: PreparedCase, made_from: str) -> None:
    """Write one case; the folder ``store/<case_id>`` appears whole or not at all."""
    meta = StoredCase(
        case.case_id,
        made_from,
        list(case.arrays),
        case.geometry,
        case.source,
        case.ctv_distance is not None,
        case.instances is not None,
        {str(instance): label for instance, label in case.classes.items()},
        list(case.lost_instances),
    )
    with atomic_folder(store / case.case_id) as folder:
        for name, array in case.arrays.items():
            _save(folder / _modality_file(name), array)
        if case.ctv_distance is not None:
            _save(folder / f"{_DISTANCE}.npy", case.ctv_distance)
        if case.instances is not None:
            _save(folder / f"{_INSTANCES}.npy", case.instances)
        meta.write(folder / _META)


def read_case(store: Path, case_id: str) -> PreparedCase:
    """Open one case; arrays are memory-mapped, so only what is touched is read.

    Raises:
        UserError: the case was not preprocessed, or an array is damaged.
    """
    folder = store / case_id
    if not folder.is_dir():
        raise UserError(f"case {case_id} is not preprocessed", file=folder, remedy="Run nndet_prep")
    meta = StoredCase.read(folder / _META)
    return PreparedCase(
        case_id,
        {name: _open(folder / _modality_file(name)) for name in meta.modalities},
        meta.geometry,
        meta.source,
        _open(folder / f"{_DISTANCE}.npy") if meta.has_ctv else None,
        _open(folder / f"{_INSTANCES}.npy") if meta.has_instances else None,
        {int(instance): label for instance, label in meta.classes.items()},
        tuple(meta.lost_instances),
    )


def is_current(store: Path, case_id: str, made_from: str) -> bool:
    """Whether the stored case exists and was made from the same inputs and choices."""
    file = store / case_id / _META
    if not file.is_file():
        return False
    try:
        return StoredCase.read(file).made_from == made_from
    except UserError:
        return False


def remove_stale(store: Path, case_ids: set[str]) -> list[str]:
    """Remove stored cases that are none of ``case_ids``; folders without a case.json of ours are left alone.

    Returns:
        the ids of the removed cases.
    """
    stale = [meta.parent for meta in sorted(store.glob(f"*/{_META}")) if meta.parent.name not in case_ids]
    removed = [folder for folder in stale if _is_stored(folder / _META)]
    for folder in removed:
        shutil.rmtree(folder)
    return [folder.name for folder in removed]


def inputs_hash(store: Path, case_id: str) -> str:
    """Hash of the files and choices that a stored case was made from.

    Raises:
        UserError: the case is not preprocessed.
    """
    file = store / case_id / _META
    if not file.is_file():
        raise UserError(f"case {case_id} is not preprocessed", file=file, remedy="Run nndet_prep")
    return StoredCase.read(file).made_from


def _is_stored(meta: Path) -> bool:
    """Whether a case.json is one of ours, of this or another release."""
    try:
        content = read_json(meta)
    except UserError:
        return True  # damaged: nobody else puts a case.json into the store
    return isinstance(content, dict) and content.get("schema") == StoredCase.schema


def _save(file: Path, array: NDArray[Any]) -> None:
    """Write a .npy file; unlike numpy's own way out, a full disk keeps its error number."""
    ordered = np.ascontiguousarray(array)
    with file.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(ordered))
        handle.write(ordered.data.cast("B") if ordered.size else b"")


def _modality_file(name: str) -> str:
    """File of a modality: its name, made safe ("PET/SUV") and different from the names of our own arrays."""
    safe = quote(name, safe="")
    return f"%{safe}.npy" if safe in (_DISTANCE, _INSTANCES) else f"{safe}.npy"


def _open(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError, SyntaxError) as error:  # damaged headers raise any of these
        raise UserError(
            "stored array cannot be read",
            file=file,
            found=str(error),
            remedy="Delete the case folder and run nndet_prep",
        ) from None
