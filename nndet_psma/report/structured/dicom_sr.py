"""The structured report as DICOM: Comprehensive 3D SR with a TID 1500 measurement report, written by highdicom.

Every node is a volumetric region: its outline on each source image (SCOORD polylines that follow the voxel edges),
volume, long and short diameter, how uncertain the short one is by voxels (TID 310), and whether the node is suspicious
and borderline. The N stage by size is a measurement group of its own, and says whether it hinges on borderline nodes.
What DICOM has no concept for is coded in the private scheme 99NNDETPSMA. The patient's name, number, sex and date of
birth, and the study's UID, number, accession number, date and time come from the source images, as every DICOM object
needs them, and nothing else does: unlike the JSON and the HTML page such a file is *not* anonymous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.values import read_text
from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.nodes.size_zone import Zone
from nndet_psma.report.structured.artifact import StructuredReport
from nndet_psma.report.structured.mask_outline import mask_outlines
from nndet_psma.report.structured.source_series import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SCHEME = "99NNDETPSMA"
SERIES_NUMBER = 9001
_ROOT = "2.25."  # UIDs from numbers need no registered root
_PROCEDURES = {
    "CT": ("77477000", "Computed tomography"),
    "MR": ("113091000", "Magnetic resonance imaging"),
    "PT": ("82918005", "Positron emission tomography"),
}
_OTHER_PROCEDURE = ("363679005", "Imaging")
_COPIED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
)
_IDENTITY = ("PatientID", "PatientName", "AccessionNumber", "StudyID")
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1), with sex, dates and time: may be empty."""

_SEXES = dict.fromkeys(("M", "F", "O"))
_UTF8 = "ISO_IR 192"
_METHODS = {
    "box": ("MVBB", "Minimum-volume bounding box"),
    "in_plane": ("INPLANE", "In-plane on the axial slice of largest area"),
}


def write_dicom_report(
    file: Path, report: StructuredReport, instances: NDArray[Any], series: SourceSeries
) -> None:
    """Write the report as DICOM SR, atomically; the same report of the same series gets the same UIDs.

    Args:
        file: to write, usually ``*.dcm``.
        report: of a mask (detected boxes have no outline).
        instances: node ids (z, y, x) on ``report.grid``.
        series: the images that were measured.

    Raises:
        UserError: highdicom is missing, the report is one of boxes, or a node lies outside the series.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise UserError(
            "DICOM SR needs a package that is not there", expected="highdicom",
            remedy="Install it: pip install 'nndet_psma[dicom]'",
        ) from None  # fmt: skip
    if report.origin == "boxes":
        raise UserError(
            f"case {report.case_id} was measured on boxes, which have no outline", remedy="Measure a mask"
        )
    with atomic_file(file) as temporary:
        _document(report, instances, series).save_as(temporary)


def _document(report: StructuredReport, instances: NDArray[Any], series: SourceSeries) -> Any:
    import highdicom as hd

    used: dict[str, Dataset] = {}
    groups: list[Any] = [_node_group(report, node, instances, series, used) for node in report.nodes]
    groups.append(_stage_group(report))
    first = series.images[0]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(report, first),
        procedure_reported=_code(
            *_PROCEDURES.get(str(first.get("Modality")), _OTHER_PROCEDURE), scheme="SCT"
        ),
        imaging_measurements=groups,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[_bare(image) for image in used.values() or [first]],
        content=content[0],
        series_instance_uid=_uid(report, first, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(report, first, "document"),
        instance_number=1,
        manufacturer="nndet_psma",
        is_complete=True,
        is_final=False,
        is_verified=False,
        specific_character_set=_UTF8,
        series_description="Node measurements, research software",
    )


def _bare(image: Dataset) -> Dataset:
    """What the report needs of a source image: highdicom would copy comments, referring physician and institution."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DA, TM

    bare = Dataset()
    for name in _COPIED:
        setattr(bare, name, image.get(name))
    for name in _IDENTITY:
        setattr(bare, name, _stated(image, name, str))
    for name in ("PatientBirthDate", "StudyDate"):
        setattr(bare, name, _stated(image, name, DA))
    bare.StudyTime = _stated(image, "StudyTime", TM)
    bare.PatientSex = _stated(image, "PatientSex", _SEXES.__getitem__)
    bare.ReferringPhysicianName = ""
    return bare


def _stated(image: Dataset, name: str, read: Callable[[str], object]) -> str:
    """A value as it stands there; "" where it is missing, as in de-identified images, or no such value."""
    try:
        text = read_text(image, name)
        read(text)
    except (ValueError, KeyError):
        return ""
    return text


