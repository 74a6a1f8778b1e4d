"""nnU-Net's files of a model as somebody would forge them, each with what must be said of it."""

from __future__ import annotations

from typing import Any

from segmentation_model import nnunet_dataset, nnunet_plans

from nndet_psma.systems.nodeseg.plan import NodeSegPlan

FULL = "3d_fullres"
Place = tuple[str, dict[str, Any]]


def _network(**changes: Any) -> Place:
    return ("architecture", changes)


def _arguments(**changes: Any) -> Place:
    return ("arch_kwargs", changes)


HOSTILE = {
    "class": (_network(network_class_name="torch.hub.load"), "network_class_name: expected one of"),
    "module": (_network(network_class_name="evil_module.Network"), "network_class_name: expected one of"),
    "other import": (_network(_kw_requires_import=["conv_op", "evil"]), "_kw_requires_import must be"),
    "key of the network": (_network(code="__import__('os')"), "architecture.code: unknown key"),
    "argument": (_arguments(repo_or_dir="somebody/evil"), "arch_kwargs.repo_or_dir: unknown key"),
    "convolution": (_arguments(conv_op="os.system"), "arch_kwargs.conv_op: expected one of"),
    "norm": (_arguments(norm_op="evil_module.Norm"), "arch_kwargs.norm_op: expected one of"),
    "argument of the norm": (_arguments(norm_op_kwargs={"eps": 1e-5, "affine": True, "x": 1}), "unknown key"),
    "value of the norm": (_arguments(norm_op_kwargs={"eps": "0", "affine": True}), "eps: expected float"),
    "dropout": (_arguments(dropout_op="evil_module.Dropout"), "dropout_op: expected NoneType"),
    "activation": (_arguments(nonlin="evil_module.run"), "arch_kwargs.nonlin: expected one of"),
    "features": (_arguments(features_per_stage=[8, 10**9]), r"features_per_stage must lie in [1, 1024]"),
    "more features": (_arguments(features_per_stage=[8] * 99), "features_per_stage must have 2 entries"),
    "stages": (_arguments(n_stages=10**6), "n_stages must lie in [1, 12]"),
    "kernel": (_arguments(kernel_sizes=[[1, 3, 3], [3, 3, 999]]), "kernel_sizes must lie in [1, 7]"),
    "stride": (_arguments(strides=[[1, 1, 1], [1, 0, 2]]), "strides must lie in [1, 8]"),
    "convolutions": (_arguments(n_conv_per_stage=[2, 10**7]), "convolutions per stage must lie in"),
    "decoder": (_arguments(n_conv_per_stage_decoder=[10**7]), "n_conv_per_stage_decoder must lie in"),
    "axes": (_arguments(norm_op="torch.nn.modules.instancenorm.InstanceNorm2d"), "different axes"),
    "number as text": (_arguments(n_stages="2"), "n_stages: expected int, found '2'"),
    "preprocessor": (("configuration", {"preprocessor_name": "Evil"}), "preprocessor_name: expected one of"),
    "scheme": (("configuration", {"normalization_schemes": ["Evil"]}), "normalization_schemes[0]: expected"),
    "resampling": (("configuration", {"resampling_fn_data": "eval"}), "resampling_fn_data: expected one of"),
    "order": (
        ("configuration", {"resampling_fn_seg_kwargs": {"is_seg": True, "order": 10**9}}),
        "order: expected one of [0, 1, 2, 3]",
    ),
    "patch": (("configuration", {"patch_size": [10**9, 10**9, 10**9]}), "patch_size, all voxels must lie in"),
    "spacing": (("configuration", {"spacing": [1e-9, 1.0, 1.0]}), "spacing must lie in [0.01, 100]"),
    "heritage": (("configuration", {"inherits_from": "evil"}), "inherits_from: unknown key"),
    "folder": (("configuration", {"data_identifier": "../evil"}), "data_identifier is no such name"),
    "reader": (("plans", {"image_reader_writer": "Evil"}), "image_reader_writer: expected one of"),
    "labels": (("plans", {"label_manager": "Evil"}), "label_manager: expected one of"),
    "planner": (("plans", {"experiment_planner_used": "../../evil"}), "is no such name"),
    "order of axes": (("plans", {"transpose_forward": [0, 0, 7]}), "order three axes"),
    "key of the plans": (("plans", {"exec": "print(1)"}), "exec: unknown key"),
    "not finite": (("plans", {"original_median_spacing_after_transp": [float("nan")] * 3}), "finite"),
    "regions": (("dataset", {"labels": {"background": 0, "node": [1, 2]}}), "labels.node: expected int"),
    "key of the data set": (("dataset", {"code": "print(1)"}), "code: unknown key"),
    "ending": (("dataset", {"file_ending": "/../x"}), "file_ending is no such name"),
}


def changed(plan: NodeSegPlan, place: str, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``plans.json`` and ``dataset.json`` with ``changes`` at a place."""
    plans, dataset = nnunet_plans(plan), nnunet_dataset(plan)
    configuration = plans["configurations"][plan.configuration]
    network = configuration["architecture"]
    places = {
        "plans": plans,
        "configuration": configuration,
        "architecture": network,
        "arch_kwargs": network["arch_kwargs"],
        "dataset": dataset,
    }
    places[place].update(changes)
    return plans, dataset
