"""The check as a whole: order, processes, formats, evidence, and what must not be a fault."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import SimpleITK as sitk
from good_task import ADC, CT, CTV, GRID, PET, SHAPE, T2, GoodTask, write_good_task

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.case import check_case, inspect_volumes
from nndet_psma.dataset.checks.checks import check_report, check_task, raise_if_errors
from nndet_psma.dataset.checks.surviving_workers import map_surviving
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.instances import read_instances


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> GoodTask:
    return write_good_task(tmp_path_factory.mktemp("good"))


@pytest.fixture
def task(template, tmp_path) -> GoodTask:
    return template.copy(tmp_path)


def _one(task, kind, full=True):
    """The finding of a kind; there must be exactly one."""
    (finding,) = [finding for finding in check_task(task.paths, full=full) if finding.kind == kind]
    return finding


def test_axes_in_another_order_are_the_same_grid(task):
    label = task.label("case_a")
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(label)), [True, True, False]), str(label))
    assert check_task(task.paths, full=True) == []


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_other_formats_are_good_too(task, suffix):
    for case in ("case_a", "case_b", "case_c", "case_t"):
        for file in task.files(case):
            write_volume(file.with_name(file.name.replace(".nii.gz", suffix)), read_volume(file).array, GRID)
            file.unlink()
    assert check_task(task.paths, full=True) == []


@pytest.mark.parametrize("name", ["case_b_0002.mha", "case_b_0002.nrrd"])
def test_nan_and_truncation_in_formats_that_only_itk_reads(task, name):
    file = task.paths.images("Tr") / name
    array = read_volume(task.image("case_b", PET)).array
    task.image("case_b", PET).unlink()
    array[0, 0, :3] = np.nan
    write_volume(file, array, GRID)
    assert _one(task, "NaN voxels").found == "3 such voxels"
    file.write_bytes(file.read_bytes()[:400])
    assert {finding.kind for finding in check_task(task.paths, full=True)} >= {"unreadable image"}


def test_values_of_a_scaled_nifti_count_after_slope_and_intercept(task):
    """Stored numbers from 0 with intercept -1024 are HU; without it they are not."""
    import struct

    file = task.image("case_b", CT)
    task.edit(file, lambda hu: np.maximum(hu + 1024, 0).astype(np.int16))
    _one(task, "CT without intercept")
    task.header(file, lambda content: struct.pack_into("<2f", content, 112, 1.0, -1024.0))
    assert {finding.kind for finding in check_task(task.paths, full=True)} == {"mixed voxel types"}


@pytest.mark.parametrize(
    ("index", "change", "kind", "evidence"),
    [
        # air is -1000 with noise of 8: shifted by 1024 and cut at 0, the median is about 24
        (CT, lambda hu: np.maximum(hu + 1024, 0), "CT without intercept", r"0 to 1\d\d\d, quantiles"),
        (
            CT,
            lambda hu: np.where(hu < -995, -3024, hu).astype(np.int16),
            "CT padding",
            r"\d+\.\d% of the voxels",
        ),
        (PET, lambda suv: suv * 5000, "PET not SUV", r"median of positive voxels \d"),
        (ADC, lambda adc: (adc // 1000).astype(np.int16), "ADC units", "median of positive voxels 1"),
        (T2, lambda t2: (t2 - 100).astype(np.int16), "negative MR", "-100 to"),
    ],
)
def test_warnings_of_units_show_the_evidence(task, index, change, kind, evidence):
    task.edit(task.image("case_b", index), change)
    assert re.search(evidence, _one(task, kind).found)


def test_the_grids_are_described(task):
    write_volume(
        task.label("case_b"), np.zeros(SHAPE, np.uint8), Geometry(SHAPE, GRID.spacing, (-35.0, -31.0, 200.5))
    )
    finding = _one(task, "origin mismatch", full=False)
    assert finding.expected == "origin (-35.0, -31.0, 200.0) of case_b_0000.nii.gz"
    assert finding.found == "origin (-35.0, -31.0, 200.5), corners up to 0.5 mm apart"


def test_lesions_are_named(task):
    """A second instance outside the CTV, a third in two parts."""

    def change(array):
        array[2:4, 4:6, 16:19] = 2
        array[5:7, 15:17, 11:13] = 3
        array[5:7, 15:17, 21:23] = 3  # 8 voxels of 2 mm from the first part: a gap of 16 mm
        return array

    task.edit(task.label("case_b"), change)
    task.classes("case_b", {"1": 0, "2": 0, "3": 0})
    assert _one(task, "lesion outside CTV").found == "instance 2"
    assert _one(task, "lesion in pieces").found == "instance 3 (gap 16 mm)"


def test_pieces_that_a_third_one_bridges_are_one_lesion(task):
    def change(array):
        for x in (8, 13, 18):  # 4 voxels of 2 mm between neighbours: 8 mm; 18 mm between the outer ones
            array[3:5, 14:16, x : x + 1] = 1
        return array * (array == 1)

    task.edit(task.label("case_b"), change)
    assert "lesion in pieces" not in {finding.kind for finding in check_task(task.paths, full=True)}


def test_confluent_nodes_may_touch_at_an_edge(task):
    def change(array):
        array[3:5, 17:20, 21:24] = 2  # meets the corner at y 17, x 21
        return array

    task.edit(task.label("case_b"), change)
    task.classes("case_b", {"1": 0, "2": 0})
    assert check_task(task.paths, full=True) == []


@pytest.mark.parametrize("value", [70_000, 2_000_000_000])
def test_enormous_ids_need_no_enormous_memory(task, value):
    task.edit(task.label("case_b"), lambda ids: ids.astype(np.uint32) * value)
    kinds = {finding.kind for finding in check_task(task.paths, full=True)}
    assert kinds == {"mask and JSON disagree"}


def test_the_judge_of_loaded_volumes_says_what_the_check_says(task):
    task.edit(task.image("case_b", CTV), np.ones_like)
    task.edit(task.image("case_b", PET), lambda suv: suv * 5000)
    task.edit(task.label("case_b"), lambda ids: ids.astype(np.float32))
    description = read_description(task.paths.root)
    case = list_cases(task.paths, description)[1]
    volumes = {index: read_volume(file) for index, file in enumerate(case.images)}
    before = {index: volume.array.copy() for index, volume in volumes.items()}
    classes = read_instances(case.instances)
    loaded = inspect_volumes(case, description, volumes, read_volume(case.label), classes)
    assert loaded == check_case(case, description, full=True).findings
    assert {finding.kind for finding in loaded} == {"PET not SUV", "CTV fills the image", "mask of floats"}
    for index, volume in volumes.items():
        np.testing.assert_array_equal(volume.array, before[index])


def test_test_cases_need_labels_only_when_the_description_says_so(task):
    task.describe(test_labels=False)
    task.label("case_t").unlink()
    task.table("case_t").unlink()
    assert check_task(task.paths, full=True) == []
    task.describe(test_labels=True)
    assert [finding.kind for finding in check_task(task.paths, full=True)] == ["unlabelled case"]


def test_the_ctv_may_come_before_the_ct(task):
    """Body and search region are compared whatever their order."""
    task.describe(modalities={"0": "CTV", "1": "CT", "2": "PET", "3": "ADC", "4": "T2"})
    for case in ("case_a", "case_b", "case_c", "case_t"):
        first, second = task.image(case, 0), task.image(case, 1)
        parked = first.with_name(".parked.nii.gz")
        first.rename(parked)
        second.rename(first)
        parked.rename(second)
    assert check_task(task.paths, full=True) == []
    corner = np.zeros(SHAPE, np.uint8)
    corner[1:7, :, 0:3] = 1
    write_volume(task.image("case_b", 0), corner, GRID)
    assert {finding.kind for finding in check_task(task.paths, full=True)} == {
        "CTV outside the body",
        "lesion outside CTV",
    }


def test_errors_come_before_warnings_and_stop(task):
    task.edit(task.image("case_a", PET), lambda suv: suv * 5000)
    findings = check_task(task.paths, full=True)
    raise_if_errors(findings)  # a warning does not stop
    task.table("case_c").write_text("{")
    task.table("case_b").write_text("{")
    findings = check_task(task.paths, full=True)
    assert [finding.severity for finding in findings] == ["error", "error", "warning"]
    with pytest.raises(UserError, match=r"case_b.json.*1 more error"):
        raise_if_errors(findings)


def test_a_finding_says_what_its_error_says():
    error = UserError("bad", file="f", expected="x", found="y", remedy="z")
    assert str(Finding.of(error, "NaN voxels").to_error()) == str(error)


def test_several_processes_find_the_same(task):
    task.table("case_c").write_text("{")
    task.image("case_b").write_bytes(task.image("case_b").read_bytes()[:-40])
    alone = check_report(task.paths, full=True)
    assert check_report(task.paths, full=True, num_processes=2) == alone
    assert len(alone.findings) == 2


def _work(number):
    if number == 13:
        os._exit(9)  # as the kernel does when memory runs out
    return number * 2


def _died(number):
    return -number


def test_a_worker_that_dies_costs_one_case():
    assert map_surviving(_work, [1, 13, 2], 2, _died) == [2, -13, 4]


def test_checking_writes_nothing(task):
    before = {file: file.stat().st_mtime_ns for file in sorted(task.paths.root.rglob("*"))}
    check_task(task.paths, full=True)
    assert {file: file.stat().st_mtime_ns for file in sorted(task.paths.root.rglob("*"))} == before
