"""Bring DICOM studies into the raw format of a task: CT, PET as SUV, DWI, ADC, T2, and structures as masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from nndet_psma.core.atomic import write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.convert.nifti import Conversion, draw_test_cases
from nndet_psma.dataset.convert.pseudonyms import (
    STATE_FILE,
    CaseState,
    check_mapping,
    merge_state,
    name_cases,
    read_state,
    write_mapping,
)
from nndet_psma.dataset.convert.study_files import StudyFiles
from nndet_psma.dataset.dicom.case import CaseSource, convert_case
from nndet_psma.dataset.dicom.headers import scan_folders
from nndet_psma.dataset.dicom.rtstruct import Roi, find_rois
from nndet_psma.dataset.dicom.studies import (
    IMAGE_ROLES,
    Choice,
    DicomStudy,
    choose_series,
    common_modalities,
    group_studies,
)
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.paths import TaskPaths

CONVERSION_VERSION = 1
"""Raised when the same files give other voxels, so that finished cases are converted anew."""


@dataclass(frozen=True)
class DicomSource:
    """Which files make a task, and how.

    Attributes:
        folders: hold the files of all studies, in any arrangement.
        modalities: of the task, the first gives the grid; None takes what all studies have.
        lesion_rois: patterns of the names of lesion structures; none: cases without labels, for prediction.
        ctv_roi: pattern of the search region, or None.
        mask_rois: further mask modalities (BLADDER, PROSTATE) with the patterns of their structures.
        class_name: of the lesions.
        allow_empty: a study without lesion structure has no lesion; otherwise it is an error.
        choice: which series is taken where there are several.
    """

    folders: tuple[Path, ...]
    modalities: tuple[str, ...] | None = None
    lesion_rois: tuple[str, ...] = ()
    ctv_roi: str | None = None
    mask_rois: Mapping[str, str] = field(default_factory=dict)
    class_name: str = "lesion"
    allow_empty: bool = False
    choice: Choice = field(default_factory=Choice)

    @property
    def masks(self) -> dict[str, str]:
        """Patterns of all mask modalities by name, the search region last."""
        ctv = {} if self.ctv_roi is None else {Role.CTV.value: self.ctv_roi}
        return {**self.mask_rois, **ctv}


def convert_dicom(
    source: DicomSource,
    paths: TaskPaths,
    *,
    mapping: Path | None = None,
    test_share: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    num_processes: int = 1,
) -> Conversion:
    """Write images, labels and at last ``dataset.json`` of a task; nothing in it identifies a patient.

    One case per study, named ``case_0001`` and so on; a second run keeps the names, converts what is new or was made
    from other files, and leaves the rest alone. Without lesion structures all cases are test cases without labels.

    Args:
        source: the studies.
        paths: the task to write.
        mapping: file for the private table of case, patient and study; None writes none.
        test_share: share of the patients, drawn at random, that become test cases.
        seed: of that draw.
        overwrite: convert finished cases again.
        num_processes: cases are converted in parallel.

    Raises:
        UserError: series are missing, ambiguous, incomplete or cannot be read; structures are missing or lie off the
            images; a PET cannot be turned into SUV.
    """
    if mapping is not None:
        check_mapping(mapping, paths.root)
    studies = group_studies(scan_folders(source.folders))
    modalities = _modalities(source, studies)
    known = read_state(paths.root / STATE_FILE)
    choices = hash_json(
        [CONVERSION_VERSION, *modalities, *source.masks, source.class_name, not source.lesion_rois]
    )
    sources = [_case_source(study, modalities, source) for study in studies]
    _check_lesions(sources, source)
    named = name_cases(studies, [_content(case, choices) for case in sources], known)
    state = merge_state(named, choices, known, paths.root)
    by_study = {study.digest: case for study, case in zip(studies, sources, strict=True)}
    test_ids = _test_cases(source, named, test_share, seed)
    jobs = [(case_id, by_study[study.digest]) for case_id, (study, _) in named.items()]
    stale = {c for c, (_, new) in named.items() if overwrite or known.cases.get(c) != new}
    description = _description(
        source, paths.name, modalities, has_test=bool(test_ids) and bool(source.lesion_rois)
    )
    _clear_stale(paths, named, stale, test_ids)
    write_json(paths.root / STATE_FILE, to_plain(state))
    results = map_cases(partial(convert_case, paths=paths, test_ids=frozenset(test_ids)), jobs, num_processes)
    _write_clinical(state.cases, paths)
    if mapping is not None:
        write_mapping(mapping, named, paths.root)
    write_json(paths.root / "dataset.json", description.to_json())
    return Conversion(
        training=tuple(c for c in named if c not in test_ids),
        test=tuple(sorted(test_ids)),
        skipped=tuple(c for c, (done, _) in zip(named, results, strict=True) if not done),
        num_lesions=sum(count for _, count in results),
    )


def _modalities(source: DicomSource, studies: Sequence[DicomStudy]) -> tuple[str, ...]:
    chosen = source.modalities or common_modalities(studies)
    known = [role.value for role in IMAGE_ROLES]
    wrong = [name for name in (*chosen, *(source.choice.names or {})) if name not in known]
    if wrong:
        raise UserError("unknown modality", expected=f"one of {', '.join(known)}", found=", ".join(wrong))
    return chosen


def _case_source(study: DicomStudy, modalities: Sequence[str], source: DicomSource) -> CaseSource:
    """The series and structures of one case.

    Raises:
        UserError: one is missing or ambiguous.
    """
    rois = [roi for structures in study.structures for roi in structures.rois]
    lesions = _with_contours(find_rois(rois, source.lesion_rois))
    masks = {name: _with_contours(find_rois(rois, [pattern])) for name, pattern in source.masks.items()}
    missing = [name for name, found in masks.items() if not found]
    if source.lesion_rois and not lesions and not source.allow_empty:
        missing.append("lesion")
    if missing:
        raise _no_structure(study, rois, missing)
    drawn_on = frozenset(uid for roi in chain(lesions, *masks.values()) for uid in roi.series)
    return CaseSource(
        images={name: choose_series(study, name, source.choice, drawn_on) for name in modalities},
        masks={name: tuple(found) for name, found in masks.items()},
        lesions=tuple(lesions) if source.lesion_rois else None,
        series=study.series,
    )


def _with_contours(rois: Sequence[Roi]) -> list[Roi]:
    """Planning systems keep empty structures of a template."""
    return [roi for roi in rois if roi.contours]


def _no_structure(study: DicomStudy, rois: Sequence[Roi], missing: Sequence[str]) -> UserError:
    names = ", ".join(f"'{roi.name}'{'' if roi.contours else ' (empty)'}" for roi in rois)
    remedy = "Correct the pattern"
    return UserError(
        f"no structure for {', '.join(missing)}",
        file=study.place,
        found=names or "no structure set",
        remedy=remedy + ("; --allow-empty, if it has no lesion" if "lesion" in missing else ""),
    )


def _check_lesions(sources: Sequence[CaseSource], source: DicomSource) -> None:
    if source.lesion_rois and not any(case.lesions for case in sources):
        raise UserError(
            "no study has a lesion structure",
            file=source.folders[0],
            expected=f"a name like {', '.join(source.lesion_rois)}",
            remedy="Correct --lesion-roi, or leave it out to convert images for prediction",
        )


def _content(case: CaseSource, choices: str) -> str:
    """Mark of everything a case is made from."""
    images = {
        name: [sorted(header.instance for header in series.headers), series.b_value]
        for name, series in case.images.items()
    }
    structures = {
        name: [[roi.name, [points.ravel().tolist() for points in roi.contours]] for roi in rois]
        for name, rois in {**case.masks, "": case.lesions or ()}.items()
    }
    return hash_json([choices, images, structures])


def _test_cases(
    source: DicomSource, named: Mapping[str, tuple[DicomStudy, CaseState]], share: float, seed: int
) -> set[str]:
    if not source.lesion_rois:
        return set(named)
    patients = [StudyFiles(case_id, state.patient, {}) for case_id, (_, state) in named.items()]
    return draw_test_cases(patients, share, seed)


def _clear_stale(paths: TaskPaths, named: Mapping[str, object], stale: set[str], test_ids: set[str]) -> None:
    """Remove what is made anew, and what an earlier run put on the other side."""
    (paths.root / "dataset.json").unlink(missing_ok=True)
    for case_id in named:
        for split in ("Tr", "Ts"):
            if case_id in stale or split != ("Ts" if case_id in test_ids else "Tr"):
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
