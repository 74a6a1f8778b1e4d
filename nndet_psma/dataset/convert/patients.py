"""Which studies are of one patient, where the files do not tell: the user does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nndet_psma.core.csv_table import CsvTable, read_table
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.studies import DicomStudy, check_patients

PER_STUDY = "per-study"
AS_NAMED = "as-named"

_UID, _FOLDER, _PATIENT = "StudyInstanceUID", "folder", "patient"


def assign_patients(studies: Sequence[DicomStudy], told: str | None) -> list[DicomStudy]:
    """Studies with the patient that the user states, if any.

    Args:
        studies: of an import.
        told: :data:`PER_STUDY`, every study is another patient; :data:`AS_NAMED`, the files are right; the path of a
            table with the columns ``patient`` and ``StudyInstanceUID`` or ``folder``; None where the files must tell.

    Raises:
        UserError: the files do not tell patients apart and nothing is stated, or the table does not name every study.
    """
    if told is None:
        check_patients([study for study in studies if not study.faults])
    if told is None or told == AS_NAMED:
        return list(studies)
    if told == PER_STUDY:
        return [replace(study, patient=study.digest) for study in studies]
    table = read_table(Path(told))
    if not (table.has(_PATIENT) and (table.has(_UID) or table.has(_FOLDER))):
        raise UserError(
            "the table does not name patients",
            file=table.file,
            expected=f"the columns {_PATIENT}, and {_UID} or {_FOLDER}",
            found=", ".join(table.header),
            remedy="Name the columns in the first line",
        )
    named = _by_uid(table) if table.has(_UID) else {}
    folders = _by_folder(table) if table.has(_FOLDER) else {}
    return [replace(study, patient=_patient_of(study, named, folders, table.file)) for study in studies]


def _by_uid(table: CsvTable) -> dict[str, str]:
    return dict(zip(table.texts(_UID), table.texts(_PATIENT), strict=True))


def _by_folder(table: CsvTable) -> dict[Path, str]:
    folders = (Path(text).expanduser().resolve() for text in table.texts(_FOLDER))
    return dict(zip(folders, table.texts(_PATIENT), strict=True))


def _patient_of(study: DicomStudy, named: dict[str, str], folders: dict[Path, str], file: Path) -> str:
    if study.study in named:
        return named[study.study]
    own = [folder.resolve() for folder in study.folders]
    holding = [folder for folder in folders if all(one.is_relative_to(folder) for one in own)]
    if holding:
        return folders[max(holding, key=lambda folder: len(folder.parts))]
    raise UserError(
        "the table does not name the patient of a study",
        file=file,
        found=study.place,
        remedy="Add a row for it",
    )
