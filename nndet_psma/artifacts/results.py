"""What a system says of a case. Scoring, reporting and passing on ask for the type of the result, never for the
system.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nndet_psma.artifacts.artifact import Artifact


class Result(Artifact):
    """Base of the results, one file per case.

    Attributes:
        suffix: of the file's name, behind the case id.
        case_id: name of the case.
        made_from: hash of weights, thresholds and image.
    """

    suffix: ClassVar[str]
    remade_by: ClassVar[str] = "nndet_predict"

    case_id: str
    made_from: str

    @classmethod
    def file(cls, folder: Path, case_id: str) -> Path:
        """Where the result of a case lies in a folder of predictions."""
        return folder / f"{case_id}{cls.suffix}"

    def summary(self) -> dict[str, Any]:
        """What the index of a prediction lists."""
        raise NotImplementedError

    def told(self) -> str:
        """What the terminal is told, such as "3 lesions, 20 candidates"."""
        raise NotImplementedError


@dataclass(frozen=True)
class Judgement:
    """One object with its verdict.

    Attributes:
        object_id: number of the object: of its instance where objects are given, of its candidate where they are found.
        box: ``(z0, y0, x0, z1, y1, x1)`` voxel edges in the image file's own array order.
        centre_mm: LPS (x, y, z) of the box centre.
        probabilities: calibrated probability by class name; they sum to 1.
        decision: class name that the tuned decision takes.
    """

    object_id: int
    box: tuple[float, ...]
    centre_mm: tuple[float, float, float]
    probabilities: dict[str, float]
    decision: str

    def __post_init__(self) -> None:
        check_probabilities(self.probabilities, self.decision)


@dataclass(frozen=True)
class Judged(Result):
    """Given or found objects of a case, each with calibrated probabilities.

    A system may add fields in a subclass with a schema and suffix of its own.
    """

    schema: ClassVar[str] = "nndet_psma.judged"
    suffix: ClassVar[str] = "_judged.json"

    case_id: str
    made_from: str
    objects: list[Judgement]

    def summary(self) -> dict[str, Any]:
        """Objects by decision."""
        decisions = [judged.decision for judged in self.objects]
        counts = {name: decisions.count(name) for name in sorted(set(decisions))}
        return {"case_id": self.case_id, "objects": len(decisions), "decisions": counts}

    def told(self) -> str:
        """Number of objects and their decisions."""
        summary = self.summary()
        counts = ", ".join(f"{count} {name}" for name, count in summary["decisions"].items())
        return f"{summary['objects']} objects" + (f": {counts}" if counts else "")


@dataclass(frozen=True)
class Call(Result):
    """One verdict per case.

    Attributes:
        case_id: name of the case.
        made_from: hash of weights, decision and image.
        probabilities: calibrated probability by class name; they sum to 1.
        decision: class name that the tuned decision takes.
    """

    schema: ClassVar[str] = "nndet_psma.call"
    suffix: ClassVar[str] = "_call.json"

    case_id: str
    made_from: str
    probabilities: dict[str, float]
    decision: str

    def __post_init__(self) -> None:
        check_probabilities(self.probabilities, self.decision)

    def summary(self) -> dict[str, Any]:
        """Decision and its probability."""
        return {
            "case_id": self.case_id,
            "decision": self.decision,
            "probability": self.probabilities[self.decision],
        }

    def told(self) -> str:
        """Decision and its probability."""
        return f"{self.decision} ({self.probabilities[self.decision]:.2f})"


def check_probabilities(probabilities: dict[str, float], decision: str) -> None:
    """ValueError where they are no probabilities, do not sum to 1, or the decision is none of the classes."""
    if decision not in probabilities:
        raise ValueError(f"decision '{decision}' is none of {', '.join(probabilities) or 'no classes'}")
    if not all(0 <= value <= 1 for value in probabilities.values()):
        raise ValueError(f"probabilities must lie in [0, 1], found {probabilities}")
    if abs(sum(probabilities.values()) - 1) > 1e-3:
        raise ValueError(f"probabilities must sum to 1, found {sum(probabilities.values()):g}")
