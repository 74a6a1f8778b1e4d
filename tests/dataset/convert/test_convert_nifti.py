"""Foreign NIfTI studies into a raw task."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_task
from nndet_psma.dataset.convert.nifti import NiftiSource, convert_nifti, draw_test_cases, lesions_of
from nndet_psma.dataset.convert.study_files import StudyFiles
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths

CT_GRID = Geometry((6, 10, 10), (3.0, 1.0, 1.0))
PET_GRID = Geometry((6, 5, 5), (3.0, 2.0, 2.0), (0.5, 0.5, 0.0))  # the same field of view, half as fine


@pytest.fixture
def source(tmp_path):
    """Four studies: CT as whole floats, PET coarser, two lesions that touch at a corner and one apart."""
    for number in range(4):
        folder = tmp_path / "studies" / f"S.{number}"
        rng = np.random.default_rng(number)
        mask = np.zeros(CT_GRID.shape, np.uint8)
        mask[1, 1, 1] = mask[2, 2, 2] = mask[4, 6:8, 6:8] = 1
        write_volume(folder / "ct.nii.gz", rng.integers(-1000, 500, CT_GRID.shape).astype(float), CT_GRID)
        write_volume(folder / "pet.nii.gz", rng.random(PET_GRID.shape).astype(np.float32), PET_GRID)
        write_volume(folder / "mask.nii.gz", mask, CT_GRID)
        write_volume(folder / "ctv.nii.gz", np.ones(PET_GRID.shape, np.uint8), PET_GRID)
    images = {"CT": "*/ct.nii.gz", "PET": "*/pet.nii.gz"}
    return NiftiSource(tmp_path / "studies", images, "*/mask.nii.gz", "*/ctv.nii.gz", "node")


@pytest.fixture
def paths(tmp_path):
    return TaskPaths(tmp_path / "Task200_New")


def test_the_result_passes_the_full_check(source, paths):
    done = convert_nifti(source, paths, test_share=0.25, seed=1)
    assert len(done.training) == 3
    assert len(done.test) == 1
    assert {*done.training, *done.test} == {"S_0", "S_1", "S_2", "S_3"}
    assert done.num_lesions == 8  # two per study: corner neighbours are one
    # warnings there are: noise has no body, the CTV is the whole image, and all studies have one mask
    assert not [finding for finding in check_task(paths, full=True) if finding.severity == "error"]
    description = read_description(paths.root)
    assert description.modalities == {0: "CT", 1: "PET", 2: "CTV"}
    assert description.labels == {0: "node"}
    assert description.test_labels is True
    assert not paths.clinical.exists()


def test_values_and_types(source, paths):
    convert_nifti(source, paths)
    case = list_cases(paths, read_description(paths.root))[0]
    ct, pet, ctv = (read_volume(file) for file in case.images)
    original = read_volume(source.folder / "S.0" / "ct.nii.gz")
    assert ct.array.dtype == np.int16
    np.testing.assert_array_equal(ct.array, original.array)
    assert pet.array.dtype == np.float32
    assert pet.geometry.same_grid(ct.geometry)
    # CT voxel (2, 3) lies at y = 2, x = 3 mm; PET centres at 0.5, 2.5, 4.5: weights 1/4, 3/4 and 3/4, 1/4
    coarse = read_volume(source.folder / "S.0" / "pet.nii.gz").array[0]
    by_hand = np.array([0.25, 0.75]) @ coarse[0:2, 1:3] @ np.array([0.75, 0.25])
    assert pet.array[0, 2, 3] == pytest.approx(by_hand, rel=1e-5)
    assert ctv.array.dtype == np.uint8
    volume, classes = read_labels(case, read_description(paths.root))
    assert classes == {1: 0, 2: 0}
    assert volume.array[1, 1, 1] == volume.array[2, 2, 2] == 1


def test_a_mask_on_another_grid_and_a_lesion_lost(source, paths):
    on_pet = np.zeros(PET_GRID.shape, np.uint8)
    on_pet[3, 2, 2] = 1
    write_volume(source.folder / "S.0" / "mask.nii.gz", on_pet, PET_GRID)
    convert_nifti(source, paths)
    # one PET pixel covers 2 x 2 CT pixels: 4, 5 in y and x
    assert np.argwhere(read_volume(paths.labels("Tr") / "S_0.nii.gz").array).tolist() == [
        [3, 4, 4],
        [3, 4, 5],
        [3, 5, 4],
        [3, 5, 5],
    ]
    far = Geometry(PET_GRID.shape, PET_GRID.spacing, (500.0, 0.0, 0.0))
    write_volume(source.folder / "S.0" / "mask.nii.gz", on_pet, far)
    with pytest.raises(UserError, match=r"outside the grid.*expected 1 lesions; found 0"):
        convert_nifti(source, paths)


def test_finished_cases_are_left_alone_and_others_resumed(source, paths):
    convert_nifti(source, paths)
    before = {file: file.stat().st_mtime_ns for file in paths.raw_splitted.rglob("*.*")}
    assert convert_nifti(source, paths).skipped == ("S_0", "S_1", "S_2", "S_3")
    assert {file: file.stat().st_mtime_ns for file in paths.raw_splitted.rglob("*.*")} == before
    (paths.labels("Tr") / "S_1.json").unlink()  # as after a kill: the table is written last
    newer = source.folder / "S.2" / "ct.nii.gz"
    os.utime(newer, ns=(2 * 10**18, 2 * 10**18))
    assert convert_nifti(source, paths).skipped == ("S_0", "S_3")
    assert convert_nifti(source, paths, overwrite=True).skipped == ()


def test_other_options_make_cases_anew(source, paths):
    convert_nifti(source, paths)
    file = source.folder / "S.0" / "mask.nii.gz"
    mask = read_volume(file).array.copy()
    mask[0, 9, 9] = 2
    write_volume(file, mask, CT_GRID)
    for study in ("S.1", "S.2", "S.3"):
        os.utime(source.folder / study / "mask.nii.gz", ns=(10**18, 10**18))
    first = convert_nifti(replace(source, values=(1, 2)), paths)
    assert (first.skipped, first.num_lesions) == ((), 9)
    assert convert_nifti(replace(source, values=(1, 2)), paths).skipped == ("S_0", "S_1", "S_2", "S_3")
    second = convert_nifti(replace(source, values=(2,)), paths)  # left 9 lesions before, as finished
    assert (second.skipped, second.num_lesions) == ((), 1)


def test_a_value_that_no_mask_holds(source, paths):
    for _ in range(2):  # not the second time either
        with pytest.raises(UserError, match=r"a value that counts is in no mask.*found 7"):
            convert_nifti(replace(source, values=(1, 7)), paths)
        assert not (paths.root / "dataset.json").exists()


def test_a_refused_mask_leaves_no_image(source, paths):
    write_volume(source.folder / "S.0" / "mask.nii.gz", np.full(CT_GRID.shape, 0.5, np.float32), CT_GRID)
    with pytest.raises(UserError, match="interpolated"):
        convert_nifti(source, paths)
    assert not list(paths.raw_splitted.rglob("S_0*"))


def test_another_draw_leaves_no_case_on_both_sides(source, paths):
    sides = set()
    for seed in range(4):
        done = convert_nifti(source, paths, test_share=0.25, seed=seed)
        sides.add(done.test)
        assert sorted(file.name for file in paths.labels("Ts").glob("*.json")) == [f"{done.test[0]}.json"]
        assert not {finding.kind for finding in check_task(paths, full=False)}
    assert len(sides) > 1


def test_several_studies_of_a_patient(tmp_path, source, paths):
    for number in range(4):
        folder = source.folder / f"S.{number}"
        folder.rename(tmp_path / "studies" / f"P{number // 2}-{number}")
    nested = replace(
        source,
        images={"CT": "*-*/ct.nii.gz"},
        label="*-*/mask.nii.gz",
        ctv=None,
    )
    done = convert_nifti(nested, paths, test_share=0.5)
    assert {case[:2] for case in done.test} != {case[:2] for case in done.training}
    assert len(done.test) == len(done.training) == 2
    assert read_clinical(paths)["P1_2"] == {"patient_id": "P1"}


def _study(case_id, patient):
    return StudyFiles(case_id, patient, {})


def test_draw():
    studies = [_study(f"{patient}{i}", patient) for patient in "abcde" for i in range(2)]
    drawn = draw_test_cases(studies, 0.4, 0)
    assert len(drawn) == 4
    assert drawn == draw_test_cases(studies[::-1], 0.4, 0)
    assert {case[0] for case in drawn} & {s.patient_id for s in studies if s.case_id not in drawn} == set()
    assert draw_test_cases(studies, 0.0, 0) == set()
    for share in (1.0, -0.1, 0.95):
        with pytest.raises(UserError, match="nothing to train on"):
            draw_test_cases(studies, share, 0)


def test_ids_are_renumbered_or_components_counted(tmp_path):
    mask = np.array([[[0, 5, 5, 0, 2]]])
    np.testing.assert_array_equal(lesions_of(mask, tmp_path, instances=True), [[[0, 2, 2, 0, 1]]])
    np.testing.assert_array_equal(
        lesions_of(mask, tmp_path, instances=True, values=(5,)), [[[0, 1, 1, 0, 0]]]
    )
    np.testing.assert_array_equal(lesions_of((mask > 0) * 255, tmp_path), [[[0, 1, 1, 0, 2]]])
    assert not lesions_of(np.zeros((1, 2, 2)), tmp_path, instances=True).any()
    with pytest.raises(UserError, match="was interpolated"):
        lesions_of(mask * 0.5, tmp_path, instances=True)
    with pytest.raises(UserError, match="no instance ids"):
        lesions_of(-mask, tmp_path, instances=True)


def test_of_several_values_those_that_count_are_asked_for(tmp_path, caplog):
    mask = np.array([[[1, 2, 0, 2, 3]]])
    with pytest.raises(UserError, match=r"several values.*found 0, 1, 2, 3.*--values 2"):
        lesions_of(mask, tmp_path)
    np.testing.assert_array_equal(lesions_of(mask, tmp_path, values=(2,)), [[[0, 1, 0, 2, 0]]])
    np.testing.assert_array_equal(lesions_of(mask, tmp_path, values=(1, 2)), [[[1, 1, 0, 2, 0]]])
    assert not caplog.text
    assert not lesions_of(mask, tmp_path, values=(7,)).any()
    assert "holds 1, 2, 3 and none of the values that count (7)" in caplog.text


def test_interpolated_masks(tmp_path):
    """Half of a voxel counts; ringing of a cubic interpolation, on either side, does not."""
    mask = np.array([[[-0.02, 0.5, 1.04, 0.49, 0.01, 0.97]]], np.float32)
    with pytest.raises(UserError, match=r"from -0\.02 to 1\.04.*--soft"):
        lesions_of(mask, tmp_path)
    np.testing.assert_array_equal(lesions_of(mask, tmp_path, soft=True), [[[0, 1, 1, 0, 0, 2]]])
    with pytest.raises(UserError, match="has no threshold"):
        lesions_of(mask * 2, tmp_path, soft=True)


def test_more_components_than_a_label_map_can_number(tmp_path):
    """Every second voxel of every second row and slice: 41 * 41 * 39 = 65559 single voxels; without a slice 63878."""
    mask = np.zeros((77, 81, 81), np.uint8)
    mask[::2, ::2, ::2] = 1
    with pytest.raises(UserError, match=r"at most 65535 connected components; found 65559"):
        lesions_of(mask, tmp_path)
    assert lesions_of(mask[1:], tmp_path).max() == 63878
    with pytest.raises(UserError, match=r"at most 65535; found 65536"):
        lesions_of(np.arange(65537).reshape(1, 1, -1), tmp_path, instances=True)


def test_a_search_region_of_any_one_value(source, paths):
    regions = sorted(source.folder.glob("*/ctv.nii.gz"))
    for file, region in zip(regions, (np.full(PET_GRID.shape, 255),) * 3, strict=False):
        write_volume(file, region.astype(np.uint8), PET_GRID)
    convert_nifti(source, paths)
    assert set(np.unique(read_volume(paths.images("Tr") / "S_0_0002.nii.gz").array)) == {1}
    region = np.ones(PET_GRID.shape, np.uint8)
    region[0] = 2
    write_volume(regions[0], region, PET_GRID)
    with pytest.raises(UserError, match=r"ctv\.nii\.gz: the mask holds several values"):
        convert_nifti(source, paths)
    write_volume(regions[0], region * np.float32(0.45), PET_GRID)
    convert_nifti(replace(source, soft=True), paths)
    written = read_volume(paths.images("Tr") / "S_0_0002.nii.gz").array
    assert [int(plane.max()) for plane in written] == [1, 0, 0, 0, 0, 0]


def test_studies_without_masks_become_a_task_to_predict(source, paths):
    """All of them test cases; a second run finds them finished, but for the one whose last image was not written."""
    plain = replace(source, label=None)
    done = convert_nifti(plain, paths)
    assert (done.training, len(done.test), done.num_lesions) == ((), 4, 0)
    description = read_description(paths.root)
    assert description.test_labels is False
    [first, *_] = list_cases(paths, description, "Ts")
    assert [file.name for file in first.images] == [f"S_0_{n:04d}.nii.gz" for n in range(3)]
    assert first.label is None
    assert not paths.images("Tr").exists()
    assert not [finding for finding in check_task(paths, full=True) if finding.severity == "error"]
    first.images[-1].unlink()
    assert convert_nifti(plain, paths).skipped == ("S_1", "S_2", "S_3")
    assert convert_nifti(source, paths).training == ("S_0", "S_1", "S_2", "S_3")  # with masks: made anew
    assert not list(paths.images("Ts").iterdir())


@pytest.mark.parametrize("wrong", [{"values": (2,)}, {"instances": True}])
def test_options_of_masks_without_masks_are_refused(source, paths, wrong):
    with pytest.raises(UserError, match="options about lesion masks, and no lesion masks"):
        convert_nifti(replace(source, label=None, **wrong), paths)
    with pytest.raises(UserError, match="options about lesion masks"):
        convert_nifti(replace(source, label=None), paths, test_share=0.5)
    assert not paths.root.exists()
