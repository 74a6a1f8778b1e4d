"""DICOM series as volumes: order, place, values, and stacks that are none."""

import time

import numpy as np
import pytest
from dicom_samples import AXIAL, PATIENT, make_slices, new_dataset, save, save_all, uid, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLossless, RLELossless
from scipy.spatial.transform import Rotation

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.case import read_modality
from nndet_psma.dataset.dicom.headers import make_header, read_dataset, scan_all, scan_folders
from nndet_psma.dataset.dicom.series import group_series, read_series, role_of, sort_slices
from nndet_psma.dataset.task.description import Role

ARRAY = np.arange(4 * 3 * 5, dtype=np.int16).reshape(4, 3, 5)


def only_series(folder):
    [series] = group_series(scan_folders([folder]))
    return series


def header(tmp_path, **tags):
    dataset = make_slices(ARRAY, tags.pop("modality", "MR"))[0]
    for name, value in tags.items():
        setattr(dataset, name, value)
    return make_header(dataset, tmp_path / "file", tmp_path)


def test_slices_are_sorted_by_position_not_by_name(tmp_path):
    folder = write_series(tmp_path, ARRAY, slope=2.0, intercept=-1000.0, origin=(10.0, 20.0, -30.0))
    names = [f.name for f in sorted(folder.iterdir())]
    assert names != [f"CT_{k}" for k in range(4)]
    volume = read_series(only_series(folder))
    assert np.array_equal(volume.array, ARRAY * 2.0 - 1000)
    assert volume.geometry.shape == (4, 3, 5)
    assert volume.geometry.spacing == (3.0, 2.0, 1.0)
    assert volume.geometry.origin == (10.0, 20.0, -30.0)
    assert volume.geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_every_slice_has_its_own_slope(tmp_path):
    slices = make_slices(np.ones((3, 2, 2), np.int16))
    for k, dataset in enumerate(slices):
        dataset.RescaleSlope, dataset.RescaleIntercept = k + 1.5, k
    volume = read_series(only_series(save_all(slices, tmp_path)))
    assert volume.array[:, 0, 0].tolist() == [1.5, 3.5, 5.5]


def test_no_slope_is_one(tmp_path):
    slices = make_slices(ARRAY - 7)
    for dataset in slices:
        del dataset.RescaleSlope, dataset.RescaleIntercept
    assert np.array_equal(read_series(only_series(save_all(slices, tmp_path))).array, ARRAY - 7)


def test_compressed_slices(tmp_path):
    slices = make_slices(ARRAY, slope=2.0, intercept=-10.0)
    for dataset in slices:
        dataset.compress(RLELossless)
    assert np.array_equal(read_series(only_series(save_all(slices, tmp_path))).array, ARRAY * 2.0 - 10)


