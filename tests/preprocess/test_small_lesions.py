"""Lesions and CTVs smaller than a voxel of the store: kept, or named."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_cases import SHAPE, SPACING, plan_of, volumes

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume
from nndet_psma.preprocess.grid import store_grid
from nndet_psma.preprocess.instances import ctv_on, instances_on
from nndet_psma.preprocess.prepare import prepare_case
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case, write_case

GRID = Geometry(SHAPE, SPACING)
COARSE = (12.0, 4.5, 4.5)  # three voxels of the file in one of the store, along every axis
WHOLE = np.array([0, 0, 0, 9, 9, 9])


def _coarse(shape=(9, 9, 9)):
    """Nine voxels of 1 mm become three of 3 mm; store voxel i is file voxels 3i to 3i + 2, its centre voxel 3i + 1."""
    return store_grid(Geometry(shape, (1.0, 1.0, 1.0)), WHOLE, (3.0, 3.0, 3.0))


def test_two_lesions_in_one_store_voxel_are_both_kept():
    ids = np.zeros((9, 9, 9), np.int32)
    ids[3, 3, 3], ids[5, 5, 5] = 1, 2  # two corners of store voxel (1, 1, 1); no centre is hit
    found, lost = instances_on(ids, _coarse())
    assert lost == []
    assert found[1, 1, 1] == 1
    # the middle of lesion 2 is 5.5 mm = 1.83 store voxels; of the face neighbours all are as near: the first in order
    [place] = np.argwhere(found == 2)
    assert np.abs(place - 1).max() == 1
    assert found.dtype == np.int16


def test_a_lesion_beside_a_large_one_does_not_vanish():
    ids = np.full((9, 9, 9), 1, np.int32)
    ids[:, :, 6:] = 0
    ids[3, 3, 5] = 2  # in store voxel (1, 1, 1), whose centre belongs to lesion 1
    found, lost = instances_on(ids, _coarse())
    assert lost == []
    assert np.argwhere(found == 2).tolist() == [[1, 1, 2]]  # the nearest free voxel: one to the right


def test_a_lesion_without_free_neighbours_is_named():
    ids = np.full((9, 9, 9), 1, np.int32)
    ids[3, 3, 3] = 2
    found, lost = instances_on(ids, _coarse())
    assert lost == [2]
    assert (found == 1).all()


def test_a_lesion_outside_the_store_is_named():
    ids = np.zeros((9, 9, 12), np.int32)
    ids[4, 4, 4], ids[4, 4, 10] = 1, 2
    grid = store_grid(Geometry((9, 9, 12), (1.0, 1.0, 1.0)), WHOLE, (1.0, 1.0, 1.0))
    found, lost = instances_on(ids, grid)
    assert lost == [2]
    assert np.argwhere(found).tolist() == [[4, 4, 4]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 8)] * 3), min_size=1, max_size=12, unique=True))
def test_no_lesion_vanishes_unnamed_and_none_moves_further_than_a_neighbour(voxels):
    ids = np.zeros((9, 9, 9), np.int32)
    for number, voxel in enumerate(voxels, start=1):
        ids[voxel] = number
    found, lost = instances_on(ids, _coarse())
    kept, boxes = boxes_from_instances(found)
    assert sorted([*kept.tolist(), *lost]) == list(range(1, len(voxels) + 1))
    for instance, box in zip(kept, boxes, strict=True):
        assert np.abs(box[:3] - np.array(voxels[instance - 1]) // 3).max() <= 1


def test_lost_lesions_stand_in_the_case_and_in_a_warning(tmp_path, caplog):
    from nndet_psma.dataset.images.images import write_volume
    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.preprocess.build import build_store

    ct, ctv, labels = volumes(GRID)
    labels.array[0, 0, 0] = 2  # in the air
    paths = TaskPaths(tmp_path / "Task001_Lost")
    write_volume(paths.images("Tr") / "a_0000.nii.gz", ct.array, GRID)
    write_volume(paths.images("Tr") / "a_0001.nii.gz", ctv.array, GRID)
    write_volume(paths.labels("Tr") / "a.nii.gz", labels.array.astype(np.uint8), GRID)
    (paths.labels("Tr") / "a.json").write_text('{"instances": {"1": 0, "2": 0}}')
    (paths.root / "dataset.json").write_text(
        '{"task": "Task001_Lost", "dim": 3, "labels": {"0": "n"}, "modalities": {"0": "CT", "1": "CTV"}}'
    )
    description = read_description(paths.root)
    with caplog.at_level(logging.WARNING, "nndet_psma"):
        build_store(tmp_path / "store", list_cases(paths, description), description, plan_of(), 1)
    assert "case a: lesions 2 have no voxel" in caplog.text
    assert json.loads((tmp_path / "store" / "a" / "case.json").read_text())["lost_instances"] == [2]
    assert read_case(tmp_path / "store", "a").lost_instances == (2,)


def test_a_tiny_ctv_keeps_the_voxel_that_holds_it():
    ct, _, labels = volumes(GRID)
    ctv = np.zeros(SHAPE, np.uint8)
    ctv[4, 20, 20] = 1
    case = prepare_case(
        "a", {"CT": ct}, plan_of(COARSE), ctv=Volume(ctv, GRID), labels=labels, classes={1: 0}
    )
    middle = case.geometry.to_voxels(GRID.to_patient(np.array([[4.5, 20.5, 20.5]])))[0]
    inside = np.argwhere(case.ctv_distance < 0)
    assert inside.tolist() == [np.floor(middle).astype(int).tolist()]
    assert len(stage_region(case, plan_of(COARSE), plan_of().stages[0]).slices)


def test_a_ctv_outside_the_body_is_told_as_such():
    ct, _, _ = volumes(GRID)
    ctv = np.zeros(SHAPE, np.uint8)
    ctv[4, 0, 0] = 1
    case = prepare_case("a", {"CT": ct}, plan_of(COARSE), ctv=Volume(ctv, GRID))
    with pytest.raises(UserError, match="the CTV of case a lies outside the body"):
        stage_region(case, plan_of(COARSE), plan_of().stages[0])


def test_a_ctv_between_the_centres_by_hand():
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[0, 0, 2:4] = 1  # voxels 2 and 3 along x lie in store voxels 0 and 1; neither is a centre
    assert np.argwhere(ctv_on(mask, _coarse())).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_an_id_beyond_16_bits_is_refused():
    ids = np.zeros((9, 9, 9), np.int32)
    ids[4, 4, 4] = 40000
    with pytest.raises(UserError, match=r"at most 32767; found 40000"):
        instances_on(ids, _coarse())


def test_stored_case_keeps_the_lost(tmp_path):
    ct, ctv, labels = volumes(GRID)
    labels.array[0, 0, 0] = 7
    case = prepare_case("a", {"CT": ct}, plan_of(), ctv=ctv, labels=labels, classes={1: 0, 7: 0})
    write_case(tmp_path, case, "hash")
    assert read_case(tmp_path, "a").lost_instances == (7,)
