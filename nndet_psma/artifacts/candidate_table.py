"""The objects that a classifier looks at, one row each: where they lie, what is known and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.csv_table import write_table

UNKNOWN_STATION = "unknown"
Origin = Literal["annotated", "automatic", "detected"]


@dataclass(frozen=True)
class Candidate:
    """One object.

    Attributes:
        case_id: name of its case.
        patient_id: its patient.
        object_id: number in the mask.
        centre_mm: LPS (x, y, z) of the centre of its box.
        box: ``(z0, y0, x0, z1, y1, x1)`` voxel edges in the image file's own array order.
        station: where it lies; "unknown" where nobody says.
        label: index of its class; None where it is not known.
        origin: who found it.
        tracer: of its case; "" without one.
        features: what was measured, by name; None where it cannot be.
    """

    case_id: str
    patient_id: str
    object_id: int
    centre_mm: tuple[float, float, float]
    box: tuple[float, ...]
    station: str
    label: int | None
    origin: Origin
    tracer: str
    features: dict[str, float | None]


@dataclass(frozen=True)
class CandidateTable(Artifact):
    """All objects of a task's training cases, in the order of cases and numbers."""

    schema: ClassVar[str] = "nndet_psma.candidates"
    remade_by: ClassVar[str] = "nndet_prep"

    rows: list[Candidate]

    def of_cases(self, case_ids: Sequence[str]) -> list[Candidate]:
        """Rows of some cases."""
        chosen = set(case_ids)
        return [row for row in self.rows if row.case_id in chosen]

    def write_csv(self, file: Path) -> None:
        """The same for spreadsheets: one column per measurement."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.features))
        header = (
            "case_id",
            "patient_id",
            "object_id",
            "x_mm",
            "y_mm",
            "z_mm",
            "station",
            "label",
            "origin",
            "tracer",
        )
        cells = [
            (row.case_id, row.patient_id, row.object_id, *(f"{v:.2f}" for v in row.centre_mm), row.station,
             "" if row.label is None else row.label, row.origin, row.tracer,
             *("" if row.features.get(n) is None else f"{row.features[n]:.6g}" for n in names))
            for row in self.rows
        ]  # fmt: skip
        write_table(file, (*header, *names), cells)
