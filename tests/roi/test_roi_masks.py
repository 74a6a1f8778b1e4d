"""Known masks, the task made of them, and which fold may predict whom; nothing is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_place import GRID, SHAPE, tiny_case, write_task

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.roi.organ_masks import KnownMasks, check_name, known_masks, note_applied
from nndet_psma.roi.organ_model import OrganModel, largest_regions
from nndet_psma.roi.organ_task import chosen_modalities, write_organ_task


@pytest.fixture
def task(tmp_path):
    return write_task(tmp_path / "data")


def _case(task, name="case_0"):
    return next(c for c in list_cases(task, read_description(task.root)) if c.case_id == name)


def _organ(task, masks, images=None):
    return write_organ_task(task, read_description(task.root), masks, images, lambda text: None)


def test_a_mask_is_found_as_modality_file_or_folder(task, tmp_path):
    case, ctv = _case(task), tiny_case("case_0")[1] > 0
    one, many = tmp_path / "one", tmp_path / "many"
    write_volume(one / "case_0.nii.gz", ctv * np.uint8(7), GRID)  # any positive number
    write_volume(many / "case_0" / "ctv.nii.gz", ctv.astype(np.uint8), GRID)
    write_volume(many / "case_1" / "bladder.nii.gz", ctv.astype(np.uint8), GRID)
    found = [KnownMasks("CTV", modality=1), KnownMasks("CTV", folder=one), KnownMasks("CTV", folder=many)]
    for masks in found:
        np.testing.assert_array_equal(masks.read(case, GRID), ctv)
    assert KnownMasks("CTV", folder=many).file(_case(task, "case_1")) is None
    assert KnownMasks("CTV", folder=one).read(_case(task, "case_1"), GRID) is None


def test_numbered_masks_need_a_name(task, tmp_path):
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[2, :5], numbers[3, :4] = 1, 2
    write_volume(tmp_path / "m" / "case_0.nii.gz", numbers, GRID)
    case = _case(task)
    with pytest.raises(UserError, match=r"which number of this mask is BLADDER; .*found 0, 1, 2"):
        KnownMasks("BLADDER", folder=tmp_path / "m").read(case, GRID)
    named = KnownMasks("BLADDER", folder=tmp_path / "m", labels={"colon": 1, "bladder": 2})
    np.testing.assert_array_equal(named.read(case, GRID), numbers == 2)


def test_a_mask_on_another_grid_is_resampled_to_the_nearest_voxel(task, tmp_path):
    """Spacing twice as fine along x from the same outer edge: every second pair of voxels is one of the image."""
    fine = np.zeros((SHAPE[0], SHAPE[1], 2 * SHAPE[2]), np.uint8)
    fine[3, 4, 20:30] = 1
    z, y, x = GRID.spacing
    origin = (GRID.origin[0] - x / 4, GRID.origin[1], GRID.origin[2])
    write_volume(tmp_path / "m" / "case_0.nii.gz", fine, Geometry(fine.shape, (z, y, x / 2), origin))
    found = KnownMasks("CTV", folder=tmp_path / "m").read(_case(task), GRID)
    # voxel 10 to 14 of the image cover 20 to 29 of the mask
    assert np.argwhere(found).tolist() == [[3, 4, i] for i in range(10, 15)]


def test_masks_of_a_network_are_no_truth(task):
    case = _case(task)
    description = read_description(task.root)
    assert known_masks(task, description, "CTV", None, None).file(case) == case.images[1]
    note_applied(task, "CTV", [case.images[1]])
    masks = known_masks(task, description, "CTV", None, None)
    # every case of the tiny task has the same CTV, so now none is left
    assert masks.file(case) is None
    with pytest.raises(UserError, match=r"no masks CTV that somebody drew; .*roi apply only"):
        _organ(task, masks)


def test_the_task_holds_links_masks_and_patients(task, tmp_path):
    folder = tmp_path / "m"
    for name in ("case_0", "case_1", "case_4"):
        write_volume(folder / f"{name}.nii.gz", tiny_case(name)[1], GRID)
    organ = _organ(task, KnownMasks("CTV", folder=folder))
    assert organ.patients == {"case_0": "patient_a", "case_1": "patient_a", "case_4": "case_4"}
    assert organ.without == ["case_2", "case_3", "case_5"]
    assert organ.paths.root == task.preprocessed / "roi" / "CTV" / "task" / task.name
    description = read_description(organ.paths.root)
    assert (description.modalities, description.labels) == ({0: "CT"}, {0: "CTV"})
    cases = list_cases(organ.paths, description)
    assert [case.case_id for case in cases] == ["case_0", "case_1", "case_4"]
    assert cases[2].images[0].is_symlink()
    assert cases[2].images[0].resolve() == _case(task, "case_4").images[0].resolve()
    np.testing.assert_array_equal(read_volume(cases[2].label).array, tiny_case("case_4")[1])
    assert organ.paths.clinical.read_text() == task.clinical.read_text()


def test_what_is_current_stays_and_what_changed_is_written(task, tmp_path):
    folder = tmp_path / "m"
    for name in ("case_0", "case_2", "case_4"):
        write_volume(folder / f"{name}.nii.gz", tiny_case(name)[1], GRID)
    masks = KnownMasks("CTV", folder=folder)
    organ = _organ(task, masks)
    label = organ.paths.labels("Tr")
    before = (label / "case_0.nii.gz").stat().st_mtime_ns
    empty = np.zeros(SHAPE, np.uint8)
    write_volume(folder / "case_2.nii.gz", empty, GRID)
    (folder / "case_4.nii.gz").unlink()
    assert sorted(_organ(task, masks).patients) == ["case_0", "case_2"]
    assert (label / "case_0.nii.gz").stat().st_mtime_ns == before
    assert json.loads((label / "case_2.json").read_text()) == {"instances": {}}
    assert not read_volume(label / "case_2.nii.gz").array.any()
    assert not list(label.glob("case_4*"))
    assert not list(organ.paths.images("Tr").glob("case_4*"))


def test_the_users_folds_are_kept_where_both_sides_have_masks(task, tmp_path):
    folder = tmp_path / "m"
    names = [f"case_{i}" for i in range(6)]
    folds = [{"train": names[3:], "val": names[:3]}, {"train": names[:3], "val": names[3:]}]
    task.splits.write_text(json.dumps(folds))
    for name in ("case_1", "case_2", "case_4"):
        write_volume(folder / f"{name}.nii.gz", tiny_case(name)[1], GRID)
    organ = _organ(task, KnownMasks("CTV", folder=folder))
    first = {"train": ["case_4"], "val": ["case_1", "case_2"]}
    assert json.loads(organ.paths.splits.read_text())[0] == first
    (folder / "case_4.nii.gz").unlink()
    heard = []
    write_organ_task(task, read_description(task.root), KnownMasks("CTV", folder=folder), None, heard.append)
    assert not organ.paths.splits.exists()
    assert "splits.json is not used" in heard[0]


def test_modalities_that_are_looked_at(task):
    description = read_description(task.root)
    assert chosen_modalities(description, "CTV", None) == {0: "CT"}
    assert chosen_modalities(description, "BLADDER", ["ct"]) == {0: "CT"}
    with pytest.raises(UserError, match="no image modality PET; expected CT"):
        chosen_modalities(description, "CTV", ["PET"])
    with pytest.raises(UserError, match="no modality is left"):
        chosen_modalities(description, "CT", None)


@pytest.mark.parametrize("name", ["", "../x", "a b", "background", "1st"])
def test_names_that_cannot_be(name):
    with pytest.raises(UserError, match="is no name of a mask"):
        check_name(name)
    assert check_name("bladder") == "BLADDER"


def test_no_fold_predicts_a_patient_it_learned_from(tmp_path):
    """Fold 0 learned from a and b, fold 1 from b and c."""
    seen = {0: frozenset({"a", "b"}), 1: frozenset({"b", "c"})}
    model = OrganModel(ModelFolder(tmp_path), "CTV", None, seen, torch.device("cpu"), True)
    assert model.folds_for(["a"]) == ((1,), True)
    assert model.folds_for(["case_of_c", "c"]) == ((0,), True)
    assert model.folds_for(["b"]) == ((0, 1), False)
    assert model.folds_for(["d", "d"]) == ((0, 1), True)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 6))
def test_the_largest_regions_stay(lengths, count):
    """Rods along x in planes of their own, two apart: they do not touch."""
    mask = np.zeros((2 * len(lengths), 1, 5), dtype=bool)
    for index, length in enumerate(lengths):
        mask[2 * index, 0, :length] = True
    kept = largest_regions(mask, count)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))[:count]
    expected = np.zeros_like(mask)
    for index in order:
        expected[2 * index] = mask[2 * index]
    np.testing.assert_array_equal(kept, expected)


def test_nothing_to_keep_in_an_empty_mask():
    assert not largest_regions(np.zeros((3, 3, 3), dtype=bool), 2).any()


def test_a_folder_that_is_no_model_of_a_mask(tmp_path):
    with pytest.raises(
        UserError, match=r"holds no trained fold of a mask\. Train one with nndet_psma roi train"
    ):
        OrganModel.open(tmp_path, torch.device("cpu"))
