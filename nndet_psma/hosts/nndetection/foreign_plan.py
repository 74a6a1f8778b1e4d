"""The plan of a model that nnDetection trained, as one of ours: for reports and for comparing plans.

Read from the model folder's ``plan_debug.json`` and ``config_resolved.yaml``, which are text; the pickled plan beside
them is not opened. What nnDetection does not tell (margins, fractions) stands at the value that means "nothing".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.channels import Scaling, Window
from nndet_psma.artifacts.detector_plan import Augmentation, Stage
from nndet_psma.artifacts.plan import Decision, FoldPlan, Target
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.parsing import parse_yaml, read_text
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.systems.retina3d.plan import Detector3D, Retina3DPlan

PLAN_FILE = "plan_debug.json"
CONFIG_FILE = "config_resolved.yaml"
STAGE = "nndetection"

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TARGET_GB = 11.0  # nnDetection plans for this card whatever it runs on
_ALL_HU = (-1024.0, 3071.0)
_FIVE_SD = 5.0

_RULES = {
    "spacing": "nnDetection: median spacing of the training cases, the 10th percentile along a coarse axis",
    "batch_size": "nnDetection: fixed",
    "windows": "nnDetection: CT clipped at the 0.5th and 99.5th percentile of lesions, then z-scored; limits not told",
    "stages": "nnDetection: fixed schedule of its configuration",
    "detector3d.patch_size": "nnDetection: the largest that its memory estimate allows",
    "detector3d.strides": "nnDetection: axes are halved while they are long enough and not coarser than the others",
    "detector3d.anchor_shapes": "nnDetection: searched for the best overlap with the training boxes",
}


def foreign_plan(source: Path, description: DatasetDescription, folds: Sequence[FoldPlan]) -> Retina3DPlan:
    """Plan of the nnDetection model in ``source``.

    Args:
        source: a fold folder of nnDetection.
        description: of the task it was trained on.
        folds: what the folds validate on.

    Raises:
        UserError: a file is missing, or holds other than nnDetection writes.
    """
    content = read_json(source / PLAN_FILE)
    config = _read_config(source / CONFIG_FILE)
    try:
        return _plan(content, config, description, folds)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "is no plan that nnDetection v0.1 writes",
            file=source / PLAN_FILE,
            found=str(error),
            remedy="Give the model folder that nndet_train has written",
        ) from None


def _plan(
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    description: DatasetDescription,
    folds: Sequence[FoldPlan],
) -> Retina3DPlan:
    trainer = config.get("trainer_cfg") or {}
    planner, module = str(content["planner_id"]), str(content["architecture"]["arch_name"])
    ct = next((i for i in description.modalities if description.role(i) is Role.CT), None)
    return Retina3DPlan(
        plan_id=f"{planner}_{content['mode']}",
        planner=planner,
        trainer=module,
        task=description.task,
        made_from=hash_json([content, trainer]),
        target=Target("gpu", _TARGET_GB),
        modalities={str(index): name for index, name in description.modalities.items()},
        classes={str(index): name for index, name in description.labels.items()},
        ct_modality=ct,
        ctv_modality=description.ctv_modality,
        spacing=_triple(numbers(content["target_spacing"])),
        margin_mm=0.0,
        body_margin_mm=0.0,
        windows=[] if ct is None else [Window("ct", *_ALL_HU)],
        scalings=_scalings(description, ct),
        neighbours=0,
        stages=[_stage(trainer, ct is not None)],
        batch_size=int(numbers(content["batch_size"])[0]),
        positive_fraction=float((config.get("augment_cfg") or {}).get("oversample_foreground_percent", 0.5)),
        hard_negative_fraction=0.0,
        detector=None,
        detector3d=_detector(content),
        augmentation=Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        folds=list(folds),
        seed=0,
        postproc_defaults={},
        postproc_grid={},
        decisions={key: Decision(rule, f"plan of {planner}") for key, rule in _RULES.items()},
    )


def numbers(value: Any) -> list[float]:
    """All numbers in what ``plan_debug.json`` keeps as text, in order: ``"[32 40 40]"``, ``["1", "2"]``, ``"4"``."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [float(text) for text in _NUMBER.findall(str(value))]


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = values
    return z, y, x


