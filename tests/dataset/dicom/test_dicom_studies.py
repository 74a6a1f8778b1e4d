"""Which series and structure sets belong together, and which series is taken."""

import numpy as np
import pydicom
import pytest
from dicom_samples import PATIENT, make_structures, pet_tags, rectangle, save, uid, write_series

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import scan_folders
from nndet_psma.dataset.dicom.studies import (
    Choice,
    check_patients,
    choose_series,
    common_modalities,
    group_studies,
    taint,
)

ARRAY = np.zeros((4, 3, 5), np.int16)


def studies_in(folder):
    return group_studies(scan_folders([folder]))


def described(folder, modality, choice=None, drawn_on=frozenset()):
    [study] = studies_in(folder)
    return choose_series(study, modality, choice or Choice(), frozenset(drawn_on)).first.description


def test_studies_of_one_patient_are_apart_whatever_the_folders_are(tmp_path):
    for series, study in (("1", "a"), ("2", "a"), ("3", "b")):
        write_series(tmp_path, ARRAY, series=series, StudyInstanceUID=uid(study))
    studies = studies_in(tmp_path)
    assert sorted(len(study.series) for study in studies) == [1, 2]
    assert {study.patient for study in studies} == {PATIENT}


def test_files_without_identifiers_are_told_apart_by_the_folders_named(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, ARRAY, series=name, StudyInstanceUID="", PatientID="")
    studies = group_studies(scan_folders([tmp_path / "a", tmp_path / "b"]))
    assert len(studies) == 2
    assert len({study.digest for study in studies}) == 2


def test_digest_tells_nothing_of_the_patient_and_stays(tmp_path):
    write_series(tmp_path / "one", ARRAY)
    write_series(tmp_path / "two", ARRAY, PatientID="another")
    [first], [second] = studies_in(tmp_path / "one"), studies_in(tmp_path / "two")
    assert first.digest == second.digest


def test_structures_go_where_their_series_lies(tmp_path):
    write_series(tmp_path, ARRAY, series="1", StudyInstanceUID=uid("images"))
    write_series(tmp_path, ARRAY, series="2", StudyInstanceUID=uid("others"))
    rois = [("a", [rectangle(0, (0, 1), (0, 1))])]
    save(make_structures(rois, series="1", StudyInstanceUID=uid("planning")), tmp_path / "rs1")
    save(make_structures(rois, series="absent", StudyInstanceUID=uid("others")), tmp_path / "rs2")
    save(make_structures(rois, series="gone", StudyInstanceUID=uid("nowhere")), tmp_path / "rs3")
    held = {study.study: [s.file.name for s in study.structures] for study in studies_in(tmp_path)}
    assert held == {uid("images"): ["rs1"], uid("others"): ["rs2"]}


def test_two_versions_of_a_structure_set_are_refused(tmp_path):
    write_series(tmp_path, ARRAY)
    for k in (1, 2):
        drawn = make_structures([("a", [rectangle(0, (0, k), (0, 1))])])
        drawn.SOPInstanceUID = uid("same")
        save(drawn, tmp_path / f"rs{k}")
    with pytest.raises(UserError, match=r"rs2: two different structure sets .* found .*rs1"):
        scan_folders([tmp_path])


def test_no_images(tmp_path):
    save(make_structures([]), tmp_path / "rs")
    with pytest.raises(UserError, match="no images that can be used; expected one of CT, PET, DWI, ADC, T2"):
        studies_in(tmp_path)


def write_mr(folder, b_values=(50.0, 800.0), calculated=True, adc=True, t2=True):
    for b in b_values:
        write_series(folder, ARRAY, "MR", series=f"b{b}", DiffusionBValue=b, SeriesDescription=f"dwi b{b:g}")
    if calculated:
        write_series(
            folder, ARRAY, "MR", series="c", DiffusionBValue=1400.0, SeriesDescription="dwi CALC_BVAL"
        )
    if adc:
        write_series(folder, ARRAY, "MR", series="adc", SeriesDescription="dwi_ADC")
    if t2:
        write_series(folder, ARRAY, "MR", series="t2", SeriesDescription="t2 tse")
    return folder


def test_modalities_by_default(tmp_path):
    write_mr(tmp_path / "mr")
    assert common_modalities(studies_in(tmp_path / "mr")) == ("DWI", "ADC")
    write_mr(tmp_path / "t2", b_values=(), calculated=False, adc=False)
    assert common_modalities(studies_in(tmp_path / "t2")) == ("T2",)
    write_series(tmp_path / "pet", ARRAY, "PT", series="p", **pet_tags())
    write_series(tmp_path / "pet", ARRAY, "CT", series="c")
    assert common_modalities(studies_in(tmp_path / "pet")) == ("CT", "PET")
    # two studies share what both have
    write_series(tmp_path / "both", ARRAY, "CT", series="x", StudyInstanceUID=uid("x"))
    both = [*studies_in(tmp_path / "pet"), *studies_in(tmp_path / "both")]
    assert common_modalities(both) == ("CT",)
    with pytest.raises(UserError, match="no modality in common; found CT, PET; T2"):
        common_modalities([*studies_in(tmp_path / "pet"), *studies_in(tmp_path / "t2")])