def test_jpeg_that_cannot_be_decoded(tmp_path):
    slices = make_slices(ARRAY[:1])
    slices[0].file_meta.TransferSyntaxUID = JPEGLossless
    slices[0].PixelData = encapsulate([b"no jpeg at all.."])
    with pytest.raises(UserError, match="cannot be decompressed"):
        read_series(only_series(save_all(slices, tmp_path)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_place_of_every_voxel_follows_the_standard(tmp_path_factory, seed):
    # DICOM PS3.3 C.7.6.2.1.1: position + column index * spacing * row cosines + row index * spacing * column cosines
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    orientation = tuple(float(v) for v in np.round([*turn[0], *turn[1]], 12))
    slices = make_slices(
        ARRAY,
        orientation=orientation,
        origin=tuple(np.round(rng.normal(0, 50, 3), 6)),
        spacing=(2.5, 0.7, 0.9),
    )
    if rng.random() < 0.5:
        slices.reverse()
    folder = save_all(slices, tmp_path_factory.mktemp("oblique"))
    volume = read_series(only_series(folder))
    for dataset in slices:
        k = int(dataset.InstanceNumber) - 1
        row, column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        expected = np.array(dataset.ImagePositionPatient, float) + 4 * 0.9 * row + 2 * 0.7 * column
        found = volume.geometry.to_patient(np.array([[k + 0.5, 2.5, 4.5]]))[0]
        assert found == pytest.approx(expected, abs=1e-6)
        assert volume.array[k, 2, 4] == ARRAY[k, 2, 4]


def test_single_slice_is_as_thick_as_stated(tmp_path):
    slices = make_slices(ARRAY[:1], SpacingBetweenSlices=4.0)
    assert only_series(save_all(slices, tmp_path)).geometry.spacing == (4.0, 2.0, 1.0)


def test_other_files_are_passed_over(tmp_path):
    write_series(tmp_path / "ct", ARRAY)
    (tmp_path / "ct/notes.txt").write_text("no DICOM")
    (tmp_path / "ct/.DS_Store").write_bytes(b"x")
    directory = new_dataset("CT")
    del directory.Modality
    save(directory, tmp_path / "DICOMDIR")
    assert len(scan_folders([tmp_path])) == 4


def test_file_that_is_only_named_like_dicom(tmp_path):
    write_series(tmp_path, ARRAY)
    (tmp_path / "x.DCM").write_bytes(b"not at all")
    with pytest.raises(UserError, match=r"x.DCM: not a DICOM file, though it is named like one"):
        scan_folders([tmp_path])


def test_the_same_file_twice_counts_once(tmp_path):
    write_series(tmp_path / "a", ARRAY)
    write_series(tmp_path / "b", ARRAY)
    assert len(scan_folders([tmp_path, tmp_path / "a"])) == 4


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no DICOM files"):
        scan_folders([tmp_path])
    with pytest.raises(UserError, match="missing: no such folder"):
        scan_folders([tmp_path / "missing"])


def test_truncated_file(tmp_path):
    file = sorted(write_series(tmp_path, ARRAY).iterdir())[0]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{file.name}: damaged DICOM file"):
        read_series(only_series(tmp_path))


def spoilt(change):
    slices = make_slices(np.zeros((6, 3, 5), np.int16))
    return change(slices) or slices


def _without(*gone):
    return lambda slices: [dataset for k, dataset in enumerate(slices) if k not in gone]


def _move(index, position):
    def change(slices):
        slices[index].ImagePositionPatient = position

    return change


def _set(index, name, value):
    return lambda slices: setattr(slices[index], name, value)


def _tilt(slices):
    for k, dataset in enumerate(slices):
        dataset.ImagePositionPatient = [0.0, 0.5 * k, 3.0 * k]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without(2), "1 slices are missing; expected 3.000 mm to the next slice; found 6.000 mm"),
        (_without(2, 3), "2 slices are missing"),
        (_move(5, [0.0, 0.0, 16.0]), "do not lie at even distances"),
        (_move(3, [0.0, 0.0, 6.0]), "1 slices lie in the place of another one; found 6 files at 5 positions"),
        (_tilt, r"tilted gantry\); found 0.50 mm per slice"),
        (_set(2, "ImageOrientationPatient", [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]), "mixes orientations"),
        (_set(2, "Rows", 4), "mixes image sizes"),
        (_set(2, "PixelSpacing", [2.0, 1.1]), "mixes pixel spacings"),
        (_set(2, "NumberOfFrames", 3), r"several images in one file \(enhanced DICOM\).*classic DICOM"),
        (_set(2, "ImagePositionPatient", None), "no place in the patient"),
    ],
)
def test_stacks_that_are_none(tmp_path, change, message):
    headers = [make_header(d, tmp_path / f"{k}", tmp_path) for k, d in enumerate(spoilt(change))]
    with pytest.raises(UserError, match=message):
        sort_slices(headers)


def test_rounded_positions_and_beds_of_a_pet_are_even_enough(tmp_path):
    slices = make_slices(np.zeros((6, 3, 5), np.int16))
    for k, dataset in enumerate(slices):
        # as a real scanner's table: 0.08 mm short where two beds meet
        dataset.ImagePositionPatient = [0.0, 0.0, 3.0 * k + (0.001 if k % 2 else 0) - (0.08 if k > 2 else 0)]
    headers = [make_header(d, tmp_path, tmp_path) for d in slices]
    assert len(sort_slices(headers)) == 6