class _Axes:
    """From nnDetection's transposed axes, of which a 2D model has only the last two, to those of the image file."""

    def __init__(self, transpose_backward: Any) -> None:
        self.order = [int(axis) for axis in numbers(transpose_backward)]

    def whole(self, values: Any) -> tuple[int, int, int]:
        """Numbers of voxels, kernels or strides; 1 along the axis that a 2D model lacks."""
        z, y, x = (round(value) for value in self.sizes(numbers(values)))
        return z, y, x

    def sizes(self, values: Sequence[float]) -> tuple[float, float, float]:
        """Sizes in voxels."""
        padded = [1.0] * (3 - len(values)) + list(values)
        return _triple([padded[axis] for axis in self.order])


def _detector(content: Mapping[str, Any]) -> Detector3D:
    architecture, axes = content["architecture"], _Axes(content["transpose_backward"])
    kernels = [axes.whole(kernel) for kernel in architecture["conv_kernels"]]
    first, most = (int(architecture[key]) for key in ("start_channels", "max_channels"))
    return Detector3D(
        patch_size=axes.whole(content["patch_size"]),
        strides=[(1, 1, 1), *(axes.whole(stride) for stride in architecture["strides"])],
        kernels=kernels,
        channels=[min(first * 2**stage, most) for stage in range(len(kernels))],
        levels=[int(level) for level in numbers(architecture["decoder_levels"])],
        fpn_channels=int(architecture["fpn_channels"]),
        head_channels=int(architecture["head_channels"]),
        anchor_shapes=_anchors(content["anchors"], axes),
    )


def _anchors(anchors: Mapping[str, Any], axes: _Axes) -> list[list[tuple[float, float, float]]]:
    """Every combination of the sizes along the axes, level by level, as nnDetection makes its anchors."""
    sizes = [anchors[key] for key in ("width", "height", "depth") if key in anchors]
    return [
        [axes.sizes(shape) for shape in product(*map(numbers, of_level))]
        for of_level in zip(*sizes, strict=True)
    ]


def _scalings(description: DatasetDescription, ct: int | None) -> list[Scaling]:
    """Other modalities: z-scored by case, which nnDetection does not limit."""
    return [
        Scaling(index, name, -_FIVE_SD, _FIVE_SD, zscore=True)
        for index, name in description.modalities.items()
        if index not in (ct, description.ctv_modality)
    ]


def _stage(trainer: Mapping[str, Any], has_ct: bool) -> Stage:
    epochs = int(trainer.get("max_num_epochs", 0)) + int(trainer.get("swa_epochs", 0))
    iterations = epochs * int(trainer.get("num_train_batches_per_epoch", 0))
    return Stage(
        name=STAGE,
        region="body",
        windows=["ct"] if has_ct else [],
        start_from=None,
        voter=True,
        iterations=iterations,
        learning_rate=float(trainer.get("initial_lr", 0.01)),
        milestones=[],
        warmup=min(int(trainer.get("warm_iterations", 0)), iterations),
    )


def _read_config(file: Path) -> Mapping[str, Any]:
    """The configuration it was trained with; only its numbers are used."""
    if not file.is_file():
        raise UserError("file does not exist", file=file, expected="a fold folder that nnDetection trained")
    try:
        content = parse_yaml(read_text(file))
    except ValueError as error:
        raise UserError(
            "not valid YAML",
            file=file,
            found=str(error)[:200],
            remedy="Restore the file that nndet_train has written",
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            "is no configuration of nnDetection",
            file=file,
            remedy="Give the model folder that nndet_train has written",
        )
    return content
