"""What the sweep of a detector on volumes is given, what it writes, and who decides that it is one."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from artifact_samples import PLAN
from fake_models import boxes_2d, raw_of
from patch_plan import on_patches

from nndet_psma.artifacts.raw_predictions import read_raw, write_raw
from nndet_psma.artifacts.run_config import SweepConfig
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.sweep import report_thresholds
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.detection.record import truth_from_instances
from nndet_psma.evaluation.detection.score_tables import MAP_KEY
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.inference.ablation import ablation
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.records import make_record
from nndet_psma.inference.tuning import (
    TABLE_NAME,
    sweep_case,
    tune,
    volume_case,
    write_sweep,
)
from nndet_psma.postproc.steps.settings import VOLUME_STEPS, PostprocSettings
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.store import write_case
from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.systems.system import system_of

GRID = Geometry((6, 10, 12), (4.0, 2.0, 2.0))
DETECTOR = Detector3D(
    patch_size=(4, 8, 8),
    strides=[(1, 1, 1), (1, 2, 2)],
    kernels=[(1, 3, 3), (3, 3, 3)],
    channels=[4, 8],
    levels=[1],
    fpn_channels=4,
    head_channels=4,
    anchor_shapes=[[(2.0, 4.0, 4.0)]],
)
FOUND = (0, 1, 1, 2, 3, 4)  # instance 2 exactly


def make_case(name, lost=()):
    """Instance 2 on slices 0 and 1, instance 7 (class 1) in two pieces on slices 3 and 4; 9 is in the table only."""
    instances = np.zeros(GRID.shape, np.int16)
    instances[0:2, 1:3, 1:4] = 2
    instances[3, 5:6, 6:7] = 7
    instances[4, 7:8, 9:11] = 7
    classes = {2: 0, 7: 1, **dict.fromkeys(lost, 1)}
    image = np.zeros(GRID.shape, np.int16)
    return PreparedCase(name, {"CT": image}, GRID, GRID, None, instances, classes, tuple(lost))


def detections(*rows):
    """Rows (box, score) or (box, score, label)."""
    return Detections.build(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] if len(row) > 2 else 0 for row in rows],
        zone_mm=np.zeros(len(rows)),
        hu_quantiles=np.full((len(rows), 10), np.nan, dtype=np.float32),
    )


def tuned_by(files, store, plan, options, **more):
    """What the system of the plan tunes on the files."""
    job = SimpleNamespace(paths=SimpleNamespace(store=lambda identifier: store))
    cases = system_of(plan).sweep_cases(job, plan, files)
    return tune(cases, files, plan, options, **more)


@pytest.fixture
def place(tmp_path):
    """Two cases; a false box in each."""
    files = []
    for number, score in enumerate((0.9, 0.6)):
        name = f"case_{number}"
        write_case(tmp_path / "store", make_case(name), "inputs")
        found = detections((FOUND, score), ((2, 0, 0, 4, 2, 2), 0.3 + 0.2 * number))
        files.append(tmp_path / f"{name}.npz")
        write_raw(files[-1], raw_of({"v": [found]}, GRID, case_id=name))
    return files, tmp_path / "store"


@pytest.fixture
def plan():
    return replace(
        on_patches(PLAN, DETECTOR),
        postproc_defaults={"steps": list(VOLUME_STEPS), "nms_iou": 0.1, "score_threshold": 0.0},
        postproc_grid={
            "nms_iou": [0.1, 0.3],
            "fold_iou": [0.3, 0.5],
            "fold_score": ["all", "overlap"],
            "min_extent_mm": [None, 2.0],
            "hit_iou": [0.1, 0.2],
        },
    )


def test_truth_in_3d(place):
    case = volume_case(place[0][0], place[1])
    assert case.truth.boxes.tolist() == [list(FOUND), [3, 5, 6, 5, 8, 11]]
    assert case.truth.labels.tolist() == [0, 1]
    assert (case.num_lesions, case.spacing) == (2, (4.0, 2.0, 2.0))
    assert case.raw["v"][0].dim == 3


def test_a_lost_lesion_is_one_lesion_that_can_only_be_missed(place):
    """The table of classes names it, and the list of lost ones names it again."""
    write_case(place[1], make_case("case_0", lost=(9,)), "inputs")
    case = volume_case(place[0][0], place[1])
    assert case.num_lesions == 3
    assert case.truth.boxes[2].tolist() == [0] * 6
    assert case.truth.labels.tolist() == [0, 1, 1]
    assert sweep_case(place[0][0], place[1]).num_lesions == 3


def test_tuned_for_map(place, plan, tmp_path, capsys):
    tuned, result = tuned_by(*place, plan, SweepConfig(), folds=[0], groups=[["case_0"], ["case_1"]])
    assert (tuned.criterion, result.judged, result.search) == ("map", "lesions", "joint")
    # class 0: every box right before any wrong one, AP 1; class 1: never proposed, 0
    assert tuned.value == pytest.approx(0.5)
    assert tuned.settings["score_threshold"] == 0.6
    assert (result.best.sensitivity, result.best.precision) == (0.5, 1.0)
    assert len(result.table.variants) == 4  # two overlaps, size filter on and off; one fold: nothing to fuse
    # on case_0 alone 0.6 and 0.9 do equally well, and the lower is taken: it serves case_1, too
    assert (
        "groups held out: map 0.500 (sensitivity 0.500, precision 1.000, 0.00 false lesions" in tuned.source
    )
    write_sweep(tmp_path / "sweep.json", result)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert (content["judged"], content["best"]["nms_iou"]) == ("lesions", 0.1)
    assert {"nms_iou", "fold_iou", "min_extent_mm"} <= set(content["columns"])
    with np.load(tmp_path / TABLE_NAME, allow_pickle=False) as table:
        assert table["variant/nms_iou"].tolist() == [0.1, 0.1, 0.3, 0.3]
        assert table["value"].shape == (4, 1, 1, 1)
    report_thresholds(tuned)
    assert "map 0.500 on the cases they were tuned on" in capsys.readouterr().out


def test_criterion_by_name(place, plan):
    tuned, _ = tuned_by(*place, plan, SweepConfig(criterion="sensitivity@fp=0.5"), folds=[0])
    assert (tuned.criterion, tuned.value) == ("sensitivity@fp=0.5", 0.5)
    assert PostprocSettings(**tuned.settings).steps == VOLUME_STEPS


def test_folds_of_a_case_are_fused(place, plan):
    """A fold that sees nothing halves the score where all count; by overlap it does so, too."""
    for file in place[0]:
        name = file.stem
        parts = [detections((FOUND, 0.8), ((2, 0, 0, 4, 2, 2), 0.3)), detections()]
        write_raw(file, raw_of({"v": parts}, GRID, case_id=name))
    _, result = tuned_by(*place, plan, SweepConfig(), folds=[0])
    assert len(result.table.variants) == 2 * 2 * 2 * 2
    assert result.settings.score_threshold == pytest.approx(0.4)


def test_slices_and_volumes_are_not_mixed(place, plan):
    assert (plan.box_dim, PLAN.box_dim) == (3, 2)
    slices = replace(plan, postproc_defaults={})
    with pytest.raises(UserError, match=r"SliceLinking does not fit the detector.*Put BoxSlicing"):
        tuned_by(*place, slices, SweepConfig(), folds=[0])
    volumes = replace(PLAN, postproc_defaults={"steps": list(VOLUME_STEPS)})
    with pytest.raises(UserError, match="BoxSlicing does not fit the detector"):
        tuned_by(*place, volumes, SweepConfig(), folds=[0])
    flat = boxes_2d([(0, 1, 1, 3, 4, 0.9)])
    for file in place[0]:
        write_raw(file, raw_of({"v": [flat]}, GRID, case_id=file.stem))
    with pytest.raises(UserError, match="found slice boxes"):
        tuned_by(*place, plan, SweepConfig(), folds=[0])


def test_value_of_the_sweep_is_that_of_the_evaluation(tmp_path):
    """Two classes, crowded random boxes: the tuned mAP is the one that nndet_eval reports, per class and together."""
    rng = np.random.default_rng(4)
    plan = replace(
        on_patches(PLAN, DETECTOR),
        classes={"0": "node", "1": "local"},
        postproc_defaults={"steps": list(VOLUME_STEPS), "nms_iou": 0.3, "hit_iou": 0.1},
        postproc_grid={"nms_iou": [0.1, 0.3], "min_extent_mm": [None, 5.0], "fold_iou": [0.2, 0.5]},
    )
    files, truths = [], {}
    for number in range(4):
        case = make_case(f"case_{number}")
        write_case(tmp_path / "store", case, "inputs")
        truths[case.case_id] = truth_from_instances(case.instances, case.classes, GRID.spacing)
        parts = []
        for _ in range(2):
            lesions = np.repeat(truths[case.case_id].boxes, 3, axis=0) + rng.integers(-1, 2, (6, 6)) / 2
            corner = rng.integers(0, 4, (8, 3))
            boxes = np.vstack([lesions, np.hstack([corner, corner + rng.integers(1, 5, (8, 3))])])
            labels = np.append(np.repeat([0, 1], 3), rng.integers(0, 2, 8))
            rows = [(b, round(float(s), 3), c) for b, s, c in zip(boxes, rng.random(14), labels, strict=True)]
            parts.append(detections(*rows))
        files.append(tmp_path / f"{case.case_id}.npz")
        write_raw(files[-1], raw_of({"v": parts}, GRID, case_id=case.case_id))
    tuned, _ = tuned_by(files, tmp_path / "store", plan, SweepConfig(), folds=[0])
    settings = PostprocSettings(**tuned.settings)
    raw = [read_raw(file) for file in files]

    def to_record(prediction):
        return make_record(prediction, truths[prediction.case_id], GRID, prediction.case_id, slice_iou=0.1)

    records = [to_record(make_prediction(each, settings, plan.classes)) for each in raw]
    scores = score_records(records, classes=["node", "local"], slice_iou=0.1, bootstrap_draws=0).scores
    assert 0.1 < tuned.value < 0.9
    assert scores[MAP_KEY].value == pytest.approx(tuned.value, abs=1e-6)
    of_class = [scores[f"{name}_{MAP_KEY}"].value for name in ("node", "local")]
    assert np.mean(of_class) == pytest.approx(tuned.value, abs=1e-6)
    assert scores["paper_sensitivity"].value > 0  # the slice-wise protocol sees the same lesions
    rows = ablation(raw, settings, plan.classes, to_record, bootstrap_draws=0, seed=0)
    assert [(row.voters, row.filters) for row in rows] == [("v", False), ("v", True)]
    assert rows[1].scores["AP_IoU_0.10_MaxDet_100"] == scores["AP_IoU_0.10_MaxDet_100"]
