"""Every kind of the catalogue, made from a good task, is found alone, with its file and a remedy."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest
import spoil_files
import spoil_tables
import spoil_values
from good_task import GoodTask, write_good_task
from places import REPOSITORY

from nndet_psma.core.errors import UserError
from nndet_psma.core.terminal import printable
from nndet_psma.dataset.checks.checks import check_report, check_task
from nndet_psma.dataset.faults.findings import CheckReport, Finding
from nndet_psma.dataset.faults.kinds import KINDS, Fault, kinds_table

FAULTS = {**spoil_files.FAULTS, **spoil_values.FAULTS, **spoil_tables.FAULTS}
# the first two are made while voxels are read, but come before, too; damage is seen early in a file this small
SEEN_EITHER_WAY = ("unreadable image", "check failed", "damaged file")
ALSO = {**spoil_files.ALSO, **spoil_values.ALSO, **spoil_tables.ALSO}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> GoodTask:
    return write_good_task(tmp_path_factory.mktemp("good"))


@pytest.fixture
def task(template, tmp_path) -> GoodTask:
    return template.copy(tmp_path)


def _spoil(spoil, task, monkeypatch):
    needs_patch = len(inspect.signature(spoil).parameters) == 2
    spoil(task, monkeypatch) if needs_patch else spoil(task)


def test_a_good_task_has_no_findings(template):
    assert check_task(template.paths, full=False) == []
    assert check_task(template.paths, full=True) == []


def test_every_kind_is_made_once():
    assert set(FAULTS) == set(KINDS)
    assert len(KINDS) >= 60
    assert set(ALSO) <= set(KINDS)


@pytest.mark.parametrize("kind", FAULTS)
def test_fault(kind, task, monkeypatch):
    spoil, file = FAULTS[kind]
    _spoil(spoil, task, monkeypatch)
    quick = {finding.kind for finding in check_task(task.paths, full=False)}
    if kind not in SEEN_EITHER_WAY:
        assert (kind not in quick) == KINDS[kind].full
    findings = check_task(task.paths, full=True)
    shown = [f"{finding.kind}: {finding.to_error()}" for finding in findings]
    assert {finding.kind for finding in findings} == {kind} | ALSO.get(kind, set()), shown
    own = [finding for finding in findings if finding.kind == kind]
    assert any((finding.file or "").endswith(file) for finding in own), shown
    for finding in findings:
        assert finding.severity == KINDS[finding.kind].severity
        assert finding.remedy
        assert "\n" not in str(finding.to_error())
        assert not re.search(r"patient [A-Z]\b", str(finding.to_error()))  # patient ids stay where they are


def test_findings_of_unknown_kind_or_severity_are_refused():
    with pytest.raises(ValueError, match="'odd' is no kind of the catalogue"):
        Finding("odd", "warning", None, "is odd")
    with pytest.raises(ValueError, match="'odd' is no kind"):
        Finding.of(UserError("is odd"), "odd")
    with pytest.raises(ValueError, match="no kind"):
        Finding.of(UserError("is odd"))
    with pytest.raises(ValueError, match="'no lesions' is always warning"):
        Finding("no lesions", "error", None, "none")
    with pytest.raises(ValueError, match="'odd' is no kind"):
        Fault("odd", "is odd")


def test_kinds_in_the_code_are_those_of_the_catalogue():
    """Every kind is raised somewhere in the package, literally or put together from parts."""
    catalogue = Path(inspect.getfile(Fault))
    folder = catalogue.parents[1]
    code = "".join(file.read_text() for file in folder.rglob("*.py") if file != catalogue)
    put_together = {"labels not from 0", "modalities not from 0"} | {
        f"{name} mismatch" for name in ("shape", "spacing", "origin", "direction")
    }
    assert {kind for kind in KINDS if f'"{kind}"' not in code} == put_together


def test_the_documentation_shows_the_catalogue():
    text = (REPOSITORY / "docs" / "checks.md").read_text(encoding="utf-8")
    assert kinds_table() in text


def test_several_faults_at_once_are_all_reported(task, monkeypatch):
    """Unreadable files stop nothing: each fault of another file is still found."""
    task.describe(dim="3d")  # a faulty key of the description hides no fault of the cases
    wanted = ["empty file", "CTV fills the image", "mask of floats"]
    task.image("case_a", 3).write_bytes(b"")
    FAULTS["CTV fills the image"][0](task)
    FAULTS["mask of floats"][0](task)
    (task.paths.labels("Tr") / "case_c.json").write_text("[]")
    found = [finding.kind for finding in check_task(task.paths, full=True)]
    assert sorted(found) == sorted([*wanted, "wrong dim", "bad instances"])
    assert found[-2:] == ["CTV fills the image", "mask of floats"]  # warnings come last


def test_files_of_operating_systems_are_passed_over(task):
    for folder in (task.paths.images("Tr"), task.paths.labels("Tr")):
        for name in (".DS_Store", "._case_a_0000.nii.gz", "Thumbs.db", "desktop.ini"):
            (folder / name).touch()
        (folder / "__MACOSX").mkdir()
    assert check_task(task.paths, full=True) == []


def test_a_case_without_lesions_is_counted_and_no_fault(task):
    task.edit(task.label("case_a"), lambda ids: ids * 0)
    task.classes("case_a", {})
    report = check_report(task.paths, full=True)
    assert report.findings == []
    assert (report.training_cases, report.test_cases, report.lesions) == (3, 1, 2)
    assert report.cases_without_lesions == ["case_a"]


def test_report_as_json():
    findings = [
        Finding("no lesions", "warning", "b", "none", remedy="add"),
        Finding(
            "NaN voxels", "error", "/home/doe/Task1_A/a", "bad", found="1", remedy="mend /home/doe/Task1_A/c"
        ),
    ]
    content = CheckReport("Task1_A", True, 2, 1, 5, ["x"], findings).to_json(Path("/home/doe/Task1_A"))
    assert content["schema"] == "nndet_psma.check_report"
    assert content["version"] == 1
    assert (content["errors"], content["warnings"]) == (1, 1)
    assert content["counts"] == {"no lesions": 1, "NaN voxels": 1}
    assert content["findings"][1] == {
        "kind": "NaN voxels",
        "severity": "error",
        "file": "a",
        "what": "bad",
        "found": "1",
        "expected": None,
        "remedy": "mend c",
    }


@pytest.mark.parametrize("full", [False, True])
def test_a_fifo_among_the_images_is_an_empty_file_and_waited_for_by_nobody(task, full):
    file = task.image("case_b")
    file.unlink()
    os.mkfifo(file)
    assert [(one.kind, one.file) for one in check_task(task.paths, full=full) if one.severity == "error"] == [
        ("empty file", str(file))
    ]


def test_links_are_followed_and_those_into_a_circle_are_no_images(task, tmp_path):
    moved = tmp_path / "elsewhere.nii.gz"
    task.image("case_b").rename(moved)
    task.image("case_b").symlink_to(moved)
    assert check_task(task.paths, full=True) == []
    (task.paths.images("Tr") / "loop").symlink_to(task.paths.raw_splitted)
    assert [one.kind for one in check_task(task.paths, full=True)] == ["stray file"]


def test_control_characters_in_a_name(task):
    case = "case\x1b[31m"
    for file in [*task.files("case_b"), task.table("case_b")]:
        file.rename(file.with_name(file.name.replace("case_b", case)))
    (finding,) = [one for one in check_task(task.paths, full=True) if one.kind == "unsafe case name"]
    assert case in finding.file
    assert "case\\x1b[31m_0000.nii.gz: characters" in printable(str(finding.to_error()))
