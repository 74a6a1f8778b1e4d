"""Check a raw task and report everything that is wrong with it, not only the first thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.case_checks import CaseReport, check_case
from nndet_psma.dataset.cases import RawCase, scan_task
from nndet_psma.dataset.clinical import ClinicalTable, patient_of, read_clinical
from nndet_psma.dataset.description import DatasetDescription, read_description
from nndet_psma.dataset.findings import Finding
from nndet_psma.dataset.paths import TaskPaths
from nndet_psma.dataset.splits import read_splits
from nndet_psma.dataset.workers import map_cases


def check_task(paths: TaskPaths, *, full: bool, num_processes: int = 1) -> list[Finding]:
    """Every problem of a raw task, errors before warnings, else in the order of the files.

    Args:
        paths: the task.
        full: read all voxels (NaN, units, masks against JSON and CTV, duplicates) instead of names, headers and
            JSON only.
        num_processes: cases are checked in parallel.
    """
    try:
        description = read_description(paths.root)
    except UserError as error:
        return [Finding.of(error, "description")]
    findings: list[Finding] = []
    training = _scan(paths, description, "Tr", findings)
    test = _scan_test(paths, description, findings)
    clinical = _clinical(paths, findings)
    findings += _table_findings(paths, clinical, training, test)
    reports = map_cases(
        partial(check_case, description=description, full=full), [*training, *test], num_processes
    )
    for report in reports:
        findings += report.findings
    findings += _duplicates([*training, *test], reports)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def raise_if_errors(findings: Iterable[Finding]) -> None:
    """Stop at findings that are errors.

    Raises:
        UserError: says the first, and how many there are.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    first = errors[0].to_error()
    if len(errors) > 1:
        more = f"{len(errors) - 1} more errors: nndet_psma check lists them all"
        first.remedy = f"{first.remedy.rstrip('.')}. {more}" if first.remedy else more
    raise UserError(
        first.what, file=first.file, expected=first.expected, found=first.found, remedy=first.remedy
    )


def _scan(
    paths: TaskPaths, description: DatasetDescription, split: str, findings: list[Finding]
) -> list[RawCase]:
    cases, problems = scan_task(paths, description, split)
    findings += [Finding.of(problem.error, problem.kind) for problem in problems]
    return cases


def _scan_test(paths: TaskPaths, description: DatasetDescription, findings: list[Finding]) -> list[RawCase]:
    folder = paths.images("Ts")
    if folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        return _scan(paths, description, "Ts", findings)
    if description.test_labels:
        error = UserError("test_labels is set, but there are no test images", file=folder)
        findings.append(Finding.of(error, "no test images", "warning"))
    return []


def _clinical(paths: TaskPaths, findings: list[Finding]) -> ClinicalTable:
    try:
        return read_clinical(paths)
    except UserError as error:
        findings.append(Finding.of(error, "clinical table"))
        return {}


def _table_findings(
    paths: TaskPaths, clinical: ClinicalTable, training: Sequence[RawCase], test: Sequence[RawCase]
) -> Iterator[Finding]:
    """Problems between cases, clinical table and folds."""
    train_ids, test_ids = {case.case_id for case in training}, {case.case_id for case in test}
    for case_id in sorted(train_ids & test_ids):
        error = UserError(
            f"case {case_id} is in training and test", file=paths.raw_splitted, remedy="Keep one of them"
        )
        yield Finding.of(error, "case twice")
    by_patient = {patient_of(case_id, clinical): case_id for case_id in sorted(train_ids)}
    for case_id in sorted(test_ids - train_ids):
        patient = patient_of(case_id, clinical)
        if patient in by_patient:
            error = UserError(
                f"patient {patient} is in training and test",
                file=paths.clinical,
                found=f"{by_patient[patient]} in training, {case_id} in test",
                remedy="Test results will be too good; move the cases of a patient together",
            )
            yield Finding.of(error, "patient in training and test", "warning")
    unknown = sorted(set(clinical) - train_ids - test_ids)
    if unknown:
        error = UserError("rows for cases that do not exist", file=paths.clinical, found=_some(unknown))
        yield Finding.of(error, "unknown case in table", "warning")
    if paths.splits.is_file():
        patients = {case_id: patient_of(case_id, clinical) for case_id in train_ids}
        try:
            read_splits(paths.splits, case_ids=train_ids, patients=patients)
        except UserError as error:
            yield Finding.of(error, "folds")


def _duplicates(cases: Sequence[RawCase], reports: Sequence[CaseReport]) -> Iterator[Finding]:
    first_with: dict[str, Path] = {}
    for case, report in zip(cases, reports, strict=True):
        if report.digest is None:
            continue
        other = first_with.setdefault(report.digest, case.images[0])
        if other != case.images[0]:
            error = UserError(
                "the same voxels as another case",
                file=case.images[0],
                found=other.name,
                remedy="Remove one, or the same image may be trained and tested on",
            )
            yield Finding.of(error, "duplicate images")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
