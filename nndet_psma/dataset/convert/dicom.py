"""Bring DICOM studies into the raw format of a task: CT, PET as SUV, DWI, ADC, T2, and structures as masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from nndet_psma.core.atomic import write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.convert.dicom_cases import (
    DicomSource,
    check_source,
    content_of,
    gather_cases,
    read_studies,
    with_suv,
)
from nndet_psma.dataset.convert.nifti import draw_test_cases
from nndet_psma.dataset.convert.pseudonyms import (
    STATE_FILE,
    CaseState,
    ImportState,
    check_mapping,
    merge_state,
    name_cases,
    read_state,
    write_mapping,
)
from nndet_psma.dataset.convert.study_files import StudyFiles
from nndet_psma.dataset.dicom.case import CaseResult, CaseSource, try_case
from nndet_psma.dataset.dicom.studies import DicomStudy, common_modalities
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths

__all__ = ["CONVERSION_VERSION", "DicomConversion", "DicomSource", "convert_dicom"]

CONVERSION_VERSION = 2
"""Raised when the same files give other voxels, so that finished cases are converted anew."""

_Named = dict[str, tuple[DicomStudy, CaseState]]


@dataclass(frozen=True)
class DicomConversion:
    """What a conversion did.

    Attributes:
        training: case ids, sorted.
        test: case ids, sorted.
        skipped: of them, those that were finished before.
        num_lesions: in all of them.
        failures: why studies or files were left out.
        notes: by case id, what was read in a way that the user should know of.
    """

    training: tuple[str, ...]
    test: tuple[str, ...]
    skipped: tuple[str, ...]
    num_lesions: int
    failures: tuple[UserError, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def convert_dicom(
    source: DicomSource,
    paths: TaskPaths,
    *,
    mapping: Path | None = None,
    test_share: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    num_processes: int = 1,
) -> DicomConversion:
    """Write images, labels and at last ``dataset.json`` of a task; nothing in it identifies a patient.

    One case per study, named ``case_0001`` and so on; a second run keeps the names, converts what is new or was made
    from other files, and leaves the rest alone. Without lesion structures all cases are test cases without labels. A
    study that is refused does not keep the others from being converted.

    Args:
        source: the studies.
        paths: the task to write.
        mapping: file for the private table of case, patient and study; None writes none.
        test_share: share of the patients, drawn at random, that become test cases.
        seed: of that draw.
        overwrite: convert finished cases again, and forget what was stated about their SUV.
        num_processes: cases are converted in parallel.

    Raises:
        UserError: no study can be converted: series are missing, ambiguous, incomplete or cannot be read; structures
            are missing or lie off the images; a PET cannot be turned into SUV.
    """
    if mapping is not None:
        check_mapping(mapping, paths.root)
    check_source(source)
    known = read_state(paths.root / STATE_FILE)
    plan = _plan(source, known, overwrite=overwrite)
    state = merge_state(plan.named, plan.choices, known, paths.root)
    test_ids = _test_cases(source, plan.named, test_share, seed)
    _clear_stale(paths, plan.named, _stale(plan.named, known, overwrite=overwrite), test_ids)
    write_json(paths.root / STATE_FILE, to_plain(state))
    jobs = [(case_id, plan.cases[study.digest]) for case_id, (study, _) in plan.named.items()]
    results = map_cases(
        partial(try_case, paths=paths, test_ids=frozenset(test_ids)), jobs, num_processes, title="convert"
    )
    done = {c: one for c, one in zip(plan.named, results, strict=True) if isinstance(one, CaseResult)}
    failures = [*plan.failures, *(one for one in results if isinstance(one, UserError))]
    notes = {c: one.notes if one.done else known.cases[c].notes for c, one in done.items()}
    _finish(source, paths, plan, _with_results(state, plan.named, notes), test_ids & set(done))
    if mapping is not None:
        write_mapping(mapping, {c: plan.named[c] for c in done}, paths.root)
    _check_any(done, failures)
    return DicomConversion(
        training=tuple(c for c in done if c not in test_ids),
        test=tuple(sorted(test_ids & set(done))),
        skipped=tuple(c for c, one in done.items() if not one.done),
        num_lesions=sum(one.lesions for one in done.values()),
        failures=_distinct(failures),
        notes={c: told for c, told in notes.items() if told},
    )


@dataclass(frozen=True)
class _Plan:
    """What will be converted: cases by the digest of their study and by name, and the mark of common choices."""

    modalities: tuple[str, ...]
    cases: dict[str, CaseSource]
    named: _Named
    choices: str
    failures: tuple[UserError, ...]


def _plan(source: DicomSource, known: ImportState, *, overwrite: bool) -> _Plan:
    read = read_studies(source)
    _check_any(read.studies, read.failures)
    modalities = source.modalities or common_modalities(read.studies)
    gathered, refused = gather_cases(read.studies, modalities, source)
    failures = (*read.failures, *refused)
    _check_any(gathered, failures)
    _check_lesions(list(gathered.values()), source)
    before = {} if overwrite else {one.study: one.suv for one in known.cases.values() if one.suv is not None}
    cases = with_suv(gathered, source, before)
    choices = hash_json(
        [CONVERSION_VERSION, *modalities, *source.masks, source.class_name, not source.lesion_rois]
    )
    studies = [study for study in read.studies if study.digest in cases]
    named = name_cases(studies, [content_of(cases[study.digest], choices) for study in studies], known)
    named = {c: (study, _with_suv(state, cases[study.digest])) for c, (study, state) in named.items()}
    return _Plan(modalities, cases, named, choices, failures)


def _with_suv(state: CaseState, case: CaseSource) -> CaseState:
    return state if case.suv.is_empty else replace(state, suv=case.suv)


def _check_any(found: Collection[object], failures: Sequence[UserError]) -> None:
    """Refuse an import of which nothing is left, with all reasons.

    Raises:
        UserError: nothing is found.
    """
    if found or not failures:
        return
    distinct = _distinct(failures)
    if len(distinct) == 1:
        raise distinct[0]
    raise UserError(
        f"none of the studies can be converted, for {len(distinct)} reasons",
        found="; ".join(map(str, distinct)),
        remedy="Correct the studies, or choose with --patients and --series",
    )


def _distinct(failures: Iterable[UserError]) -> tuple[UserError, ...]:
    """One file can be the fault of several studies."""
    by_text = {str(error): error for error in failures}
    return tuple(by_text[text] for text in sorted(by_text))


def _stale(named: _Named, known: ImportState, *, overwrite: bool) -> set[str]:
    """Cases that are made anew."""
    before = {case_id: state.content for case_id, state in known.cases.items()}
    return {case_id for case_id, (_, new) in named.items() if overwrite or before.get(case_id) != new.content}


def _with_results(state: ImportState, named: _Named, notes: Mapping[str, tuple[str, ...]]) -> ImportState:
    """The state without the cases that failed, and with what is to be noted about the others."""
    kept = {c: one for c, one in state.cases.items() if c in notes or c not in named}
    return replace(state, cases={c: replace(one, notes=notes.get(c, one.notes)) for c, one in kept.items()})


def _finish(
    source: DicomSource, paths: TaskPaths, plan: _Plan, state: ImportState, test_ids: Collection[str]
) -> None:
    """Remove what failed cases left, and write the tables and descriptions of the others."""
    _remove(paths, set(plan.named) - set(state.cases), ("Tr", "Ts"))
    write_json(paths.root / STATE_FILE, to_plain(state))
    if not state.cases:
        return
    _write_clinical(state.cases, paths)
    description = _description(
        source, paths.name, plan.modalities, has_test=bool(test_ids) and bool(source.lesion_rois)
    )
    write_json(paths.root / "dataset.json", description.to_json())


def _check_lesions(sources: Sequence[CaseSource], source: DicomSource) -> None:
    if source.lesion_rois and not any(case.lesions for case in sources):
        raise UserError(
            "no study has a lesion structure",
            file=source.folders[0],
            expected=f"a name like {', '.join(source.lesion_rois)}",
            remedy="Correct --lesion-roi, or leave it out to convert images for prediction",
        )


def _test_cases(
    source: DicomSource, named: Mapping[str, tuple[DicomStudy, CaseState]], share: float, seed: int
) -> set[str]:
    if not source.lesion_rois:
        return set(named)
    patients = [StudyFiles(case_id, state.patient, {}) for case_id, (_, state) in named.items()]
    return draw_test_cases(patients, share, seed)


def _clear_stale(paths: TaskPaths, named: Iterable[str], stale: set[str], test_ids: set[str]) -> None:
    """Remove what is made anew, and what an earlier run put on the other side."""
    (paths.root / "dataset.json").unlink(missing_ok=True)
    for case_id in named:
        other = "Tr" if case_id in test_ids else "Ts"
        _remove(paths, [case_id], ("Tr", "Ts") if case_id in stale else (other,))


def _remove(paths: TaskPaths, case_ids: Iterable[str], splits: Sequence[str]) -> None:
    """Delete the files of cases."""
    for case_id in case_ids:
        for split in splits:
            for folder in (paths.images(split), paths.labels(split)):
                for file in [*folder.glob(f"{case_id}_*.nii.gz"), *folder.glob(f"{case_id}.*")]:
                    file.unlink()


def _description(
    source: DicomSource, task: str, modalities: Sequence[str], *, has_test: bool
) -> DatasetDescription:
    return DatasetDescription(
        task=task,
        name=task.partition("_")[2] or task,
        dim=3,
        labels={0: source.class_name},
        modalities=dict(enumerate([*modalities, *source.masks])),
        test_labels=has_test,
    )


def _write_clinical(cases: Mapping[str, CaseState], paths: TaskPaths) -> None:
    """A table of patients, where one has several cases and the user has no table."""
    patients = [state.patient for state in cases.values()]
    if paths.clinical.exists() or len(set(patients)) == len(patients):
        return
    rows = ([case_id, state.patient] for case_id, state in cases.items())
    write_table(paths.clinical, ["case_id", "patient_id"], rows)
