"""A tiny model on disk: one case with a found and a missed node, one case without nodes; evaluated by the real stage.

Grid 6 x 40 x 48 at (4, 2, 2) mm. Node 1: slices 2 and 3, y 10..14, x 12..16 (8 x 8 mm). Node 2: slice 4, y 30..33,
x 36..39, never predicted. Two windows vote and must agree. Both see node 1 on slice 2 and a false box on slice 1; both
see a bright vessel on slice 2 (removed by the HU filter); only the first sees a box on slice 3 (outvoted). Another
model accepts nothing. Training took 20 steps of 3.6 s a stage. The nested value is 0.6, the plain one 0.7.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import Augmentation, Stage
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Decision, FoldPlan, Target
from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction, write_raw
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json, write_text
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.stages.evaluate import evaluate
from nndet_psma.systems.psma25d.plan import Detector, PSMA25DPlan

GRID = Geometry((6, 40, 48), (4.0, 2.0, 2.0))
WITH_NODES, WITHOUT = "case_a", "k<b>&1"
PATIENTS = {WITH_NODES: "PATIENT-ONE", WITHOUT: "PATIENT-TWO"}
SETTINGS = PostprocSettings(
    score_threshold=0.05, zone_mm=3.0, hu_threshold=100.0, hu_quantile=0.5, vote_iou=0.5, min_votes=2
)
SWEEP_COLUMNS = [
    "phase",
    "zone_mm",
    "hu_threshold",
    "hu_quantile",
    "vote_iou",
    "min_votes",
    "score_threshold",
    "sensitivity",
    "precision",
    "f1",
    "fp_per_case",
    "value",
]


def small_plan() -> PSMA25DPlan:
    detector = Detector(
        "resnet18",
        "/home/somebody/weights/start.pt",
        "group",
        [1],
        8,
        8,
        1.0,
        1.0,
        (32, 32),
        (32, 32),
        [[8.0]],
        [1.0],
        0.5,
        0.25,
        8,
        8,
        10,
        10,
        10,
        0.0,
        0.5,
        False,
    )
    return PSMA25DPlan(
        plan_id="PSMA25D",
        planner="PSMA25DPlanner",
        trainer="MaskRCNN25D",
        task="Task007_Tiny",
        made_from="0123456789abcdef",
        target=Target("cpu", 4.0),
        modalities={"0": "CT", "1": "CTV"},
        classes={"0": "node"},
        ct_modality=0,
        ctv_modality=1,
        spacing=(4.0, 2.0, 2.0),
        margin_mm=6.48,
        body_margin_mm=0.0,
        windows=[Window("hu_a", -60.0, 140.0), Window("hu_b", -125.0, 225.0)],
        scalings=[],
        neighbours=1,
        stages=[Stage(w, "search", [w], None, True, 20, 0.01, [], 0) for w in ("hu_a", "hu_b")],
        batch_size=2,
        positive_fraction=0.5,
        hard_negative_fraction=0.5,
        detector=detector,
        augmentation=Augmentation((0.9, 1.1), 15.0, 0.5, 0.1, 1.0, 0.1, 0.1, 4.0),
        folds=[FoldPlan([WITHOUT], [WITH_NODES]), FoldPlan([WITH_NODES], [WITHOUT])],
        seed=1,
        postproc_defaults={},
        postproc_grid={},
        decisions={
            "windows": Decision("rules.quantile_windows", "97 <HU> voxels"),
            "detector.weights": Decision("given", "read from /home/somebody/weights/start.pt"),
        },
    )


def write_case(paths: TaskPaths, split: str, case_id: str) -> None:
    ct = np.full(GRID.shape, -80, dtype=np.int16)
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    if case_id == WITH_NODES:
        labels[2:4, 10:14, 12:16] = 1
        labels[4, 30:33, 36:39] = 2
    ct[labels > 0] = 40
    ctv = np.zeros(GRID.shape, dtype=np.uint8)
    ctv[:, 5:35, 5:43] = 1
    write_volume(paths.images(split) / f"{case_id}_0000.nii.gz", ct, GRID)
    write_volume(paths.images(split) / f"{case_id}_0001.nii.gz", ctv, GRID)
    write_volume(paths.labels(split) / f"{case_id}.nii.gz", labels, GRID)
    classes = {str(i): 0 for i in np.unique(labels).tolist() if i}
    write_json(paths.labels(split) / f"{case_id}.json", {"instances": classes})


def raw_prediction(case_id: str) -> RawPrediction:
    def voter(extra: list[list[float]]) -> list[Detections]:
        rows = [  # slice, y0, x0, y1, x1, score, HU
            [2, 10, 12, 14, 16, 0.9, 40],
            [1, 20, 20, 24, 24, 0.6, 50],
            [2, 25, 30, 29, 34, 0.5, 170],
            *extra,
        ]
        table = np.array(rows if case_id == WITH_NODES else [], dtype=float).reshape(-1, 7)
        return [
            Detections.build(
                table[:, 1:5],
                table[:, 5],
                dim=2,
                slice=table[:, 0].astype(np.int64),
                zone_mm=np.zeros(len(table)),
                hu_quantiles=np.repeat(table[:, 6:7], 10, axis=1),
            )
        ]

    examined = (0.0, 2.0, 2.0, 6.0, 38.0, 46.0)
    meta = RawMeta(case_id, "made", "ctv", GRID, GRID, examined, {"hu_a": 1, "hu_b": 1})
    return RawPrediction(meta, {"hu_a": voter([[3, 20, 30, 24, 34, 0.4, 30]]), "hu_b": voter([])})


def sweep_content() -> dict:
    rows = [
        [1, zone, hu, 0.5, None, None, 0.0, 0.5, 0.5, 0.5, 1.0, value]
        for zone, hu, value in (
            (None, None, 0.2),
            (3.0, None, 0.3),
            (3.0, 100.0, 0.5),
            (None, 100.0, 0.4),
            (3.0, 120.0, 0.45),
        )
    ]
    rows += [[2, 3.0, 100.0, 0.5, 0.5, votes, 0.05, 1.0, 0.5, 0.6, 1.0, 0.5 + votes / 10] for votes in (1, 2)]
    return {
        "schema": "nndet_psma.sweep",
        "version": 1,
        "settings": {},
        "criterion": "f1",
        "best": dict(zip(SWEEP_COLUMNS, rows[-1], strict=True)),
        "num_settings": 7,
        "num_cases": 2,
        "num_lesions": 2,
        "tie_rule": "the milder one",
        "search": "two_phase",
        "nested": {
            "groups": [[WITH_NODES], [WITHOUT]],
            "settings": [{**to_plain(SETTINGS), "min_votes": votes} for votes in (2, 1)],
            "sensitivity": 0.5,
            "precision": 0.75,
            "f1": 0.6,
            "fp_per_case": 0.5,
            "value": 0.6,
            "optimism": 0.1,
        },
        "columns": SWEEP_COLUMNS,
        "rows": rows,
    }


def _write_task(root: Path) -> TaskPaths:
    paths = TaskPaths(root)
    description = {
        "task": root.name,
        "name": "Tiny",
        "dim": 3,
        "target_class": 0,
        "test_labels": True,
        "labels": {"0": "node"},
        "modalities": {"0": "CT", "1": "CTV"},
    }
    write_json(root / "dataset.json", description)
    table = "".join(f"{case},{patient}\n" for case, patient in PATIENTS.items())
    write_text(paths.clinical, "case_id,patient_id\n" + table)
    for split in ("Tr", "Ts"):
        for case_id in PATIENTS:
            write_case(paths, split, case_id)
    return paths


def _write_fingerprint(paths: TaskPaths) -> None:
    description = read_description(paths.root)
    measure_fingerprint(
        list_cases(paths, description),
        description,
        read_clinical(paths),
        stratify_by="nccn_risk",
        cache=paths.preprocessed / "fingerprints",
        processes=1,
    ).write(paths.fingerprint)


def _write_model(root: Path, plan: PSMA25DPlan) -> ModelFolder:
    folder = ModelFolder(root)
    model = folder.fold(-1)
    plan.write(model / "plan.json")
    inference = InferencePlan("h", [0, 1], to_plain(SETTINGS), "f1", 0.7, "7 settings tried", [])
    inference.write(model / "plan_inference.json")
    write_json(model / "sweep.json", sweep_content())
    for case_id in PATIENTS:
        raw = raw_prediction(case_id)
        write_raw(model / "test_predictions" / "raw" / f"{case_id}.npz", raw)
        prediction = make_prediction(raw, SETTINGS, plan.classes)
        prediction.write(model / "test_predictions" / f"{case_id}_boxes.json")
    for fold in (0, 1):
        write_json(folder.fold(fold) / "environment.json", {"python": "3.11", "packages": {"torch": "2.15"}})
        for stage in plan.stages:
            rows = (
                "step,learning_rate,loss,seconds_per_step,val_ap\n10,0.01,1.5,3.6,\n20,0.01,0.75,3.6,0.25\n"
            )
            write_text(folder.fold(fold) / stage.name / "metrics.csv", rows)
            write_text(folder.fold(fold) / stage.name / "finished", "")
    return folder


def _other_model(folder: ModelFolder) -> ModelFolder:
    """A model that accepts nothing: its score threshold lies above every score."""
    other = ModelFolder(folder.root.with_name("Other_Model"))
    strict = replace(SETTINGS, score_threshold=0.95)
    for case_id in PATIENTS:
        prediction = make_prediction(raw_prediction(case_id), strict, {"0": "node"})
        prediction.write(other.fold(-1) / "test_predictions" / f"{case_id}_boxes.json")
    return other


def build_model(root: Path) -> SimpleNamespace:
    paths = _write_task(root / "data" / "Task007_Tiny")
    _write_fingerprint(paths)
    folder = _write_model(root / "models" / "Task007_Tiny" / "MaskRCNN25D_PSMA25D", small_plan())
    evaluate(paths, folder, -1, test=True, seed=0, compare=_other_model(folder))
    return SimpleNamespace(paths=paths, folder=folder, root=root)
