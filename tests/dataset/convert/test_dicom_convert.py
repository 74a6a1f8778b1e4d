"""From DICOM to a raw task: voxels, labels, names, second runs, and that nothing identifies a patient."""

import gzip
import json
import stat
import tracemalloc

import numpy as np
import pytest
from dicom_samples import (
    FRAME,
    NAME,
    PATIENT,
    STUDY,
    make_segmentation,
    make_slices,
    make_structures,
    pet_tags,
    rectangle,
    save,
    save_all,
    uid,
    write_series,
)

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_task
from nndet_psma.dataset.convert.dicom import DicomSource, convert_dicom
from nndet_psma.dataset.dicom.case import CaseSource, adc_to_micro, number_lesions
from nndet_psma.dataset.dicom.contours import ContourRules
from nndet_psma.dataset.dicom.headers import scan_folders
from nndet_psma.dataset.dicom.series import group_series
from nndet_psma.dataset.dicom.structures import Roi
from nndet_psma.dataset.dicom.studies import Choice
from nndet_psma.dataset.dicom.suv import SuvGiven
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths

CT_SHAPE, CT_SPACING = (6, 20, 24), (3.0, 1.0, 1.0)
CTV = [rectangle(3.0 * k, (1.5, 17.5), (1.5, 21.5)) for k in range(6)]


@pytest.fixture
def paths(tmp_path) -> TaskPaths:
    return TaskPaths(tmp_path / "tasks" / "Task100_DICOM")


def boxes(*slices, y, x):
    return [rectangle(3.0 * k, y, x) for k in slices]


def write_ct(folder, patient=PATIENT, study=STUDY, value=40):
    array = np.full(CT_SHAPE, value + 1024, np.int16)
    array[:, 0, :] = -2000  # padding
    identity = {"PatientID": patient, "StudyInstanceUID": study}
    return write_series(folder, array, spacing=CT_SPACING, intercept=-1024, series=f"ct{study}", **identity)


def write_structures(folder, rois, patient=PATIENT, study=STUDY, **tags):
    identity = {"PatientID": patient, "StudyInstanceUID": study}
    dataset = make_structures(rois, series=f"ct{study}", **identity, **tags)
    return save(dataset, folder / f"rs{len(list(folder.iterdir()))}")


ONE_ROI = ("PSMA+ nodes", [*boxes(1, 2, y=(2.5, 5.5), x=(2.5, 4.5)), *boxes(4, y=(9.5, 12.5), x=(9.5, 12.5))])


@pytest.fixture
def patient(tmp_path):
    """CT and a structure set: a CTV, one structure with two lesions, an empty one of the template."""
    folder = write_ct(tmp_path / "pacs" / NAME)
    write_structures(folder, [("CTV_LN", CTV), ONE_ROI, ("PSMA+ empty", []), ("Bladder", CTV[:1])])
    return tmp_path / "pacs"


def source(folder, **changes) -> DicomSource:
    return DicomSource(**{"folders": (folder,), "lesion_rois": ("PSMA+*",), "ctv_roi": "CTV_LN", **changes})


def voxels(paths, name):
    return read_volume(paths.raw_splitted / f"{name}.nii.gz").array


def test_ct_region_and_lesions(patient, paths):
    done = convert_dicom(source(patient), paths)
    assert (done.training, done.test, done.num_lesions) == (("case_0001",), (), 2)
    ct = voxels(paths, "imagesTr/case_0001_0000")
    assert ct.dtype == np.int16
    assert (ct[:, 0] == -1024).all()
    assert (ct[:, 1:] == 40).all()
    expected = np.zeros(CT_SHAPE)
    expected[:, 2:18, 2:22] = 1
    assert np.array_equal(voxels(paths, "imagesTr/case_0001_0001"), expected)
    labels = np.zeros(CT_SHAPE)
    labels[1:3, 3:6, 3:5] = 1
    labels[4, 10:13, 10:13] = 2
    assert np.array_equal(voxels(paths, "labelsTr/case_0001"), labels)
    table = json.loads((paths.labels("Tr") / "case_0001.json").read_text())
    assert table == {"instances": {"1": 0, "2": 0}}
    description = read_description(paths.root)
    assert description.modalities == {0: "CT", 1: "CTV"}
    assert description.labels == {0: "lesion"}


