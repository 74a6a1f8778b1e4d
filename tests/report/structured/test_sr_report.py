"""The structured report as DICOM SR: read back, and refused where the source images do not fit."""

import numpy as np
import pytest
from places import DATA
from structured_cases import GRID, PATIENT, instances, report, write_series

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.nodes.measurement import measure_nodes
from nndet_psma.report.structured.artifact import structured_report
from nndet_psma.report.structured.dicom_sr import write_dicom_report
from nndet_psma.report.structured.source_series import read_series

highdicom = pytest.importorskip("highdicom")


@pytest.fixture
def document(tmp_path):
    series = read_series(write_series(tmp_path / "series"))
    write_dicom_report(tmp_path / "sr.dcm", report(), instances(), series)
    return highdicom.sr.srread(tmp_path / "sr.dcm")


def groups(document):
    return document.content.get_volumetric_roi_measurement_groups()


def test_measurements_come_back(document):
    found = [
        [(m.name.meaning, float(m.value), m.unit.value) for m in group.get_measurements()]
        for group in groups(document)
    ]
    assert found[1][0] == ("Volume", 810.0, "mm3")
    # box 10 x 9 x 9 mm; in plane the diagonal of 10 x 9, and 9 * diagonal / 10
    diagonal = 181**0.5
    expected = [("Long axis", 10), ("Short axis", 9), ("Long axis", diagonal), ("Short axis", 0.9 * diagonal)]
    assert [each[:2] for each in found[1][1:]] == [
        (name, pytest.approx(mm, abs=1e-3)) for name, mm in expected
    ]
    assert len(found) == 2


def test_suspicion_and_stage_come_back(document):
    verdicts = [group.get_qualitative_evaluations()[0].value.meaning for group in groups(document)]
    assert verdicts == ["No", "Yes"]
    (stage,) = document.content.get_image_measurement_groups()
    assert stage.get_qualitative_evaluations()[0].value.value == "N1"
    assert [float(m.value) for m in stage.get_measurements()] == [8.0, 1.0]


def test_uncertainty_comes_back(document):
    group = groups(document)[1]
    short = next(m for m in group.get_measurements() if m.name.meaning == "Short axis")
    found = [
        (float(item.value), item.unit.value)
        for item in short[0].ContentSequence
        if item.name.value in ("371886008", "371885007")
    ]
    # 9 mm along slices of 3 mm: up to 11.44, down to 6
    assert found == [(pytest.approx(2.44, abs=0.01), "mm"), (3.0, "mm")]
    assert [each.get_qualitative_evaluations()[1].value.meaning for each in groups(document)] == ["No", "Yes"]
    (stage,) = document.content.get_image_measurement_groups()
    hinges = stage.get_qualitative_evaluations()[1]
    assert (hinges.name.meaning, hinges.value.meaning) == ("N stage hinges on borderline nodes only", "Yes")


def test_regions_are_the_voxel_edges_on_the_source_images(document):
    (small, large) = groups(document)
    (region,) = small.roi
    # node 1: rows 2 to 4, columns 3 to 6 of slice 1; DICOM's corner of the first pixel is (0, 0)
    assert sorted({tuple(point) for point in region.value.tolist()}) == [(3, 2), (3, 4), (6, 2), (6, 4)]
    assert region.value[0].tolist() == region.value[-1].tolist()
    assert len(large.roi) == 3
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert referenced == {"1.2.3.4.2", "1.2.3.4.3", "1.2.3.4.4", "1.2.3.4.5"}


def test_the_source_gives_the_patient_and_the_study(document):
    assert (document.PatientName, document.StudyInstanceUID, document.Modality) == (PATIENT, "1.2.3", "SR")
    assert document.VerificationFlag == "UNVERIFIED"
    assert "research software, not a medical device" in document.to_json()


def test_the_same_report_has_the_same_uid(document, tmp_path):
    series = read_series(tmp_path / "series")
    write_dicom_report(tmp_path / "again.dcm", report(), instances(), series)
    again = highdicom.sr.srread(tmp_path / "again.dcm")
    assert again.SOPInstanceUID == document.SOPInstanceUID
    assert again.SOPInstanceUID != again.SeriesInstanceUID


def test_no_node_is_a_report_too(tmp_path):
    series = read_series(write_series(tmp_path / "series"))
    none = structured_report("case_1", [], GRID, origin="components", made_from="0", connectivity=26)
    write_dicom_report(tmp_path / "sr.dcm", none, np.zeros(GRID.shape, dtype=int), series)
    (stage,) = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert stage.get_qualitative_evaluations()[0].value.value == "N0"


def test_a_mask_flipped_in_z_finds_its_images(tmp_path):
    # the same nodes on a grid that runs from head to foot: the outlines lie on the same images
    flipped = Geometry(GRID.shape, GRID.spacing, (-10.0, -8.0, 65.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    ids = instances()[::-1]
    made = structured_report("c", measure_nodes(ids, flipped), flipped, origin="instances", made_from="0")
    write_dicom_report(tmp_path / "sr.dcm", made, ids, read_series(write_series(tmp_path / "series")))
    small = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()[0]
    assert small.roi[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.2"


def test_refused_sources(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_series(tmp_path / "nowhere")
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "case.nii.gz").write_bytes(b"no DICOM, just a file of some length" * 10)
    with pytest.raises(UserError, match="holds no DICOM images"):
        read_series(tmp_path / "nifti")
    write_series(tmp_path / "two", slices=[0])
    write_series(tmp_path / "two", slices=[1], series="1.2.3.5")
    with pytest.raises(UserError, match="several DICOM series"):
        read_series(tmp_path / "two")
    with pytest.raises(UserError, match="without its place"):
        read_series(write_series(tmp_path / "unplaced", slices=[0], ImagePositionPatient=None))
    with pytest.raises(UserError, match="multi-frame"):
        read_series(write_series(tmp_path / "frames", slices=[0], NumberOfFrames=3, PixelSpacing=None))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [1e-9, 1e-9]}, r"PixelSpacing \(0028,0030\) '1e-09'"),
        ({"ImagePositionPatient": [0, 0, 1e30]}, r"ImagePositionPatient \(0020,0032\) '1e\+30'"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient"),
    ],
)
def test_implausible_headers_are_one_line(tmp_path, tags, message):
    with pytest.raises(UserError, match=rf"cannot be read; .*found {message}"):
        read_series(write_series(tmp_path / "series", **tags))


