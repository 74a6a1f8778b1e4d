"""Cases against the clinical table and the folds of the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.clinical import ClinicalTable, patient_of
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.dataset.task.splits import scan_splits


def table_faults(
    paths: TaskPaths, clinical: ClinicalTable, training: Mapping[str, Path], test: Mapping[str, Path]
) -> Iterator[Fault]:
    """Contradictions between cases and clinical table.

    Args:
        paths: the task.
        clinical: the good rows; empty without table.
        training: a file by id of every case of imagesTr, complete or not.
        test: the same of imagesTs.
    """
    for case_id in sorted(training.keys() & test.keys()):
        yield Fault(
            "case twice",
            f"case {case_id} is in training and test",
            file=test[case_id],
            found=f"also {training[case_id].parent.name}/{training[case_id].name}",
            remedy="Keep one of them",
        )
    yield from _patients(paths, clinical, set(training), set(test))
    if clinical:
        yield from _coverage(paths, clinical, training.keys() | test.keys())


def fold_faults(
    paths: TaskPaths,
    clinical: ClinicalTable,
    case_ids: set[str],
    classes: Mapping[str, Mapping[int, int] | None],
) -> Iterator[Fault]:
    """Faults of ``splits.json``, if there is one.

    Args:
        paths: the task.
        clinical: for the patients.
        case_ids: of imagesTr, complete or not.
        classes: class by instance id of each training case, None where its JSON is unreadable.
    """
    if not paths.splits.exists():
        return
    patients = {case_id: patient_of(case_id, clinical) for case_id in case_ids}
    folds, faults = scan_splits(paths.splits, case_ids=case_ids, patients=patients)
    yield from faults
    for number, fold in enumerate(folds):
        known = [classes.get(case_id) for case_id in fold.train if case_id in case_ids]
        if known and all(table is not None and len(table) == 0 for table in known):
            yield Fault(
                "fold without lesions",
                f"no training case of fold {number} has a lesion",
                file=paths.splits,
                expected="cases with lesions in every list train",
                remedy="Deal the cases anew, or remove the file to have folds drawn",
            )


def _patients(
    paths: TaskPaths, clinical: ClinicalTable, train_ids: set[str], test_ids: set[str]
) -> Iterator[Fault]:
    by_patient = {patient_of(case_id, clinical): case_id for case_id in sorted(train_ids)}
    for case_id in sorted(test_ids - train_ids):
        other = by_patient.get(patient_of(case_id, clinical))
        if other is not None:
            yield Fault(
                "patient in training and test",
                "cases of one patient are in training and test",
                file=paths.clinical,
                found=f"{other} in training, {case_id} in test",
                remedy="Test results will be too good; move the cases of a patient together",
            )


def _coverage(paths: TaskPaths, clinical: ClinicalTable, case_ids: set[str]) -> Iterator[Fault]:
    unknown, missing = sorted(set(clinical) - case_ids), sorted(case_ids - set(clinical))
    if unknown:
        yield Fault(
            "unknown case in table",
            "rows for cases that do not exist",
            file=paths.clinical,
            found=some(unknown),
            remedy="Correct case_id, or remove the rows",
        )
    if missing:
        yield Fault(
            "case missing in table",
            "cases without row",
            file=paths.clinical,
            found=some(missing),
            remedy="Add them: without a row a case counts as a patient of its own",
        )
    unnamed = sorted(
        case_id for case_id in case_ids & set(clinical) if clinical[case_id].get("patient_id") == ""
    )
    if unnamed:
        yield Fault(
            "missing patient_id",
            "rows without patient_id",
            file=paths.clinical,
            found=some(unnamed),
            remedy="Fill it in: such a case counts as a patient of its own and may leak across folds",
        )


def some(names: Sequence[str]) -> str:
    """The first five of many names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
