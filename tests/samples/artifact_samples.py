"""One small valid artefact of every kind."""

from __future__ import annotations

from nndet_psma.artifacts.channels import Scaling, Window
from nndet_psma.artifacts.detector_plan import Augmentation, Stage
from nndet_psma.artifacts.fingerprint import (
    CaseFingerprint,
    Fingerprint,
    Histogram,
    IntensityStatistics,
    LesionFingerprint,
)
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Decision, FoldPlan, Target
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.systems.psma25d.plan import Detector, PSMA25DPlan

DETECTOR = Detector(
    backbone="resnet18",
    weights="none",
    norm="batch",
    levels=[1, 2],
    fpn_channels=16,
    head_channels=32,
    scale=2.0,
    body_scale=1.0,
    input_size=(64, 96),
    body_input_size=(64, 64),
    anchor_sizes=[[4.0, 6.0], [8.0, 12.0]],
    aspect_ratios=[1.0],
    input_mean=0.0,
    input_std=1.0,
    rpn_samples=16,
    roi_samples=8,
    proposals_train=20,
    proposals_test=20,
    detections_per_slice=5,
    min_score=0.02,
    nms_iou=0.3,
    mask_branch=False,
)

PLAN = PSMA25DPlan(
    plan_id="PSMA25D",
    planner="PSMA25DPlanner",
    trainer="MaskRCNN25D",
    task="Task900_Tiny",
    made_from="0123456789abcdef",
    target=Target("cpu", 0.0),
    modalities={"0": "CT", "1": "PET", "2": "CTV"},
    classes={"0": "node"},
    ct_modality=0,
    ctv_modality=2,
    spacing=(3.0, 1.0, 1.0),
    margin_mm=6.48,
    body_margin_mm=5.0,
    windows=[Window("narrow", -97.0, 310.0), Window("soft", -125.0, 225.0)],
    scalings=[Scaling(1, "PET", 0.0, 20.0)],
    neighbours=1,
    stages=[
        Stage("wsi", "body", ["soft"], None, False, 100, 0.01, [66], 10),
        Stage("narrow", "search", ["narrow"], "wsi", True, 200, 0.005, [133, 166], 20),
        Stage("both", "search", ["narrow", "soft"], "wsi", True, 200, 0.005, [133, 166], 20),
    ],
    batch_size=4,
    positive_fraction=0.5,
    hard_negative_fraction=0.5,
    detector=DETECTOR,
    augmentation=Augmentation((0.9, 1.1), 15.0, 0.5, 0.1, 1.0, 0.1, 0.02, 6.0),
    folds=[FoldPlan(["a"], ["b"]), FoldPlan(["b"], ["a"])],
    seed=1,
    postproc_defaults={"zone_mm": None, "hu_quantile": 0.5},
    postproc_grid={"zone_mm": [None, 1.0], "min_votes": [1, 2]},
    decisions={"margin_mm": Decision("rule", "evidence")},
)

LESION = LesionFingerprint(
    instance=1,
    label=0,
    volume_mm3=12.5,
    box=(1.0, 2.0, 3.0, 2.0, 5.0, 8.0),
    size_mm=(3.0, 3.0, 5.0),
    slices=1,
    outside_ctv_mm=0.5,
    inside_ctv_mm=1.5,
    share_in_ctv=0.75,
    short_axis_mm=3.5,
    long_axis_mm=5.8,
    size_voxels=(1, 3, 5),
    slice_sizes_mm=[(3.0, 5.0)],
    medians={"CT": 42.0},
)
STATISTICS = IntensityStatistics(120, 1.0, 2.0, -1000.0, -900.0, 30.0, 300.0, 320.0)
FINGERPRINT = Fingerprint(
    task="Task900_Tiny",
    modalities={"0": "CT", "1": "CTV"},
    labels={"0": "node"},
    cases=[
        CaseFingerprint(
            case_id="a",
            patient_id="p",
            stratum="high",
            inputs="0123456789abcdef",
            shape=(4, 5, 6),
            spacing=(3.0, 1.0, 1.0),
            body_box=(0.0, 0.0, 0.0, 4.0, 5.0, 6.0),
            ctv_box=None,
            body_volume_mm3=360.0,
            ctv_volume_mm3=None,
            positive_slices=1,
            search_slices=4,
            intensities={"CT": {"body": STATISTICS}},
            lesions=[LESION],
            lesion_hu=Histogram(-5, [1, 0, 2]),
            region_hu=Histogram(),
        )
    ],
)
INFERENCE_PLAN = InferencePlan("0123456789abcdef", [0, 1], {"zone_mm": None}, "f1", 0.5, "swept", ["a", "b"])
PREDICTION = Prediction(
    case_id="a",
    made_from="0123456789abcdef",
    search_region="ctv",
    image=Geometry((4, 5, 6), (3.0, 1.0, 1.0), (1.0, 2.0, 3.0)),
    examined=(0.0, 0.0, 0.0, 4.0, 5.0, 6.0),
    lesions=[
        PredictedLesion(
            0.9,
            0,
            "node",
            (1.0, 2.0, 3.0, 2.0, 5.0, 6.0),
            (1.0, 2.0, 3.0),
            (3.0, 3.0, 5.0),
            [SliceBox((1.0, 2.0, 3.0, 2.0, 5.0, 6.0), 0.9, 2)],
        )
    ],
    candidates=[],
)
ARTIFACTS = [PLAN, FINGERPRINT, INFERENCE_PLAN, PREDICTION]
