"""A consolidated model of segmentation with random weights: everything that prediction needs, and no training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from segmentation_plan import segmentation_plan

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, PLAN, ModelFolder
from nndet_psma.core.schema import to_plain
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.plan import Candidates, NodeSegPlan

_RESAMPLING = {"order_z": 0, "force_separate_z": None}


def architecture(features: Sequence[int]) -> dict[str, Any]:
    """Of a plain U-Net, as nnU-Net's planner writes it."""
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], *[[3, 3, 3]] * (stages - 1)],
            "strides": [[1, 1, 1], *[[1, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def nnunet_plans(plan: NodeSegPlan) -> dict[str, Any]:
    """``plans.json``, with a cascade that nobody trains."""
    intensities = {"mean": 150.0, "median": 150.0, "std": 8.0, "min": 130.0, "max": 170.0}
    limits = {"percentile_00_5": -125.0, "percentile_99_5": 225.0}
    full = {
        "data_identifier": f"{plan.plan_id}_{plan.configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": plan.batch_size,
        "patch_size": list(plan.patch_size),
        "median_image_size_in_voxels": [10.0, 40.0, 48.0],
        "spacing": list(plan.spacing),
        "normalization_schemes": [channel.scheme for channel in plan.channels],
        "use_mask_for_norm": [False] * len(plan.channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **_RESAMPLING},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **_RESAMPLING},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **_RESAMPLING},
        "architecture": architecture(plan.features),
        "batch_dice": False,
    }
    return {
        "dataset_name": plan.dataset,
        "plans_name": plan.plan_id,
        "original_median_spacing_after_transp": list(plan.spacing),
        "original_median_shape_after_transp": [10, 40, 48],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            plan.configuration: full,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "experiment_planner_used": "NodeSegPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(index): {**intensities, **limits} for index in range(len(plan.channels))
        },
        "nodeseg": to_plain(plan.training),
    }


def nnunet_dataset(plan: NodeSegPlan) -> dict[str, Any]:
    """``dataset.json``, with what our planner keeps there."""
    return {
        "channel_names": {str(index): channel.name for index, channel in enumerate(plan.channels)},
        "labels": {"background": 0, **{name: int(index) + 1 for index, name in plan.classes.items()}},
        "numTraining": 6,
        "file_ending": plan.file_ending,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "nodeseg": {"spacing": None},
    }


def write_segmentation_model(root: Path, folds: Sequence[int] = (0, 1), **changes: Any) -> ModelFolder:
    """The model at ``root``; ``changes`` go into the plan."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nndet_psma.systems.nodeseg.nnunet.predictor import build_network
    from nndet_psma.systems.nodeseg.nnunet.weights import write_checkpoint

    small = {"features": [4, 8], "patch_size": (8, 24, 24), "candidates": Candidates(0.5, 0.45, min_voxels=4)}
    plan = segmentation_plan(**{**small, **changes})
    folder = ModelFolder(root)
    model = SegmentationModel(folder)
    plan.write(folder.fold(CONSOLIDATED) / PLAN)
    settings = {**to_plain(plan.postproc_defaults), "score_threshold": 0.3}
    cases = [case_id for fold in plan.folds for case_id in fold.val]
    tuned = InferencePlan("", list(folds), settings, "f1", 0.5, "validation cases", cases)
    tuned.write(folder.fold(CONSOLIDATED) / INFERENCE_PLAN)
    trained = model.trained(plan, CONSOLIDATED)
    trained.mkdir(parents=True)
    plans, dataset = nnunet_plans(plan), nnunet_dataset(plan)
    (trained / "plans.json").write_text(json.dumps(plans))
    (trained / "dataset.json").write_text(json.dumps(dataset))
    manager = PlansManager(plans)
    for fold in folds:
        torch.manual_seed(fold)
        network = build_network(manager, manager.get_configuration(plan.configuration), dataset)
        write_checkpoint(
            model.checkpoint(plan, CONSOLIDATED, fold),
            network.state_dict(),
            trainer=plan.trainer,
            configuration=plan.configuration,
            mirrored_axes=(0, 1, 2),
        )
    return folder
