"""nnU-Net's ``plans.json`` and ``dataset.json`` of a model, checked before nnU-Net sees them.

nnU-Net imports whatever classes ``plans.json`` names and calls them with the arguments that stand there, so a file
from elsewhere could run any program that is installed. Here every key, type and name must be one that our planner
writes, and sizes are bounded; nnU-Net is given the checked content and nothing else of the files.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain, to_plain
from nndet_psma.systems.nodeseg.plan import FILE_ENDING, NodeSegPlan, SegmentationTraining

PLANS, DATASET = "plans.json", "dataset.json"

_REMEDY = "Use models that this package has trained"
_NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)
_IMPORTED = ("conv_op", "norm_op", "dropout_op", "nonlin")
_MOST_STAGES = 12
_MOST_CHANNELS = 1024
_MOST_CONVOLUTIONS = 16
_MOST_KERNEL = 7
_MOST_STRIDE = 8
_MOST_VOXELS = 1 << 30  # of a patch
_SPACINGS = (0.01, 100.0)  # mm

Architecture = Literal[
    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
]
Convolution = Literal["torch.nn.modules.conv.Conv2d", "torch.nn.modules.conv.Conv3d"]
Norm = Literal["torch.nn.modules.instancenorm.InstanceNorm2d", "torch.nn.modules.instancenorm.InstanceNorm3d"]
Resampling = Literal["resample_data_or_seg_to_shape"]
Scheme = Literal["CTNormalization", "ZScoreNormalization", "NoNormalization"]
_RESIDUAL = "ResidualEncoderUNet"


@dataclass(frozen=True)
class _NormArguments:
    eps: float
    affine: bool


@dataclass(frozen=True)
class _ActivationArguments:
    inplace: bool


@dataclass(frozen=True, kw_only=True)
class _NetworkArguments:
    """Arguments of the U-Nets of ``dynamic_network_architectures``, one entry per stage where they are lists."""

    n_stages: int
    features_per_stage: list[int]
    conv_op: Convolution
    kernel_sizes: list[list[int]]
    strides: list[list[int]]
    n_conv_per_stage: list[int] | None = None
    n_blocks_per_stage: list[int] | None = None
    n_conv_per_stage_decoder: list[int]
    conv_bias: bool
    norm_op: Norm
    norm_op_kwargs: _NormArguments
    dropout_op: None
    dropout_op_kwargs: None
    nonlin: Literal["torch.nn.LeakyReLU"]
    nonlin_kwargs: _ActivationArguments

    def __post_init__(self) -> None:
        if self.conv_op[-2:] != self.norm_op[-2:]:
            raise ValueError("conv_op and norm_op have different axes")
        if (self.n_conv_per_stage is None) == (self.n_blocks_per_stage is None):
            raise ValueError("one of n_conv_per_stage and n_blocks_per_stage is needed")
        _within("n_stages", [self.n_stages], 1, _MOST_STAGES)
        convolutions = self.n_conv_per_stage or self.n_blocks_per_stage or []
        lists = (
            ("features_per_stage", self.features_per_stage, self.n_stages, _MOST_CHANNELS),
            ("convolutions per stage", convolutions, self.n_stages, _MOST_CONVOLUTIONS),
            (
                "n_conv_per_stage_decoder",
                self.n_conv_per_stage_decoder,
                self.n_stages - 1,
                _MOST_CONVOLUTIONS,
            ),
        )
        for name, values, length, most in lists:
            _as_long(name, values, length)
            _within(name, values, 1, most)
        for name, sides, most in (
            ("kernel_sizes", self.kernel_sizes, _MOST_KERNEL),
            ("strides", self.strides, _MOST_STRIDE),
        ):
            _as_long(name, sides, self.n_stages)
            for side in sides:
                _as_long(name, side, self.axes)
                _within(name, side, 1, most)

    @property
    def axes(self) -> int:
        return int(self.conv_op[-2])


@dataclass(frozen=True)
class _Network:
    network_class_name: Architecture
    arch_kwargs: _NetworkArguments
    _kw_requires_import: list[str]

    def __post_init__(self) -> None:
        if sorted(self._kw_requires_import) != sorted(_IMPORTED):
            raise ValueError(f"_kw_requires_import must be {', '.join(_IMPORTED)}")
        if self.network_class_name.endswith(_RESIDUAL) != (self.arch_kwargs.n_blocks_per_stage is not None):
            raise ValueError("arch_kwargs are those of another network_class_name")


@dataclass(frozen=True)
class _ResamplingArguments:
    is_seg: bool
    order: Literal[0, 1, 2, 3]
    order_z: Literal[0, 1, 2, 3]
    force_separate_z: bool | None


@dataclass(frozen=True, kw_only=True)
class _Configuration:
    """One configuration of nnU-Net's plans; ``next_stage`` names the cascade, which we never train."""

    data_identifier: str
    preprocessor_name: Literal["DefaultPreprocessor"]
    batch_size: int
    patch_size: list[int]
    median_image_size_in_voxels: list[float]
    spacing: list[float]
    normalization_schemes: list[Scheme]
    use_mask_for_norm: list[bool]
    resampling_fn_data: Resampling
    resampling_fn_seg: Resampling
    resampling_fn_data_kwargs: _ResamplingArguments
    resampling_fn_seg_kwargs: _ResamplingArguments
    resampling_fn_probabilities: Resampling
    resampling_fn_probabilities_kwargs: _ResamplingArguments
    architecture: _Network
    batch_dice: bool
    next_stage: Literal["3d_cascade_fullres"] | None = None

    def __post_init__(self) -> None:
        axes = self.architecture.arch_kwargs.axes
        _matches("data_identifier", self.data_identifier, _NAME)
        _as_long("patch_size", self.patch_size, axes)
        _as_long("spacing", self.spacing, axes)
        _as_long("use_mask_for_norm", self.use_mask_for_norm, len(self.normalization_schemes))
        _within("patch_size", self.patch_size, 1, _MOST_VOXELS)
        _within("patch_size, all voxels", [math.prod(self.patch_size)], 1, _MOST_VOXELS)
        _within("spacing", self.spacing, *_SPACINGS)