def test_highest_measured_b_value_or_the_wanted_one(tmp_path):
    write_mr(tmp_path)
    assert described(tmp_path, "DWI") == "dwi b800"
    assert described(tmp_path, "DWI", Choice(b_value=50)) == "dwi b50"
    assert described(tmp_path, "DWI", Choice(b_value=1400)) == "dwi CALC_BVAL"
    with pytest.raises(UserError, match=r"no DWI with b=1000; found .*b=1400.*--b-value"):
        described(tmp_path, "DWI", Choice(b_value=1000))


def test_trace_image_before_single_directions(tmp_path):
    for series, image_type in (
        ("x", ["ORIGINAL", "PRIMARY", "NONE"]),
        ("t", ["DERIVED", "PRIMARY", "TRACEW"]),
    ):
        tags = {"DiffusionBValue": 800.0, "ImageType": image_type, "SeriesDescription": series}
        write_series(tmp_path, ARRAY, "MR", series=series, **tags)
    assert described(tmp_path, "DWI") == "t"


def test_corrected_pet_before_uncorrected(tmp_path):
    for series, corrections in (("nac", ["DECY"]), ("ac", ["DECY", "ATTN"])):
        tags = pet_tags(CorrectedImage=corrections, SeriesDescription=series)
        write_series(tmp_path, ARRAY, "PT", series=series, **tags)
    assert described(tmp_path, "PET") == "ac"


def test_scouts_come_last(tmp_path):
    write_series(tmp_path, ARRAY[:2], series="s", SeriesDescription="scout")
    assert described(tmp_path, "CT") == "scout"
    write_series(tmp_path, ARRAY, series="v", SeriesDescription="volume")
    assert described(tmp_path, "CT") == "volume"


def test_several_series_are_listed_and_chosen_by_name_or_structures(tmp_path):
    for name in ("Pelvis soft", "Pelvis lung"):
        write_series(tmp_path, ARRAY, series=name, SeriesDescription=name)
    listed = r"'Pelvis lung' \(4 slices of \(3, 5\)\); CT 'Pelvis soft'.*--series CT=REGEX"
    with pytest.raises(UserError, match=f"several CT series; found CT {listed}"):
        described(tmp_path, "CT")
    assert described(tmp_path, "CT", Choice(names={"CT": "soft$"})) == "Pelvis soft"
    assert described(tmp_path, "CT", drawn_on={uid("series", "Pelvis lung")}) == "Pelvis lung"
    with pytest.raises(UserError, match="no CT series called 'bone'"):
        described(tmp_path, "CT", Choice(names={"CT": "bone"}))
    with pytest.raises(UserError, match=r"no PET series; found CT .*Leave the study out"):
        described(tmp_path, "PET")


def test_what_was_measured_comes_before_reformats(tmp_path):
    mpr = {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "SeriesDescription": "mpr"}
    write_series(tmp_path, ARRAY, series="mpr", **mpr)
    [study] = studies_in(tmp_path)
    assert study.series == ()
    message = r"expected one of .* as measured; found CT 'mpr' \(ImageType DERIVED\\SECONDARY\\MPR\).*--accept-derived"
    with pytest.raises(UserError, match=message):
        raise study.faults[0]
    [study] = group_studies(scan_folders([tmp_path]), accept_derived=True)
    assert choose_series(study, "CT", Choice(), frozenset()).is_reformatted
    write_series(tmp_path, ARRAY, series="axial", SeriesDescription="axial")
    [study] = group_studies(scan_folders([tmp_path]), accept_derived=True)
    found = choose_series(study, "CT", Choice(), frozenset({uid("series", "mpr")}))
    assert found.first.description == "axial"


