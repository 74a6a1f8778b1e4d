"""Names of cases and patients that tell nothing: ``case_0001``, ``P0001``; the key to them is kept elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.atomic import atomic_file, read_json
from nndet_psma.core.csv_table import table_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain
from nndet_psma.dataset.dicom.studies import DicomStudy
from nndet_psma.dataset.dicom.suv import SuvGiven

STATE_FILE = "dicom.json"
STATE_VERSION = 1


@dataclass(frozen=True)
class CaseState:
    """What a task remembers of a case.

    Attributes:
        study: one-way mark of the study.
        patient: pseudonym.
        content: mark of the files and choices that the case was made from.
        suv: what the user stated instead of the header of the PET; counts again in a later run.
        notes: what was read in a way that the user should know of.
    """

    study: str
    patient: str
    content: str
    suv: SuvGiven | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportState:
    """``dicom.json`` of a task: lets a second run keep the names it gave; holds no identifiers.

    Attributes:
        version: of the file.
        choices: mark of the modalities, structures and so on that all cases were made with.
        cases: by case id.
    """

    version: int
    choices: str
    cases: dict[str, CaseState]


def read_state(file: Path) -> ImportState:
    """The state of an earlier import; an empty one when there is none.

    Raises:
        UserError: the file is damaged or of another version.
    """
    if not file.is_file():
        return ImportState(STATE_VERSION, "", {})
    try:
        state = from_plain(ImportState, read_json(file))
    except SchemaError as error:
        raise UserError(
            "not readable", file=file, found=str(error), remedy="Delete the task and convert anew"
        ) from None
    if state.version != STATE_VERSION:
        raise UserError(
            "of another version",
            file=file,
            expected=str(STATE_VERSION),
            found=str(state.version),
            remedy="Delete the task and convert anew",
        )
    return state


def name_cases(
    studies: Sequence[DicomStudy], contents: Sequence[str], known: ImportState
) -> dict[str, tuple[DicomStudy, CaseState]]:
    """Give every study a case id; those of an earlier run keep theirs, new ones get the next numbers.

    Args:
        studies: in the order new ones are numbered.
        contents: marks of what each case is made from.
        known: the state of the task.
    """
    by_study = {state.study: (case_id, state.patient) for case_id, state in known.cases.items()}
    patients = {s.patient: by_study[s.digest][1] for s in studies if s.digest in by_study}
    next_case = _after(known.cases)
    next_patient = _after(state.patient for state in known.cases.values())
    named: dict[str, tuple[DicomStudy, CaseState]] = {}
    for study, content in zip(studies, contents, strict=True):
        if study.patient not in patients:
            patients[study.patient] = f"P{next_patient:04d}"
            next_patient += 1
        if study.digest in by_study:
            case_id = by_study[study.digest][0]
        else:
            case_id = f"case_{next_case:04d}"
            next_case += 1
        named[case_id] = (study, CaseState(study.digest, patients[study.patient], content))
    return dict(sorted(named.items()))


def write_mapping(file: Path, named: Mapping[str, tuple[DicomStudy, CaseState]], task: Path) -> None:
    """Write which patient and study a case is: a private table (CSV), readable by its owner only.

    Raises:
        UserError: it would lie inside the task, which is handed on.
    """
    check_mapping(file, task)
    columns = ["case_id", "patient", "PatientID", "StudyInstanceUID", "folder"]
    rows = (
        [case_id, state.patient, study.patient, study.study, study.place]
        for case_id, (study, state) in named.items()
    )
    with atomic_file(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(table_text(columns, rows), encoding="utf-8")


def check_mapping(file: Path, task: Path) -> None:
    """Refuse a place inside the task.

    Raises:
        UserError: ``file`` lies there.
    """
    if file.resolve().is_relative_to(task.resolve()):
        raise UserError(
            "the table of patients must not lie in the task, which is handed on",
            file=file,
            remedy="Give --mapping a place of its own",
        )


def merge_state(
    named: Mapping[str, tuple[DicomStudy, CaseState]], choices: str, known: ImportState, task: Path
) -> ImportState:
    """What was known before together with what is new.

    Raises:
        UserError: cases that are not converted now were made with other choices.
    """
    absent = sorted(set(known.cases) - set(named))
    if absent and known.choices != choices:
        raise UserError(
            "the task holds cases made with other choices",
            file=task,
            found=", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else ""),
            remedy="Name the folders of all cases, or choose another --task",
        )
    cases = {**known.cases, **{case_id: state for case_id, (_, state) in named.items()}}
    return ImportState(STATE_VERSION, choices, dict(sorted(cases.items())))


def _after(names: Iterable[str]) -> int:
    """The number after the highest at the end of a name."""
    numbers = [int(number[1]) for name in names if (number := re.search(r"(\d+)$", name))]
    return max(numbers, default=0) + 1