def test_the_task_has_no_fault(patient, paths):
    convert_dicom(source(patient), paths)
    findings = check_task(paths, full=True)
    assert [finding for finding in findings if finding.severity == "error"] == []


def test_pet_becomes_suv_on_the_grid_of_the_ct(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    # 10 * slope 250 Bq/ml * 0.0016 = 4 SUV; 2 mm pixels, shifted half a CT voxel; it ends before the CT does
    pet = np.full((6, 8, 9), 10, np.int16)
    write_series(
        folder,
        pet,
        "PT",
        series="pet",
        spacing=(3.0, 2.0, 2.0),
        origin=(0.5, 0.5, 0.0),
        slope=250.0,
        **pet_tags(),
    )
    done = convert_dicom(source(folder, lesion_rois=(), ctv_roi=None), paths)
    assert (done.training, done.test) == ((), ("case_0001",))
    suv = voxels(paths, "imagesTs/case_0001_0001")
    assert suv.shape == CT_SHAPE
    assert suv[:, 1:15, 1:16] == pytest.approx(4.0, rel=1e-6)
    assert not suv[:, 17:].any()
    assert read_description(paths.root).modalities == {0: "CT", 1: "PET"}
    assert not read_description(paths.root).test_labels
    assert not paths.labels("Ts").exists()


def test_structures_drawn_on_the_pet_come_to_the_grid_of_the_ct(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    write_series(folder, np.ones((6, 8, 9)), "PT", series="pet", spacing=(3.0, 2.0, 2.0), **pet_tags())
    drawn = make_structures([("gtv", [rectangle(6.0, (3.0, 7.0), (3.0, 5.0))])], series="pet")
    save(drawn, folder / "rs")
    convert_dicom(source(folder, lesion_rois=("gtv",), ctv_roi=None), paths)
    # PET rows 2 and 3 (4 and 6 mm), column 2 (4 mm): centres of the CT's 1 mm voxels nearest to these
    found = np.argwhere(voxels(paths, "labelsTr/case_0001"))
    assert found.min(axis=0).tolist() == [2, 3, 3]
    assert found.max(axis=0).tolist() == [2, 6, 4]


def test_diffusion_and_adc_on_one_grid(tmp_path, paths):
    for b in (50.0, 800.0):
        write_series(tmp_path / "mr", np.full((4, 6, 5), b), "MR", series=f"b{b}", DiffusionBValue=b)
    # in mm²/s
    adc = np.full((4, 12, 10), 1200, np.int16)
    tags = {"spacing": (3.0, 1.0, 0.5), "origin": (-0.25, -0.5, 0.0), "SeriesDescription": "dADC"}
    write_series(tmp_path / "mr", adc, "MR", series="adc", slope=1e-6, **{**tags, "SeriesDescription": "ADC"})
    convert_dicom(source(tmp_path / "mr", lesion_rois=(), ctv_roi=None), paths)
    assert read_description(paths.root).modalities == {0: "DWI", 1: "ADC"}
    assert (voxels(paths, "imagesTs/case_0001_0000") == 800).all()
    assert voxels(paths, "imagesTs/case_0001_0001") == pytest.approx(np.full((4, 6, 5), 1200), rel=1e-4)
    other = TaskPaths(paths.root.with_name("Task101_B50"))
    convert_dicom(
        source(tmp_path / "mr", lesion_rois=(), ctv_roi=None, modalities=("DWI",), choice=Choice(50.0)), other
    )
    assert (voxels(other, "imagesTs/case_0001_0000") == 50).all()


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0])
def test_units_of_adc(unit):
    physical = np.array([0.0, 700.0, 1200.0, 3200.0])
    assert adc_to_micro(physical * unit) == pytest.approx(physical, rel=1e-5)
    assert not adc_to_micro(np.zeros(3)).any()


