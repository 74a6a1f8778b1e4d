"""Base of all plans: every choice of a run, with the rule and the evidence that gave it. Readable and editable JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.training_images import TrainingImages
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import MOST_CLASSES, AtMost, Id, Label, Number, Within

Step = Annotated[float, Within(0.01, 100)]
"""Millimetres between voxels that a network sees: micro-CT has the finest, thick-slice scouts the coarsest."""


@dataclass(frozen=True)
class Decision:
    """Why a value stands in the plan: the rule's name and source, and the measured evidence."""

    rule: str
    evidence: str


@dataclass(frozen=True)
class FoldPlan:
    """Case ids of one fold."""

    train: list[str]
    val: list[str]


@dataclass(frozen=True)
class Target:
    """The machine planned for: "cpu", or ``gpus`` GPUs of ``memory_gb`` GB each."""

    device: Literal["cpu", "gpu"]
    memory_gb: Annotated[float, Within(0, 100_000)]
    gpus: Annotated[int, Within(0, 10_000)] = 1


@dataclass(frozen=True, kw_only=True)
class Plan(Artifact):
    """What the plan of every system holds; each system adds its own fields, and a schema where its file is another.

    Attributes:
        plan_id: name of the plan and of its file.
        planner: registered name.
        trainer: registered name; the model folder is called ``TRAINER_PLAN``.
        task: folder name of the task.
        made_from: hash of the fingerprint.
        target: machine planned for.
        modalities: names by index of the raw file ``_000N``.
        classes: names by index.
        ct_modality: index of the CT.
        ctv_modality: index of the search region.
        spacing: mm (z, y, x) that the network sees.
        batch_size: images per optimiser step.
        folds: cases of the cross-validation; empty in a model that was passed on.
        seed: of folds, training and bootstrap.
        decisions: why, by name of the value.
        training_images: grids of the training cases; None in plans of older releases.
    """

    remade_by: ClassVar[str] = "nndet_prep with -o prep.overwrite=true"

    plan_id: Id
    planner: Id
    trainer: Id
    task: Annotated[str, AtMost(200)]
    made_from: str
    target: Target
    modalities: Annotated[dict[str, Label], AtMost(MOST_CLASSES)]
    classes: Annotated[dict[str, Label], AtMost(MOST_CLASSES)]
    ct_modality: Number | None
    ctv_modality: Number | None
    spacing: tuple[Step, Step, Step]
    batch_size: Annotated[int, Within(1, 4096)]
    folds: list[FoldPlan]
    seed: int
    decisions: dict[str, Decision] = field(default_factory=dict)
    training_images: TrainingImages | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        if not all(step > 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive, found {self.spacing}")
        self._check_modalities()
        self._check_folds()

    @classmethod
    def reads(cls, content: dict[str, Any]) -> bool:
        """Whether the content of a file is a plan of this type."""
        return content.get("schema") == cls.schema

    def to_json(self) -> dict[str, Any]:
        """Plain content including schema and version; the decisions, which are the longest, stand last."""
        content = super().to_json()
        content["decisions"] = content.pop("decisions")
        return content

    def content_hash(self) -> str:
        """Hash of all that training and prediction depend on: the training images are measured, ``made_from`` covers
        them, and plans that older releases wrote without them keep their hash.
        """
        return hash_json({key: value for key, value in self.to_json().items() if key != "training_images"})

    def text_of(self, key: str) -> str | None:
        """A value in words where the system has better ones than the value itself."""
        return None

    @property
    def ct_name(self) -> str | None:
        """Name of the CT modality."""
        return None if self.ct_modality is None else self.modalities[str(self.ct_modality)]

    @property
    def case_ids(self) -> list[str]:
        """Cases of all folds, each once, in alphabetical order."""
        return sorted({case_id for fold in self.folds for case_id in (*fold.train, *fold.val)})

    def _check_modalities(self) -> None:
        for key, index in (("ct_modality", self.ct_modality), ("ctv_modality", self.ctv_modality)):
            if index is not None and str(index) not in self.modalities:
                raise ValueError(f"{key} {index} is no modality; modalities are {self.modalities}")
        if self.ct_modality is not None and self.ct_modality == self.ctv_modality:
            raise ValueError(f"ct_modality and ctv_modality are both {self.ct_modality}")

    def _check_folds(self) -> None:
        for number, fold in enumerate(self.folds):
            both = sorted(set(fold.train) & set(fold.val))
            if both:
                raise ValueError(f"fold {number} trains and validates on case {both[0]}")
            if not fold.train or not fold.val:
                raise ValueError(
                    f"fold {number} has no {'training' if not fold.train else 'validation'} case"
                )
