"""What a system says of a case. Scoring, reporting and passing on ask for the type of the result, never for the
system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class InputWarning:
    """Why a result may be wrong although it looks right: an image is not what the model was trained on.

    Attributes:
        kind: short stable name; of the check of data sets (``docs/checks.md``), or of the comparison with training.
        what: the problem in words.
        file: name of the image without its folder.
        expected: what should be there.
        found: what is there.
        remedy: how to mend it.
    """

    kind: str
    what: str
    file: str | None = None
    expected: str | None = None
    found: str | None = None
    remedy: str | None = None

    def to_error(self) -> UserError:
        """The error that says the same."""
        return UserError(
            self.what, file=self.file, expected=self.expected, found=self.found, remedy=self.remedy
        )


@dataclass(frozen=True)
class Result(Artifact):
    """Base of the results, one file per case.

    Attributes:
        suffix: of the file's name, behind the case id.
        case_id: name of the case.
        made_from: hash of everything that determined it; whether tuned settings belong to it is up to the type.
        warnings: what is unusual about the images it was made from.
    """

    suffix: ClassVar[str]
    remade_by: ClassVar[str] = "nndet_predict"
    sealed: ClassVar[bool] = True

    case_id: str
    made_from: str
    warnings: list[InputWarning] = field(default_factory=list, kw_only=True)

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

    A system may add fields in a subclass with a schema and suffix of its own. ``made_from`` is the hash of weights and
    image: decisions are taken again from the probabilities, so they do not make a result another one.
    """

    schema: ClassVar[str] = "nndet_psma.judged"
    suffix: ClassVar[str] = "_judged.json"

    case_id: str
    made_from: str
    objects: list[Judgement]

    def decided_by(self, decide: Callable[[Mapping[str, float]], str]) -> Judged:
        """The same probabilities with the decisions of ``decide``."""
        objects = [replace(each, decision=decide(each.probabilities)) for each in self.objects]
        return replace(self, objects=objects)

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
        made_from: hash of weights and image; the decision is taken again from the probabilities.
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

    def decided_by(self, decide: Callable[[Mapping[str, float]], str]) -> Call:
        """The same probabilities with the decision of ``decide``."""
        return replace(self, decision=decide(self.probabilities))

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


def for_type(table: Mapping[type[Result], T], result_type: type[Result], verb: str) -> T:
    """The entry of a table for a type of result or the nearest type that it is derived from.

    Args:
        table: by type.
        result_type: of a system.
        verb: what the table is for, such as "scored".

    Raises:
        UserError: there is none.
    """
    for base in result_type.__mro__:
        if base in table:
            return table[base]
    raise UserError(
        f"results of the type {result_type.__name__} cannot be {verb}",
        expected=f"one derived from {', '.join(known.__name__ for known in table)}",
    )


def check_probabilities(probabilities: dict[str, float], decision: str) -> None:
    """ValueError where they are no probabilities, do not sum to 1, or the decision is none of the classes."""
    if decision not in probabilities:
        raise ValueError(f"decision '{decision}' is none of {', '.join(probabilities) or 'no classes'}")
    if not all(0 <= value <= 1 for value in probabilities.values()):
        raise ValueError(f"probabilities must lie in [0, 1], found {probabilities}")
    if abs(sum(probabilities.values()) - 1) > 1e-3:
        raise ValueError(f"probabilities must sum to 1, found {sum(probabilities.values()):g}")