def test_nothing_written_identifies_the_patient(patient, paths, capsys, caplog, recwarn):
    write_ct(patient / "again", study=uid("later"), value=50)
    write_structures(patient / "again", [("CTV_LN", CTV), ONE_ROI], study=uid("later"))
    convert_dicom(source(patient), paths)
    files = [file for file in paths.root.rglob("*") if file.is_file()]
    assert len(files) == 2 * 4 + 3  # two cases, dataset.json, dicom.json, clinical.csv
    secrets = [NAME, "Doe", PATIENT, STUDY, FRAME, uid("series", f"ct{STUDY}"), str(patient)]
    for file in files:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        for secret in secrets:
            assert secret.encode() not in content, file
            assert secret not in file.name
    spoken = "".join(capsys.readouterr()) + caplog.text + "".join(str(w.message) for w in recwarn)
    assert not any(secret in spoken for secret in secrets)


def test_two_studies_of_a_patient_share_a_pseudonym(patient, paths):
    write_ct(patient / "again", study=uid("later"))
    write_structures(patient / "again", [("CTV_LN", CTV), ONE_ROI], study=uid("later"))
    write_ct(patient / "other", patient="MRN-1", study=uid("other"))
    write_structures(patient / "other", [("CTV_LN", CTV), ONE_ROI], patient="MRN-1", study=uid("other"))
    convert_dicom(source(patient), paths)
    rows = [line.split(",") for line in paths.clinical.read_text().splitlines()]
    assert rows[0] == ["case_id", "patient_id"]
    assert [row[0] for row in rows[1:]] == ["case_0001", "case_0002", "case_0003"]
    assert sorted({row[1] for row in rows[1:]}) == ["P0001", "P0002"]
    share = convert_dicom(source(patient), paths, test_share=0.5)
    by_patient = {row[0]: row[1] for row in rows[1:]}
    assert {by_patient[c] for c in share.training}.isdisjoint({by_patient[c] for c in share.test})
    assert read_description(paths.root).test_labels
    names = {f.name for f in paths.raw_splitted.rglob("*.json")}
    assert names == {"case_0001.json", "case_0002.json", "case_0003.json"}


def test_mapping_is_private_and_lies_elsewhere(patient, paths, tmp_path):
    mapping = tmp_path / "safe" / "key.csv"
    convert_dicom(source(patient), paths, mapping=mapping)
    lines = mapping.read_text().splitlines()
    assert lines[0] == "case_id,patient,PatientID,StudyInstanceUID,folder"
    assert lines[1].startswith(f"case_0001,P0001,{PATIENT},{STUDY},")
    assert stat.S_IMODE(mapping.stat().st_mode) == 0o600
    with pytest.raises(UserError, match=r"must not lie in the task.*--mapping"):
        convert_dicom(source(patient), paths, mapping=paths.root / "preprocessed" / "key.csv")


def contents(paths):
    return {f: f.read_bytes() for f in paths.root.rglob("*") if f.is_file()}


def test_second_run_leaves_finished_cases_alone_and_names_stay(patient, paths):
    convert_dicom(source(patient), paths)
    before = contents(paths)
    times = {f: f.stat().st_mtime_ns for f in paths.raw_splitted.rglob("*.nii.gz")}
    for k in range(4):  # some of them sort before the first study
        write_ct(patient / f"n{k}", patient=f"n{k}", study=uid("new", k))
        write_structures(patient / f"n{k}", [("CTV_LN", CTV), ONE_ROI], patient=f"n{k}", study=uid("new", k))
    done = convert_dicom(source(patient), paths)
    assert done.skipped == ("case_0001",)
    assert done.training == tuple(f"case_{k:04d}" for k in range(1, 6))
    assert done.num_lesions == 10
    assert all(f.stat().st_mtime_ns == t for f, t in times.items())
    raw = {f: c for f, c in contents(paths).items() if f in times}
    assert raw == {f: c for f, c in before.items() if f in times}