@pytest.mark.parametrize("shift", [100.0, -100.0])
def test_a_mask_beside_the_series_is_refused_and_leaves_nothing(tmp_path, shift):
    series = read_series(write_series(tmp_path / "series", shift=shift))
    with pytest.raises(UserError, match="node 1 of case case_1 lies outside"):
        write_dicom_report(tmp_path / "sr.dcm", report(), instances(), series)
    assert [file.name for file in tmp_path.iterdir()] == ["series"]


def test_boxes_are_refused(tmp_path):
    series = read_series(write_series(tmp_path / "series"))
    with pytest.raises(UserError, match="no outline"):
        write_dicom_report(tmp_path / "sr.dcm", report(origin="boxes"), instances(), series)


@pytest.mark.realdata
def test_a_real_mr_series(tmp_path):
    root = DATA
    folders = sorted((root / "prostatex_bpmri").glob("*/*/4.*t2tsetra*"))
    if not folders:
        pytest.skip(
            "public data set prostatex_bpmri found neither through NNDET_PSMA_DATA nor in ../shared/data"
        )
    series = read_series(folders[0])
    first = series.images[0]
    spacing = (series.thickness, float(first.PixelSpacing[0]), float(first.PixelSpacing[1]))
    along = np.array(first.ImageOrientationPatient, dtype=float)
    direction = np.column_stack([along[:3], along[3:], series.normal])
    shape = (len(series.images), int(first.Rows), int(first.Columns))
    grid = Geometry(shape, spacing, tuple(map(float, first.ImagePositionPatient)), tuple(direction.ravel()))
    ids = np.zeros(shape, dtype=np.int32)
    ids[5:8, 100:120, 90:115] = 1
    made = structured_report("mr", measure_nodes(ids, grid), grid, origin="instances", made_from="0")
    write_dicom_report(tmp_path / "sr.dcm", made, ids, series)
    found = highdicom.sr.srread(tmp_path / "sr.dcm")
    (node,) = found.content.get_volumetric_roi_measurement_groups()
    assert len(node.roi) == 3
    corners = {tuple(point) for point in np.round(node.roi[0].value, 2).tolist()}
    assert corners == {(90, 100), (115, 100), (90, 120), (115, 120)}
    assert found.PatientID == first.PatientID


PATIENT_MODULE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
)  # fmt: skip


def test_a_series_without_a_patient_gives_empty_values(tmp_path):
    nameless = dict.fromkeys((*PATIENT_MODULE, "ReferringPhysicianName"))
    write_dicom_report(
        tmp_path / "sr.dcm", report(), instances(), read_series(write_series(tmp_path / "s", **nameless))
    )
    document = highdicom.sr.srread(tmp_path / "sr.dcm")
    # type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): there, and empty
    assert [(name, str(document[name].value or "")) for name in nameless] == [(name, "") for name in nameless]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PatientSex", "U"), ("PatientBirthDate", "1950"), ("StudyTime", "noon"), ("StudyDate", "x")],
)
def test_values_that_are_none_are_left_empty(tmp_path, name, value):
    from pydicom import config

    with config.disable_value_validation():
        series = read_series(write_series(tmp_path / "s", **{name: value}))
    write_dicom_report(tmp_path / "sr.dcm", report(), instances(), series)
    document = highdicom.sr.srread(tmp_path / "sr.dcm")
    assert str(document[name].value or "") == ""
    assert document.PatientName == PATIENT


def test_the_source_gives_no_more_than_dicom_demands(tmp_path):
    planted = {
        "PatientComments": "Comment-1", "ReferringPhysicianName": "Physician^One", "InstitutionName": "Hospital-2",
        "StationName": "Station-3", "OtherPatientIDs": "Other-4", "PatientAddress": "Street-5",
        "StudyDescription": "Study-6", "SeriesDescription": "Series-7", "Manufacturer": "Maker-8",
        "AdditionalPatientHistory": "History-9", "PatientAge": "075Y", "PatientWeight": "81.5",
        "OperatorsName": "Operator^Ten",
    }  # fmt: skip
    series = read_series(
        write_series(tmp_path / "s", PatientName="Müller^Zoë", **planted, SpecificCharacterSet="ISO_IR 192")
    )
    write_dicom_report(tmp_path / "sr.dcm", report(), instances(), series)
    content = (tmp_path / "sr.dcm").read_bytes()
    assert [value for value in planted.values() if value.encode() in content] == []
    document = highdicom.sr.srread(tmp_path / "sr.dcm")
    assert document.PatientName == "Müller^Zoë"
    assert document.ReferringPhysicianName in ("", None)


def test_a_series_of_two_patients_is_refused(tmp_path):
    write_series(tmp_path / "s", slices=range(5))
    write_series(tmp_path / "s", slices=[5], PatientID="0815")
    with pytest.raises(UserError, match="holds images of several patients"):
        read_series(tmp_path / "s")
