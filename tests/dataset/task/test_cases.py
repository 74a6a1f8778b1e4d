"""Cases told from file names."""

from __future__ import annotations

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import list_cases, list_folder_cases, scan_task
from nndet_psma.dataset.task.description import DatasetDescription, read_description

CT_ONLY = DatasetDescription("Task1_A", "A", 3, {0: "node"}, {0: "CT"})
CT_CTV = DatasetDescription("Task1_A", "A", 3, {0: "node"}, {0: "CT", 1: "CTV"})
CT_PET = DatasetDescription("Task1_A", "A", 3, {0: "node"}, {0: "CT", 1: "PET"})


def _list(task, split="Tr"):
    return list_cases(task.paths, read_description(task.paths.root), split)


def test_sorted_cases_with_all_files(raw_task):
    cases = _list(raw_task)
    assert [case.case_id for case in cases] == ["case_a", "case_b", "case_c"]
    assert cases[1].images == (raw_task.image("case_b", 0), raw_task.image("case_b", 1))
    assert cases[1].label == raw_task.label("case_b")
    assert cases[1].instances == raw_task.table("case_b")


def test_hidden_files_are_no_cases(raw_task):
    (raw_task.paths.images("Tr") / ".DS_Store").touch()
    assert len(_list(raw_task)) == 3


def test_an_id_may_end_like_a_modality(raw_task):
    raw_task.add_case("case_0007", 5)
    assert _list(raw_task)[0].case_id == "case_0007"


def _rename(task, new):
    task.image("case_b").rename(task.paths.images("Tr") / new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.image("case_b", 1).unlink(), "CTV of case case_b is missing.*Add case_b_0001.nii.gz"),
        (lambda t: _rename(t, "case_b_0000.txt"), "case_b_0000.txt: this file does not belong"),
        (lambda t: _rename(t, "case.b_0000.nii.gz"), "dot in the name"),
        (lambda t: _rename(t, "case_b.nii.gz"), "without modality number.*case_b_0000.nii.gz"),
        (lambda t: _rename(t, "case_b_0002.nii.gz"), "modality that the description does not have.*_0002"),
        (lambda t: (t.paths.images("Tr") / "case_b_0000.mha").touch(), "same file in two formats"),
        (lambda t: (t.paths.images("Tr") / "more").mkdir(), "more: this file does not belong"),
        (lambda t: t.label("case_b").unlink(), "mask of case case_b is missing"),
        (lambda t: t.table("case_b").unlink(), "classes of case case_b are missing"),
        (lambda t: (t.paths.labels("Tr") / "case_x.json").touch(), "label of a case that has no images"),
        (lambda t: (t.paths.labels("Tr") / "case_a.mha").touch(), "same file in two formats"),
        (lambda t: (t.paths.labels("Tr") / "case.a.json").touch(), "dot in the name"),
        (lambda t: (t.paths.labels("Tr") / "read.me").touch(), "does not belong"),
        (lambda t: t.paths.labels("Tr").rename(t.paths.root / "away"), "folder of labels does not exist"),
        (lambda t: t.paths.images("Tr").rename(t.paths.root / "away"), "folder does not exist"),
    ],
)
def test_bad_names(raw_task, spoil, message):
    spoil(raw_task)
    with pytest.raises(UserError, match=message):
        _list(raw_task)


def test_no_cases(raw_task):
    for file in raw_task.paths.images("Tr").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no images in this folder"):
        _list(raw_task)


def test_scan_reports_everything_and_keeps_the_good_cases(raw_task):
    raw_task.image("case_a", 1).unlink()
    raw_task.table("case_b").unlink()
    (raw_task.paths.images("Tr") / "x.txt").touch()
    cases, problems = scan_task(raw_task.paths, read_description(raw_task.paths.root), "Tr")
    assert {problem.kind for problem in problems} == {"missing modality", "missing instances", "stray file"}
    assert [case.case_id for case in cases] == ["case_b", "case_c"]


def test_test_cases_need_no_labels(raw_task):
    raw_task.add_case("case_t", 9, split="Ts")
    assert _list(raw_task, "Ts")[0].label == raw_task.label("case_t", "Ts")
    raw_task.describe(test_labels=True)
    raw_task.label("case_t", "Ts").unlink()
    assert _list(raw_task, "Ts")[0].label is None
    problems = scan_task(raw_task.paths, read_description(raw_task.paths.root), "Ts")[1]
    assert [problem.kind for problem in problems] == ["missing label"]


def _touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_folder_with_plain_names(tmp_path):
    _touch(tmp_path, "b.nii.gz", "a.mha")
    cases = list_folder_cases(tmp_path, CT_ONLY)
    assert [(case.case_id, case.images) for case in cases] == [
        ("a", (tmp_path / "a.mha",)),
        ("b", (tmp_path / "b.nii.gz",)),
    ]
    assert cases[0].label is None


def test_folder_with_numbers_and_a_search_region(tmp_path):
    _touch(tmp_path, "a.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    cases = list_folder_cases(tmp_path, CT_CTV)
    assert [case.case_id for case in cases] == ["a", "b"]
    assert cases[0].images == (tmp_path / "a.nii.gz", tmp_path / "a_0001.nii.gz")


@pytest.mark.parametrize(
    ("names", "description", "message"),
    [
        (["a.nii.gz"], CT_CTV, "CTV of case a is missing.*Add a_0001.nii.gz"),
        (["a.nii.gz"], CT_PET, "without modality number"),
        (["a_0000.nii.gz"], CT_PET, "PET of case a is missing"),
        (["a.nii.gz", "a_0000.nii.gz"], CT_ONLY, "two formats"),
        (["a.b.nii.gz"], CT_ONLY, "dot in the name"),
        (["a.nii.gz", "b.pdf"], CT_ONLY, "does not belong"),
        ([], CT_ONLY, "no images"),
    ],
)
def test_bad_folder(tmp_path, names, description, message):
    _touch(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        list_folder_cases(tmp_path, description)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_folder_cases(tmp_path / "none", CT_ONLY)
