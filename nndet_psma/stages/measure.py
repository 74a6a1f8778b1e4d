"""Stage measure: node tables and structured reports from masks or from detected boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.boxes.labels import CONNECTIVITY, Connectivity
from nndet_psma.core.atomic import write_text
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files
from nndet_psma.core.logs import LOGGER
from nndet_psma.dataset.checks.lesions import APART_MM, widest_gap
from nndet_psma.dataset.images.images import Volume, canonical_geometry, read_volume
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES
from nndet_psma.dataset.task.instances import instance_ids
from nndet_psma.dataset.task.mask_values import hard_mask, mask_components
from nndet_psma.nodes.measurement import MAX_ID, measure_boxes, measure_nodes
from nndet_psma.nodes.staging import StagingRule
from nndet_psma.report.structured.artifact import REPORT_SUFFIX, Origin, StructuredReport, structured_report
from nndet_psma.report.structured.dicom_sr import write_dicom_report
from nndet_psma.report.structured.page import MAX_PICTURES, structured_page
from nndet_psma.report.structured.pictures import NodeScene, image_window
from nndet_psma.report.structured.source_series import read_series
from nndet_psma.report.structured.table import NODE_COLUMNS, PATIENT_COLUMNS, node_rows, patient_rows

BOXES_SUFFIX = "_boxes.json"
PAGE_SUFFIX, DICOM_SUFFIX = "_nodes.html", "_nodes.dcm"
NODES_CSV, PATIENTS_CSV = "nodes.csv", "patients.csv"
NodeSource = Literal["auto", "components", "instances"]
_KINDS = ("_instances", "_seg", "")  # what a segmentation leaves beside its boxes


@dataclass(frozen=True)
class MeasureJob:
    """What to measure.

    Attributes:
        inputs: masks, ``CASE_boxes.json`` files, or folders of either.
        target: folder to write to.
        rule: when a node is suspicious.
        nodes: "components" splits a mask into connected components, "instances" keeps its ids, "auto" takes a
            mask of one value, whichever it is, for a binary one, and several values for ids.
        connectivity: of components.
        images: folder of the images, for pictures: ``CASE_0000.nii.gz`` or ``CASE.nii.gz``, on the grid of the mask.
        window: intensities shown as black and white; None fits them to the image.
        dicom: folder of the DICOM series that was measured (of several cases: one sub-folder named as each case);
            writes ``CASE_nodes.dcm``.
        max_pictures: nodes shown on a page.
        soft: interpolated masks are thresholded at 0.5; otherwise they are refused.
    """

    inputs: Sequence[Path]
    target: Path
    rule: StagingRule = field(default_factory=StagingRule)
    nodes: NodeSource = "auto"
    connectivity: Connectivity = CONNECTIVITY
    images: Path | None = None
    window: tuple[float, float] | None = None
    dicom: Path | None = None
    max_pictures: int = MAX_PICTURES
    soft: bool = False


@dataclass(frozen=True)
class MeasuredCase:
    """A report and the mask it was measured on (canonical node ids; None of boxes)."""

    report: StructuredReport
    instances: NDArray[Any] | None


def measure(job: MeasureJob) -> list[StructuredReport]:
    """Write ``CASE_nodes.json`` and ``CASE_nodes.html`` of every case, and ``nodes.csv`` and ``patients.csv`` of all.

    Raises:
        UserError: no inputs, a case twice, an unreadable file, or an image or series that does not fit.
    """
    files = input_files(job.inputs)
    reports = []
    for case_id, file in files.items():
        case = measure_file(file, case_id, job.rule, job.nodes, job.connectivity, job.soft)
        _write_case(job, case)
        reports.append(case.report)
    write_table(job.target / NODES_CSV, NODE_COLUMNS, node_rows(reports))
    write_table(job.target / PATIENTS_CSV, PATIENT_COLUMNS, patient_rows(reports))
    return reports


def input_files(inputs: Sequence[Path], *, masks_only: bool = False) -> dict[str, Path]:
    """Masks and predictions by case, sorted.

    Of a folder its ``*_instances`` masks, else its ``*_boxes.json`` (not with ``masks_only``), else its images.

    Raises:
        UserError: a path does not exist, a folder holds nothing to measure, or a case is there twice.
    """
    found: dict[str, Path] = {}
    for path in inputs:
        for file in _files_of(path, masks_only):
            case_id = _case_name(file)
            if case_id in found:
                raise UserError(
                    f"case {case_id} is there twice",
                    file=file,
                    found=str(found[case_id]),
                    remedy="Give one of them",
                )
            found[case_id] = file
    if not found:
        raise UserError(
            "there is nothing to measure",
            expected=f"masks or *{BOXES_SUFFIX}",
            remedy="Name files or folders",
        )
    return dict(sorted(found.items()))


def measure_file(
    file: Path,
    case_id: str,
    rule: StagingRule,
    nodes: NodeSource = "auto",
    connectivity: Connectivity = CONNECTIVITY,
    soft: bool = False,
) -> MeasuredCase:
    """Measure one mask or one ``CASE_boxes.json``, turned to canonical (LPS) axes.

    Raises:
        UserError: the file cannot be read or holds no node ids.
    """
    made_from = hash_files([file])
    if file.name.endswith(BOXES_SUFFIX):
        prediction = Prediction.read(file)
        grid = canonical_geometry(prediction.image)
        measured = measure_boxes(canonical_lesions(prediction.lesions, prediction.image, grid), grid)
        return MeasuredCase(
            structured_report(case_id, measured, grid, origin="boxes", made_from=made_from, rule=rule), None
        )
    volume = read_volume(file)
    ids, origin = label_nodes(volume, file, nodes, connectivity, soft)
    report = structured_report(
        case_id,
        measure_nodes(ids, volume.geometry),
        volume.geometry,
        origin=origin,
        made_from=made_from,
        rule=rule,
        connectivity=connectivity if origin == "components" else None,
    )
    return MeasuredCase(report, ids)


def label_nodes(
    volume: Volume, file: Path, nodes: NodeSource, connectivity: Connectivity, soft: bool = False
) -> tuple[NDArray[np.int32], Origin]:
    """Node ids (z, y, x) of a mask, and where they come from.

    One value alone tells nothing of nodes, whether it is 1, 255 or 3: such a mask is a binary one, and "auto" takes
    its components. Ids whose parts lie far apart may be classes, so they are told.

    Raises:
        UserError: a value is fractional (unless ``soft``), negative or too large, or there are too many components.
    """
    mask = hard_mask(volume.array, file, soft=soft)
    values = instance_ids(mask, file)
    if nodes == "components" or (nodes == "auto" and len(values) <= 1):
        return mask_components(mask, file, connectivity), "components"
    if values.max(initial=0) > MAX_ID:
        raise UserError(
            "node ids that make no sense",
            file=file,
            expected=f"whole numbers from 0 to {MAX_ID}",
            found=str(values.max()),
            remedy="Is it a mask, or an image? --nodes components takes every value for the same",
        )
    ids = mask.astype(np.int32)
    _tell_pieces(ids, volume.geometry.spacing, file)
    return ids, "instances"


def _tell_pieces(ids: NDArray[np.int32], spacing: tuple[float, float, float], file: Path) -> None:
    from scipy import ndimage

    apart = [
        str(node)
        for node, cut in enumerate(ndimage.find_objects(ids), start=1)
        if cut is not None and widest_gap(ids[cut] == node, spacing) > APART_MM
    ]
    if apart:
        shown = ", ".join(apart[:5]) + (" ..." if len(apart) > 5 else "")
        LOGGER.warning(
            "%s: one node each although their parts lie more than %g mm apart: %s; if these numbers are classes, "
            "give --nodes components",
            file,
            APART_MM,
            shown,
        )


def canonical_lesions(
    lesions: Sequence[PredictedLesion], source: Geometry, target: Geometry
) -> list[PredictedLesion]:
    """Lesions with their boxes in the voxels of the canonical grid."""

    def turned(box: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(map_boxes(np.array([box], dtype=np.float64), source, target)[0].tolist())

    return [
        replace(
            lesion,
            box=turned(lesion.box),
            slices=[replace(each, box=turned(each.box)) for each in lesion.slices],
        )
        for lesion in lesions
    ]


def _write_case(job: MeasureJob, case: MeasuredCase) -> None:
    report = case.report
    scene = None if job.images is None else _scene(job, case, _image_of(job.images, report.case_id))
    report.write(job.target / f"{report.case_id}{REPORT_SUFFIX}")
    page = structured_page(report, scene, max_pictures=job.max_pictures)
    write_text(job.target / f"{report.case_id}{PAGE_SUFFIX}", page)
    if job.dicom is not None:
        own = job.dicom / report.case_id
        series = read_series(own if own.is_dir() else job.dicom)
        instances = np.zeros(report.grid.shape, np.int32) if case.instances is None else case.instances
        write_dicom_report(job.target / f"{report.case_id}{DICOM_SUFFIX}", report, instances, series)


def _scene(job: MeasureJob, case: MeasuredCase, file: Path) -> NodeScene:
    volume = read_volume(file)
    report = case.report
    if not volume.geometry.same_grid(report.grid):
        raise UserError(
            f"image and mask of case {report.case_id} lie on different grids",
            file=file,
            expected=f"{report.grid.shape} voxels (z, y, x) in the same place",
            found=f"{volume.geometry.shape}",
            remedy="Give the image on which the mask was drawn, or leave --images out",
        )
    return NodeScene(
        volume.array,
        job.window or image_window(volume.array),
        volume.geometry.spacing,
        case.instances,
        report.nodes,
        report.result.suspicious,
    )


def _image_of(folder: Path, case_id: str) -> Path:
    names = [f"{case_id}{number}{suffix}" for number in ("_0000", "") for suffix in IMAGE_SUFFIXES]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"no image of case {case_id}",
        file=folder,
        expected=names[0],
        remedy="Name it so, or leave --images out",
    )


def _files_of(path: Path, masks_only: bool) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError("does not exist", file=path, remedy="Correct the path")
    images = sorted(file for file in path.iterdir() if file.name.endswith(tuple(IMAGE_SUFFIXES)))
    nodes = [file for file in images if f"{_KINDS[0]}." in file.name]
    boxes = [] if masks_only else sorted(path.glob(f"*{BOXES_SUFFIX}"))
    files = nodes or boxes or images
    if not files:
        raise UserError(
            "holds nothing to measure",
            file=path,
            expected=f"masks or *{BOXES_SUFFIX}",
            remedy="Name the folder that holds the files themselves",
        )
    return files


def _case_name(file: Path) -> str:
    for suffix in (BOXES_SUFFIX, *(f"{kind}{s}" for kind in _KINDS for s in IMAGE_SUFFIXES)):
        if file.name.endswith(suffix):
            return file.name.removesuffix(suffix)
    raise UserError(
        "is neither a mask nor a prediction",
        file=file,
        expected=f"{', '.join(IMAGE_SUFFIXES)} or *{BOXES_SUFFIX}",
        remedy="Convert it to one of these",
    )