def test_studies_of_localizers_alone_have_a_fault(tmp_path):
    write_series(tmp_path, ARRAY, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    [study] = studies_in(tmp_path)
    assert "--accept-derived" not in str(study.faults[0])
    assert "LOCALIZER" in str(study.faults[0])


def test_a_damaged_file_is_the_fault_of_its_neighbours(tmp_path):
    write_series(tmp_path / "a", ARRAY, series="a", StudyInstanceUID=uid("a"))
    write_series(tmp_path / "b", ARRAY, series="b", StudyInstanceUID=uid("b"))
    error = UserError("damaged")
    found = taint(studies_in(tmp_path), {tmp_path / "a" / "x.dcm": error, tmp_path / "c" / "y.dcm": error})
    assert {study.study: study.faults for study in found} == {uid("a"): (error,), uid("b"): ()}


def write_patients(folder, *tags):
    for k, one in enumerate(tags):
        write_series(folder / f"p{k}", ARRAY, series=str(k), StudyInstanceUID=uid("study", k), **one)
    return studies_in(folder)


@pytest.mark.parametrize("name", ["ANONYMOUS", "anon", "Anonymized", "", "0000", "XXXX", "unknown", "-"])
def test_identifiers_that_everybody_gets_are_refused(tmp_path, name):
    studies = write_patients(tmp_path, {"PatientID": name}, {"PatientID": name})
    with pytest.raises(
        UserError, match=r"which studies are of the same patient is not told.*found 2 studies.*--patients"
    ):
        check_patients(studies)
    check_patients(studies[:1])


def test_people_of_another_sex_or_birth_date_are_not_one_patient(tmp_path):
    one = {"PatientBirthDate": "19500101", "PatientSex": "M"}
    check_patients(write_patients(tmp_path / "same", one, {"PatientSex": ""}, {**one, "PatientSex": "O"}))
    for k, other in enumerate(({"PatientSex": "F"}, {"PatientBirthDate": "19600101"})):
        with pytest.raises(UserError, match="PatientID of several people") as caught:
            check_patients(write_patients(tmp_path / str(k), one, other))
        assert PATIENT not in str(caught.value)
        assert "1950" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 7])
def test_one_study_identifier_for_two_patients_is_the_fault_of_both(tmp_path, value):
    write_series(tmp_path / "a", ARRAY, PatientID="A")
    write_series(tmp_path / "b", ARRAY + np.int16(value), PatientID="B")  # all UIDs as those of A
    first, second = studies_in(tmp_path)
    assert {first.patient, second.patient} == {"A", "B"}
    for study in (first, second):
        with pytest.raises(
            UserError, match=r"(a: .*found another one in \S+/b/|b: .*found another one in \S+/a/)"
        ):
            raise study.faults[0]


@pytest.mark.parametrize("study", ["", uid("another")])
def test_a_slice_that_lost_its_study_is_the_fault_of_the_series(tmp_path, study):
    """Else both parts become cases, one short of a slice."""
    write_series(tmp_path, ARRAY)
    last = max(tmp_path.iterdir())
    slice_ = pydicom.dcmread(last)
    slice_.StudyInstanceUID = study
    slice_.save_as(last)
    first, second = studies_in(tmp_path)
    for one in (first, second):
        with pytest.raises(UserError, match="one SeriesInstanceUID in several studies"):
            raise one.faults[0]


ROIS = [("a", [rectangle(0, (0, 1), (0, 1))])]


@pytest.mark.parametrize(
    "person",
    [{"PatientID": "B"}, {"PatientSex": "F"}, {"PatientBirthDate": "19600101"}, {"PatientID": "B", "x": 1}],
)
def test_structures_of_another_patient_are_not_drawn(tmp_path, person):
    tags = {"PatientID": "A", "PatientSex": "M", "PatientBirthDate": "19500101"}
    other_too = "x" in person
    person = {key: value for key, value in person.items() if key != "x"}
    write_series(tmp_path / "a", ARRAY, **tags)
    if other_too:
        write_series(tmp_path / "b", ARRAY, series="b", StudyInstanceUID=uid("b"), **{**tags, **person})
    save(make_structures(ROIS, **{**tags, **person}), tmp_path / "a" / "rs")
    held = {study.study: study for study in studies_in(tmp_path)}
    [study] = [one for one in held.values() if one.patient == "A"]
    assert study.structures == ()
    with pytest.raises(
        UserError,
        match=r"rs: the structure set of another patient; .*another (PatientID|sex or date of birth) than .*/a/CT",
    ) as caught:
        raise study.faults[0]
    assert "1960" not in str(caught.value)


def test_structures_that_do_not_name_the_patient_are_drawn(tmp_path):
    write_series(tmp_path, ARRAY, PatientID="A", PatientSex="M", PatientBirthDate="19500101")
    save(make_structures(ROIS, PatientID="", PatientSex="", PatientBirthDate=""), tmp_path / "rs")
    [study] = studies_in(tmp_path)
    assert [one.file.name for one in study.structures] == ["rs"]
    assert study.faults == ()


def test_structures_of_two_patients_with_one_series_identifier_go_to_their_own(tmp_path):
    for name in ("A", "B"):
        tags = {"PatientID": name, "StudyInstanceUID": uid(name)}
        write_series(tmp_path / name, ARRAY, **tags)
        structures = make_structures(ROIS, **tags)
        structures.SOPInstanceUID = uid("rs", name)
        save(structures, tmp_path / name / f"rs_{name}")
    held = {study.patient: [one.file.name for one in study.structures] for study in studies_in(tmp_path)}
    assert held == {"A": ["rs_A"], "B": ["rs_B"]}
