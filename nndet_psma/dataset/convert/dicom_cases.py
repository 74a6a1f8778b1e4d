"""Which series and structures of a study make a case; what is wrong with one study does not stop the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.convert.patients import assign_patients
from nndet_psma.dataset.dicom.case import CaseSource
from nndet_psma.dataset.dicom.contours import ContourRules
from nndet_psma.dataset.dicom.headers import scan_all
from nndet_psma.dataset.dicom.structures import (
    Segment,
    Structure,
    check_one_set,
    choose_sets,
    find_rois,
)
from nndet_psma.dataset.dicom.studies import (
    IMAGE_ROLES,
    Choice,
    DicomStudy,
    choose_series,
    group_studies,
    taint,
)
from nndet_psma.dataset.dicom.suv import SuvGiven, check_given, waited_since
from nndet_psma.dataset.task.description import Role


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
        structure_set: which structure sets count, see :func:`~nndet_psma.dataset.dicom.structures.choose_sets`.
        rules: for contours that can be read in two ways.
        suv: what the user states instead of the header of the PET of one study.
        injected_at: time of its injection, ``HH:MM[:SS]``, or with the date of the file before it.
        patients: see :func:`~nndet_psma.dataset.convert.patients.assign_patients`.
    """

    folders: tuple[Path, ...]
    modalities: tuple[str, ...] | None = None
    lesion_rois: tuple[str, ...] = ()
    ctv_roi: str | None = None
    mask_rois: Mapping[str, str] = field(default_factory=dict)
    class_name: str = "lesion"
    allow_empty: bool = False
    choice: Choice = field(default_factory=Choice)
    structure_set: str | None = None
    rules: ContourRules = field(default_factory=ContourRules)
    suv: SuvGiven = field(default_factory=SuvGiven)
    injected_at: str | None = None
    patients: str | None = None

    @property
    def masks(self) -> dict[str, str]:
        """Patterns of all mask modalities by name, the search region last."""
        ctv = {} if self.ctv_roi is None else {Role.CTV.value: self.ctv_roi}
        return {**self.mask_rois, **ctv}

    @property
    def states_suv(self) -> bool:
        """Whether the user states something instead of the header of a PET."""
        return not self.suv.is_empty or self.injected_at is not None


@dataclass(frozen=True)
class ReadStudies:
    """Studies of the folders.

    Attributes:
        studies: without faults.
        failures: of the others, and of files that belong to none.
    """

    studies: tuple[DicomStudy, ...]
    failures: tuple[UserError, ...]


def check_source(source: DicomSource) -> None:
    """Refuse choices that make no sense whatever the files are.

    Raises:
        UserError: an unknown modality, a pattern that is no regular expression, or an implausible value.
    """
    known = [role.value for role in IMAGE_ROLES]
    names = source.choice.names or {}
    wrong = [name for name in (*(source.modalities or ()), *names) if name not in known]
    if wrong:
        raise UserError("unknown modality", expected=f"one of {', '.join(known)}", found=", ".join(wrong))
    for name, pattern in names.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"--series {name} is no regular expression",
                found=f"'{pattern}' ({error})",
                remedy="Escape brackets and the like, or name the series in full",
            ) from None
    check_given(source.suv)
    if source.suv.factor is not None and source.injected_at is not None:
        check_given(replace(source.suv, waited_s=0.0))


def read_studies(source: DicomSource) -> ReadStudies:
    """Studies of the folders with the patients that the user states.

    Raises:
        UserError: a folder is missing or holds no images, or patients cannot be told apart.
    """
    scan = scan_all(source.folders)
    if not scan.headers:
        return ReadStudies((), tuple(scan.damaged.values()))
    found = taint(group_studies(scan.headers, accept_derived=source.choice.accept_derived), scan.damaged)
    told = assign_patients(found, source.patients)
    return ReadStudies(
        studies=tuple(study for study in told if not study.faults),
        failures=(*(study.faults[0] for study in told if study.faults), *scan.damaged.values()),
    )


def gather_cases(
    studies: Sequence[DicomStudy], modalities: Sequence[str], source: DicomSource
) -> tuple[dict[str, CaseSource], list[UserError]]:
    """What each case is made from, by the digest of its study, and why others are left out."""
    cases: dict[str, CaseSource] = {}
    failures: list[UserError] = []
    for study in studies:
        try:
            cases[study.digest] = _case_source(study, modalities, source)
        except UserError as error:
            failures.append(error)
    return cases, failures


