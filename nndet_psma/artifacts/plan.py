"""Plan: every choice of a run, with the rule and the evidence that gave it. Readable and editable JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.hashing import hash_json
from nndet_psma.systems.retina3d.plan import Detector3D


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
    """Linear scaling of a modality other than CT: ``lower..upper`` to [0, 1], clipped.

    The limits are in the modality's own unit (SUV), or, where ``zscore`` is set, in standard deviations from the mean
    of the case's body: for images in arbitrary units.
    """

    modality: int
    name: str
    lower: float
    upper: float
    zscore: bool = False

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
        if not self.levels or self.levels != sorted(set(self.levels)) or not set(self.levels) <= {1, 2, 3, 4}:
            raise ValueError(f"levels ascend among the ResNet layers 1..4, found {self.levels}")
        if (
            not self.aspect_ratios
            or min([*self.aspect_ratios, *(s for sizes in self.anchor_sizes for s in sizes)]) <= 0
        ):
            raise ValueError("anchor sizes and aspect ratios must be positive")
        self._check_input()

    def _check_input(self) -> None:
        stride = 2 ** (max(self.levels) + 1)
        for name, size in (("input_size", self.input_size), ("body_input_size", self.body_input_size)):
            if any(side < stride or side % stride for side in size):
                raise ValueError(f"{name} {size} is no multiple of the coarsest stride {stride}")
        if min(self.scale, self.body_scale) <= 0:
            raise ValueError(f"scales must be positive, found {self.scale} and {self.body_scale}")
        if self.input_std <= 0:
            raise ValueError(f"input_std must be positive, found {self.input_std}")
        counts = (self.rpn_samples, self.roi_samples, self.proposals_train, self.proposals_test)
        if min(*counts, self.detections_per_slice) < 1:
            raise ValueError("samples, proposals and detections per slice must be at least 1")
        if not (0 <= self.min_score < 1 and 0 < self.nms_iou <= 1):
            raise ValueError(f"min_score {self.min_score} or nms_iou {self.nms_iou} is out of range")


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
    """The machine planned for: "cpu", or ``gpus`` GPUs of ``memory_gb`` GB each."""

    device: Literal["cpu", "gpu"]
    memory_gb: float
    gpus: int = 1


@dataclass(frozen=True)
class Plan(Artifact):
    """Everything needed to preprocess, train, tune and predict.

    ``positive_fraction`` of a batch are slices with a lesion, ``hard_negative_fraction`` of the others slices that an
    earlier stage mistook. ``postproc_defaults`` and ``postproc_grid`` hold the fields of
    ``postproc.settings.PostprocSettings`` and the values the sweep tries for each. ``optimizer`` is the paper's SGD
    unless the machine asks for another. A plan has a ``detector`` on slices or a ``detector3d`` on patches.
    """

    schema: ClassVar[str] = "nndet_psma.plan"
    version: ClassVar[int] = 2
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
    hard_negative_fraction: float
    detector: Detector | None
    augmentation: Augmentation
    folds: list[FoldPlan]
    seed: int
    postproc_defaults: dict[str, Any]
    postproc_grid: dict[str, list[Any]]
    optimizer: Literal["sgd", "adamw"] = "sgd"
    detector3d: Detector3D | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_detector()
        self._check_values()
        self._check_modalities()
        self._check_stages()
        self._check_folds()

    def _check_detector(self) -> None:
        if (self.detector is None) == (self.detector3d is None):
            raise ValueError("a plan needs either detector (on slices) or detector3d (on patches)")

    def _check_values(self) -> None:
        """What a hand that edits the file gets wrong, told here rather than deep in training."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        if not all(step > 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive, found {self.spacing}")
        if self.neighbours < 0:
            raise ValueError(f"neighbours must not be negative, found {self.neighbours}")
        if min(self.margin_mm, self.body_margin_mm) < 0:
            raise ValueError(
                f"margins must not be negative, found {self.margin_mm} and {self.body_margin_mm}"
            )
        if not 0 < self.positive_fraction <= 1:
            raise ValueError(f"positive_fraction must lie in (0, 1], found {self.positive_fraction}")
        if not 0 <= self.hard_negative_fraction <= 1:
            raise ValueError(
                f"hard_negative_fraction must lie in [0, 1], found {self.hard_negative_fraction}"
            )

    def _check_modalities(self) -> None:
        for key, index in (("ct_modality", self.ct_modality), ("ctv_modality", self.ctv_modality)):
            if index is not None and str(index) not in self.modalities:
                raise ValueError(f"{key} {index} is no modality; modalities are {self.modalities}")
        if self.ct_modality is not None and self.ct_modality == self.ctv_modality:
            raise ValueError(f"ct_modality and ctv_modality are both {self.ct_modality}")
        for scaling in self.scalings:
            if self.modalities.get(str(scaling.modality)) != scaling.name:
                raise ValueError(
                    f"scaling '{scaling.name}' names modality {scaling.modality}; modalities are {self.modalities}"
                )
        if self.ct_modality is None and self.windows:
            raise ValueError("windows are planned but no modality is CT")
        if len({window.name for window in self.windows}) != len(self.windows):
            raise ValueError("two windows have the same name")
        zones = [self.postproc_defaults.get("zone_mm"), *self.postproc_grid.get("zone_mm", [])]
        beyond = [zone for zone in zones if zone is not None and zone > self.margin_mm]
        if self.ctv_modality is not None and beyond:
            raise ValueError(
                f"zone_mm {max(beyond):g} lies beyond margin_mm {self.margin_mm:g}: nothing is seen there"
            )

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

    def _check_folds(self) -> None:
        for number, fold in enumerate(self.folds):
            both = sorted(set(fold.train) & set(fold.val))
            if both:
                raise ValueError(f"fold {number} trains and validates on case {both[0]}")
            if not fold.train or not fold.val:
                raise ValueError(
                    f"fold {number} has no {'training' if not fold.train else 'validation'} case"
                )

    @property
    def slice_detector(self) -> Detector:
        """The detector on slices; ValueError where the plan is one of patches."""
        if self.detector is None:
            raise ValueError(f"plan {self.plan_id} has no detector on slices")
        return self.detector

    @property
    def patch_detector(self) -> Detector3D:
        """The detector on 3D patches; ValueError where the plan is one of slices."""
        if self.detector3d is None:
            raise ValueError(f"plan {self.plan_id} has no detector on patches")
        return self.detector3d

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

    @property
    def ct_name(self) -> str | None:
        """Name of the CT modality."""
        return None if self.ct_modality is None else self.modalities[str(self.ct_modality)]
