"""Studies of patients: which series and structure sets belong together, and which series a task takes of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.dataset.dicom.headers import DicomHeader
from nndet_psma.dataset.dicom.rtstruct import StructureSet, read_structures
from nndet_psma.dataset.dicom.series import Series, group_series
from nndet_psma.dataset.task.description import Role

IMAGE_ROLES = (Role.CT, Role.PET, Role.DWI, Role.ADC, Role.T2)
"""What can be imported, in the order in which the first is the grid of the others."""

_SCOUT_SLICES = 2
_RTSTRUCT = "RTSTRUCT"


@dataclass(frozen=True)
class DicomStudy:
    """Images and structures of one examination.

    Attributes:
        patient: key of the patient; identifies, stays in memory.
        study: UID, identifies, stays in memory; "" where the files have none.
        series: all volumes.
        structures: all structure sets.
    """

    patient: str
    study: str
    series: tuple[Series, ...]
    structures: tuple[StructureSet, ...]

    @property
    def digest(self) -> str:
        """One-way mark of the study by which a second run knows it again; holds nothing of the patient's name or id."""
        return hash_json(self.study or min(header.instance for s in self.series for header in s.headers))

    @property
    def place(self) -> str:
        """Folder of the study, for messages."""
        return str(self.series[0].folder)


@dataclass(frozen=True)
class Choice:
    """How series are chosen where a study has several for a modality.

    Attributes:
        b_value: of the DWI, s/mm²; None takes the highest that was measured.
        names: by modality, a regular expression that the description of the series must match somewhere.
    """

    b_value: float | None = None
    names: Mapping[str, str] | None = None


def group_studies(headers: Iterable[DicomHeader]) -> list[DicomStudy]:
    """Studies with at least one image, in no telling order; a structure set goes where the series it names lies.

    A study without an identifier is everything below one of the folders the user named.

    Raises:
        UserError: there is no image.
    """
    images: dict[tuple[str, str], list[DicomHeader]] = {}
    plans: list[DicomHeader] = []
    for header in headers:
        if header.modality == _RTSTRUCT:
            plans.append(header)
        else:
            images.setdefault(_study_key(header), []).append(header)
    grouped = {key: tuple(group_series(found)) for key, found in images.items()}
    grouped = {key: series for key, series in grouped.items() if series}
    if not grouped:
        raise UserError("no images that can be used", expected=f"one of {', '.join(IMAGE_ROLES)}")
    structures = _assign_structures(plans, grouped)
    studies = [
        DicomStudy(key[0], key[1], series, tuple(structures.get(key, ()))) for key, series in grouped.items()
    ]
    return sorted(studies, key=lambda study: study.digest)


def common_modalities(studies: Sequence[DicomStudy]) -> tuple[str, ...]:
    """The modalities of a task when the user names none: CT and PET, else DWI and ADC, else T2, as all studies have.

    Raises:
        UserError: the studies have nothing in common.
    """
    held = [{series.role for series in study.series} for study in studies]
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

    Preferred are, in this order and as long as any are left: what the user names, what the structures were drawn on,
    volumes over scouts, corrected over uncorrected PET, and of DWI the b-value wanted, trace-weighted.

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
    found = _prefer(found, [series.first.series in drawn_on for series in found])
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


def _assign_structures(
    plans: Sequence[DicomHeader], grouped: Mapping[tuple[str, str], tuple[Series, ...]]
) -> dict[tuple[str, str], list[StructureSet]]:
    homes = {
        series.first.series: key for key, found in grouped.items() for series in found if series.first.series
    }
    assigned: dict[tuple[str, str], list[StructureSet]] = {}
    for plan in plans:
        structures = read_structures(plan.file)
        home = next((homes[uid] for uid in sorted(structures.series) if uid in homes), _study_key(plan))
        if home in grouped:
            assigned.setdefault(home, []).append(structures)
    return assigned


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
