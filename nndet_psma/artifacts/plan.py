"""Plan: every choice of a run, with the rule and the evidence that gave it. Readable and editable JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from nndet_psma.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Decision:
    """Why a value stands in the plan: the rule's name and source, and the measured evidence."""

    rule: str
    evidence: str


@dataclass(frozen=True)
class Window:
    """HU window ``lower..upper``; scaled to [0, 1] and clipped."""

    name: str
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"window '{self.name}': lower {self.lower} is not below upper {self.upper}")


@dataclass(frozen=True)
class Scaling:
    """Linear scaling of a modality other than CT: ``lower..upper`` (its own unit) to [0, 1], clipped."""

    modality: int
    name: str
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"scaling '{self.name}': lower {self.lower} is not below upper {self.upper}")


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

    name: str
    region: Literal["body", "search"]
    windows: list[str]
    start_from: str | None
    voter: bool
    iterations: int
    learning_rate: float
    milestones: list[int]
    warmup: int


@dataclass(frozen=True)
class Detector:
    """Network and its sampling.

    Attributes:
        backbone: torchvision ResNet name.
        weights: "none", "imagenet" or a path.
        norm: "batch" trains statistics, "frozen" keeps those of the weights, "group" is GroupNorm.
        levels: ResNet layers (1..4) that feed the FPN; strides 4, 8, 16, 32.
        fpn_channels: channels of the pyramid.
        head_channels: width of the box head.
        scale: detector pixels per store voxel, in-plane.
        body_scale: the same for stages on whole slices.
        input_size: largest input (height, width) in detector pixels of a search-region stage.
        body_input_size: the same for whole-slice stages.
        anchor_sizes: per level, in detector pixels.
        aspect_ratios: height / width.
        input_mean: subtracted from the [0, 1] channels.
        input_std: then divided by.
        rpn_samples: anchors sampled per image for the RPN loss.
        roi_samples: proposals sampled per image for the box loss.
        proposals_train: proposals kept after NMS in training.
        proposals_test: the same when predicting.
        detections_per_slice: boxes kept per slice.
        min_score: boxes below are never kept.
        nms_iou: NMS of the box head.
        mask_branch: train and run the mask head (off in the paper).
    """

    backbone: str
    weights: str
    norm: Literal["batch", "frozen", "group"]
    levels: list[int]
    fpn_channels: int
    head_channels: int
    scale: float
    body_scale: float
    input_size: tuple[int, int]
    body_input_size: tuple[int, int]
    anchor_sizes: list[list[float]]
    aspect_ratios: list[float]
    input_mean: float
    input_std: float
    rpn_samples: int
    roi_samples: int
    proposals_train: int
    proposals_test: int
    detections_per_slice: int
    min_score: float
    nms_iou: float
    mask_branch: bool

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.anchor_sizes):
            raise ValueError(f"{len(self.levels)} levels but anchor sizes for {len(self.anchor_sizes)}")
        if len({len(sizes) for sizes in self.anchor_sizes}) > 1:
            raise ValueError("every level needs the same number of anchor sizes (the RPN head is shared)")


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


@dataclass(frozen=True)
class FoldPlan:
    """Case ids of one fold."""

    train: list[str]
    val: list[str]


@dataclass(frozen=True)
class Target:
    """The machine planned for: "cpu", or "gpu" with its memory in GB."""

    device: Literal["cpu", "gpu"]
    memory_gb: float


@dataclass(frozen=True)
class Plan(Artifact):
    """Everything needed to preprocess, train, tune and predict.

    ``postproc_defaults`` and ``postproc_grid`` hold the fields of ``postproc.settings.PostprocSettings`` and the
    values the sweep tries for each. ``optimizer`` is the paper's SGD unless the machine asks for another.
    """

    schema: ClassVar[str] = "nndet_psma.plan"
    remade_by: ClassVar[str] = "nndet_prep with -o prep.overwrite=true"

    plan_id: str
    planner: str
    trainer: str
    task: str
    made_from: str
    target: Target
    modalities: dict[str, str]
    classes: dict[str, str]
    ct_modality: int | None
    ctv_modality: int | None
    spacing: tuple[float, float, float]
    margin_mm: float
    body_margin_mm: float
    windows: list[Window]
    scalings: list[Scaling]
    neighbours: int
    stages: list[Stage]
    batch_size: int
    positive_fraction: float
    detector: Detector
    augmentation: Augmentation
    folds: list[FoldPlan]
    seed: int
    postproc_defaults: dict[str, Any]
    postproc_grid: dict[str, list[Any]]
    optimizer: Literal["sgd", "adamw"] = "sgd"
    decisions: dict[str, Decision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_values()
        self._check_stages()
        if self.ct_modality is None and self.windows:
            raise ValueError("windows are planned but no modality is CT")
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("two stages have the same name")

    def _check_values(self) -> None:
        """What a hand that edits the file gets wrong, told here rather than deep in training."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        if not all(step > 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive, found {self.spacing}")
        if self.neighbours < 0:
            raise ValueError(f"neighbours must not be negative, found {self.neighbours}")
        for key, index in (("ct_modality", self.ct_modality), ("ctv_modality", self.ctv_modality)):
            if index is not None and str(index) not in self.modalities:
                raise ValueError(f"{key} {index} is no modality; modalities are {self.modalities}")
        if len({window.name for window in self.windows}) != len(self.windows):
            raise ValueError("two windows have the same name")

    def _check_stages(self) -> None:
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
            known.add(stage.name)
        if not any(stage.voter for stage in self.stages):
            raise ValueError("no stage is a voter")

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
    def ct_name(self) -> str | None:
        """Name of the CT modality."""
        return None if self.ct_modality is None else self.modalities[str(self.ct_modality)]
