"""Import of public DICOM data with known results."""

import numpy as np
import pytest
from dicom_samples import data_folder

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_task
from nndet_psma.dataset.convert.dicom import DicomSource, convert_dicom
from nndet_psma.dataset.dicom.case import read_modality
from nndet_psma.dataset.dicom.contours import rasterise
from nndet_psma.dataset.dicom.headers import scan_folders
from nndet_psma.dataset.dicom.rtstruct import read_rtstruct
from nndet_psma.dataset.dicom.series import group_series, read_series
from nndet_psma.dataset.dicom.structures import find_rois
from nndet_psma.dataset.dicom.studies import Choice
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.description import Role, read_description
from nndet_psma.dataset.task.paths import TaskPaths

pytestmark = pytest.mark.realdata


def the_series(folder, role):
    [series] = [one for one in group_series(scan_folders([folder])) if one.role is role]
    return series


def test_suv_from_the_raw_scan_equals_the_published_pet():
    folder = data_folder("sts001_suv_rtstruct")
    raw = read_modality("PET", the_series(folder / "raw", Role.PET))
    given = read_volume(folder / "ibsi/nifti/STS_001/PET_image.nii.gz")
    # the published image is a crop: where its first voxel lies in the raw scan
    corner = raw.geometry.to_voxels(given.geometry.to_patient(np.array([[0.5, 0.5, 0.5]])))[0] - 0.5
    assert corner == pytest.approx(np.round(corner), abs=1e-3)
    crop = tuple(slice(int(c), int(c) + n) for c, n in zip(np.round(corner), given.array.shape, strict=True))
    assert np.abs(raw.array[crop] - given.array).max() < 0.001
    assert raw.array[crop].max() == pytest.approx(25.41, abs=0.005)


@pytest.mark.parametrize(("modality", "role", "voxels"), [("CT", Role.CT, 117145), ("PET", Role.PET, 5095)])
def test_contours_equal_the_published_mask(modality, role, voxels):
    folder = data_folder("sts001_suv_rtstruct") / "ibsi"
    series = the_series(folder / "dicom/STS_001" / modality, role)
    structures = read_rtstruct(folder / f"dicom/STS_001/{modality}/mask/RS.dcm")
    given = read_volume(folder / f"nifti/STS_001/{modality}_mask.nii.gz")
    image = read_volume(folder / f"nifti/STS_001/{modality}_image.nii.gz")
    assert structures.series == {series.first.series}
    assert series.geometry.same_grid(given.geometry)
    assert np.abs(read_series(series).array - image.array).max() < 1e-4
    mask = rasterise(structures.rois[0], series.geometry).mask
    assert mask.sum() == voxels
    assert np.array_equal(mask, given.array > 0)


def test_ct_pet_and_lesion_as_a_task(tmp_path):
    folder = data_folder("sts001_suv_rtstruct") / "ibsi" / "dicom"
    paths = TaskPaths(tmp_path / "Task100_STS")
    convert_dicom(DicomSource((folder,), lesion_rois=("gtv_mass_ct",)), paths)
    label = read_volume(paths.labels("Tr") / "case_0001.nii.gz").array
    pet = read_volume(paths.images("Tr") / "case_0001_0001.nii.gz")
    assert (label > 0).sum() == 117145
    assert label.max() == 1
    assert pet.array.shape == label.shape == (59, 202, 198)
    assert 20 < pet.array.max() <= 25.42  # interpolation cannot raise the maximum
    # the tumour has the uptake that the published PET and its own mask give: mean 2.555, maximum 7.911
    assert pet.array[label > 0].mean() == pytest.approx(2.555, rel=0.01)
    assert pet.array[label > 0].max() == pytest.approx(7.911, rel=0.03)
    assert [f for f in check_task(paths, full=True) if f.severity == "error"] == []


def test_same_identifier_for_different_structure_sets_is_noticed():
    # the published crop kept the identifier of the raw structure set
    with pytest.raises(UserError, match="two different structure sets have the same identifier"):
        scan_folders([data_folder("sts001_suv_rtstruct")])


def test_prostate_mr_as_a_task(tmp_path):
    folder = data_folder("prostatex_bpmri")
    paths = TaskPaths(tmp_path / "Task101_MR")
    convert_dicom(DicomSource((folder,)), paths)
    assert read_description(paths.root).modalities == {0: "DWI", 1: "ADC"}
    dwi, adc = (read_volume(paths.images("Ts") / f"case_0001_000{k}.nii.gz") for k in (0, 1))
    assert dwi.geometry == adc.geometry
    assert dwi.array.shape == (19, 128, 84)
    assert dwi.geometry.spacing == pytest.approx((3.0, 2.0, 2.0))
    assert dwi.array.max() == 315  # b = 800; the calculated b = 1000 has 266, b = 50 has 983
    assert adc.array.max() == 3265
    # the map must agree with its images: ADC = ln(S50 / S800) / 750 where both are bright
    series = {one.b_value: one for one in group_series(scan_folders([folder])) if one.role is Role.DWI}
    assert sorted(series) == [50, 400, 800, 1000]
    low, high = read_series(series[50]).array, read_series(series[800]).array
    bright = high > 80
    estimate = np.log(low[bright] / high[bright]) / 750e-6
    given = read_series(the_series(folder, Role.ADC)).array[bright]
    assert np.median(np.abs(estimate - given)) < 60


def test_prostate_mr_with_t2_as_the_grid(tmp_path):
    paths = TaskPaths(tmp_path / "Task102_MR")
    chosen = DicomSource(
        (data_folder("prostatex_bpmri"),), modalities=("T2", "DWI", "ADC"), choice=Choice(b_value=400)
    )
    convert_dicom(chosen, paths)
    shapes = {read_volume(f).array.shape for f in paths.images("Ts").iterdir()}
    assert shapes == {(19, 384, 384)}


def test_compressed_ct_without_identifiers(tmp_path):
    folder = data_folder("totalsegmentator") / "example_ct_dicom"
    paths = TaskPaths(tmp_path / "Task103_CT")
    convert_dicom(DicomSource((folder,)), paths)
    ct = read_volume(paths.images("Ts") / "case_0001_0000.nii.gz")
    assert ct.array.shape == (20, 512, 512)
    assert ct.geometry.spacing == pytest.approx((2.0, 0.9765625, 0.9765625))
    assert (ct.array.min(), ct.array.max()) == (-1024, 1839)


def test_structures_of_a_series_that_is_not_there():
    folder = data_folder("rtstruct_dicompyler")
    structures = read_rtstruct(folder / "rtss.dcm")
    names = [roi.name for roi in structures.rois]
    assert names == [
        "BODY",
        "Areola",
        "Borders",
        "Breast",
        "Heart",
        "Lt Lung",
        "Nodes",
        "Scar",
        "Tumor Bed",
        "Tumor Bed Block",
    ]
    assert [len(roi.contours) for roi in structures.rois] == [141, 0, 2, 48, 33, 165, 4, 6, 18, 24]
    [nodes] = find_rois(structures.rois, ["node?"])
    one_slice = the_series(folder, Role.CT).geometry
    with pytest.raises(
        UserError, match=r"4 of 4 contours of 'Nodes' lie outside the image.*whole image series"
    ):
        rasterise(nodes, one_slice)
