"""What the training of stages asks of a plan, whatever is trained."""

from __future__ import annotations

from typing import Protocol

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.plan import FoldPlan


class StagedPlan(Protocol):
    """A plan whose networks are trained in stages on prepared cases: of detectors and of classifiers."""

    @property
    def plan_id(self) -> str:
        """Name."""

    @property
    def task(self) -> str:
        """Folder name of the task."""

    @property
    def classes(self) -> dict[str, str]:
        """Names by index."""

    @property
    def batch_size(self) -> int:
        """Images per optimiser step."""

    @property
    def folds(self) -> list[FoldPlan]:
        """Cases of the cross-validation."""

    @property
    def seed(self) -> int:
        """Of all draws."""

    @property
    def stages(self) -> list[Stage]:
        """Trainings of a fold in order."""

    @property
    def optimizer(self) -> str:
        """sgd or adamw."""

    @property
    def clip_norm(self) -> float:
        """Limit of the gradient's norm; 0 does not clip."""

    @property
    def norm_decay(self) -> bool:
        """Whether weight decay also acts on trained normalisation layers."""

    def stage(self, name: str) -> Stage:
        """The stage called ``name``; ValueError lists the existing ones."""

    def channels(self, stage: Stage) -> int:
        """Input channels of a stage."""

    def content_hash(self) -> str:
        """Hash of the content."""
