"""Tasks that are not CT + CTV with one class: 2D data, no CTV, several modalities and classes, arbitrary units."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_place import DETECTOR, SHAPE, SPACING, TASK, Workplace, tiny_case

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import consolidate, eval, predict, prep, train
from nndet_psma.core.atomic import read_json
from nndet_psma.dataset.images.images import write_volume

MODEL = "MaskRCNN25D_PSMA25D"
FEW = "plan_cfg.iterations_factor=0.01"  # 3 steps of each stage
OPTIONS = ["train=psma25d", "plan_cfg.target=cpu", "plan_cfg.num_folds=2", "plan_cfg.max_voters=1", FEW]
TRAIN = ["train=psma25d", "trainer_cfg.num_workers=0", "exp.fold=all"]
CASES = ["case_0", "case_2", "case_3", "case_4", "test_0"]


def write(
    root: Path, modalities: list[str], labels: list[str], cases: dict, dim: int, spacing=SPACING
) -> Workplace:
    """A raw task; ``cases`` maps names to (images by modality, instance mask, class by instance)."""
    place = Workplace(root / "data", root / "models")
    place.models.mkdir(parents=True)
    content = {
        "task": TASK,
        "dim": dim,
        "target_class": 0,
        "test_labels": True,
        "labels": {str(i): name for i, name in enumerate(labels)},
        "modalities": {str(i): name for i, name in enumerate(modalities)},
    }
    for name, (images, mask, classes) in cases.items():
        split = "Ts" if name.startswith("test") else "Tr"
        grid = Geometry(mask.shape, spacing, origin=(-47.0, -39.0, 300.0))
        for i, image in enumerate(images):
            write_volume(place.paths.images(split) / f"{name}_{i:04d}.nii.gz", image, grid)
        write_volume(place.paths.labels(split) / f"{name}.nii.gz", mask, grid)
        table = {"instances": {str(k): v for k, v in classes.items()}}
        (place.paths.labels(split) / f"{name}.json").write_text(json.dumps(table))
    (place.paths.root / "dataset.json").write_text(json.dumps(content))
    return place


def whole_way(place: Workplace, options: list[str]) -> DetectorPlan:
    """Every command from prep to eval; the plan."""
    assert prep.main(["900", "-np", "1", "-npp", "1", "--full_check", "-o", *OPTIONS, *options]) == 0
    assert train.main(["900", "-o", *TRAIN]) == 0
    assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
    assert predict.main(["900", MODEL]) == 0
    assert eval.main(["900", MODEL, "-1", "--test", "--boxes"]) == 0
    scores = read_json(place.model / "consolidated/test_results/scores.json")
    assert "AP_IoU_0.10_MaxDet_100" in json.dumps(scores)
    return place.plan


def test_two_dimensional_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {}
    for name in CASES:
        ct, ctv, mask = tiny_case(name)
        z = int(np.argmax((mask > 0).sum(axis=(1, 2))))
        ids = {int(old): new for new, old in enumerate(np.unique(mask[z])[1:], start=1)}
        flat = np.vectorize(lambda v, ids=ids: ids.get(int(v), 0))(mask[z])[None].astype(np.uint8)
        cases[name] = ([ct[z][None], ctv[z][None]], flat, dict.fromkeys(ids.values(), 0))
    place = write(tmp_path, ["CT", "CTV"], ["node"], cases, dim=2, spacing=(1.0, 2.0, 2.0))
    place.enter(monkeypatch)
    plan = whole_way(place, [f"+plan_overwrites.detector={DETECTOR}"])
    assert plan.neighbours == 0
    assert all(plan.channels(stage) == 1 for stage in plan.stages)
    found = Prediction.read(place.model / "consolidated/test_predictions/test_0_boxes.json")
    assert found.image.shape == (1, *SHAPE[1:])
    assert all(lesion.box[0] >= 0 and lesion.box[3] <= 1 for lesion in found.candidates)


def test_two_modalities_two_classes_no_ctv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CT and an MR in arbitrary units, without search region."""
    cases = {}
    for i, name in enumerate(CASES):
        ct, _, mask = tiny_case(name)
        mr = (np.clip(ct, 0, None) + (ct > -500) * 30.0).astype(np.float32) * (
            i + 1
        )  # every case its own factor
        ids = np.unique(mask)[1:].tolist()
        cases[name] = ([ct, mr], mask, {k: (k + i) % 2 for k in ids})
    place = write(tmp_path, ["CT", "T2"], ["node", "bone"], cases, dim=3)
    place.enter(monkeypatch)
    size = re.sub(
        r"input_size:\[48,64\],body_input_size:\[48,56\]",
        "input_size:[48,56],body_input_size:[48,56]",
        DETECTOR,
    )
    plan = whole_way(place, [f"+plan_overwrites.detector={size.replace('scale:1.5', 'scale:1.0')}"])
    assert plan.ctv_modality is None
    assert plan.margin_mm == 0
    assert [(s.name, s.zscore) for s in plan.scalings] == [("T2", True)]
    assert plan.channels(plan.voters[0]) == 2 * (2 * plan.neighbours + 1)
    assert len(plan.classes) == 2
    found = Prediction.read(place.model / "consolidated/test_predictions/test_0_boxes.json")
    assert found.search_region == "body"
    assert {lesion.label for lesion in found.candidates} <= {0, 1}


def test_one_case_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    ct, ctv, mask = tiny_case("case_0")
    classes = dict.fromkeys(np.unique(mask)[1:].tolist(), 0)
    place = write(tmp_path, ["CT", "CTV"], ["node"], {"case_0": ([ct, ctv], mask, classes)}, dim=3)
    place.enter(monkeypatch)
    assert prep.main(["900", "-np", "1", "-npp", "1", "-o", *OPTIONS]) == 2
    assert "lesions in at least two patients" in capsys.readouterr().err
    assert not place.paths.plan("PSMA25D").exists()


def test_windows_as_channels(raw_place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset trains, tunes and predicts with one detector of all windows times three slices."""
    from safetensors.numpy import load_file

    place = raw_place.copy(tmp_path)
    place.models.mkdir()
    place.enter(monkeypatch)
    windows = "plan_cfg.windows=[[0.0,100.0],[110.0,190.0],[-125.0,225.0]]"
    preset = ["train=psma25d_multiwindow", "plan_cfg.target=cpu", "plan_cfg.num_folds=2", windows, FEW]
    detector = f"+plan_overwrites.detector={DETECTOR}"
    assert prep.main(["900", "-np", "1", "-npp", "1", "-o", *preset, detector]) == 0
    assert train.main(["900", "--sweep", "-o", "train=psma25d_multiwindow", "trainer_cfg.num_workers=0"]) == 0
    folder = place.models / TASK / "MaskRCNN25D_PSMA25D_MultiWindow" / "fold0"
    widths = {
        stage: load_file(folder / stage / "model.safetensors")["backbone.body.conv1.weight"].shape[1]
        for stage in ("wsi", "multiwindow")
    }
    assert widths == {"wsi": 3, "multiwindow": 9}
    assert read_json(folder / "plan_inference.json")["settings"]["min_votes"] == 1