def test_small_errors_must_not_add_up(tmp_path):
    slices = make_slices(np.zeros((41, 2, 2), np.int16))
    for k, dataset in enumerate(
        slices
    ):  # 3.0 mm below the middle, 3.12 mm above: 4 %, but 0.4 slices in the end
        dataset.ImagePositionPatient = [0.0, 0.0, 3.0 * k + max(0, k - 20) * 0.12]
    with pytest.raises(UserError, match="even distances"):
        sort_slices([make_header(d, tmp_path, tmp_path) for d in slices])


def test_colour_and_tables_are_refused(tmp_path):
    slices = make_slices(ARRAY)
    slices[1].ModalityLUTSequence = [new_dataset("CT")]
    with pytest.raises(UserError, match="values are given by a table"):
        read_series(only_series(save_all(slices, tmp_path / "a")))
    slices = make_slices(ARRAY)
    slices[1].SamplesPerPixel = 3
    with pytest.raises(UserError, match="colour image"):
        read_series(only_series(save_all(slices, tmp_path / "b")))


@pytest.mark.parametrize(
    ("tags", "role"),
    [
        ({"modality": "CT"}, Role.CT),
        ({"modality": "PT"}, Role.PET),
        ({"modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, None),
        ({"SeriesDescription": "t2_tse_tra"}, Role.T2),
        ({"EchoTime": 101, "RepetitionTime": 4000}, Role.T2),
        ({"EchoTime": 10, "RepetitionTime": 500}, None),
        ({"DiffusionBValue": 800.0}, Role.DWI),
        ({"SequenceName": "*ep_b50t"}, Role.DWI),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "DiffusionBValue": 800.0}, Role.ADC),
        ({"SeriesDescription": "ep2d_diff_ADC_DFC"}, Role.ADC),
        ({"SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)"}, Role.ADC),
        ({"SeriesDescription": "radcontrast", "DiffusionBValue": 0.0}, Role.DWI),
    ],
)
def test_roles(tmp_path, tags, role):
    assert role_of(header(tmp_path, **tags)) is role


def test_b_values_of_one_series_are_volumes_of_their_own(tmp_path):
    for k, b in enumerate((50.0, 400.0, 800.0)):
        slices = make_slices(ARRAY + 100 * k, "MR", DiffusionBValue=b)
        for dataset in slices:
            dataset.SOPInstanceUID = uid(b, dataset.InstanceNumber)
        save_all(slices, tmp_path, f"b{k}")
    found = {series.b_value: series for series in group_series(scan_folders([tmp_path]))}
    assert sorted(found) == [50, 400, 800]
    assert np.array_equal(read_series(found[400.0]).array, ARRAY + 100)


@pytest.mark.parametrize(
    ("tags", "calculated"),
    [
        ({"SeriesDescription": "ep2d_diff_CALC_BVAL"}, True),
        ({"SeriesDescription": "Synthetic b1400"}, True),
        ({"SequenceName": "*ep_b50_800"}, True),
        ({"SequenceName": "*ep_b800t", "SeriesDescription": "ep2d_diff"}, False),
    ],
)
def test_calculated_b_values_are_known(tmp_path, tags, calculated):
    [series] = group_series([header(tmp_path, DiffusionBValue=1400.0, **tags)])
    assert series.calculated is calculated


def test_description_of_a_series_holds_no_identifier(tmp_path):
    [series] = group_series([header(tmp_path, DiffusionBValue=50.0, SeriesDescription="dwi")])
    assert series.describe() == "'dwi' b=50 (1 slices of (3, 5))"
    assert PATIENT not in series.describe()
    assert tuple(series.first.orientation) == AXIAL


# ----- what de-identification and export do to files


