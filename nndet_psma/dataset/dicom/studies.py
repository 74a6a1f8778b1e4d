"""Studies of patients: which series and structure sets belong together, and which series a task takes of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.dataset.dicom.headers import DicomHeader
from nndet_psma.dataset.dicom.rtstruct import read_rtstruct
from nndet_psma.dataset.dicom.segmentation import read_segmentation
from nndet_psma.dataset.dicom.series import Series, group_series, role_of
from nndet_psma.dataset.dicom.structures import StructureSet
from nndet_psma.dataset.task.description import Role

IMAGE_ROLES = (Role.CT, Role.PET, Role.DWI, Role.ADC, Role.T2)
"""What can be imported, in the order in which the first is the grid of the others."""

_SCOUT_SLICES = 2
_READERS = {"RTSTRUCT": read_rtstruct, "SEG": read_segmentation}
_IMAGES = ("CT", "PT", "MR")

_BACKSLASH = "\\"
_LISTED = 3

_NO_NAME = re.compile(
    r"0*|x+|anon\w*|\W+|(?:de-?)?identified|unknown|none|null|n/?a|removed|deleted|patient|subject|test"
    r"|no[ _-]?(?:id|name)",
    re.IGNORECASE,
)
"""Identifiers that de-identification tools give to everybody."""


@dataclass(frozen=True)
class DicomStudy:
    """Images and structures of one examination.

    Attributes:
        patient: key of the patient; identifies, stays in memory.
        study: UID, identifies, stays in memory; "" where the files have none.
        series: all volumes; none only where there is a fault.
        structures: all structure sets.
        folders: that its files lie in, below those that the user named.
        sources: of these, the folders that the user named.
        persons: sexes and dates of birth that its files state, to tell people with one identifier apart.
        faults: why it cannot be converted.
    """

    patient: str
    study: str
    series: tuple[Series, ...]
    structures: tuple[StructureSet, ...]
    folders: frozenset[Path] = frozenset()
    sources: frozenset[Path] = frozenset()
    persons: frozenset[tuple[str, str]] = frozenset()
    faults: tuple[UserError, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """One-way mark of the study by which a second run knows it again; holds nothing of the patient's name or id."""
        instances = (header.instance for series in self.series for header in series.headers)
        return hash_json(self.study or min(instances, default=self.place))

    @property
    def place(self) -> str:
        """Folder of the study, for messages."""
        return str(self.series[0].folder if self.series else min(self.folders))

    @property
    def file(self) -> Path:
        """One of its images, or else the folder, for messages."""
        return min((header.file for one in self.series for header in one.headers), default=min(self.folders))


@dataclass(frozen=True)
class Choice:
    """How series are chosen where a study has several for a modality.

    Attributes:
        b_value: of the DWI, s/mm²; None takes the highest that was measured.
        names: by modality, a regular expression that the description of the series must match somewhere.
        accept_derived: take reformats (ImageType MPR) where nothing else was sent.
    """

    b_value: float | None = None
    names: Mapping[str, str] | None = None
    accept_derived: bool = False


def group_studies(headers: Iterable[DicomHeader], *, accept_derived: bool = False) -> list[DicomStudy]:
    """Studies with images, in no telling order; a structure set goes where the series it names lies.

    A study without an identifier is everything below one of the folders the user named. What is wrong with a study is
    noted in it.

    Args:
        headers: of all files.
        accept_derived: take reformats, too.

    Raises:
        UserError: there is no image.
    """
    images: dict[tuple[str, str], list[DicomHeader]] = {}
    plans: list[DicomHeader] = []
    for header in headers:
        if header.modality in _READERS:
            plans.append(header)
        else:
            images.setdefault(_study_key(header), []).append(header)
    grouped = {
        key: _study(key, found, accept_derived)
        for key, found in images.items()
        if any(header.modality in _IMAGES for header in found)
    }
    if not grouped:
        raise UserError("no images that can be used", expected=f"one of {', '.join(IMAGE_ROLES)}")
    for plan in plans:
        _assign_structures(plan, grouped)
    return _with_shared_faults(sorted(grouped.values(), key=lambda study: study.digest))


def taint(studies: Iterable[DicomStudy], damaged: Mapping[Path, UserError]) -> list[DicomStudy]:
    """Studies, with the damaged files that may belong to them as their faults.

    A file that cannot be read does not tell its study, and without it a volume may be short of a slice at its end: all
    studies with a file in the same folder are taken as broken.
    """
    return [
        replace(
            study,
            faults=(
                *study.faults,
                *(error for file, error in damaged.items() if file.parent in study.folders),
            ),
        )
        for study in studies
    ]


