"""Base of the plans whose networks classify crops round given objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import CLIP_NORM, MOST_CHANNELS, Stage
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.schema import AtMost, Label, Within, added

Dimension = Literal["2d", "2.5d", "3d"]
Input = Literal["ct", "ct+mask", "ct*mask"]
Sampling = Literal["natural", "status", "location", "status_set", "location_set"]
Side = Annotated[int, Within(0, 512)]
Voxels = tuple[Side, Side, Side]


@dataclass(frozen=True)
class CropPlan:
    """What is cut out round an object, in voxels of the plan's spacing, and what of it the network sees.

    Attributes:
        size: voxels (z, y, x) that are looked at.
        margin: voxels (z, y, x) stored beyond them on each side: turned and shifted crops come from the store.
        dimension: "2d": the central axial slice with ``neighbours`` on each side as channels; "2.5d": the three
            orthogonal slices through the centre as channels; "3d": all of it.
        neighbours: slices on each side of the central one.
        input: "ct"; "ct+mask": the mask is one more channel; "ct*mask": CT inside the mask only.
        outside_hu: what stands outside of the mask in "ct*mask"; None is the lower end of each window.
    """

    size: Voxels
    margin: Voxels
    dimension: Dimension
    neighbours: Annotated[int, Within(0, 50)]
    input: Input
    outside_hu: Annotated[float, Within(-32_768, 65_535)] | None

    def __post_init__(self) -> None:
        if min(self.size) < 1 or min(*self.margin, self.neighbours) < 0:
            raise ValueError(
                f"crop of {self.size} voxels, margin {self.margin}, {self.neighbours} neighbours"
            )
        if self.dimension == "2.5d" and len(set(self.size)) > 1:
            raise ValueError(f"orthogonal slices need a cube, found {self.size}")
        if self.neighbours and self.dimension != "2d":
            raise ValueError(f"neighbours are of slices, the dimension is {self.dimension}")
        if self.dimension == "2d" and self.size[0] != 2 * self.neighbours + 1:
            raise ValueError(
                f"{self.neighbours} neighbours make {2 * self.neighbours + 1} slices, size is {self.size}"
            )

    @property
    def stored(self) -> Voxels:
        """Voxels (z, y, x) of a crop in the store."""
        z, y, x = (size + 2 * margin for size, margin in zip(self.size, self.margin, strict=True))
        return z, y, x

    @property
    def planes(self) -> int:
        """Images of one object that become channels side by side."""
        return {"2d": 2 * self.neighbours + 1, "2.5d": 3, "3d": 1}[self.dimension]

    @property
    def image_size(self) -> tuple[int, ...]:
        """Of the network's input."""
        return self.size if self.dimension == "3d" else self.size[1:]


@dataclass(frozen=True)
class CropAugmentation:
    """Ranges of the random transforms of training crops.

    Attributes:
        rotation_degrees: turn about the body's long axis, drawn from ``[-r, r]``.
        shift_voxels: along every axis, drawn from ``[-s, s]``.
        flip: axes (of "zyx") that are mirrored with probability one half.
        brightness: factor on the channels in [0, 1], drawn from ``[1 - b, 1 + b]``.
    """

    rotation_degrees: Annotated[float, Within(0, 180)]
    shift_voxels: Annotated[float, Within(0, 512)]
    flip: str
    brightness: Annotated[float, Within(0, 1)]

    def __post_init__(self) -> None:
        if set(self.flip) - set("zyx"):
            raise ValueError(f"flip names axes of zyx, found '{self.flip}'")


