"""What only shows when all cases are seen together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from nndet_psma.dataset.checks.case import CaseReport
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.paths import TaskPaths

_SPACING_RATIO = 4.0
_MASKS = (Role.CTV, Role.BLADDER, Role.PROSTATE)


def duplicate_faults(cases: Sequence[RawCase], reports: Sequence[CaseReport]) -> Iterator[Fault]:
    """Cases with the same images, or with the same lesions on different images."""
    images: dict[str, RawCase] = {}
    masks: dict[str, tuple[RawCase, str | None]] = {}
    for case, report in zip(cases, reports, strict=True):
        if report.digest is not None:
            first = images.setdefault(report.digest, case)
            if first is not case:
                yield Fault(
                    "duplicate images",
                    "the same voxels as another case",
                    file=case.images[0],
                    found=first.images[0].name,
                    remedy="Remove one, or the same image may be trained and tested on",
                )
        if report.mask_digest is not None and case.label is not None:
            other, digest = masks.setdefault(report.mask_digest, (case, report.digest))
            if other is not case and digest != report.digest:
                yield Fault(
                    "duplicate masks",
                    "the same lesion mask as another case, on another image",
                    file=case.label,
                    found=f"also {other.label.name if other.label else other.case_id}",
                    remedy="Check which of the two images the mask was drawn on",
                )


def spread_faults(
    description: DatasetDescription, cases: Sequence[RawCase], reports: Sequence[CaseReport]
) -> Iterator[Fault]:
    """Spacings and voxel types that differ too much between cases."""
    known = [(case, report.spacing) for case, report in zip(cases, reports, strict=True) if report.spacing]
    if len(known) > 1:
        yield from _spacings(description, known)
    for index, name in description.modalities.items():
        if description.role(index) not in _MASKS:
            yield from _types(index, name, cases, reports)


def lesion_count_faults(
    paths: TaskPaths, description: DatasetDescription, reports: Sequence[CaseReport]
) -> Iterator[Fault]:
    """Too little to learn from; ``reports`` are of the training cases."""
    if len(reports) == 1:
        yield Fault(
            "one training case",
            "there is only one training case",
            file=paths.images("Tr"),
            expected="at least two",
            found=reports[0].case_id,
            remedy="Add cases: nothing is left to validate on",
        )
    tables = [report.classes for report in reports]
    if not tables or any(table is None for table in tables):
        return
    seen = {label for table in tables if table is not None for label in table.values()}
    if not seen:
        yield Fault(
            "no lesions",
            "no training case has a lesion",
            file=paths.labels("Tr"),
            expected="lesions in some of the cases",
            remedy="Check labelsTr and the exported masks",
        )
        return
    for label, name in description.labels.items():
        if label not in seen:
            yield Fault(
                "class without lesions",
                f"no training lesion has class {label} ({name})",
                file=paths.labels("Tr"),
                found=f"classes {', '.join(map(str, sorted(seen)))}",
                remedy="Remove the class from dataset.json, or correct the JSON of the cases",
            )


def _spacings(
    description: DatasetDescription, known: Sequence[tuple[RawCase, tuple[float, float, float]]]
) -> Iterator[Fault]:
    spacings = np.array([spacing for _, spacing in known])
    ratios = spacings.max(axis=0) / spacings.min(axis=0)
    if description.dim == 2:
        ratios[0] = 1.0
    axis = int(ratios.argmax())
    if ratios[axis] > _SPACING_RATIO:
        usual = float(np.median(spacings[:, axis]))
        odd, spacing = max(known, key=lambda item: abs(np.log(item[1][axis] / usual)))
        low, high = spacings[:, axis].min(), spacings[:, axis].max()
        yield Fault(
            "mixed spacings",
            f"the spacing along {'zyx'[axis]} differs more than fourfold between cases",
            file=odd.images[0],
            expected=f"about {usual:g} mm as in most cases",
            found=f"{spacing[axis]:g} mm; all cases {low:g} to {high:g} mm",
            remedy="Check its header; if it is right, consider leaving the case out",
        )


def _types(index: int, name: str, cases: Sequence[RawCase], reports: Sequence[CaseReport]) -> Iterator[Fault]:
    groups: dict[str, list[RawCase]] = defaultdict(list)
    for case, report in zip(cases, reports, strict=True):
        if index in report.types:
            groups[_range_of(report.types[index])].append(case)
    if len(groups) < 2:
        return
    ordered = sorted(groups, key=lambda group: (-len(groups[group]), group))
    yield Fault(
        "mixed voxel types",
        f"the {name} of the cases is stored in types of different range",
        file=groups[ordered[-1]][0].images[index],
        expected=f"{ordered[0]} as in most cases",
        found=", ".join(f"{len(groups[group])} {group}" for group in ordered),
        remedy="Check that all were exported alike: 8-bit images have lost their units",
    )


def _range_of(type_name: str) -> str:
    """Types that hold the same kind of values: 16 and 32 bits, or single and double precision, are alike."""
    dtype = np.dtype(type_name)
    if dtype.kind == "f":
        return "floating point"
    if dtype.itemsize == 1:
        return "8-bit integers"
    return "signed integers" if dtype.kind == "i" else "unsigned integers"
