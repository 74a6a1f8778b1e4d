"""The store over several runs: what is redone, what survives a kill, what a damaged file says."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import REPOSITORY
from prepared_cases import CTV, SHAPE, SPACING, plan_of, prepared, volumes

from nndet_psma.artifacts.channels import Window
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
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
    return build_store(paths.preprocessed, list_cases(paths, description), description, plan, 1)


def _content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_first_run_makes_all_second_none(paths):
    assert _build(paths, plan_of()) == CASES
    assert _build(paths, plan_of()) == []


def test_a_changed_case_is_redone_alone(paths):
    _build(paths, plan_of())
    _write(paths, "b", 77)
    assert _build(paths, plan_of()) == ["b"]
    assert read_case(paths.preprocessed, "b").arrays["CT"].max() == 150 + 77


@pytest.mark.parametrize(
    "change",
    [
        {"windows": [Window("hu", -50.0, 100.0)]},
        {"margin_mm": 20.0},
        {"batch_size": 9},
        {"neighbours": 3},
        {"detector": replace(plan_of().detector, anchor_sizes=[[5.0, 9.0]])},
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
    build_store(whole.preprocessed, list_cases(paths, description), description, plan_of(), 1)

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
    assert _content(paths.preprocessed) == _content(whole.preprocessed)


_SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from prepared_cases import plan_of
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.preprocess import build
from nndet_psma.preprocess import store

paths = TaskPaths(Path({root!r}))
save, written = store._save, []

def save_or_die(file, array):
    save(file, array)
    written.append(file)
    if len(written) == {files}:
        file.write_bytes(file.read_bytes()[:100])  # what a kill leaves of a file that is being written
        os.kill(os.getpid(), signal.SIGKILL)

store._save = save_or_die
description = read_description(paths.root)
build.build_store(paths.preprocessed, list_cases(paths, description), description, plan_of(), 1)
"""


@pytest.mark.parametrize("files", [1, 5], ids=["within the first case", "within the second"])
def test_sigkill_in_the_middle_of_a_file_then_again(paths, tmp_path, files):
    whole = TaskPaths(tmp_path / "whole")
    description = read_description(paths.root)
    build_store(whole.preprocessed, list_cases(paths, description), description, plan_of(), 1)
    script = _SCRIPT.format(tests=str(REPOSITORY / "tests" / "samples"), root=str(paths.root), files=files)
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    finished = CASES[: files // 3]  # three files a case
    assert sorted(f.name for f in paths.preprocessed.iterdir() if not f.name.startswith(".")) == finished
    assert list(paths.preprocessed.glob(".tmp-*"))
    assert _build(paths, plan_of()) == CASES[len(finished) :]
    assert _content(paths.preprocessed) == _content(whole.preprocessed)


def test_a_case_that_left_the_task_leaves_the_store(paths):
    _build(paths, plan_of())
    for file in [*paths.images("Tr").glob("b*"), *paths.labels("Tr").glob("b*")]:
        file.unlink()
    own = paths.preprocessed / "notes"
    own.mkdir()
    (own / "case.json").write_text('{"schema": "of somebody else"}')
    (paths.preprocessed / "readme").write_text("mine")
    assert _build(paths, plan_of()) == []
    # what is not ours is left alone
    assert sorted(f.name for f in paths.preprocessed.iterdir()) == ["a", "c", "notes", "readme"]


_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@_FULL
def test_a_full_disk_is_told_and_leaves_nothing_half_written(paths, monkeypatch):
    from nndet_psma.preprocess import store

    _build(paths, plan_of())
    before = _content(paths.preprocessed)
    _write(paths, "b", 5)

    def full(file, array):
        file.write_bytes(b"half")
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_save", full)
        with pytest.raises(UserError, match=r"b: the disk is full.*nothing is half-written"):
            _build(paths, plan_of())
    assert _content(paths.preprocessed) == before
    assert _build(paths, plan_of()) == ["b"]


@_FULL
def test_writing_an_array_keeps_the_error_number_of_a_full_disk(tmp_path):
    """numpy's tofile says "3 requested and 0 written" without a number; 1 MB does not fit into any buffer."""
    from nndet_psma.preprocess.store import _save

    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as caught:
        _save(tmp_path / "full.npy", np.zeros(1 << 20, np.uint8))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3), np.int16), np.arange(24.0).reshape(2, 3, 4).T, np.int8(3)]
)
def test_stored_arrays_are_plain_npy_files(tmp_path, array):
    from nndet_psma.preprocess.store import _save

    _save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ascontiguousarray(array))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_several_processes_make_the_same_store(paths, tmp_path):
    description = read_description(paths.root)
    cases = list_cases(paths, description)
    build_store(tmp_path / "one", cases, description, plan_of(), 1)
    build_store(tmp_path / "two", cases, description, plan_of(), 2)
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_another_margin_redoes_only_beyond_the_reach_of_the_distances(paths):
    _build(paths, plan_of())
    assert _build(paths, replace(plan_of(), margin_mm=50.0)) == []
    assert _build(paths, replace(plan_of(), margin_mm=51.0)) == CASES


def test_the_store_of_an_earlier_release_is_made_anew(paths):
    _build(paths, plan_of())
    meta = paths.preprocessed / "a" / "case.json"
    meta.write_text(meta.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(UserError, match="another schema version"):
        read_case(paths.preprocessed, "a")
    assert _build(paths, plan_of()) == ["a"]


def test_files_are_read_and_compared_one_by_one(paths):
    """A CTV on another grid is named although only one volume is in memory at a time."""
    shifted = replace(GRID, origin=(11.0, 20.0, 30.0))
    write_volume(paths.images("Tr") / "b_0001.nii.gz", volumes(GRID)[1].array, shifted)
    with pytest.raises(UserError, match=r"b_0001\.nii\.gz: CTV of case b lies on another grid"):
        _build(paths, plan_of())
    _write(paths, "b")
    write_volume(paths.labels("Tr") / "b.nii.gz", volumes(GRID)[2].array.astype(np.uint8), shifted)
    with pytest.raises(UserError, match=r"b\.nii\.gz: label of case b lies on another grid"):
        _build(paths, plan_of())


def test_ct_lies_on_disk_once_as_int16_and_is_mapped(paths):
    _build(paths, plan_of())
    case = read_case(paths.preprocessed, "a")
    assert isinstance(case.arrays["CT"], np.memmap)
    assert case.arrays["CT"].dtype == np.int16
    files = sorted(file.name for file in (paths.preprocessed / "a").iterdir())
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
        read_case(paths.preprocessed, "z")
    file = paths.preprocessed / "a" / "CT.npy"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"CT\.npy: stored array cannot be read.*Delete the case folder"):
        read_case(paths.preprocessed, "a")
    (paths.preprocessed / "b" / "case.json").write_text("{")
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
    from nndet_psma.dataset.images.images import Volume
    from nndet_psma.preprocess.prepare import prepare_case

    ct, _, _ = volumes(GRID)
    with pytest.raises(UserError, match=r"the CTV of case a is empty\. Contour it or leave the case out"):
        prepare_case("a", {"CT": ct}, plan_of(), ctv=Volume(np.zeros(SHAPE, np.uint8), GRID))