@dataclass(frozen=True)
class _Intensities:
    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float


@dataclass(frozen=True, kw_only=True)
class _Plans:
    """``plans.json`` with the one configuration that was trained."""

    dataset_name: str
    plans_name: str
    original_median_spacing_after_transp: list[float]
    original_median_shape_after_transp: list[float]
    image_reader_writer: Literal["SimpleITKIO"]
    transpose_forward: list[int]
    transpose_backward: list[int]
    configurations: dict[str, _Configuration]
    experiment_planner_used: str
    label_manager: Literal["LabelManager"]
    foreground_intensity_properties_per_channel: dict[str, _Intensities]
    nodeseg: SegmentationTraining

    def __post_init__(self) -> None:
        for name in ("dataset_name", "plans_name", "experiment_planner_used"):
            _matches(name, getattr(self, name), _NAME)
        for axes in (self.transpose_forward, self.transpose_backward):
            if sorted(axes) != [0, 1, 2]:
                raise ValueError(f"transpose_forward and transpose_backward order three axes, found {axes}")


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """``dataset.json``, without what only our planner reads."""

    channel_names: dict[str, str]
    labels: dict[str, int]
    numTraining: int  # nnU-Net's name
    file_ending: str
    overwrite_image_reader_writer: Literal["SimpleITKIO"]

    def __post_init__(self) -> None:
        _matches("file_ending", self.file_ending, FILE_ENDING)


