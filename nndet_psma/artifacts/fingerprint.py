"""Fingerprint: everything the planner may know about a data set, measured once per case."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.case_fingerprint import (
    CaseFingerprint,
    IntensityStatistics,
    LesionFingerprint,
)
from nndet_psma.artifacts.dataset_summary import DatasetSummary, summarise
from nndet_psma.artifacts.histogram import Histogram
from nndet_psma.artifacts.training_images import TrainingImages
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain

__all__ = [
    "CaseFingerprint",
    "DatasetSummary",
    "Fingerprint",
    "Histogram",
    "IntensityStatistics",
    "LesionFingerprint",
]


@dataclass(frozen=True)
class Fingerprint(Artifact):
    """All training cases of a task.

    Attributes:
        task: folder name of the task.
        modalities: names by index ("0", "1", ...), the CTV included.
        labels: class names by index.
        summary: of all cases; always computed from them, so that the two cannot disagree.
        cases: one by one.
    """

    schema: ClassVar[str] = "nndet_psma.fingerprint"
    version: ClassVar[int] = 2
    remade_by: ClassVar[str] = "nndet_prep"

    task: str
    modalities: dict[str, str]
    labels: dict[str, str]
    summary: DatasetSummary = field(init=False, compare=False)
    cases: list[CaseFingerprint]

    def __post_init__(self) -> None:
        ct = next((name for name in self.modalities.values() if name.strip().upper() == "CT"), None)
        object.__setattr__(self, "summary", summarise(self.cases, self.labels, ct))

    @property
    def lesions(self) -> list[LesionFingerprint]:
        """Lesions of all cases."""
        return [lesion for case in self.cases for lesion in case.lesions]

    @property
    def training_images(self) -> TrainingImages | None:
        """Grids of all cases, as plans keep them; None without cases."""
        return TrainingImages.of(self.cases)

    def content_hash(self) -> str:
        """Hash of what was measured; the order of the cases does not matter."""
        cases = sorted(self.cases, key=lambda case: case.case_id)
        measured = {key: to_plain(getattr(self, key)) for key in ("task", "modalities", "labels")}
        return hash_json({"version": self.version, **measured, "cases": to_plain(cases)})

    @classmethod
    def parse(cls, content: dict[str, Any], source: Path | str) -> Fingerprint:
        """Build from plain content, whose summary is for the reader and is computed anew."""
        return super().parse({k: v for k, v in content.items() if k != "summary"}, source)