def test_one_identifier_for_all_slices(tmp_path):
    slices = make_slices(ARRAY)
    for dataset in slices:
        dataset.SOPInstanceUID = uid("constant")
    save_all(slices, tmp_path / "a")
    assert np.array_equal(read_series(only_series(tmp_path)).array, ARRAY)
    # true copies count once
    save_all(slices, tmp_path / "b")
    assert np.array_equal(read_series(only_series(tmp_path)).array, ARRAY)


def test_one_identifier_and_place_but_other_voxels_is_no_copy(tmp_path):
    slices = make_slices(ARRAY)
    save_all(slices, tmp_path / "a")
    slices[2].PixelData = slices[0].PixelData
    save(slices[2], tmp_path / "b" / "other")
    with pytest.raises(UserError, match="1 slices lie in the place of another one"):
        read_series(only_series(tmp_path))
    slices = make_slices(ARRAY)
    slices[2].RescaleSlope = 2.0
    save(slices[2], tmp_path / "b" / "other")
    with pytest.raises(UserError, match="1 slices lie in the place of another one"):
        read_series(only_series(tmp_path))


def test_a_series_for_every_slice(tmp_path):
    slices = make_slices(ARRAY)
    for k, dataset in enumerate(slices):
        dataset.SeriesInstanceUID = uid("series", k)
    series = only_series(save_all(slices, tmp_path))
    assert np.array_equal(read_series(series).array, ARRAY)
    assert series.uids == {uid("series", k) for k in range(4)}


def test_single_slices_that_differ_are_not_joined(tmp_path):
    slices = make_slices(ARRAY)
    for k, dataset in enumerate(slices):
        dataset.SeriesInstanceUID = uid("series", k)
        dataset.SeriesDescription = f"scout {k}"
    assert len(group_series(scan_folders([save_all(slices, tmp_path)]))) == 4


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_files_without_preamble_are_read(tmp_path, implicit, suffix):
    for k, dataset in enumerate(make_slices(ARRAY, slope=2.0)):
        del dataset.file_meta
        file = tmp_path / f"I{k}{suffix}"
        dataset.save_as(file, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert np.array_equal(read_series(only_series(tmp_path)).array, ARRAY * 2.0)


def test_bytes_that_begin_like_dicom_are_no_dicom(tmp_path):
    write_series(tmp_path, ARRAY)
    (tmp_path / "table").write_bytes(b"\x08\x00" + bytes(range(256)) * 4)
    (tmp_path / "short").write_bytes(b"\x08\x00\x05\x00")
    (tmp_path / "empty").write_bytes(b"")
    scan = scan_all([tmp_path])
    assert len(scan.headers) == 4
    assert [file.name for file in scan.damaged] in ([], ["table"])


@pytest.mark.parametrize("content", [b"\xff" * 40, b"", b"\x08\x00\x60\x00CS\x02"])
def test_damaged_file_is_not_passed_over(tmp_path, content):
    write_series(tmp_path, ARRAY)
    (tmp_path / "broken").write_bytes(b"\0" * 128 + b"DICM" + content)
    assert [file.name for file in scan_all([tmp_path]).damaged] == ["broken"]
    with pytest.raises(UserError, match="broken: damaged DICOM file"):
        scan_folders([tmp_path])


def test_image_that_lost_its_modality_is_not_passed_over(tmp_path):
    slices = make_slices(ARRAY)
    del slices[3].Modality
    folder = save_all(slices, tmp_path)
    with pytest.raises(UserError, match=r"damaged DICOM file; expected Modality \(0008,0060\)"):
        scan_folders([folder])


def replaced(folder, old, new):
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("tags", "old", "new", "message"),
    [
        ({"SliceThickness": "3.125"}, b"3.125", b"3,125", r"SliceThickness \(0018,0050\) '3,125'"),
        ({"PixelSpacing": ["1.125", "1.125"]}, b"1.125", b"1,125", r"PixelSpacing \(0028,0030\) '1,125"),
        ({"RescaleSlope": "1.125"}, b"1.125", b"1,125", r"RescaleSlope \(0028,1053\) '1,125'"),
    ],
)
def test_decimal_commas_are_refused_with_their_tag(tmp_path, tags, old, new, message):
    folder = replaced(save_all(make_slices(ARRAY, **tags), tmp_path), old, new)
    with pytest.raises(
        UserError,
        match=rf"CT|a00.*cannot be read; expected numbers with a decimal point, of a plausible size; found {message}",
    ):
        read_series(only_series(folder))


