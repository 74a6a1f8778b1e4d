"""The report of a segmentation model: what detectors have and nnU-Net has not is said, nothing is invented."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from segmentation_plan import segmentation_plan

from nndet_psma.artifacts.model_folder import CONSOLIDATED
from nndet_psma.report.charts.charts import training_chart
from nndet_psma.stages.report import ReportJob, write_report
from nndet_psma.systems.nodeseg.nnunet.curves import training_curve
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.system import STEP
from nndet_psma.systems.system import model_system

LOG = {
    "train_losses": [0.5, np.float32(-0.25)],
    "val_losses": [0.4, -0.1],
    "mean_fg_dice": [np.float64(0.25), np.float64(0.75)],
}


def write_checkpoint(folder, plan, fold, log):
    file = SegmentationModel(folder).checkpoint(plan, fold)
    file.parent.mkdir(parents=True)
    content = {
        "network_weights": {},
        "trainer_name": plan.trainer,
        "init_args": {"configuration": plan.configuration},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save({**content, "logging": log} if log else content, file)


@pytest.fixture
def segmented(own_tiny):
    """The tiny model with the plan of a segmentation in the place of the detector's."""
    place = own_tiny
    detector = place.folder.plan(CONSOLIDATED)
    plan = segmentation_plan(task=detector.task, classes=detector.classes, modalities=detector.modalities)
    for fold in (CONSOLIDATED, *place.folder.trained_folds()):
        plan.write(place.folder.fold(fold) / "plan.json")
    place.plan = plan
    return place


def page_of(place):
    file = write_report(place.paths, ReportJob(place.folder, max_cases=0))
    return re.sub(r"\s+", " ", file.read_text())


def test_without_a_log_the_page_says_so(segmented):
    page = page_of(segmented)
    assert "nnU-Net segments the images; voxels that touch are one lesion." in page
    assert "nnU-Net ran this training: its cost was not estimated" in page
    assert "fold 0 has left no log" in page
    assert "GPU memory" not in page
    assert "no GPU visible" in page  # evidence of a decision


def test_curves_come_from_the_checkpoint(segmented):
    for fold in segmented.folder.trained_folds():
        write_checkpoint(segmented.folder, segmented.plan, fold, LOG)
    page = page_of(segmented)
    assert "Training loss against steps; last values: nnU-Net -0.25." in page
    assert "nnU-Net fold 0 0.75" in page
    assert "has left no log" not in page


def test_a_damaged_checkpoint_costs_the_curve_not_the_page(segmented):
    write_checkpoint(segmented.folder, segmented.plan, 0, LOG)
    SegmentationModel(segmented.folder).checkpoint(segmented.plan, 0).write_bytes(b"nothing")
    assert "the checkpoint is damaged" in page_of(segmented)


def test_steps_are_those_that_were_trained(segmented):
    """Epochs of 250 steps as planned; of 10 where the run was told so."""
    write_checkpoint(segmented.folder, segmented.plan, 0, LOG)
    rows = training_curve(segmented.folder, 0, segmented.plan)
    assert [(row["step"], row["loss"], row["val_dice"]) for row in rows] == [
        (250.0, 0.5, 0.25),
        (500.0, -0.25, 0.75),
    ]
    (segmented.folder.fold(0) / "config.yaml").write_text("trainer_cfg:\n  iterations: 10\n  epochs: null\n")
    assert [row["step"] for row in training_curve(segmented.folder, 0, segmented.plan)] == [10.0, 20.0]


def test_a_lean_checkpoint_has_no_curve(segmented):
    write_checkpoint(segmented.folder, segmented.plan, 0, None)
    assert training_curve(segmented.folder, 0, segmented.plan) == []


def test_a_plan_of_a_detector_has_none(own_tiny):
    """The system of the plan is asked: a segmentation's curve is never looked for in a detector's folder."""
    system, plan = model_system(own_tiny.folder, CONSOLIDATED)
    assert not isinstance(plan, NodeSegPlan)
    assert STEP not in system.curves(own_tiny.folder, 0, plan)[0]


def test_a_loss_below_zero_is_drawn():
    """Axes begin at 0 only where no loss lies below: minus Dice does."""
    chart = training_chart(
        ["nnU-Net"], {0: {"nnU-Net": [{"step": 1, "loss": -0.5}, {"step": 2, "loss": -0.9}]}}
    )
    assert chart is not None
    assert "nnU-Net -0.90" in chart.alt
