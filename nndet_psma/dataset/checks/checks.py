"""Check a raw task and report everything that is wrong with it, not only the first thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.case import CaseReport, check_case
from nndet_psma.dataset.checks.data_set import duplicate_faults, lesion_count_faults, spread_faults
from nndet_psma.dataset.checks.names import name_faults
from nndet_psma.dataset.checks.surviving_workers import map_surviving
from nndet_psma.dataset.checks.tables import fold_faults, table_faults
from nndet_psma.dataset.faults.findings import CheckReport, Finding
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.cases import RawCase, scan_task, visible_files
from nndet_psma.dataset.task.clinical import ClinicalTable, scan_clinical
from nndet_psma.dataset.task.description import DatasetDescription, scan_description
from nndet_psma.dataset.task.paths import TaskPaths


@dataclass(frozen=True)
class _Split:
    """Complete cases, and a file by id of every case whose name was seen."""

    cases: list[RawCase]
    named: dict[str, Path]


def check_task(paths: TaskPaths, *, full: bool, num_processes: int = 1) -> list[Finding]:
    """Every problem of a raw task, errors before warnings, else in the order of the files.

    Args:
        paths: the task.
        full: read all voxels (NaN, units, masks against JSON and CTV, duplicates) instead of names, headers and
            JSON only.
        num_processes: cases are checked in parallel.
    """
    return check_report(paths, full=full, num_processes=num_processes).findings


def check_report(paths: TaskPaths, *, full: bool, num_processes: int = 1) -> CheckReport:
    """The findings of :func:`check_task` with the size of what was looked at."""
    description, faults = scan_description(paths.root)
    findings = [Finding.of(fault) for fault in faults]
    if description is None:
        return CheckReport(paths.name, full, findings=_sorted(findings))
    training_files = any(_holds_files(folder) for folder in (paths.images("Tr"), paths.labels("Tr")))
    only_predicted = not training_files and _holds_files(paths.images("Ts"))
    training = _Split([], {}) if only_predicted else _scan(paths, description, "Tr", findings)
    test = _scan_test(paths, description, findings)
    cases = [*training.cases, *test.cases]
    clinical, faults = scan_clinical(paths)
    findings += [Finding.of(fault) for fault in faults]
    check = partial(check_case, description=description, full=full)
    reports = map_surviving(check, cases, num_processes, _died)
    findings += [finding for report in reports for finding in report.findings]
    findings += _together(paths, description, clinical, (training, test), reports)
    trained = reports[: len(training.cases)]
    counts = {report.case_id: len(report.classes) for report in trained if report.classes is not None}
    return CheckReport(
        paths.name,
        full,
        training_cases=len(training.cases),
        test_cases=len(test.cases),
        lesions=sum(counts.values()),
        cases_without_lesions=sorted(case_id for case_id, count in counts.items() if count == 0),
        findings=_sorted(findings),
    )


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


def _together(
    paths: TaskPaths,
    description: DatasetDescription,
    clinical: ClinicalTable,
    splits: tuple[_Split, _Split],
    reports: Sequence[CaseReport],
) -> list[Finding]:
    """What only shows when cases, clinical table and folds are seen together."""
    training, test = splits
    cases, trained = [*training.cases, *test.cases], reports[: len(training.cases)]
    classes = {report.case_id: report.classes for report in trained}
    faults = [
        *name_faults(cases),
        *table_faults(paths, clinical, training.named, test.named),
        *fold_faults(paths, clinical, set(training.named), classes),
        *duplicate_faults(cases, reports),
        *spread_faults(description, cases, reports),
        *lesion_count_faults(paths, description, trained),
    ]
    return [Finding.of(fault) for fault in faults]


def _scan(paths: TaskPaths, description: DatasetDescription, split: str, findings: list[Finding]) -> _Split:
    cases, problems = scan_task(paths, description, split)
    findings += [Finding.of(problem.error, problem.kind) for problem in problems]
    named = {case.case_id: case.images[0] for case in cases}
    for problem in problems:
        if problem.case_id is not None and problem.error.file is not None:
            named.setdefault(problem.case_id, Path(problem.error.file))
    return _Split(cases, named)


def _scan_test(paths: TaskPaths, description: DatasetDescription, findings: list[Finding]) -> _Split:
    folder = paths.images("Ts")
    if _holds_files(folder):
        return _scan(paths, description, "Ts", findings)
    if description.test_labels:
        remedy = "Add test images, or set test_labels to false"
        what = "test_labels is set, but there are no test images"
        findings.append(Finding.of(Fault("no test images", what, file=folder, remedy=remedy)))
    return _Split([], {})


def _holds_files(folder: Path) -> bool:
    try:
        return folder.is_dir() and bool(visible_files(folder))
    except OSError:
        return True  # the scan says why it cannot be listed


def _died(case: RawCase) -> CaseReport:
    fault = Fault(
        "worker died",
        f"the process that checked case {case.case_id} was killed",
        file=case.images[0],
        remedy="Most likely memory ran out: check with fewer processes (--num_processes 1)",
    )
    return CaseReport(case.case_id, [Finding.of(fault)])


def _sorted(findings: list[Finding]) -> list[Finding]:
    with_remedy = [replace(finding, remedy=finding.remedy or "Correct it") for finding in findings]
    return sorted(with_remedy, key=lambda finding: finding.severity != "error")