@dataclass(frozen=True)
class ClassifierNetwork:
    """The network.

    Attributes:
        kind: "resnet" (four stages of one residual block each) or "vgg16conv" (16 convolutions in blocks of 2, 2, 4, 4
            and 4, three fully connected layers).
        widths: channels of the stages, or blocks.
        dropout: share of pooled features left out in training.
        label_smoothing: of the cross entropy.
    """

    kind: Literal["resnet", "vgg16conv"]
    widths: Annotated[list[Annotated[int, Within(1, 8192)]], AtMost(10)]
    dropout: float
    label_smoothing: float

    def __post_init__(self) -> None:
        expected = {"resnet": 4, "vgg16conv": 5}[self.kind]
        if len(self.widths) != expected or min(self.widths) < 1:
            raise ValueError(f"{self.kind} has {expected} widths, found {self.widths}")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError("dropout and label_smoothing must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan(Plan):
    """What the plan of every classifier holds; each system has a schema of its own.

    Attributes:
        crop: what the network sees.
        windows: HU windows of the CT, each a channel.
        network: the network.
        stages: trainings of a fold: one per seed of the ensemble, and "blind", which sees the mask only and never
            votes.
        optimizer: of all of them.
        augmentation: of training crops.
        sampling: which objects a batch shows. "natural": all alike often; "status": both classes alike often;
            "location": a station by its number of positives, then both classes alike often in it; "status_set" and
            "location_set": fixed sets with as many negatives as positives, over all or within each station.
        prevalence: share of the positive class among the training objects of known class: probabilities are corrected
            to it, as training sees both classes alike often.
        equal_short_mm: short axis that the size control gives every object: the median of the training objects.
        features: measurements of the table that baselines use.
        clip_norm: limit of the gradient's norm; 0 does not clip.
        norm_decay: whether weight decay also acts on trained normalisation layers.
    """

    crop: CropPlan
    windows: Annotated[list[Window], AtMost(MOST_CHANNELS)]
    network: ClassifierNetwork
    stages: Annotated[list[Stage], AtMost(100)]
    optimizer: Literal["sgd", "adamw"]
    augmentation: CropAugmentation
    sampling: Sampling
    prevalence: float
    equal_short_mm: Annotated[float, Within(0, 1000)]
    features: Annotated[list[Label], AtMost(200)]
    clip_norm: Annotated[float, Within(0, 1e6)] = added(CLIP_NORM)
    norm_decay: bool = added(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) != 2:
            raise ValueError(f"two classes are told apart, found {list(self.classes.values())}")
        if self.ct_modality is None or not self.windows:
            raise ValueError("a CT and at least one window are needed")
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence must lie in (0, 1), found {self.prevalence}")
        if self.equal_short_mm <= 0:
            raise ValueError(f"equal_short_mm must be positive, found {self.equal_short_mm}")
        if not self.voters or len({stage.name for stage in self.stages}) < len(self.stages):
            raise ValueError("stages need names of their own, and one of them must vote")
        for stage in self.stages:
            if set(stage.windows) - {window.name for window in self.windows}:
                raise ValueError(f"stage '{stage.name}' uses unknown windows {stage.windows}")
            if stage.start_from is not None:
                raise ValueError(f"stage '{stage.name}' starts from '{stage.start_from}': each begins anew")

    def text_of(self, key: str) -> str | None:
        """Stages in words."""
        if key != "stages":
            return super().text_of(key)
        return "; ".join(f"{s.name}: {s.iterations} at {s.learning_rate:.3g}" for s in self.stages)

    @property
    def voters(self) -> list[Stage]:
        """Stages whose networks are asked."""
        return [stage for stage in self.stages if stage.voter]

    def stage(self, name: str) -> Stage:
        """The stage called ``name``; ValueError lists the existing ones."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"no stage '{name}'; stages are {', '.join(s.name for s in self.stages)}")

    def channels(self, stage: Stage) -> int:
        """Input channels: windows, and the mask where it is one, of every plane; a stage without windows is blind."""
        mask = not stage.windows or self.crop.input == "ct+mask"
        return (len(stage.windows) + mask) * self.crop.planes

    @property
    def crops_identifier(self) -> str:
        """Folder of the crops: plans that cut alike share it."""
        z, y, x = self.crop.stored
        return f"crops_{self.spacing[0]:.4g}mm_{z}x{y}x{x}"