def test_odd_values_of_an_image_that_is_not_taken_do_no_harm(tmp_path):
    folder = write_series(tmp_path, ARRAY)
    capture = make_slices(ARRAY[:1], series="capture")[0]
    del capture.ImageOrientationPatient
    capture.ImagePositionPatient = ["1.5", "2.5", "3.5"]
    save(capture, folder / "capture")
    replaced(folder, b"1.5\\2.5\\3.5 ", b"\\\\          ")
    sizes = {len(series.headers) for series in group_series(scan_folders([folder]))}
    assert sizes == {4, 1}


@pytest.mark.parametrize("name", ["Rows", "NumberOfFrames"])
def test_damaged_header_is_one_line(tmp_path, name):
    slices = make_slices(ARRAY, NumberOfFrames=1)
    folder = save_all(slices, tmp_path)
    tag = {"Rows": b"\x28\x00\x10\x00US\x02\x00\x03\x00", "NumberOfFrames": b"\x28\x00\x08\x00IS\x02\x001 "}[
        name
    ]
    replaced(folder, tag, tag[:-2] + b"\xff\xff")
    with pytest.raises(UserError):
        read_series(only_series(folder))


def test_reformats_are_taken_on_demand_only(tmp_path):
    reformatted = header(tmp_path, modality="CT", ImageType=["DERIVED", "SECONDARY", "MPR"])
    assert role_of(reformatted) is None
    assert role_of(reformatted, accept_derived=True) is Role.CT
    for kind in ("LOCALIZER", "PROJECTION IMAGE", "SCREEN SAVE"):
        other = header(tmp_path, modality="CT", ImageType=["DERIVED", "SECONDARY", kind])
        assert role_of(other, accept_derived=True) is None


@pytest.mark.parametrize("kept", [0, 132, 700])
def test_a_file_of_zeros_is_told_at_once(tmp_path, kept):
    [image] = make_slices(ARRAY[:1])
    file = save(image, tmp_path / "a")
    content = file.read_bytes()[:kept] if kept else bytes(128) + b"DICM"
    with file.open("wb") as stream:
        stream.write(content)
        stream.truncate(50_000_000)
    start = time.process_time()
    with pytest.raises(UserError, match="a: damaged DICOM file; found ValueError: no header, or zeros"):
        read_dataset(file)
    assert time.process_time() - start < 1


def test_deflated_files_are_read_and_bombs_are_not(tmp_path, monkeypatch):
    [slice_] = make_slices(np.zeros((1, 4, 6), np.int16))
    slice_.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    slice_.add_new(0x00091010, "OB", bytes(50_000))
    file = save(slice_, tmp_path / "a")
    assert file.stat().st_size < 5000
    [header] = scan_folders([tmp_path])
    assert header.shape == (4, 6)
    monkeypatch.setattr("nndet_psma.dataset.dicom.headers._MOST_INFLATED", 40_000)
    with pytest.raises(
        UserError, match=r"a: damaged DICOM file; found .*it unfolds to more than 40000 bytes"
    ):
        scan_folders([tmp_path])


@pytest.mark.parametrize("deflated", [False, True])
def test_a_file_holds_only_so_many_items(tmp_path, monkeypatch, deflated):
    """A million empty items of eight bytes took 16 seconds and 0.8 GB."""
    [slice_] = make_slices(np.zeros((1, 4, 6), np.int16))
    if deflated:
        slice_.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    slice_.add_new(0x00091010, "SQ", [Dataset() for _ in range(3000)])
    file = save(slice_, tmp_path / "a")
    assert read_dataset(file) is not None
    monkeypatch.setattr("nndet_psma.dataset.dicom.headers._MOST_ITEMS", 2000)
    with pytest.raises(UserError, match=r"a: damaged DICOM file; found .*unfolds to more than 2000 items"):
        read_dataset(file)