def check_patients(studies: Sequence[DicomStudy]) -> None:
    """Refuse studies that share an identifier which does not tell patients apart.

    Raises:
        UserError: several studies have no patient identifier or one like ANONYMOUS, or people of another sex or date of
            birth have the same one.
    """
    by_patient: dict[str, list[DicomStudy]] = {}
    for study in studies:
        by_patient.setdefault(study.patient, []).append(study)
    for patient, own in by_patient.items():
        sources = {str(folder) for study in own for folder in study.sources}
        nameless = patient in sources or _NO_NAME.fullmatch(patient) is not None
        several = _are_several(person for study in own for person in study.persons)
        if len(own) > 1 and (nameless or several):
            why = (
                "no PatientID, or one that is given to everybody"
                if nameless
                else "the PatientID of several people"
            )
            raise UserError(
                "which studies are of the same patient is not told",
                file=own[0].place,
                expected="a PatientID of its own for every patient",
                found=f"{len(own)} studies with {why}",
                remedy="Give --patients FILE.csv (columns StudyInstanceUID or folder, and patient); or --patients "
                "per-study, if every study is another patient; or --patients as-named, if they are one",
            )


def common_modalities(studies: Sequence[DicomStudy]) -> tuple[str, ...]:
    """The modalities of a task when the user names none: CT and PET, else DWI and ADC, else T2, as all studies have.

    Raises:
        UserError: the studies have nothing in common.
    """
    held = [{series.role for series in study.series} for study in studies if study.series]
    common = set.intersection(*held)
    for family in ((Role.CT, Role.PET), (Role.DWI, Role.ADC), (Role.T2,)):
        found = tuple(role.value for role in family if role in common)
        if found:
            return found
    raise UserError(
        "the studies have no modality in common",
        file=studies[0].place,
        found="; ".join(sorted({", ".join(sorted(role.value for role in roles)) for roles in held})),
        remedy="Leave studies out, or name the modalities with --modalities",
    )


def choose_series(study: DicomStudy, modality: str, choice: Choice, drawn_on: frozenset[str]) -> Series:
    """The one series of a study for a modality.

    Preferred are, in this order and as long as any are left: what the user names, what was measured over reformats,
    what the structures were drawn on, volumes over scouts, corrected over uncorrected PET, and of DWI the b-value
    wanted, trace-weighted.

    Raises:
        UserError: there is none, or still several; lists them.
    """
    found = [series for series in study.series if series.role.value == modality]
    name = (choice.names or {}).get(modality)
    if name is not None:
        found = [series for series in found if re.search(name, series.first.description, re.IGNORECASE)]
    if not found:
        raise UserError(
            f"no {modality} series" + ("" if name is None else f" called '{name}'"),
            file=study.place,
            found=_listed(study.series),
            remedy="Leave the study out, or change --modalities or --series",
        )
    found = _prefer(found, [not series.is_reformatted for series in found])
    found = _prefer(found, [bool(series.uids & drawn_on) for series in found])
    found = _prefer(found, [len(series.headers) > _SCOUT_SLICES for series in found])
    found = _prefer(found, ["ATTN" in series.first.corrections for series in found])
    if modality == Role.DWI.value:
        found = _choose_weighting(found, study, choice.b_value)
    if len(found) > 1:
        raise UserError(
            f"several {modality} series",
            file=study.place,
            found=_listed(found),
            remedy=f"Choose by the description: --series {modality}=REGEX",
        )
    return found[0]


def _study_key(header: DicomHeader) -> tuple[str, str]:
    return header.patient_id or str(header.source), header.study or str(header.source)


def _are_several(persons: Iterable[tuple[str, str]]) -> bool:
    """Whether sex or date of birth, where stated, differ."""
    sexes, births = zip(*persons, strict=True)
    return len(set(sexes) - {"", "O"}) > 1 or len(set(births) - {""}) > 1


def _study(key: tuple[str, str], headers: Sequence[DicomHeader], accept_derived: bool) -> DicomStudy:
    series = tuple(group_series(headers, accept_derived=accept_derived))
    folders = frozenset(header.file.parent for header in headers)
    return DicomStudy(
        patient=key[0],
        study=key[1],
        series=series,
        structures=(),
        folders=folders,
        sources=frozenset(header.source for header in headers),
        persons=frozenset(header.person for header in headers),
        faults=() if series else (_unusable(headers, folders),),
    )


def _unusable(headers: Sequence[DicomHeader], folders: frozenset[Path]) -> UserError:
    """Why a study has no series, with the image types and descriptions that were turned down."""
    images = [header for header in headers if header.modality in _IMAGES]
    kinds = {
        f"{one.modality} '{one.description}' (ImageType {_BACKSLASH.join(one.image_type) or 'missing'})"
        for one in images
    }
    derived = any(role_of(header, accept_derived=True) for header in images)
    return UserError(
        "no images that can be used",
        file=min(folders),
        expected=f"one of {', '.join(IMAGE_ROLES)}, as measured",
        found="; ".join(sorted(kinds)[:_LISTED]),
        remedy="Export the original series, or give --accept-derived"
        if derived
        else "Export the original series, or leave the study out",
    )


