"""nnU-Net's planners with our choices: windows as limits of channels, a small network on CPU, the paper's patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.systems.nodeseg.plan import Channel
from nndet_psma.systems.nodeseg.planner import NetworkBudget, NodeSegChoices
from nndet_psma.systems.nodeseg.sampling import PLANS_KEY


def exported_choices(choices: NodeSegChoices) -> dict[str, Any]:
    """What the planner reads from dataset.json, so that nnU-Net may construct it as any other."""
    return {
        "channels": to_plain(choices.channels),
        "budget": to_plain(choices.budget),
        "spacing": choices.spacing,
        "patch_size": choices.patch_size,
        "batch_size": choices.batch_size,
        "training": to_plain(choices.training),
    }


class NodeSegPlanner(ExperimentPlanner):
    """Plain U-Net; reads our choices from dataset.json, and stands before nnU-Net's other planners as a mix-in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = self.dataset_json.get("nodeseg")
        if choices is None:
            raise UserError(
                "the data set was not exported for node segmentation",
                file=f"{self.raw_dataset_folder}/dataset.json",
                remedy="Run nndet_prep with -o train=nodeseg",
            )
        self.channels = [from_plain(Channel, channel) for channel in choices["channels"]]
        self.budget = from_plain(NetworkBudget, choices["budget"])
        self.wished_patch: Sequence[int] | None = choices["patch_size"]
        self.wished_batch: int | None = choices["batch_size"]
        self.training: dict[str, Any] = choices["training"]
        if choices["spacing"] is not None and kwargs.get("overwrite_target_spacing") is None:
            self.overwrite_target_spacing = [float(step) for step in choices["spacing"]]
        self.UNet_vram_target_GB = self.budget.gpu_gb
        if self.budget.features is not None:
            self.UNet_base_num_features = self.budget.features
        if self.budget.most_features is not None:
            self.UNet_max_features_3d = self.UNet_max_features_2d = self.budget.most_features

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(
        self,
    ) -> tuple[list[str], list[bool]]:
        """Schemes of our channels; nnU-Net's rule on whether zeros around the image count."""
        _, masks = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        inside = self.dataset_fingerprint["median_relative_size_after_cropping"] < 3 / 4
        schemes: list[str] = [channel.scheme for channel in self.channels]
        return schemes, [inside and scheme == "ZScoreNormalization" for scheme in schemes[: len(masks)]]

    def generate_data_identifier(self, configuration_name: str) -> str:
        """A folder of our own: windows give other arrays than nnU-Net's plans."""
        return f"{self.plans_identifier}_{configuration_name}"

    def get_plans_for_configuration(
        self, spacing: Any, median_shape: Any, data_identifier: str, voxels: float, cache: dict[str, Any]
    ) -> dict[str, Any]:
        """nnU-Net's, with the wished patch and batch as far as memory allows."""
        shape = np.asarray(median_shape)
        wished = self._wished(len(spacing))
        limit = self.UNet_vram_target_GB
        if wished is not None:
            shape = np.minimum(wished, 2**16)
            if self.budget.features is None:  # on a GPU the wish goes before the target; the batch gives way
                self.UNet_vram_target_GB = 1e6
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, shape, data_identifier, voxels, cache
        )
        self.UNet_vram_target_GB = limit
        plan["median_image_size_in_voxels"] = np.asarray(median_shape)
        plan["batch_size"] = self._batch(plan, len(spacing)) * self.budget.gpus
        return plan

    def _wished(self, axes: int) -> Any:
        """The wished patch in the axes of a configuration, None without a wish."""
        if self.wished_patch is None:
            return None
        forward, _ = self.determine_transpose()
        return np.array(self.wished_patch)[list(forward)][-axes:]

    def _batch(self, plan: dict[str, Any], axes: int) -> int:
        """The wished batch, or nnU-Net's; what memory does not hold is left out."""
        planned = int(plan["batch_size"])
        if self.wished_batch is None and self.wished_patch is None:
            return planned
        architecture = plan["architecture"]
        estimate = self.static_estimate_VRAM_usage(
            tuple(plan["patch_size"]),
            len(self.channels),
            len(self.dataset_json["labels"]),
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
        )
        reference, batch = (
            (self.UNet_reference_val_2d, self.UNet_reference_val_corresp_bs_2d)
            if axes == 2
            else (self.UNet_reference_val_3d, self.UNet_reference_val_corresp_bs_3d)
        )
        share = self.UNet_vram_target_GB / self.UNet_reference_val_corresp_GB
        holds = max(1, int(reference * share / estimate * batch))
        return min(self.wished_batch or planned, holds)

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the limits of HU windows into the channels' intensities, and our training settings."""
        properties = plans["foreground_intensity_properties_per_channel"]
        for index, channel in enumerate(self.channels):
            if channel.lower is not None and channel.upper is not None:
                key = str(index) if str(index) in properties else index
                properties[key] = {**properties[key], **window_properties(channel.lower, channel.upper)}
        plans[PLANS_KEY] = self.training
        super().save_plans(plans)


def window_properties(lower: float, upper: float) -> dict[str, float]:
    """Intensities with which nnU-Net's CT normalisation maps ``lower..upper`` HU to -1..1 and clips the rest."""
    return {
        "percentile_00_5": lower,
        "percentile_99_5": upper,
        "mean": (lower + upper) / 2,
        "std": (upper - lower) / 2,
    }


class NodeSegPlannerResEncM(NodeSegPlanner, nnUNetPlannerResEncM):
    """nnU-Net's residual encoder preset M."""


class NodeSegPlannerResEncL(NodeSegPlanner, nnUNetPlannerResEncL):
    """nnU-Net's residual encoder preset L."""


class NodeSegPlannerResEncXL(NodeSegPlanner, nnUNetPlannerResEncXL):
    """nnU-Net's residual encoder preset XL."""


PLANNERS: dict[str, type[NodeSegPlanner]] = {
    "plain": NodeSegPlanner,
    "resenc_m": NodeSegPlannerResEncM,
    "resenc_l": NodeSegPlannerResEncL,
    "resenc_xl": NodeSegPlannerResEncXL,
}
"""By ``NetworkBudget.network``."""
