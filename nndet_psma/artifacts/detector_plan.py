"""Base of the plans whose detectors are trained in stages on the prepared cases of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from nndet_psma.artifacts.box_plan import MOST_MM, BoxPlan
from nndet_psma.artifacts.channels import Scaling, Window
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import AtMost, Id, Label, Within, added

MOST_CHANNELS = 100
"""HU windows, or other modalities, that a detector sees."""
CLIP_NORM = 10.0
"""Largest gradient norm of a step unless the plan says otherwise: guards a start from scratch. Our choice."""


@dataclass(frozen=True)
class Stage:
    """One training run of a fold.

    Attributes:
        name: folder name, and the voter's name for a final stage.
        region: "body" (whole slices) or "search" (grown CTV, outside masked).
        windows: names of the HU windows that become channels.
        start_from: name of the stage whose weights it starts from; None starts from ``detector.weights``.
        voter: whether its detections vote.
        iterations: optimiser steps.
        learning_rate: peak rate of SGD.
        milestones: iterations at which the rate falls to a tenth.
        warmup: iterations of linear warm-up.
    """

    name: Id
    region: Literal["body", "search"]
    windows: Annotated[list[Label], AtMost(MOST_CHANNELS)]
    start_from: str | None
    voter: bool
    iterations: Annotated[int, Within(0, 1e9)]
    learning_rate: Annotated[float, Within(0, 1e3)]
    milestones: list[int]
    warmup: int

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.learning_rate <= 0:
            raise ValueError(
                f"stage '{self.name}': {self.iterations} iterations at a rate of {self.learning_rate}"
            )
        if sorted(self.milestones) != self.milestones or any(
            not 0 <= m <= self.iterations for m in self.milestones
        ):
            raise ValueError(
                f"stage '{self.name}': milestones {self.milestones} do not ascend within {self.iterations} iterations"
            )
        if not 0 <= self.warmup <= self.iterations:
            raise ValueError(f"stage '{self.name}': warm-up of {self.warmup} in {self.iterations} iterations")


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transforms of training slices.

    Attributes:
        scale: range of the random resize factor (1 = planned scale).
        rotation_degrees: rotation drawn from ``[-r, r]``.
        flip_probability: left-right mirror.
        blur_probability: Gaussian smoothing.
        blur_sigma: its sigma, detector pixels.
        brightness: factor drawn from ``[1 - b, 1 + b]``.
        noise_std: upper end of the standard deviation of additive noise ([0, 1] channels).
        shift_pixels: translation drawn from ``[-s, s]``, detector pixels.
    """

    scale: tuple[float, float]
    rotation_degrees: float
    flip_probability: float
    blur_probability: float
    blur_sigma: float
    brightness: float
    noise_std: float
    shift_pixels: float


