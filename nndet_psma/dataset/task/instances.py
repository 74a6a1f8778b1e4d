"""Labels of a case: an instance mask (ids 1..n, 0 background) and a JSON with the class of every instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription

_EXAMPLE = '{"instances": {"1": 0}}'
_REMEDY = "Write the class, counted from 0, of every instance id of the mask"
_HISTOGRAM_LIMIT = 1 << 16


def read_instances(file: Path) -> dict[int, int]:
    """Class index (from 0) by instance id (from 1), ascending, from ``{"instances": {"1": 0}}``.

    Raises:
        UserError: not JSON, the key is missing, an id is no positive number or a class no number from 0.
    """
    content = read_json(file)
    instances = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(instances, dict):
        raise Fault(
            "bad instances",
            "no mapping 'instances'",
            file=file,
            expected=_EXAMPLE,
            found=_short(content),
            remedy=_REMEDY,
        )
    return dict(sorted(_entry(key, value, file) for key, value in instances.items()))


def read_labels(case: RawCase, description: DatasetDescription) -> tuple[Volume, dict[int, int]]:
    """Instance mask (the smallest integer type that holds the ids, canonical axes) and class by instance id.

    Raises:
        UserError: a file is missing, the mask holds values that are no ids, mask and JSON disagree, or a class
            is not in the description.
    """
    if case.label is None or case.instances is None:
        raise UserError(
            f"case {case.case_id} has no labels",
            file=case.images[0] if case.images else None,
            expected=f"a mask and {case.case_id}.json in the folder of labels",
            remedy="Add both; of a case without lesions the mask is all zero",
        )
    classes = read_instances(case.instances)
    check_classes(classes, description, case.instances)
    volume = read_volume(case.label)
    ids = instance_ids(volume.array, case.label)
    if set(ids.tolist()) != set(classes):
        raise disagreement(set(ids.tolist()), set(classes), case.label, case.instances)
    smallest = np.min_scalar_type(int(ids.max(initial=0)))
    return Volume(volume.array.astype(smallest, copy=False), volume.geometry), classes


def instance_ids(mask: NDArray[Any], file: Path) -> NDArray[np.int64]:
    """Ids that occur in a mask of any numeric type, ascending, without 0.

    Raises:
        UserError: a value is fractional or negative.
    """
    wrong = _no_ids(mask)
    if len(wrong):
        raise Fault(
            "negative ids" if (wrong < 0).any() else "fractional ids",
            "the mask holds values that are no instance ids",
            file=file,
            expected="whole numbers from 0",
            found=_listed(wrong.tolist()),
            remedy="Resample masks with nearest neighbour and store them as integers",
        )
    values = distinct_values(mask)
    return values[values > 0].astype(np.int64)


def _no_ids(mask: NDArray[Any]) -> NDArray[Any]:
    """Fractions and negative values of the first slice that has any: an interpolated mask has too many to gather."""
    if mask.dtype.kind in "bu":
        return np.zeros(0)
    for plane in mask:
        wrong = plane < 0
        if mask.dtype.kind == "f":
            wrong |= plane != np.rint(plane)
        if wrong.any():
            return np.unique(plane[wrong])
    return np.zeros(0)


def distinct_values(mask: NDArray[Any]) -> NDArray[Any]:
    """The values of a volume, ascending, as ``numpy.unique`` gives them, but slice by slice and without sorting."""
    values, _ = value_counts(mask)
    return values


def value_counts(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Distinct values of a volume, ascending, and how many voxels have each."""
    if mask.size == 0:
        return mask.ravel(), np.zeros(0, dtype=np.int64)
    if mask.dtype == np.bool_:
        mask = mask.view(np.uint8)
    if mask.dtype.kind in "iu":
        low, high = int(mask.min()), int(mask.max())
        if high - low < _HISTOGRAM_LIMIT:
            counts = np.zeros(high - low + 1, dtype=np.int64)
            for plane in mask:
                counts += np.bincount(plane.ravel().astype(np.int64) - low, minlength=len(counts))
            present = np.flatnonzero(counts)
            return (present + low).astype(np.int64), counts[present]
    found: dict[Any, int] = {}
    for plane in mask:
        for value, count in zip(*np.unique(plane, return_counts=True), strict=True):
            found[value] = found.get(value, 0) + int(count)
    ordered = sorted(found)
    return np.array(ordered), np.array([found[value] for value in ordered], dtype=np.int64)


def check_classes(classes: dict[int, int], description: DatasetDescription, file: Path) -> None:
    """Every class must be in the description.

    Raises:
        UserError: one is not.
    """
    for instance, label in classes.items():
        if label not in description.labels:
            raise Fault(
                "class out of range",
                f"instance {instance} has a class that the description does not have",
                file=file,
                expected=f"0 to {len(description.labels) - 1}",
                found=str(label),
                remedy="Classes count from 0; correct the file or add the class to dataset.json",
            )


def disagreement(in_mask: set[int], in_json: set[int], label: Path, instances: Path) -> Fault:
    """The fault of a mask and a JSON with different ids."""
    parts = []
    if in_mask - in_json:
        parts.append(f"ids {_listed(sorted(in_mask - in_json))} only in the mask")
    if in_json - in_mask:
        parts.append(f"ids {_listed(sorted(in_json - in_mask))} only in {instances.name}")
    if not in_mask:
        parts.append("the mask is all zero")
    return Fault(
        "mask and JSON disagree" if in_mask else "empty mask",
        "mask and JSON disagree on the instances",
        file=label,
        found="; ".join(parts),
        remedy="Give every id of the mask one entry, and no other",
    )


def _entry(key: str, value: Any, file: Path) -> tuple[int, int]:
    if not (key.isascii() and key.isdigit() and int(key) > 0):
        raise Fault(
            "bad instances",
            "an instance id is no number from 1",
            file=file,
            expected=_EXAMPLE,
            found=repr(key),
            remedy=_REMEDY,
        )
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Fault(
            "bad instances",
            f"the class of instance {key} is no number from 0",
            file=file,
            expected=_EXAMPLE,
            found=repr(value),
            remedy=_REMEDY,
        )
    return int(key), value


def _listed(values: list[Any]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 60 else f"{text[:57]}..."