def with_suv(
    cases: Mapping[str, CaseSource], source: DicomSource, before: Mapping[str, SuvGiven]
) -> dict[str, CaseSource]:
    """Cases with what the user states, now or before, instead of the header of their PET.

    Args:
        cases: by the digest of the study.
        source: holds what is stated now.
        before: what was stated in earlier runs, by the digest of the study.

    Raises:
        UserError: something is stated, but not for one study with a PET alone; or the time is implausible.
    """
    held = [digest for digest, case in cases.items() if Role.PET.value in case.images]
    stated = dict(before)
    if source.states_suv:
        if len(held) != 1:
            raise UserError(
                "--suv-factor, --dose, --weight and --injected-at belong to one study",
                file=source.folders[0],
                expected="one study with a PET",
                found=str(len(held)),
                remedy="Name the folder of this study alone; a later run with all folders remembers what was stated",
            )
        stated[held[0]] = _settled(cases[held[0]], source)
    return {digest: replace(case, suv=stated.get(digest, case.suv)) for digest, case in cases.items()}


def content_of(case: CaseSource, choices: str) -> str:
    """Mark of everything a case is made from."""
    images = {
        name: [sorted((header.instance, header.position or ()) for header in series.headers), series.b_value]
        for name, series in case.images.items()
    }
    structures = {
        name: [_content_of_structure(roi) for roi in rois]
        for name, rois in {**case.masks, "": case.lesions or ()}.items()
    }
    return hash_json([choices, images, structures, to_plain(case.rules), to_plain(case.suv)])


def _content_of_structure(roi: Structure) -> list[object]:
    if isinstance(roi, Segment):
        return [roi.name, roi.number, hash_files([roi.file])]
    return [roi.name, *([points.ravel().tolist() for points in some] for some in (roi.contours, roi.xor))]


def _settled(case: CaseSource, source: DicomSource) -> SuvGiven:
    """What is stated now, with the time of injection as seconds before the scan: no date goes into a task."""
    if source.injected_at is None:
        return source.suv
    files = [header.file for header in case.images[Role.PET.value].slices]
    return replace(source.suv, waited_s=waited_since(files, source.injected_at))


def _case_source(study: DicomStudy, modalities: Sequence[str], source: DicomSource) -> CaseSource:
    """The series and structures of one case.

    Raises:
        UserError: one is missing or ambiguous.
    """
    sets = choose_sets(study.structures, source.structure_set)
    rois = [roi for structures in sets for roi in structures.rois]
    lesions = _filled(find_rois(rois, source.lesion_rois))
    masks = {name: _filled(find_rois(rois, [pattern])) for name, pattern in source.masks.items()}
    _check_structures(study, rois, lesions, masks, source)
    check_one_set(chain(lesions, *masks.values()), sets)
    drawn_on = frozenset(uid for roi in chain(lesions, *masks.values()) for uid in roi.series)
    return CaseSource(
        images={name: choose_series(study, name, source.choice, drawn_on) for name in modalities},
        masks={name: tuple(found) for name, found in masks.items()},
        lesions=tuple(lesions) if source.lesion_rois else None,
        series=study.series,
        rules=source.rules,
    )


def _filled(rois: Sequence[Structure]) -> list[Structure]:
    """Planning systems keep empty structures of a template."""
    return [roi for roi in rois if not roi.is_empty]


def _check_structures(
    study: DicomStudy,
    rois: Sequence[Structure],
    lesions: Sequence[Structure],
    masks: Mapping[str, Sequence[Structure]],
    source: DicomSource,
) -> None:
    missing = [name for name, found in masks.items() if not found]
    if source.lesion_rois and not lesions and not source.allow_empty:
        missing.append("lesion")
    if missing:
        names = ", ".join(f"'{roi.name}'{' (empty)' if roi.is_empty else ''}" for roi in rois)
        remedy = "Correct the pattern"
        raise UserError(
            f"no structure for {', '.join(missing)}",
            file=study.place,
            found=names or "no structure set",
            remedy=remedy + ("; --allow-empty, if it has no lesion" if "lesion" in missing else ""),
        )