@dataclass(frozen=True, kw_only=True)
class DetectorPlan(BoxPlan):
    """Everything needed to preprocess, train, tune and predict with a detector of the embedded engine.

    All such plans share one schema; the part that describes the network, which only one type of plan has, tells them
    apart.

    Attributes:
        body_margin_mm: air kept round the body where the store is cut.
        windows: HU windows of the CT.
        scalings: of the other modalities.
        neighbours: slices on each side of the centre slice that are channels, too.
        stages: trainings of a fold in order.
        positive_fraction: share of a batch that holds a lesion.
        hard_negative_fraction: share of the others that an earlier stage mistook.
        augmentation: of training images.
        optimizer: the paper's SGD unless the machine asks for another.
        clip_norm: limit of the gradient's norm; 0 does not clip.
        norm_decay: whether weight decay also acts on trained normalisation layers.
    """

    schema: ClassVar[str] = "nndet_psma.plan"
    version: ClassVar[int] = 2

    body_margin_mm: Annotated[float, Within(0, MOST_MM)]
    windows: Annotated[list[Window], AtMost(MOST_CHANNELS)]
    scalings: Annotated[list[Scaling], AtMost(MOST_CHANNELS)]
    neighbours: Annotated[int, Within(0, 50)]
    stages: Annotated[list[Stage], AtMost(100)]
    positive_fraction: float
    hard_negative_fraction: float
    augmentation: Augmentation
    optimizer: Literal["sgd", "adamw"] = "sgd"
    clip_norm: Annotated[float, Within(0, 1e6)] = added(CLIP_NORM)
    norm_decay: bool = added(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_values()
        self._check_channels()
        self._check_stages()

    def _check_values(self) -> None:
        """What a hand that edits the file gets wrong, told here rather than deep in training."""
        if self.neighbours < 0:
            raise ValueError(f"neighbours must not be negative, found {self.neighbours}")
        if self.body_margin_mm < 0:
            raise ValueError(f"body_margin_mm must not be negative, found {self.body_margin_mm}")
        if self.clip_norm < 0:
            raise ValueError(f"clip_norm must not be negative (0 is off), found {self.clip_norm}")
        if not 0 < self.positive_fraction <= 1:
            raise ValueError(f"positive_fraction must lie in (0, 1], found {self.positive_fraction}")
        if not 0 <= self.hard_negative_fraction <= 1:
            raise ValueError(
                f"hard_negative_fraction must lie in [0, 1], found {self.hard_negative_fraction}"
            )

    def _check_channels(self) -> None:
        for scaling in self.scalings:
            if self.modalities.get(str(scaling.modality)) != scaling.name:
                raise ValueError(
                    f"scaling '{scaling.name}' names modality {scaling.modality}; modalities are {self.modalities}"
                )
        if self.ct_modality is None and self.windows:
            raise ValueError("windows are planned but no modality is CT")
        if len({window.name for window in self.windows}) != len(self.windows):
            raise ValueError("two windows have the same name")

    def _check_stages(self) -> None:
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("two stages have the same name")
        known: set[str] = set()
        windows = {window.name for window in self.windows}
        for stage in self.stages:
            if stage.start_from is not None and stage.start_from not in known:
                raise ValueError(
                    f"stage '{stage.name}' starts from '{stage.start_from}', which no earlier stage is"
                )
            missing = sorted(set(stage.windows) - windows)
            if missing:
                raise ValueError(f"stage '{stage.name}' uses unknown windows {missing}")
            if self.channels(stage) == 0:
                raise ValueError(f"stage '{stage.name}' sees nothing: no windows and no scaled modality")
            known.add(stage.name)
        if not self.voters:
            raise ValueError("no stage is a voter")
        votes = max([1, *(int(v) for v in self.postproc_grid.get("min_votes", []))])
        if votes > len(self.voters):
            raise ValueError(f"min_votes {votes} of only {len(self.voters)} voters")

    def text_of(self, key: str) -> str | None:
        """Stages in words."""
        if key == "stages.warmup":
            return "; ".join(f"{stage.name}: {stage.warmup} iterations" for stage in self.stages)
        if key != "stages":
            return super().text_of(key)
        return "; ".join(
            f"{stage.name}: {stage.iterations} at {stage.learning_rate:.3g}, {self.channels(stage)} channels"
            for stage in self.stages
        )

    @property
    def voters(self) -> list[Stage]:
        """Stages whose detections vote."""
        return [stage for stage in self.stages if stage.voter]

    def stage(self, name: str) -> Stage:
        """The stage called ``name``; ValueError lists the existing ones."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"no stage '{name}'; stages are {', '.join(s.name for s in self.stages)}")

    def channels(self, stage: Stage) -> int:
        """Input channels of a stage: (CT windows + other modalities) x (2 * neighbours + 1)."""
        return (len(stage.windows) + len(self.scalings)) * (2 * self.neighbours + 1)

    @property
    def data_identifier(self) -> str:
        """Folder of the preprocessed cases: plans that prepare images alike share it (nnDetection's name for it)."""
        z, y, x = (f"{step:.4g}" for step in self.spacing)
        choices: list[Any] = [self.spacing, self.body_margin_mm, self.modalities]
        choices += [self.ct_modality, self.ctv_modality, self.zscored]
        return f"{z}x{y}x{x}mm_{hash_json(choices)[:6]}"

    @property
    def zscored(self) -> list[str]:
        """Names of the modalities that are stored as z-scores."""
        return [scaling.name for scaling in self.scalings if scaling.zscore]