def test_a_stopped_run_goes_on(patient, paths, tmp_path):
    fresh = TaskPaths(tmp_path / "fresh" / paths.name)
    convert_dicom(source(patient), fresh)
    convert_dicom(source(patient), paths)
    (paths.labels("Tr") / "case_0001.json").unlink()
    (paths.root / "dataset.json").unlink()
    done = convert_dicom(source(patient), paths)
    assert done.skipped == ()
    ours, theirs = ({f.name: c for f, c in contents(p).items()} for p in (paths, fresh))
    assert ours == theirs


def test_changed_structures_are_converted_again(patient, paths):
    convert_dicom(source(patient), paths)
    next((patient / NAME).glob("rs*")).unlink()
    write_structures(patient / NAME, [("CTV_LN", CTV), ("PSMA+", boxes(3, y=(2.5, 5.5), x=(2.5, 4.5)))])
    done = convert_dicom(source(patient), paths)
    assert (done.skipped, done.num_lesions) == ((), 1)


def test_other_choices_need_all_cases(patient, paths, tmp_path):
    convert_dicom(source(patient), paths)
    elsewhere = write_ct(tmp_path / "new", study=uid("new"))
    write_structures(elsewhere, [ONE_ROI], study=uid("new"))
    with pytest.raises(UserError, match=r"cases made with other choices; found case_0001\. Name the folders"):
        convert_dicom(source(elsewhere, ctv_roi=None), paths)


