"""Measure the fingerprint: one pass over the files, one case in memory at a time, finished cases kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.artifacts.fingerprint import (
    CaseFingerprint,
    Fingerprint,
    Histogram,
    IntensityStatistics,
    LesionFingerprint,
)
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.boxes import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.dataset.body import body_mask, nonzero_mask
from nndet_psma.dataset.cases import RawCase
from nndet_psma.dataset.clinical import patient_of
from nndet_psma.dataset.description import DatasetDescription
from nndet_psma.dataset.grids import check_grids
from nndet_psma.dataset.images import Volume, read_volume
from nndet_psma.dataset.instances import read_labels
from nndet_psma.dataset.workers import map_cases

_REGION_SAMPLE = 200_000  # voxels per case; enough for quantiles to 0.1 %, keeps JSON and time small

_Job = tuple[RawCase, DatasetDescription, str, str, Path]


def measure_fingerprint(
    cases: list[RawCase],
    description: DatasetDescription,
    clinical: Mapping[str, Mapping[str, str]],
    *,
    stratify_by: str,
    cache: Path,
    processes: int,
) -> Fingerprint:
    """Fingerprint of the training cases.

    Args:
        cases: training cases.
        description: dataset.json.
        clinical: rows of clinical.csv by case id.
        stratify_by: column of clinical.csv for the folds ("" for none).
        cache: folder of finished cases; a case is measured again only when its files changed.
        processes: worker processes; 1 measures in this process.

    Raises:
        UserError: no cases, or a case cannot be read.
    """
    if not cases:
        raise UserError("the task has no training cases", remedy="Put images into raw_splitted/imagesTr")
    jobs = [
        (case, description, patient_of(case.case_id, clinical), _stratum(case, clinical, stratify_by), cache)
        for case in cases
    ]
    measured = map_cases(_cached, jobs, processes)
    return Fingerprint(
        task=description.task,
        modalities={str(i): name for i, name in description.modalities.items()},
        labels={str(i): name for i, name in description.labels.items()},
        cases=sorted(measured, key=lambda case: case.case_id),
    )


def _stratum(case: RawCase, clinical: Mapping[str, Mapping[str, str]], column: str) -> str:
    return clinical.get(case.case_id, {}).get(column, "") if column else ""


def _cached(job: _Job) -> CaseFingerprint:
    case, description, patient, stratum, cache = job
    files = [*case.images, *(f for f in (case.label, case.instances) if f is not None)]
    # the roles of the files stand in dataset.json: renaming a modality changes what was measured
    inputs = hash_json([hash_files(files), description.to_json()["modalities"]])
    file = cache / f"{case.case_id}.json"
    if file.is_file():
        try:
            content = read_json(file)
            record = content if isinstance(content, dict) else {}
            if record.get("inputs") == inputs and record.get("version") == Fingerprint.version:
                record.pop("version")
                return from_plain(CaseFingerprint, record | {"patient_id": patient, "stratum": stratum})
        except (UserError, ValueError):
            file.unlink(missing_ok=True)  # written by another release: measure again
    measured = measure_case(case, description, patient, stratum, inputs)
    write_json(file, {"version": Fingerprint.version, **to_plain(measured)})
    return measured


def measure_case(
    case: RawCase, description: DatasetDescription, patient: str, stratum: str, inputs: str
) -> CaseFingerprint:
    """Measure one case in its canonical orientation; UserError when its files lie on different grids."""
    labels, classes = read_labels(case, description)
    names = description.modalities
    ct = next((i for i in description.image_modalities if description.role(i).value == "CT"), None)
    files = {i: read_volume(case.images[i]) for i in names}
    check_grids(case, description, {names[i]: volume for i, volume in files.items()}, labels)
    volumes = {i: files[i] for i in description.image_modalities}
    reference = volumes[ct if ct is not None else description.image_modalities[0]]
    body = _body(reference, ct is not None)
    ctv = None if description.ctv_modality is None else files[description.ctv_modality].array > 0
    lesion = labels.array > 0
    region = (body if ctv is None else ctv) & ~lesion
    return CaseFingerprint(
        case_id=case.case_id,
        patient_id=patient,
        stratum=stratum,
        inputs=inputs,
        shape=reference.geometry.shape,
        spacing=reference.geometry.spacing,
        body_box=_box_of(body, reference.array.shape),
        ctv_box=None if ctv is None else _box_of(ctv, reference.array.shape),
        intensities={names[i]: _intensities(v.array, body, lesion) for i, v in volumes.items()},
        lesions=_lesions(labels, classes, ctv),
        lesion_hu=Histogram() if ct is None else Histogram.of(volumes[ct].array[lesion]),
        region_hu=Histogram() if ct is None else Histogram.of(_sample(volumes[ct].array[region])),
    )


def _body(volume: Volume, is_ct: bool) -> NDArray[np.bool_]:
    return body_mask(volume.array, volume.geometry.spacing) if is_ct else nonzero_mask(volume.array)


def _box_of(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> tuple[float, ...]:
    _, boxes = boxes_from_instances(mask.astype(np.int8))
    return tuple(boxes[0].tolist()) if len(boxes) else (0.0, 0.0, 0.0, *map(float, shape))


def _sample(values: NDArray) -> NDArray:
    step = max(1, len(values) // _REGION_SAMPLE)
    return values[::step]


def _intensities(array: NDArray, body: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> IntensityStatistics:
    inside = _sample(array[body] if body.any() else array.ravel())
    low, mid, high = (float(v) for v in np.percentile(inside, [0.5, 50, 99.5]))
    in_lesions: list[float] | list[None] = [None, None, None]
    if lesion.any():
        in_lesions = [float(v) for v in np.percentile(array[lesion], [0.5, 50, 99.5])]
    return IntensityStatistics(float(inside.mean()), float(inside.std()), low, mid, high, *in_lesions)


def _lesions(
    labels: Volume, classes: dict[int, int], ctv: NDArray[np.bool_] | None
) -> list[LesionFingerprint]:
    spacing = np.array(labels.geometry.spacing)
    outside = None if ctv is None or not ctv.any() else ndimage.distance_transform_edt(~ctv, sampling=spacing)
    ids, boxes = boxes_from_instances(labels.array)
    lesions = []
    for instance, box in zip(ids.tolist(), boxes, strict=True):
        corner = box.astype(int)
        part = tuple(slice(a, b) for a, b in zip(corner[:3], corner[3:], strict=True))
        mask = labels.array[part] == instance
        lesions.append(
            LesionFingerprint(
                instance=instance,
                label=classes[instance],
                volume_mm3=float(mask.sum() * spacing.prod()),
                box=tuple(box.tolist()),
                size_mm=tuple((box[3:] - box[:3]) * spacing),
                slices=int(mask.any(axis=(1, 2)).sum()),
                outside_ctv_mm=None if outside is None else float(outside[part][mask].max()),
            )
        )
    return lesions
