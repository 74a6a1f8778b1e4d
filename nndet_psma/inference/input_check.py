"""New images judged before they are predicted: as a data set is checked, and against the training cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nndet_psma.artifacts.dataset_summary import AxisRange
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.results import InputWarning
from nndet_psma.artifacts.training_images import TrainingImages
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.case import check_case, inspect_volumes
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.input_cases import description_from_plan
from nndet_psma.inference.volumes import canonical

FAR = 1.5
"""A spacing or extent is far from training when it lies this factor beyond the range of the training cases. Own choice:
slices of 5 mm after training on 3 mm are told, the fields of view of one scanner (350 to 500 mm) are not."""

NOT_COMPARED = (
    "the model does not say which images it was trained on, so spacing and extent could not be compared "
    "(models know it that were planned by this release)"
)


def check_files(
    case: RawCase, description: DatasetDescription, training: TrainingImages | None
) -> list[InputWarning]:
    """What is unusual about a case; never raises.

    Args:
        case: image files; those of modalities beyond the description are not looked at.
        description: modalities that are used.
        training: images of the training cases; None where the model does not say.
    """
    used = replace(case, images=tuple(case.images[index] for index in sorted(description.modalities)))
    report = check_case(used, description, full=True)
    return _warnings(report.findings, report.grid, training, used.images[0])


def check_volumes(
    case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None, plan: Plan
) -> list[InputWarning]:
    """The same of images in memory.

    Args:
        case_id: name.
        volumes: images by the name of their modality, in axes of their own, on one grid.
        ctv: mask of the search region on that grid, or None.
        plan: of the model.
    """
    description = description_from_plan(plan)
    given = dict(volumes)
    if ctv is not None and description.ctv_modality is not None:
        given[description.modalities[description.ctv_modality]] = ctv
    names = description.modalities
    case = RawCase(case_id, tuple(Path(names[index]) for index in sorted(names)))
    by_index = {index: canonical(given[name]) for index, name in names.items() if name in given}
    grid = next(iter(by_index.values())).geometry
    findings = inspect_volumes(case, description, by_index, None, None)
    return _warnings(findings, grid, plan.training_images, case.images[0])


def refuse_warned(case_id: str, warnings: list[InputWarning]) -> None:
    """What strict predictions do with a case that has warnings.

    Raises:
        UserError: says the first warning and how many there are.
    """
    if not warnings:
        return
    first = warnings[0]
    more = "" if len(warnings) == 1 else f" and {len(warnings) - 1} more"
    raise UserError(
        f"case {case_id} was refused: {first.what}{more}",
        file=first.file,
        expected=first.expected,
        found=first.found,
        remedy=f"{first.remedy or 'Mend it'}, or predict without strict",
    )


def unlike_training(
    grid: Geometry, training: TrainingImages, file: str | None = None
) -> Iterator[InputWarning]:
    """Axes of an image that are far from those of the training images (:data:`FAR`).

    Args:
        grid: canonical, so that its axes are those of the training cases.
        training: their spacing and extent.
        file: of the image.
    """
    extent = tuple(count * step for count, step in zip(grid.shape, grid.spacing, strict=True))
    for kind, values, seen, remedy in (
        ("spacing unlike training", grid.spacing, training.spacing_mm, "Check the header"),
        (
            "extent unlike training",
            extent,
            training.extent_mm,
            "Check the header; crop what was never trained on",
        ),
    ):
        far = [axis for axis in range(3) if _is_far(values[axis], seen, axis)]
        if far:
            noun = kind.split()[0]
            yield InputWarning(
                kind,
                f"the {noun} along {', '.join('zyx'[axis] for axis in far)} is far from that of the training images",
                file=file,
                expected=", ".join(f"{seen.minimum[a]:g} to {seen.maximum[a]:g} mm" for a in far),
                found=", ".join(f"{values[axis]:g} mm" for axis in far),
                remedy=f"{remedy}; the model has seen no such images",
            )


def _is_far(value: float, seen: AxisRange, axis: int) -> bool:
    return not seen.minimum[axis] / FAR <= value <= seen.maximum[axis] * FAR


def _warnings(
    findings: list[Finding], grid: Geometry | None, training: TrainingImages | None, first: Path
) -> list[InputWarning]:
    found = [
        InputWarning(
            finding.kind,
            finding.what,
            file=None if finding.file is None else Path(finding.file).name,
            expected=finding.expected,
            found=finding.found,
            remedy=finding.remedy,
        )
        for finding in findings
    ]
    if grid is not None and training is not None:
        found += unlike_training(grid, training, first.name)
    return found