def test_touching_structures_stay_apart_and_small_ones_on_top(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    rois = [
        ("n1", boxes(2, y=(2.5, 6.5), x=(2.5, 6.5))),  # 16 voxels
        ("n2", boxes(2, y=(2.5, 6.5), x=(6.5, 8.5))),  # 8 beside it
        ("n3", boxes(2, y=(3.5, 4.5), x=(3.5, 4.5))),  # 1 inside the first
    ]
    write_structures(folder, rois)
    convert_dicom(source(folder, lesion_rois=("n?",), ctv_roi=None), paths)
    labels = voxels(paths, "labelsTr/case_0001")
    assert [(labels == k).sum() for k in (1, 2, 3)] == [15, 8, 1]
    assert labels[2, 4, 4] == 3


def test_copied_structure_is_refused(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    same = boxes(2, y=(2.5, 6.5), x=(2.5, 6.5))
    write_structures(folder, [("n1", same), ("n1 copy", same)])
    with pytest.raises(UserError, match="lesions lie in the same place; expected 2 lesions; found 1"):
        convert_dicom(source(folder, lesion_rois=("n1*",), ctv_roi=None), paths)


def test_structure_smaller_than_a_voxel_is_refused(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    write_structures(folder, [("n1", boxes(2, y=(2.1, 2.4), x=(2.1, 2.4)))])
    with pytest.raises(UserError, match="a part of structure 'n1' lies between the voxels"):
        convert_dicom(source(folder, lesion_rois=("n1",), ctv_roi=None), paths)


def test_missing_structures_list_those_there_are(patient, paths):
    listed = r"found 'CTV_LN', 'PSMA\+ nodes', 'PSMA\+ empty' \(empty\), 'Bladder'"
    with pytest.raises(UserError, match=f"no structure for lesion; {listed}.*--allow-empty"):
        convert_dicom(source(patient, lesion_rois=("FDG*",)), paths)
    with pytest.raises(UserError, match=f"no structure for CTV; {listed}. Correct the pattern.$"):
        convert_dicom(source(patient, ctv_roi="PTV"), paths)
    assert not paths.root.exists()


def test_study_without_lesions_by_agreement(patient, paths):
    write_ct(patient / "healthy", patient="H", study=uid("healthy"))
    write_structures(patient / "healthy", [("CTV_LN", CTV)], patient="H", study=uid("healthy"))
    [failure] = convert_dicom(source(patient), paths).failures
    assert "healthy: no structure for lesion" in str(failure)
    done = convert_dicom(source(patient, allow_empty=True), paths)
    tables = sorted(f.read_text() for f in paths.labels("Tr").glob("*.json"))
    assert (len(done.training), done.num_lesions) == (2, 2)
    assert [len(json.loads(t)["instances"]) for t in sorted(tables, key=len)] == [0, 2]
    with pytest.raises(UserError, match="no study has a lesion structure"):
        convert_dicom(source(patient / "healthy", allow_empty=True), paths)


def test_further_masks(patient, paths):
    convert_dicom(source(patient, mask_rois={"BLADDER": "bladder"}), paths)
    assert read_description(paths.root).modalities == {0: "CT", 1: "BLADDER", 2: "CTV"}
    bladder = voxels(paths, "imagesTr/case_0001_0001")
    assert (bladder[0].sum(), bladder[1:].sum()) == (16 * 20, 0)


def test_another_frame_of_reference_is_refused(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    moved = pet_tags(FrameOfReferenceUID=uid("moved"))
    write_series(folder, np.ones((6, 8, 9)), "PT", series="pet", spacing=(3.0, 2.0, 2.0), **moved)
    with pytest.raises(UserError, match=r"PET lies in another frame of reference.*Register"):
        convert_dicom(source(folder, lesion_rois=(), ctv_roi=None), paths)
    write_structures(folder, [("n", boxes(2, y=(2.5, 6.5), x=(2.5, 6.5)))], FrameOfReferenceUID=uid("moved"))
    chosen = source(folder, lesion_rois=("n",), ctv_roi=None, modalities=("CT",))
    with pytest.raises(UserError, match="structure 'n' lies in another frame of reference"):
        convert_dicom(chosen, paths)


def test_unknown_modality(patient, paths):
    with pytest.raises(UserError, match="unknown modality; expected one of CT, PET, DWI, ADC, T2; found US"):
        convert_dicom(source(patient, modalities=("US",)), paths)


def test_damaged_state(patient, paths):
    convert_dicom(source(patient), paths)
    (paths.root / "dicom.json").write_text('{"version": 1, "choices": "", "cases": {"case_0001": 3}}')
    with pytest.raises(UserError, match=r"dicom.json: not readable; found cases.case_0001"):
        convert_dicom(source(patient), paths)
    (paths.root / "dicom.json").write_text('{"version": 2, "choices": "", "cases": {}}')
    with pytest.raises(UserError, match=r"dicom.json: of another version; expected 1; found 2"):
        convert_dicom(source(patient), paths)


# ----- several studies, some of them broken


def write_study(folder, name, **changes):
    """CT and structures of a patient of its own."""
    place = write_ct(folder / name, patient=name, study=uid(name), value=len(list(folder.glob("*"))))
    write_structures(place, [("CTV_LN", CTV), ONE_ROI], patient=name, study=uid(name), **changes)
    return place


def test_broken_studies_do_not_stop_the_others(tmp_path, paths):
    pacs = tmp_path / "pacs"
    for name in ("good", "gap", "damaged", "bare", "fine"):
        write_study(pacs, name)
    sorted((pacs / "gap").glob("CT*"))[2].unlink()
    next((pacs / "damaged").glob("CT*")).write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    next((pacs / "bare").glob("rs*")).unlink()
    done = convert_dicom(source(pacs), paths)
    told = "\n".join(sorted(map(str, done.failures)))
    assert len(done.failures) == 3
    assert "slices are missing" in told
    assert "damaged DICOM file" in told
    assert "no structure for CTV, lesion; found no structure set" in told
    assert len(done.training) == 2
    assert done.num_lesions == 4
    assert read_description(paths.root).modalities == {0: "CT", 1: "CTV"}
    named = {
        file.name[:9]
        for folder in ("imagesTr", "labelsTr")
        for file in (paths.raw_splitted / folder).iterdir()
    }
    assert named == set(done.training)
    assert set(json.loads((paths.root / "dicom.json").read_text())["cases"]) == named
    assert [f for f in check_task(paths, full=True) if f.severity == "error"] == []


def test_a_case_that_broke_later_is_removed_and_comes_back(tmp_path, paths):
    pacs = tmp_path / "pacs"
    write_study(pacs, "one")
    place = write_study(pacs, "two")
    assert len(convert_dicom(source(pacs), paths).training) == 2
    lost = sorted(place.glob("CT*"))[2]
    content = lost.read_bytes()
    lost.unlink()
    done = convert_dicom(source(pacs), paths)
    assert (len(done.training), len(done.failures)) == (1, 1)
    assert len(list(paths.labels("Tr").glob("*.nii.gz"))) == 1
    lost.write_bytes(content)
    done = convert_dicom(source(pacs), paths)
    assert (len(done.training), len(done.skipped), done.failures) == (2, 1, ())


def test_nothing_left_lists_all_reasons(tmp_path, paths):
    for name in ("one", "two"):
        place = write_study(tmp_path / "pacs", name)
        sorted(place.glob("CT*"))[2].unlink()
    with pytest.raises(
        UserError, match=r"none of the studies can be converted, for 2 reasons; found .*one.*; .*two"
    ):
        convert_dicom(source(tmp_path / "pacs"), paths)
    assert not (paths.root / "dataset.json").exists()


def test_patients_called_alike_are_asked_about(tmp_path, paths):
    pacs = tmp_path / "pacs"
    for k in range(3):
        place = write_ct(pacs / f"p{k}", patient="ANONYMOUS", study=uid("anon", k))
        write_structures(place, [("CTV_LN", CTV), ONE_ROI], patient="ANONYMOUS", study=uid("anon", k))
    with pytest.raises(UserError, match=r"which studies are of the same patient is not told.*--patients"):
        convert_dicom(source(pacs), paths)
    assert not paths.root.exists()
    convert_dicom(source(pacs, patients="per-study"), paths)
    assert not paths.clinical.exists()
    joined = TaskPaths(tmp_path / "joined" / "Task101_X")
    convert_dicom(source(pacs, patients="as-named"), joined)
    assert {line.split(",")[1] for line in joined.clinical.read_text().splitlines()[1:]} == {"P0001"}


def test_patients_of_a_table(tmp_path, paths):
    pacs = tmp_path / "pacs"
    for k in range(3):
        place = write_ct(pacs / f"p{k}", patient="ANONYMOUS", study=uid("anon", k))
        write_structures(place, [("CTV_LN", CTV), ONE_ROI], patient="ANONYMOUS", study=uid("anon", k))
    table = tmp_path / "patients.csv"
    table.write_text(f"folder,patient\n{pacs / 'p0'},A\n{pacs / 'p1'},A\n{pacs / 'p2'},B\n")
    convert_dicom(source(pacs, patients=str(table)), paths)
    rows = [line.split(",")[1] for line in paths.clinical.read_text().splitlines()[1:]]
    assert sorted(rows.count(name) for name in set(rows)) == [1, 2]
    other = TaskPaths(tmp_path / "other" / "Task102_X")
    by_uid = "".join(f"{uid('anon', k)},{k}\n" for k in range(2))
    table.write_text(f"StudyInstanceUID,patient\n{by_uid}")
    with pytest.raises(
        UserError, match=r"patients.csv: the table does not name the patient of a study; found .*p2"
    ):
        convert_dicom(source(pacs, patients=str(table)), other)
    table.write_text("study;name\na;b\n")
    with pytest.raises(
        UserError, match="expected the columns patient, and StudyInstanceUID or folder; found study, name"
    ):
        convert_dicom(source(pacs, patients=str(table)), other)


# ----- what the user states


def write_pet(folder, patient=PATIENT, study=STUDY, **changes):
    identity = {"PatientID": patient, "StudyInstanceUID": study}
    pet = np.full((6, 8, 9), 10, np.int16)
    geometry = {"spacing": (3.0, 2.0, 2.0), "slope": 250.0}
    return write_series(
        folder, pet, "PT", series=f"pet{study}", **geometry, **pet_tags(**changes), **identity
    )


def suv_of(paths, case_id="case_0001"):
    return float(voxels(paths, f"imagesTs/{case_id}_0001")[3, 5, 5])


def test_what_is_stated_about_the_suv_counts_again_later(tmp_path, paths):
    pacs = tmp_path / "pacs"
    write_ct(pacs / "a", patient="a", study=uid("a"))
    write_pet(pacs / "a", patient="a", study=uid("a"), PatientWeight="")
    write_ct(pacs / "b", patient="b", study=uid("b"))
    write_pet(pacs / "b", patient="b", study=uid("b"))
    plain = source(pacs, lesion_rois=(), ctv_roi=None)
    done = convert_dicom(plain, paths)
    [failure] = done.failures
    assert "found PatientWeight (0010,1030) missing" in str(failure)
    # a time, too, is remembered, without a date
    only_a = source(
        pacs / "a",
        lesion_rois=(),
        ctv_roi=None,
        suv=SuvGiven(weight_kg=160.0),
        injected_at="2020-01-02 09:10:13.8",
    )
    stated = convert_dicom(only_a, paths)
    [case_id] = stated.test
    assert suv_of(paths, case_id) == pytest.approx(8.0, rel=1e-5)
    [note] = stated.notes[case_id]
    assert note == "SUV from what the user stated: weight (kg) 160, seconds from injection to scan 6586.2"
    record = json.loads((paths.root / "dicom.json").read_text())["cases"][case_id]
    assert record["suv"] == {"factor": None, "dose_mbq": None, "weight_kg": 160.0, "waited_s": 6586.2}
    assert record["notes"] == [note]
    assert "2020" not in (paths.root / "dicom.json").read_text()
    again = convert_dicom(plain, paths)
    assert (again.failures, len(again.skipped)) == ((), 2)
    assert again.notes == stated.notes
    [forgotten] = convert_dicom(plain, paths, overwrite=True).failures
    assert "PatientWeight" in str(forgotten)


def test_statements_belong_to_one_study(tmp_path, paths):
    for name in ("a", "b"):
        write_ct(tmp_path / "pacs" / name, patient=name, study=uid(name))
        write_pet(tmp_path / "pacs" / name, patient=name, study=uid(name))
    several = source(tmp_path / "pacs", lesion_rois=(), ctv_roi=None, suv=SuvGiven(dose_mbq=100))
    with pytest.raises(UserError, match="belong to one study; expected one study with a PET; found 2"):
        convert_dicom(several, paths)
    both = source(tmp_path / "pacs", suv=SuvGiven(factor=1.0), injected_at="10:00")
    with pytest.raises(UserError, match="--suv-factor takes the place of all else"):
        convert_dicom(both, paths)


def test_contours_of_every_second_slice_are_one_lesion_and_told(tmp_path, paths):
    folder = write_ct(tmp_path / "pacs")
    write_structures(folder, [("n1", boxes(1, 3, 5, y=(2.5, 6.5), x=(2.5, 6.5)))])
    done = convert_dicom(source(folder, lesion_rois=("n1",), ctv_roi=None), paths)
    assert done.num_lesions == 1
    assert (voxels(paths, "labelsTr/case_0001") > 0).sum() == 5 * 16
    assert done.notes == {
        "case_0001": ("lesion: contours of a structure interpolated on 2 slices between those drawn",)
    }
    separate = source(folder, lesion_rois=("n1",), ctv_roi=None, rules=ContourRules(gaps="separate"))
    assert convert_dicom(separate, paths).num_lesions == 3


def test_two_versions_of_a_structure_set(patient, paths):
    older = [("CTV_LN", CTV[:3]), ("PSMA+ nodes", boxes(3, y=(2.5, 5.5), x=(2.5, 4.5)))]
    write_structures(patient / NAME, older, StructureSetLabel="old", StructureSetDate="20200101")
    with pytest.raises(UserError, match=r"2 structure sets have a structure 'PSMA\+ nodes'.*\(label 'old'\)"):
        convert_dicom(source(patient), paths)
    assert convert_dicom(source(patient, structure_set="old"), paths).num_lesions == 1
    assert convert_dicom(source(patient, structure_set="newest"), paths).num_lesions == 1
    assert voxels(paths, "imagesTr/case_0001_0001")[3:].sum() == 0


def test_lesions_and_region_of_a_dicom_seg(tmp_path, paths):
    slices = make_slices(np.full(CT_SHAPE, 1064, np.int16), spacing=CT_SPACING, intercept=-1024)
    folder = save_all(slices, tmp_path / "pacs")
    lesions, region = np.zeros((2, *CT_SHAPE), bool)
    lesions[1:3, 3:6, 3:5] = lesions[4, 10:13, 10:13] = True
    region[1:5, 2:18, 2:22] = True
    make_segmentation(slices, {"PSMA+": lesions, "CTV_LN": region}).save_as(folder / "seg.dcm")
    done = convert_dicom(source(folder), paths)
    assert done.num_lesions == 2
    labels = voxels(paths, "labelsTr/case_0001")
    assert np.array_equal(labels > 0, lesions)
    assert labels[4, 11, 11] != labels[1, 4, 4]
    assert np.array_equal(voxels(paths, "imagesTr/case_0001_0001"), region)
    assert convert_dicom(source(folder), paths).skipped == ("case_0001",)


def test_reformatted_images_are_noted(tmp_path, paths):
    array = np.full(CT_SHAPE, 40, np.int16)
    folder = write_series(tmp_path / "pacs", array, ImageType=["DERIVED", "SECONDARY", "MPR"])
    plain = source(folder, lesion_rois=(), ctv_roi=None)
    with pytest.raises(UserError, match=r"ImageType DERIVED\\SECONDARY\\MPR.*--accept-derived"):
        convert_dicom(plain, paths)
    accepted = source(folder, lesion_rois=(), ctv_roi=None, choice=Choice(accept_derived=True))
    done = convert_dicom(accepted, paths)
    assert done.notes == {"case_0001": ("CT is reformatted, not as measured",)}


def test_pattern_that_is_no_expression(patient, paths):
    with pytest.raises(UserError, match=r"--series CT is no regular expression; found '\['"):
        convert_dicom(source(patient, choice=Choice(names={"CT": "["})), paths)


def _forty_lesions(tmp_path):
    """40 structures in a volume of 1 MB, the source of its case and its grid."""
    folder = write_series(tmp_path, np.zeros((16, 256, 256), np.int16), spacing=(3.0, 1.0, 1.0))
    [series] = group_series(scan_folders([folder]))
    contours = [np.reshape(rectangle(6.0, (5.5 * k, 5.5 * k + 3), (3.5, 9.5)), (4, 3)) for k in range(40)]
    rois = tuple(Roi(f"n{k}", (c,), FRAME, frozenset(), folder) for k, c in enumerate(contours))
    return rois, CaseSource({"CT": series}, {}, rois, (series,)), series.geometry


def test_many_lesions_need_no_mask_each(tmp_path):
    """Masks of their own would take 40 MB."""
    rois, case, grid = _forty_lesions(tmp_path)
    tracemalloc.start()
    labels = number_lesions(rois, case, grid, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.max() == 40
    assert peak < 15 * labels.size


def test_more_lesions_than_ids_are_refused(tmp_path, monkeypatch):
    """Ids are 16 bits: number 65536 would have been 0, no lesion."""
    monkeypatch.setattr("nndet_psma.dataset.dicom.case.MAX_COMPONENTS", 39)
    with pytest.raises(
        UserError, match=r"more parts than there can be lesions.*at most 39.*found 40.*--lesion-roi"
    ):
        number_lesions(*_forty_lesions(tmp_path), [])
