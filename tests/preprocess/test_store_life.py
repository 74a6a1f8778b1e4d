"""The store over several runs: what is redone, what survives a kill, what a damaged file says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from prepared_cases import CTV, SHAPE, SPACING, plan_of, prepared, volumes

from nndet_psma.artifacts.plan import Window
from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.cases import list_cases
from nndet_psma.dataset.description import read_description
from nndet_psma.dataset.images import write_volume
from nndet_psma.dataset.paths import TaskPaths
from nndet_psma.preprocess import build
from nndet_psma.preprocess.build import build_store
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import is_current, read_case, write_case

GRID = Geometry(SHAPE, SPACING, (10.0, 20.0, 30.0))
CASES = ["a", "b", "c"]


def _write(paths: TaskPaths, case: str, shift: int = 0) -> None:
    ct, ctv, labels = volumes(GRID)
    write_volume(paths.images("Tr") / f"{case}_0000.nii.gz", ct.array + np.int16(shift), GRID)
    write_volume(paths.images("Tr") / f"{case}_0001.nii.gz", ctv.array, GRID)
    write_volume(paths.labels("Tr") / f"{case}.nii.gz", labels.array.astype(np.uint8), GRID)
    (paths.labels("Tr") / f"{case}.json").write_text('{"instances": {"1": 0}}')


@pytest.fixture
def paths(tmp_path):
    paths = TaskPaths(tmp_path / "Task001_Store")
    for number, case in enumerate(CASES):
        _write(paths, case, number)
    (paths.root / "dataset.json").write_text(
        '{"task": "Task001_Store", "dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT", "1": "CTV"}}'
    )
    return paths


def _build(paths, plan):
    description = read_description(paths.root)
    return build_store(paths.store, list_cases(paths, description), description, plan, 1)


def _content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_first_run_makes_all_second_none(paths):
    assert _build(paths, plan_of()) == CASES
    assert _build(paths, plan_of()) == []


def test_a_changed_case_is_redone_alone(paths):
    _build(paths, plan_of())
    _write(paths, "b", 77)
    assert _build(paths, plan_of()) == ["b"]
    assert read_case(paths.store, "b").arrays["CT"].max() == 150 + 77


@pytest.mark.parametrize(
    "change",
    [
        {"windows": [Window("hu", -50.0, 100.0)]},
        {"margin_mm": 20.0},
        {"batch_size": 9},
        {"neighbours": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_choices_that_change_no_array_redo_nothing(paths, change):
    _build(paths, plan_of())
    assert _build(paths, replace(plan_of(), **change)) == []


@pytest.mark.parametrize("change", [{"spacing": (4.0, 2.0, 2.0)}, {"body_margin_mm": 9.0}])
def test_choices_that_change_arrays_redo_all(paths, change):
    _build(paths, plan_of())
    assert _build(paths, replace(plan_of(), **change)) == CASES


def test_killed_and_started_again_ends_the_same(paths, tmp_path, monkeypatch):
    whole = TaskPaths(tmp_path / "whole")
    description = read_description(paths.root)
    build_store(whole.store, list_cases(paths, description), description, plan_of(), 1)

    def killed(store, case, made_from):
        if case.case_id == "b":
            # what a kill leaves: a half-written folder beside the finished ones
            (store / ".tmp-12345678-b").mkdir()
            (store / ".tmp-12345678-b" / "CT.npy").write_bytes(b"half")
            raise KeyboardInterrupt
        write_case(store, case, made_from)

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_case", killed)
        with pytest.raises(KeyboardInterrupt):
            _build(paths, plan_of())
    assert _build(paths, plan_of()) == ["b", "c"]
    assert _content(paths.store) == _content(whole.store)


def test_ct_lies_on_disk_once_as_int16_and_is_mapped(paths):
    _build(paths, plan_of())
    case = read_case(paths.store, "a")
    assert isinstance(case.arrays["CT"], np.memmap)
    assert case.arrays["CT"].dtype == np.int16
    files = sorted(file.name for file in (paths.store / "a").iterdir())
    assert files == ["CT.npy", "case.json", "ctv_distance.npy", "instances.npy"]


def test_stored_case_equals_the_prepared(paths, tmp_path):
    case = prepared(GRID)
    write_case(tmp_path / "store", case, "hash")
    again = read_case(tmp_path / "store", "a")
    assert (again.geometry, again.source, again.classes) == (case.geometry, case.source, {1: 0})
    for name in ("ctv_distance", "instances"):
        assert np.array_equal(getattr(again, name), getattr(case, name))
    assert is_current(tmp_path / "store", "a", "hash")
    assert not is_current(tmp_path / "store", "a", "other")
    assert not is_current(tmp_path / "store", "b", "hash")


def test_damage_is_named(paths):
    _build(paths, plan_of())
    with pytest.raises(UserError, match=r"case z is not preprocessed.*Run nndet_prep"):
        read_case(paths.store, "z")
    file = paths.store / "a" / "CT.npy"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"CT\.npy: stored array cannot be read.*Delete the case folder"):
        read_case(paths.store, "a")
    (paths.store / "b" / "case.json").write_text("{")
    assert _build(paths, plan_of()) == ["b"]


def test_growth_of_the_ctv_by_hand():
    case = prepared(GRID)
    # the store begins at voxel (0, 4, 5) of the file; along x the CTV [14, 40) is [9, 35) here, in y [8, 26)
    inside = np.zeros(case.geometry.shape, dtype=bool)
    inside[CTV[0], 8:26, 9:35] = True
    assert np.array_equal(case.search_mask(0.0), inside)
    row = case.search_mask(3.0)[5, 15]  # 3 mm are exactly two voxels of 1.5 mm
    assert np.flatnonzero(row)[[0, -1]].tolist() == [7, 36]
    assert np.flatnonzero(case.search_mask(2.99)[5, 15])[[0, -1]].tolist() == [8, 35]
    column = case.search_mask(4.0)[:, 15, 15]  # one slice of 4 mm on each side
    assert np.flatnonzero(column).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_distance_of_points_by_hand():
    case = prepared(GRID)
    points = np.array([[5.5, 15.5, 15.5], [5.5, 15.5, 36.5], [5.5, 15.5, 35.0], [9.5, 15.5, 15.5]])
    # inside; two voxels of 1.5 mm; the edge 35.0 begins the first voxel outside; two slices of 4 mm
    assert case.zone_mm(points).tolist() == pytest.approx([0, 3.0, 1.5, 8.0])
    outside = np.array([[-5.0, 15.5, 15.5]])  # beyond the image the nearest voxel counts: slice 0, 8 mm
    assert case.zone_mm(outside).tolist() == pytest.approx([8.0])
    assert replace(case, ctv_distance=None).zone_mm(points).tolist() == [0, 0, 0, 0]
    assert case.zone_mm(np.zeros((0, 3))).shape == (0,)


def test_regions():
    case, plan = prepared(GRID), replace(plan_of(), margin_mm=3.0)
    search = stage_region(case, plan, plan.stages[0])
    assert search.slices.tolist() == [2, 3, 4, 5, 6, 7]  # 3 mm reach no neighbouring slice of 4 mm
    assert search.box == (6, 7, 28, 37)
    assert search.centre == (17, 22)
    body = stage_region(case, plan, replace(plan.stages[0], region="body"))
    assert (len(body.slices), body.box, body.mask) == (10, (0, 0, 36, 46), None)
    without = stage_region(replace(case, ctv_distance=None), plan, plan.stages[0])
    assert (len(without.slices), without.mask) == (10, None)


def test_empty_ctv_is_refused():
    from nndet_psma.dataset.images import Volume
    from nndet_psma.preprocess.prepare import prepare_case

    ct, _, _ = volumes(GRID)
    with pytest.raises(UserError, match=r"the CTV of case a is empty\. Contour it or leave the case out"):
        prepare_case("a", {"CT": ct}, plan_of(), ctv=Volume(np.zeros(SHAPE, np.uint8), GRID))
