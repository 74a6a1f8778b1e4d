"""Every kind of bad input is found, each from one spoilt file, and a good task is left in peace."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.checks import check_task, raise_if_errors
from nndet_psma.dataset.findings import Finding
from nndet_psma.dataset.images import read_volume, write_volume

SHAPE = (8, 12, 12)
GRID = Geometry(SHAPE, (3.0, 1.0, 1.0), (-6.0, -6.0, 100.0))


def _kinds(task, *, full):
    return {(finding.kind, finding.severity) for finding in check_task(task.paths, full=full)}


def _replace(array=None, geometry=GRID):
    return lambda file: write_volume(file, np.ones(SHAPE, np.int16) if array is None else array, geometry)


def _tilted(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return Geometry(SHAPE, GRID.spacing, GRID.origin, (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-40])


def _four_axes(file):
    sitk.WriteImage(sitk.Image([12, 12, 8, 2], sitk.sitkInt16), str(file))


def _meta(header):
    """Put a hand-written MetaImage in place of a NIfTI."""

    def spoil(file):
        file.unlink()
        lines = ["ObjectType = Image", "NDims = 3", "DimSize = 12 12 8", *header, "ElementType = MET_UCHAR"]
        text = "\n".join([*lines, "ElementDataFile = LOCAL\n"])
        file.with_name(file.name.replace(".nii.gz", ".mha")).write_bytes(text.encode() + bytes(12 * 12 * 8))

    return spoil


def test_good_task(raw_task):
    raw_task.add_case("case_t", 7, split="Ts")
    raw_task.describe(test_labels=True)
    assert check_task(raw_task.paths, full=False) == []
    assert check_task(raw_task.paths, full=True) == []


def test_axes_in_another_order_are_the_same_grid(raw_task):
    label = raw_task.label("case_a")
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(label)), [True, True, False]), str(label))
    assert check_task(raw_task.paths, full=True) == []


@pytest.mark.parametrize(
    ("spoil", "kind", "found"),
    [
        (_replace(np.ones((7, 12, 12), np.int16), Geometry((7, 12, 12), (3.0, 1.0, 1.0))), None, "shape"),
        (_replace(geometry=Geometry(SHAPE, (3.0, 1.0, 1.01), GRID.origin)), None, "spacing"),
        (_replace(geometry=Geometry(SHAPE, GRID.spacing, (-6.0, -6.0, 100.5))), None, "origin.*0.5 mm"),
        (_replace(geometry=_tilted(1.0)), None, "direction"),
        (_truncate, "unreadable image", None),
        (lambda file: file.write_text("no image"), "unreadable image", None),
        (_four_axes, "unreadable image", "4 axes"),
        (_meta(["TransformMatrix = 1 0 0 0.3 0.95 0 0 0 1"]), "unreadable image", None),
        (_meta(["ElementSpacing = 0 1 3"]), "unreadable image", None),
        (_meta(["ElementSpacing = -1 1 3"]), "unreadable image", None),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_headers(raw_task, spoil, kind, found, full):
    spoil(raw_task.image("case_b", 1))
    findings = check_task(raw_task.paths, full=full)
    assert [(finding.kind, finding.severity) for finding in findings] == [
        (kind or "geometry mismatch", "error")
    ]
    assert findings[0].file.endswith(("case_b_0001.nii.gz", "case_b_0001.mha"))
    if found is not None:
        assert re.search(found, findings[0].found)


def test_label_on_another_grid(raw_task):
    write_volume(raw_task.label("case_b"), np.zeros((8, 12, 13), np.uint8), Geometry((8, 12, 13), (3, 1, 1)))
    findings = check_task(raw_task.paths, full=False)
    assert [finding.kind for finding in findings] == ["geometry mismatch"]
    assert findings[0].file.endswith("labelsTr/case_b.nii.gz")


def test_names(raw_task):
    raw_task.image("case_a", 1).unlink()
    (raw_task.paths.images("Tr") / "notes.txt").touch()
    raw_task.image("case_b").rename(raw_task.paths.images("Tr") / "case.b_0000.nii.gz")
    (raw_task.paths.labels("Tr") / "case_c.json").unlink()
    kinds = {finding.kind for finding in check_task(raw_task.paths, full=False)}
    assert kinds == {"missing modality", "stray file", "dot in case name", "missing instances"}


def test_empty_task(raw_task):
    for file in [*raw_task.paths.images("Tr").iterdir(), *raw_task.paths.labels("Tr").iterdir()]:
        file.unlink()
    assert _kinds(raw_task, full=True) == {("no cases", "error")}


def test_bad_description_is_the_only_finding(raw_task):
    raw_task.describe(dim=5)
    assert _kinds(raw_task, full=True) == {("description", "error")}


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        ("{", {"bad instances"}),
        ({"instances": {"1": 0, "2": 3}}, {"class out of range"}),
        ({"instances": {"1": 0, "3": 0}}, {"ids not consecutive", "mask and JSON disagree"}),
        ({"instances": {"1": 0}}, {"mask and JSON disagree"}),
    ],
)
def test_tables(raw_task, table, kinds):
    raw_task.table("case_b").write_text(table if isinstance(table, str) else json.dumps(table))
    voxels_needed = {"mask and JSON disagree"}
    assert _kinds(raw_task, full=True) == {(kind, "error") for kind in kinds}
    assert _kinds(raw_task, full=False) == {(kind, "error") for kind in kinds - voxels_needed}


def _ct(change):
    def spoil(task):
        volume = read_volume(task.image("case_b"))
        write_volume(task.image("case_b"), change(volume.array.astype(np.float32)), volume.geometry)

    return spoil


def _nan(array):
    array[0, 0, 0] = np.nan
    return array


def _ctv(array):
    return lambda task: write_volume(task.image("case_b", 1), array, GRID)


def _corner():
    """Holds the first lesion (2, 3, 3), not the second."""
    array = np.zeros(SHAPE, np.uint8)
    array[2, 3, 3] = 1
    return array


@pytest.mark.parametrize(
    ("spoil", "kind", "severity"),
    [
        (_ct(_nan), "not finite", "error"),
        (_ct(lambda array: np.abs(array)), "CT not in HU", "warning"),
        (_ct(lambda array: array + 0.5), "CT with fractions", "warning"),
        (_ctv(np.zeros(SHAPE, np.uint8)), "empty CTV", "error"),
        (_ctv(np.full(SHAPE, 2, np.uint8)), "mask not binary", "error"),
        (_ctv(_corner()), "lesion outside CTV", "warning"),
        (lambda task: write_volume(task.label("case_b"), np.full(SHAPE, 0.5), GRID), "bad mask", "error"),
        (
            lambda task: task.image("case_b").write_bytes(task.image("case_a").read_bytes()),
            "duplicate images",
            "error",
        ),
    ],
)
def test_voxels_only_in_the_full_check(raw_task, spoil, kind, severity):
    spoil(raw_task)
    assert _kinds(raw_task, full=False) == set()
    assert _kinds(raw_task, full=True) == {(kind, severity)}


def test_the_lesion_outside_is_named(raw_task):
    _ctv(_corner())(raw_task)
    assert check_task(raw_task.paths, full=True)[0].found == "instances 2"


def test_two_dimensions(raw_task):
    raw_task.describe(dim=2)
    assert _kinds(raw_task, full=False) == {("wrong dimension", "error")}


def test_test_cases(raw_task):
    raw_task.describe(test_labels=True)
    assert _kinds(raw_task, full=False) == {("no test images", "warning")}
    raw_task.add_case("case_t", 7, split="Ts")
    for file in raw_task.paths.labels("Ts").iterdir():
        file.unlink()
    raw_task.paths.labels("Ts").rmdir()
    assert _kinds(raw_task, full=False) == {("missing labels", "error")}
    raw_task.describe()
    assert _kinds(raw_task, full=False) == set()


def test_between_training_and_test(raw_task):
    raw_task.add_case("case_a", 7, split="Ts")
    raw_task.add_case("case_t", 8, split="Ts")
    raw_task.paths.clinical.write_text("case_id,patient_id\ncase_b,P\ncase_t,P\ncase_x,Q\n")
    assert _kinds(raw_task, full=False) == {
        ("case twice", "error"),
        ("patient in training and test", "warning"),
        ("unknown case in table", "warning"),
    }


def test_tables_of_the_task(raw_task):
    raw_task.paths.clinical.write_text("patient\nP\n")
    raw_task.paths.splits.write_text('[{"train": ["case_a"], "val": ["nobody"]}]')
    assert _kinds(raw_task, full=False) == {("clinical table", "error"), ("folds", "error")}


def test_errors_come_before_warnings_and_stop(raw_task):
    _ct(lambda array: np.abs(array))(raw_task)
    findings = check_task(raw_task.paths, full=True)
    raise_if_errors(findings)  # a warning does not stop
    raw_task.table("case_c").write_text("{")
    raw_task.table("case_b").write_text("{")
    findings = check_task(raw_task.paths, full=True)
    assert [finding.severity for finding in findings] == ["error", "error", "warning"]
    with pytest.raises(UserError, match=r"case_b.json.*1 more error"):
        raise_if_errors(findings)


def test_a_finding_says_what_its_error_says():
    error = UserError("bad", file="f", expected="x", found="y", remedy="z")
    assert str(Finding.of(error, "kind").to_error()) == str(error)


def test_several_processes_find_the_same(raw_task):
    raw_task.table("case_c").write_text("{")
    _truncate(raw_task.image("case_b"))
    alone = check_task(raw_task.paths, full=True)
    assert check_task(raw_task.paths, full=True, num_processes=2) == alone
    assert len(alone) == 2
