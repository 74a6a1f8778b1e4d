"""Checks of one case: headers and JSON always, voxels on request, each file unpacked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.headers import (
    FileHead,
    dimension_fault,
    file_fault,
    grid_faults,
    mismatch_fault,
    read_head,
)
from nndet_psma.dataset.checks.inspection import Inspection
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.instances import check_classes, read_instances


@dataclass(frozen=True)
class CaseReport:
    """What the check of a case has found.

    Attributes:
        case_id: the case.
        findings: all problems.
        classes: class by instance id, None where there is no readable JSON.
        grid: canonical, of its first image that can be read; None without one.
        types: name of the voxel type by modality, where the header tells it.
        digest: hash of the voxels of its images, when they were read and readable; masks do not count.
        mask_digest: hash of its lesion mask, when that was read and is not empty.
    """

    case_id: str
    findings: list[Finding]
    classes: dict[int, int] | None = None
    grid: Geometry | None = None
    types: dict[int, str] = field(default_factory=dict)
    digest: str | None = None
    mask_digest: str | None = None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Of the grid, mm (z, y, x)."""
        return None if self.grid is None else self.grid.spacing


def check_case(case: RawCase, description: DatasetDescription, full: bool) -> CaseReport:
    """All problems of one case; never raises, so that the other cases are checked whatever happens.

    At any time at most two volumes are in memory: the search region and one other.

    Args:
        case: its files.
        description: the data set it belongs to.
        full: read the voxels, too.
    """
    try:
        return _check(case, description, full)
    except (
        Exception
    ) as error:  # a bug or a library's error in one case must not hide the findings of the others
        fault = Fault(
            "check failed",
            f"the check of case {case.case_id} failed",
            file=case.images[0],
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="Look at the files of this case; if they are good, report this as a bug",
        )
        return CaseReport(case.case_id, [Finding.of(fault)])


def inspect_volumes(
    case: RawCase,
    description: DatasetDescription,
    volumes: Mapping[int, Volume],
    labels: Volume | None,
    classes: Mapping[int, int] | None,
) -> list[Finding]:
    """Judge the voxels of a case that are loaded already; reads no file.

    Args:
        case: names the files.
        description: the data set.
        volumes: by modality number, canonical axes; missing ones are passed over.
        labels: instance mask, or None.
        classes: class by instance id from the JSON, or None.
    """
    inspection = Inspection(case, description)
    for index, volume in sorted(volumes.items()):
        inspection.add_image(index, volume)
    inspection.finish_images()
    if labels is not None:
        inspection.add_labels(labels, classes)
    return inspection.findings


def _check(case: RawCase, description: DatasetDescription, full: bool) -> CaseReport:
    heads = [read_head(file) for file in case.images]
    label = read_head(case.label) if case.label is not None else None
    findings = _head_findings([*heads, *([label] if label else [])], description.dim)
    classes, table_findings = _classes(case, description)
    report = CaseReport(
        case.case_id,
        findings + table_findings,
        classes=classes,
        grid=next((head.geometry for head in heads if head.geometry is not None), None),
        types={
            index: str(head.header.value_type)
            for index, head in enumerate(heads)
            if head.usable and head.header is not None and head.header.value_type is not None
        },
    )
    return _read_voxels(case, description, heads, label, report) if full else report


def _read_voxels(
    case: RawCase,
    description: DatasetDescription,
    heads: list[FileHead],
    label: FileHead | None,
    report: CaseReport,
) -> CaseReport:
    inspection = Inspection(case, description)
    unread: list[Finding] = []
    complete = True
    for index, head in enumerate(heads):
        volume = _read(head, unread)
        complete = complete and volume is not None
        if volume is not None:
            inspection.add_image(index, volume)
        del volume  # before the next one is read
    digest = inspection.finish_images()
    mask = None if label is None else _read(label, unread)
    mask_digest = None if mask is None else inspection.add_labels(mask, report.classes)
    return replace(
        report,
        findings=report.findings + unread + inspection.findings,
        digest=digest if complete else None,
        mask_digest=mask_digest,
    )


def _read(head: FileHead, findings: list[Finding]) -> Volume | None:
    if not head.usable:
        return None
    try:
        return read_volume(head.file, header=head.header, geometry=head.own_geometry)
    except UserError as error:
        findings.append(Finding.of(error, "unreadable image"))
    except OSError as error:
        fault = file_fault(head.file) or Fault(
            "unreadable image",
            "the file cannot be read",
            file=head.file,
            found=str(error.strerror),
            remedy="Check disk and network, then copy the file again",
        )
        findings.append(Finding.of(fault))
    return None


def _head_findings(heads: list[FileHead], dim: int) -> list[Finding]:
    """Faults of each file, then of each against the first one that can be read."""
    faults = [fault for head in heads for fault in head.faults]
    readable = [head for head in heads if head.geometry is not None]
    if readable:
        faults += grid_faults(readable[0], dim)
    for head in readable:
        candidates = (
            dimension_fault(head) if dim == 2 else None,
            mismatch_fault(head, readable[0]),
        )
        faults += [fault for fault in candidates if fault is not None]
    return [Finding.of(fault) for fault in faults]


def _classes(case: RawCase, description: DatasetDescription) -> tuple[dict[int, int] | None, list[Finding]]:
    if case.instances is None:
        return None, []
    fault = file_fault(case.instances)
    if fault is not None:
        return None, [Finding.of(fault)]
    try:
        classes = read_instances(case.instances)
    except UserError as error:
        finding = Finding.of(error, "bad instances")
        return None, [replace(finding, remedy=finding.remedy or "Correct or rewrite the file")]
    findings = []
    try:
        if description.labels:  # none when the description's own are faulty
            check_classes(classes, description, case.instances)
    except Fault as error:
        findings.append(Finding.of(error))
    if list(classes) != list(range(1, len(classes) + 1)):
        problem = Fault(
            "ids not consecutive",
            "instance ids are not consecutive from 1",
            file=case.instances,
            expected=f"1 to {len(classes)}",
            found=", ".join(map(str, list(classes)[:10])),
            remedy="Number the instances of the case anew, in mask and JSON",
        )
        findings.append(Finding.of(problem))
    return classes, findings
