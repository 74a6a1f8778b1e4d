"""``plan_cfg``: wrong values are named, presets are complete."""

from __future__ import annotations

from typing import Any

import pytest

from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.systems.psma25d.options import SliceOptions


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"num_fold": 3}, "plan_cfg.num_fold: unknown key"),
        ({"num_folds": 1}, "num_folds must be at least 2, found 1"),
        ({"num_folds": "five"}, "plan_cfg.num_folds: expected int"),
        ({"target": "tpu"}, "plan_cfg.target: expected one of"),
        ({"quantiles": [0.5, 60.0]}, "quantiles are tails"),
        ({"max_voters": 0}, "max_voters must be at least 1"),
        ({"margin_coverage": 0.0}, "margin_coverage must lie in"),
        ({"iterations_factor": -1.0}, "iterations_factor must not be negative"),
        ({"soft_tissue": [225.0, -125.0]}, "soft_tissue"),
        ({"soft_tissue": [1.0]}, r"plan_cfg.soft_tissue: expected 2 values"),
        ({"min_margin_mm": -1.0}, "min_margin_mm must not be negative"),
        ({"gpu_memory_gb": 0.0}, "gpu_memory_gb must be positive"),
        ({"num_gpus": 0}, "num_gpus must be at least 1"),
        ({"windows": []}, "windows is empty"),
        ({"windows": [[100.0, -100.0]]}, r"windows is \(lower, upper\) in HU"),
        ({"spacing": [1.0, 0.0, 1.0]}, "spacing must be positive"),
        ({"neighbours": -1}, "neighbours must not be negative"),
        ({"input_side": 0}, "input_side must be positive"),
        ({"channels": "rgb"}, "plan_cfg.channels: expected one of"),
    ],
)
def test_options_name_the_wrong_key(content: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        DetectorOptions.parse(content)


def options_of(preset: str) -> tuple[Any, DetectorOptions]:
    config = compose_config("Task900_X", [f"train={preset}"])
    return config, config.plan_cfg


def test_options_equal_the_configurations_defaults() -> None:
    assert compose_config("Task900_X", []).plan_cfg == SliceOptions()


def test_the_papers_preset() -> None:
    config, options = options_of("psma25d_xu2023")
    assert (config.plan, config.exp.id) == ("PSMA25D_Xu2023", "MaskRCNN25D_PSMA25D_Xu2023")
    assert options.windows == [(-97, 310), (-90, 169), (-84, 151), (-79, 141), (-125, 225)]
    assert (options.margin_mm, options.neighbours, options.schedule, options.grids) == (
        6.48,
        1,
        "paper",
        "paper",
    )


def test_the_preset_of_windows_as_channels() -> None:
    config, options = options_of("psma25d_multiwindow")
    assert (config.plan, config.module) == ("PSMA25D_MultiWindow", "MaskRCNN25D")
    assert options == SliceOptions(channels="multiwindow")