def _observer(report: StructuredReport, first: Dataset) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=_uid(report, first, "device"),
        name="nndet_psma",
        manufacturer_name="nndet_psma (research software, not a medical device)",
        model_name=report.package_version,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _node_group(
    report: StructuredReport,
    node: NodeMeasurement,
    instances: NDArray[Any],
    series: SourceSeries,
    used: dict[str, Dataset],
) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    regions = []
    for image, outline in _outlines(report, node, instances, series):
        used[str(image.SOPInstanceUID)] = image
        source = hd.sr.SourceImageForRegion(str(image.SOPClassUID), str(image.SOPInstanceUID))
        regions.append(hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, outline, source))
    if not regions:
        raise UserError(
            f"node {node.node} of case {report.case_id} lies outside the DICOM series",
            remedy="Name the series that the mask was made on",
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=_uid(report, series.images[0], f"node {node.node}"), identifier=f"node {node.node}"
        ),
        referenced_regions=regions,
        finding_type=codes.SCT.LymphNode,
        measurements=_measurements(node),
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(
                _code("SUSPICIOUS", "Suspicious by size"),
                _yes_no(node.node in report.result.suspicious),
            ),
            hd.sr.QualitativeEvaluation(
                _code("BORDERLINE", "Borderline: threshold within voxel uncertainty"),
                _yes_no(node.node in report.result.borderline),
            ),
        ],
    )


def _measurements(node: NodeMeasurement) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    found = [hd.sr.Measurement(codes.SCT.Volume, _decimal(node.volume_mm3), codes.UCUM.CubicMillimeter)]
    sizes = {
        "box": (node.long_diameter_mm, node.short_diameter_mm, node.box_short_zone_mm),
        "in_plane": (node.in_plane_long_mm, node.in_plane_short_mm, node.in_plane_short_zone_mm),
    }
    for method, (long, short, zone) in sizes.items():
        for name, value, spread in ((codes.SCT.LongAxis, long, None), (codes.SCT.ShortAxis, short, zone)):
            found.append(
                hd.sr.Measurement(
                    name,
                    _decimal(value),
                    codes.UCUM.Millimeter,
                    method=_code(*_METHODS[method]),
                    properties=_uncertainty(value, spread),
                )
            )
    return found


def _uncertainty(value: float, zone: Zone | None) -> Any:
    """How far a size may lie above and below its value (TID 310); None without a zone."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if zone is None:
        return None
    properties = hd.sr.MeasurementProperties()
    for code, meaning, amount in (
        ("371886008", "+, range of upper measurement uncertainty", zone[1] - value),
        ("371885007", "-, range of lower measurement uncertainty", value - zone[0]),
    ):  # highdicom's own arguments would write them without a unit
        properties.append(
            hd.sr.NumContentItem(
                name=_code(code, meaning, scheme="SCT"),
                value=_decimal(amount),
                unit=codes.UCUM.Millimeter,
                relationship_type=hd.sr.RelationshipTypeValues.HAS_PROPERTIES,
            )
        )
    return properties


def _stage_group(report: StructuredReport) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    result, rule = report.result, report.rule
    evaluations = [
        hd.sr.QualitativeEvaluation(
            _code("NSTAGE", "N stage by size"), _code(result.stage, f"{result.stage} by size")
        ),
        hd.sr.QualitativeEvaluation(
            _code("HINGES", "N stage hinges on borderline nodes only"), _yes_no(bool(result.hinges_on))
        ),
    ]
    measurements = [
        hd.sr.Measurement(
            _code("THRESHOLD", "Short diameter above which a node is suspicious"),
            _decimal(rule.threshold_mm),
            codes.UCUM.Millimeter,
            method=_code(*_METHODS[rule.diameter]),
        ),
        hd.sr.Measurement(
            _code("COUNT", "Number of suspicious nodes"), len(result.suspicious), codes.UCUM.NoUnits
        ),
    ]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=_uid_of(report, "stage"), identifier="N stage by size, research software"
        ),
        finding_type=codes.SCT.LymphNode,
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _outlines(
    report: StructuredReport, node: NodeMeasurement, instances: NDArray[Any], series: SourceSeries
) -> Iterator[tuple[Dataset, NDArray[np.float32]]]:
    """Source image and closed outline ``[K, 2]`` (column, row) of every piece of the node on every slice."""
    z0, y0, x0, z1, y1, x1 = (int(value) for value in node.box)
    for z in range(z0, z1):
        for outline in mask_outlines(instances[z, y0:y1, x0:x1] == node.node):
            corners = np.column_stack([np.full(len(outline), z + 0.5), outline + np.array([y0, x0])])
            points = report.grid.to_patient(corners)
            placed = series.on_image(points)
            if placed is not None and _inside(placed[1], placed[0]):
                yield placed[0], placed[1].astype(np.float32)


def _inside(pixels: NDArray[np.float64], image: Dataset) -> bool:
    limit = np.array([image.Columns, image.Rows])
    return bool((pixels >= -0.01).all() and (pixels <= limit + 0.01).all())


def _code(value: str, meaning: str, *, scheme: str = SCHEME) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, scheme, meaning[:64])


def _yes_no(yes: bool) -> Any:
    from pydicom.sr.codedict import codes

    return codes.SCT.Yes if yes else codes.SCT.No


def _decimal(value: float) -> float:
    return round(float(value), 3)  # DICOM's decimal strings hold sixteen characters


def _uid(report: StructuredReport, first: Dataset, part: str) -> str:
    return _uid_of(report, f"{first.SeriesInstanceUID} {part}")


def _uid_of(report: StructuredReport, part: str) -> str:
    import hashlib

    digest = hashlib.blake2b(f"{report.content_hash()} {part}".encode(), digest_size=16).digest()
    return _ROOT + str(int.from_bytes(digest, "big"))