def _with_shared_faults(studies: Sequence[DicomStudy]) -> list[DicomStudy]:
    """Studies, with a fault in those that share their identifier with one of another patient, or a series with one in
    the same folder.
    """
    files: dict[str, list[Path]] = {}
    holders: dict[str, list[DicomStudy]] = {}
    for study in studies:
        files.setdefault(study.digest, []).append(study.file)
        for uid in _series_uids(study):
            holders.setdefault(uid, []).append(study)
    return [
        replace(study, faults=(*study.faults, *_shared_faults(study, files, holders))) for study in studies
    ]


def _shared_faults(
    study: DicomStudy, files: Mapping[str, Sequence[Path]], holders: Mapping[str, Sequence[DicomStudy]]
) -> list[UserError]:
    faults = [_shared(study, files[study.digest])] if len(files[study.digest]) > 1 else []
    # a file that lost its study, or was damaged, makes two short cases of one
    others = {id(other): other for uid in _series_uids(study) for other in holders[uid] if other is not study}
    return faults + [
        _torn(study, other)
        for other in others.values()
        if other.patient == study.patient and other.folders & study.folders
    ]


def _series_uids(study: DicomStudy) -> set[str]:
    return {uid for one in study.series for uid in one.uids} - {""}


def _torn(study: DicomStudy, other: DicomStudy) -> UserError:
    return UserError(
        "one SeriesInstanceUID in several studies",
        file=study.file,
        expected="one StudyInstanceUID in all files of a series",
        found=f"another one, or none, in {other.file}",
        remedy="Export the study again, or correct the UID",
    )


def _shared(study: DicomStudy, files: Iterable[Path]) -> UserError:
    return UserError(
        "the same StudyInstanceUID for several patients",
        file=study.place,
        expected="one PatientID in all files of a study",
        found=f"another one in {' and '.join(sorted(str(file) for file in files if file != study.file))}",
        remedy="Correct the PatientID, give every study its own UIDs, or leave one of the patients out",
    )


def _assign_structures(plan: DicomHeader, grouped: dict[tuple[str, str], DicomStudy]) -> None:
    """Give a structure set, or what is wrong with it, to the study whose series it names."""
    try:
        structures = _READERS[plan.modality](plan.file)
    except UserError as error:
        home = _study_key(plan)
        if home in grouped:
            grouped[home] = replace(grouped[home], faults=(*grouped[home].faults, error))
        return
    own = _study_key(plan)
    homes = [
        key
        for key, study in grouped.items()
        if any(structures.series & one.uids - {""} for one in study.series)
    ]
    home = own if own in homes or not homes else homes[0]
    if home not in grouped:
        return
    study = grouped[home]
    other = _differs(plan, study)
    if other:
        fault = UserError(
            "the structure set of another patient",
            file=plan.file,
            expected="that of the patient whose images it was drawn on",
            found=f"another {other} than {study.file}",
            remedy="Leave it out, or correct whichever header is wrong",
        )
        grouped[home] = replace(study, faults=(*study.faults, fault))
        return
    grouped[home] = replace(
        study,
        structures=(*study.structures, structures),
        folders=study.folders | {plan.file.parent},
    )


def _differs(plan: DicomHeader, study: DicomStudy) -> str:
    """By what a structure set is of another patient than the images; "" where nothing that both state differs."""
    nameless = study.patient in {str(folder) for folder in study.sources}
    if plan.patient_id and not nameless and plan.patient_id != study.patient:
        return "PatientID"
    return "sex or date of birth" if _are_several({*study.persons, plan.person}) else ""


def _choose_weighting(found: list[Series], study: DicomStudy, b_value: float | None) -> list[Series]:
    if b_value is None:
        found = _prefer(found, [not series.calculated for series in found])
        wanted = max(series.b_value or 0.0 for series in found)
    else:
        wanted = b_value
    chosen = [series for series in found if series.b_value == wanted]
    if not chosen:
        raise UserError(
            f"no DWI with b={wanted:g}", file=study.place, found=_listed(found), remedy="Change --b-value"
        )
    return _prefer(chosen, [series.first.isotropic for series in chosen])


def _prefer(found: list[Series], good: Sequence[bool]) -> list[Series]:
    better = [series for series, is_good in zip(found, good, strict=True) if is_good]
    return better or found


def _listed(series: Iterable[Series]) -> str:
    return "; ".join(sorted(f"{one.role.value} {one.describe()}" for one in series))