def test_a_file_holds_only_so_many_attributes(tmp_path, monkeypatch):
    [slice_] = make_slices(np.zeros((1, 4, 6), np.int16))
    for number in range(200):
        slice_.add_new(0x00091010 + number, "LO", "x")
    file = save(slice_, tmp_path / "a")
    monkeypatch.setattr("nndet_psma.dataset.dicom.headers._MOST_READS", 300)
    with pytest.raises(UserError, match=r"a: damaged DICOM file; found .*holds more than 300 attributes"):
        read_dataset(file)


def test_zeros_in_the_voxels_are_air(tmp_path):
    write_series(tmp_path, np.zeros((1, 1024, 1024), np.int16))
    assert read_series(only_series(tmp_path)).array.shape == (1, 1024, 1024)


def test_zeroed_bytes_between_attributes_are_damage(tmp_path):
    [image] = make_slices(ARRAY[:1])
    file = save(image, tmp_path / "a")
    content = file.read_bytes()
    at = content.index(b"\x20\x00\x32\x00DS")  # ImagePositionPatient, with a length below 100
    size = 8 + content[at + 6]
    file.write_bytes(content[:at] + bytes(size // 8 * 8) + content[at + size // 8 * 8 :])
    with pytest.raises(UserError, match="a: damaged DICOM file"):
        scan_folders([tmp_path])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [1e-9, 1]}, r"PixelSpacing \(0028,0030\) '1e-09'"),
        ({"PixelSpacing": [0, 0]}, r"PixelSpacing \(0028,0030\) '0.0'"),
        ({"RescaleSlope": 1e30}, r"RescaleSlope \(0028,1053\) '1e\+30'"),
        ({"RescaleSlope": 0}, r"RescaleSlope \(0028,1053\) '0"),
        ({"RescaleSlope": -1}, r"RescaleSlope \(0028,1053\) '-1"),
        ({"RescaleIntercept": 1e7}, r"RescaleIntercept \(0028,1052\) '10000000.0'"),
        ({"ImagePositionPatient": [0, 2e4, 0]}, r"ImagePositionPatient \(0020,0032\) '20000"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"ImageOrientationPatient .*no axes"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, r"ImageOrientationPatient .*no axes"),
    ],
)
def test_implausible_numbers_are_refused_with_their_tag(tmp_path, tags, message):
    write_series(tmp_path, ARRAY, **tags)
    with pytest.raises(UserError, match=f"cannot be read; expected numbers.*found {message}"):
        read_series(only_series(tmp_path))


@pytest.mark.parametrize("distance", [0.005, 150.0])
def test_implausible_distances_are_refused(tmp_path, distance):
    write_series(tmp_path, ARRAY[:1], spacing=(distance, 1.0, 1.0))
    with pytest.raises(UserError, match=rf"distance of the slices is implausible.*found {distance:g} mm"):
        read_series(only_series(tmp_path))


def test_unsigned_numbers_that_were_signed_are_no_hu(tmp_path):
    write_series(tmp_path, np.full((2, 4, 4), -1000, np.int16), PixelRepresentation=0)
    with pytest.raises(UserError, match=r"values of the CT are implausible.*found 64536 to 64536"):
        read_modality("CT", only_series(tmp_path))


@pytest.mark.parametrize("name", ["SeriesDescription", "ImageType", "PixelSpacing"])
def test_a_sequence_in_place_of_a_value_is_damage(tmp_path, name):
    [image] = make_slices(ARRAY[:1])
    image.add_new(name, "SQ", [new_dataset("CT")])
    file = save(image, tmp_path / "a")
    with pytest.raises(UserError, match=rf"a: .*cannot be read.*found {name} \(.*\), which is a sequence"):
        sort_slices(scan_folders([file.parent]))