@dataclass(frozen=True)
class NetworkFiles:
    """What nnU-Net needs of a model beside its weights.

    Attributes:
        plans: content of ``plans.json``, with the plan's configuration only.
        dataset: content of ``dataset.json``.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]


def read_network_files(folder: Path, plan: NodeSegPlan) -> NetworkFiles:
    """The files of a model, checked; nothing that they name is imported.

    Args:
        folder: with ``plans.json`` and ``dataset.json``.
        plan: of the model.

    Raises:
        UserError: a file is missing, holds what our planner does not write, or belongs to another plan.
    """
    plans = _parsed(_Plans, _with_one_configuration(read_json(folder / PLANS), plan), folder / PLANS)
    content = read_json(folder / DATASET)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "nodeseg"}
    dataset = _parsed(_Dataset, content, folder / DATASET)
    _check_fit(plan, plans, dataset, folder)
    return NetworkFiles(_plain_plans(plans), to_plain(dataset))


def check_names(plan: NodeSegPlan, file: Path) -> None:
    """Names that nnU-Net's folders get must be names: a plan from elsewhere must not lead out of the model's folder.

    Raises:
        UserError: one is no name.
    """
    for key in ("plan_id", "trainer", "dataset", "configuration"):
        value = getattr(plan, key)
        if not _NAME.fullmatch(value):
            raise UserError(
                f"the plan's {key} is no name", file=file, found=repr(value)[:100], expected="a text"
            )


def _with_one_configuration(content: Any, plan: NodeSegPlan) -> Any:
    """The others are left unread: nnU-Net never sees them."""
    if not isinstance(content, dict) or not isinstance(content.get("configurations"), dict):
        return content
    every = content["configurations"]
    kept = {name: every[name] for name in every if name == plan.configuration}
    return {**content, "configurations": kept}


def _parsed(kind: type[Any], content: Any, file: Path) -> Any:
    try:
        return from_plain(kind, content)
    except (SchemaError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"holds what this package does not write: {reason[:300]}", file=file, remedy=_REMEDY
        ) from None


def _check_fit(plan: NodeSegPlan, plans: _Plans, dataset: _Dataset, folder: Path) -> None:
    """Both files must belong to the plan."""
    found = plans.configurations.get(plan.configuration)
    if found is None:
        raise UserError(f"has no configuration {plan.configuration}", file=folder / PLANS, remedy=_REMEDY)
    pairs = (
        ("dataset_name", plans.dataset_name, plan.dataset),
        ("plans_name", plans.plans_name, plan.plan_id),
        ("features_per_stage", found.architecture.arch_kwargs.features_per_stage, plan.features),
        ("patch_size", found.patch_size, list(plan.patch_size)),
        ("normalization_schemes", found.normalization_schemes, [each.scheme for each in plan.channels]),
        ("channel_names", list(dataset.channel_names.values()), [each.name for each in plan.channels]),
        ("labels", sorted(dataset.labels.values()), list(range(len(plan.classes) + 1))),
    )
    for key, there, planned in pairs:
        if there != planned:
            raise UserError(
                f"{key} of nnU-Net's files is not the plan's",
                file=folder,
                expected=str(planned)[:200],
                found=str(there)[:200],
                remedy="Train again, or use the files that were trained with",
            )


def _plain_plans(plans: _Plans) -> dict[str, Any]:
    """As nnU-Net reads them: arguments that a network does not have are left out, for all others are handed on."""
    content: dict[str, Any] = to_plain(plans)
    for configuration in content["configurations"].values():
        del configuration["next_stage"]
        arguments = configuration["architecture"]["arch_kwargs"]
        for name in ("n_conv_per_stage", "n_blocks_per_stage"):
            if arguments[name] is None:
                del arguments[name]
    return content


def _as_long(name: str, values: list[Any], length: int) -> None:
    if len(values) != length:
        raise ValueError(f"{name} must have {length} entries, found {len(values)}")


def _within(name: str, values: list[Any], least: float, most: float) -> None:
    wrong = [value for value in values if not least <= value <= most]
    if wrong:
        raise ValueError(f"{name} must lie in [{least:g}, {most:g}], found {wrong[0]}")


def _matches(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise ValueError(f"{name} is no such name: {value!r}")
