"""Checks of one case: headers and JSON always, voxels on request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.cases import RawCase
from nndet_psma.dataset.description import DatasetDescription, Role
from nndet_psma.dataset.findings import Finding
from nndet_psma.dataset.images import Volume, read_geometry, read_volume
from nndet_psma.dataset.instances import check_classes, disagreement, instance_ids, read_instances
from nndet_psma.dataset.nifti_bytes import check_length, check_nifti

_TOLERANCE_MM = 1e-2
_NO_AIR_HU = -200.0  # a CT without any voxel below this holds no air and hardly fat: most likely not HU


@dataclass(frozen=True)
class CaseReport:
    """What the check of a case has found.

    Attributes:
        case_id: the case.
        findings: all problems.
        digest: hash of the voxels of its images, when they were read and readable; the CTV does not count.
    """

    case_id: str
    findings: list[Finding]
    digest: str | None = None


def check_case(case: RawCase, description: DatasetDescription, full: bool) -> CaseReport:
    """All problems of one case.

    Args:
        case: its files.
        description: the data set it belongs to.
        full: read the voxels, too.
    """
    headers = list(_header_findings(case, description))
    classes, table_findings = _classes(case, description)
    findings = headers + table_findings
    unreadable = {finding.file for finding in headers if finding.kind != "geometry mismatch"}
    if not full:
        return CaseReport(case.case_id, findings)
    same_grid = not any(finding.kind == "geometry mismatch" for finding in headers)
    digest = hashlib.blake2b(digest_size=16)
    region: Volume | None = None
    for index, file in enumerate(case.images):
        volume = None if str(file) in unreadable else _read(file, findings)
        if volume is None:
            unreadable.add(str(file))
            continue
        role = description.role(index)
        findings += _voxel_findings(volume, role, file)
        if role is Role.CTV:
            region = volume
        else:
            digest.update(repr((index, volume.array.shape)).encode())
            digest.update(np.ascontiguousarray(volume.array, dtype=np.float32).tobytes())
    if case.label is not None and str(case.label) not in unreadable:
        findings += _label_findings(case, case.label, classes, region if same_grid else None)
    complete = not any(str(file) in unreadable for file in case.images)
    return CaseReport(case.case_id, findings, digest.hexdigest() if complete else None)


def _header_findings(case: RawCase, description: DatasetDescription) -> Iterator[Finding]:
    reference: tuple[Path, Geometry] | None = None
    for file in [*case.images, *([case.label] if case.label else [])]:
        try:
            geometry = read_geometry(file)
            check_length(file)
        except UserError as error:
            yield Finding.of(error, "unreadable image")
            continue
        if description.dim == 2 and geometry.shape[0] != 1:
            problem = UserError(
                "several slices in a 2D data set", file=file, found=f"shape {geometry.shape} (z, y, x)"
            )
            yield Finding.of(problem, "wrong dimension")
        if reference is None:
            reference = file, geometry
        elif not geometry.same_grid(reference[1], _TOLERANCE_MM):
            yield _mismatch(file, geometry, *reference)


def _mismatch(file: Path, geometry: Geometry, other: Path, reference: Geometry) -> Finding:
    """Name the first property that differs, in the order in which a reader would compare them."""
    expected, found = f"shape {reference.shape}", f"shape {geometry.shape}"
    if geometry.shape == reference.shape:
        for name in ("spacing", "origin", "direction"):
            ours, theirs = getattr(geometry, name), getattr(reference, name)
            if not np.allclose(ours, theirs, rtol=0, atol=1e-4):
                expected = f"{name} {tuple(round(v, 4) for v in theirs)}"
                found = f"{name} {tuple(round(v, 4) for v in ours)}"
                break
        found += f", corners up to {_corner_distance(geometry, reference):.3g} mm apart"
    problem = UserError(
        "not on the grid of the first image",
        file=file,
        expected=f"{expected} of {other.name}",
        found=found,
        remedy="Resample it on that grid (masks with nearest neighbour)",
    )
    return Finding.of(problem, "geometry mismatch")


def _corner_distance(first: Geometry, second: Geometry) -> float:
    corners = np.array(list(product(*((0, n) for n in first.shape))), dtype=np.float64)
    return float(np.linalg.norm(first.to_patient(corners) - second.to_patient(corners), axis=1).max())


def _classes(case: RawCase, description: DatasetDescription) -> tuple[dict[int, int] | None, list[Finding]]:
    if case.instances is None:
        return None, []
    try:
        classes = read_instances(case.instances)
    except UserError as error:
        return None, [Finding.of(error, "bad instances")]
    findings = []
    try:
        check_classes(classes, description, case.instances)
    except UserError as error:
        findings.append(Finding.of(error, "class out of range"))
    if list(classes) != list(range(1, len(classes) + 1)):
        problem = UserError(
            "instance ids are not consecutive from 1",
            file=case.instances,
            expected=f"1 to {len(classes)}",
            found=", ".join(map(str, list(classes)[:10])),
            remedy="Number the instances of the case anew, in mask and JSON",
        )
        findings.append(Finding.of(problem, "ids not consecutive"))
    return classes, findings


def _read(file: Path, findings: list[Finding]) -> Volume | None:
    try:
        check_nifti(file, every_byte=True)
        return read_volume(file)
    except UserError as error:
        kind = "not finite" if "NaN" in error.what else "unreadable image"
        findings.append(Finding.of(error, kind))
        return None


def _voxel_findings(volume: Volume, role: Role, file: Path) -> Iterator[Finding]:
    array = volume.array
    if role is Role.CT:
        lowest = float(array.min())
        if lowest > _NO_AIR_HU:
            problem = UserError(
                "this CT holds no air, so its values may not be HU",
                file=file,
                found=f"lowest value {lowest:g}",
                expected="about -1000",
                remedy="Apply rescale slope and intercept when exporting",
            )
            yield Finding.of(problem, "CT not in HU", "warning")
        if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
            problem = UserError(
                "this CT holds fractions of HU", file=file, remedy="They are rounded; was it resampled?"
            )
            yield Finding.of(problem, "CT with fractions", "warning")
    if role in (Role.CTV, Role.BLADDER, Role.PROSTATE):
        values = np.unique(array)
        if not np.isin(values, (0, 1)).all():
            problem = UserError(
                f"the {role.value} is not binary",
                file=file,
                expected="0 and 1",
                found=str(values[:5].tolist()),
            )
            yield Finding.of(problem, "mask not binary")
        elif role is Role.CTV and not array.any():
            problem = UserError("the CTV is empty", file=file, remedy="Draw it, or remove the case")
            yield Finding.of(problem, "empty CTV")


def _label_findings(
    case: RawCase, label: Path, classes: dict[int, int] | None, region: Volume | None
) -> list[Finding]:
    findings: list[Finding] = []
    mask = _read(label, findings)
    if mask is None:
        return findings
    try:
        ids = instance_ids(mask.array, label)
    except UserError as error:
        return [Finding.of(error, "bad mask")]
    if classes is not None and case.instances is not None and set(ids.tolist()) != set(classes):
        problem = disagreement(set(ids.tolist()), set(classes), label, case.instances)
        findings.append(Finding.of(problem, "mask and JSON disagree"))
    if region is not None and region.array.any():
        inside = set(np.unique(mask.array[region.array > 0]).astype(np.int64).tolist())
        outside = [str(instance) for instance in ids.tolist() if instance not in inside]
        if outside:
            problem = UserError(
                "lesions lie entirely outside the CTV",
                file=label,
                found=f"instances {', '.join(outside)}",
                remedy="They can only be found if the margin round the CTV reaches them",
            )
            findings.append(Finding.of(problem, "lesion outside CTV", "warning"))
    return findings
