"""All of genuine nnDetection's commands with our planners and modules, from the raw task to scores, on a CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_place import TASK, TEST

from nndet_psma.hosts.boxes_pkl.files import read_nndetection_boxes
from nndet_psma.submission.foreign_boxes import foreign_prediction

CASES = 1  # validation cases that are swept; nnDetection tries 28 values of its own
SETUP = ["model_cfg.plan_cfg.target=cpu", "model_cfg.plan_cfg.num_folds=2"]
SHORT = [
    "trainer_cfg.gpus=0",
    "trainer_cfg.precision=32",
    "trainer_cfg.max_num_epochs=1",
    "trainer_cfg.swa_epochs=1",
    "trainer_cfg.num_train_batches_per_epoch=2",
    "trainer_cfg.num_val_batches_per_epoch=1",
    "trainer_cfg.warm_iterations=1",
    "augment_cfg.multiprocessing=False",
    f"+debug.num_cases_val={CASES}",
]
SYSTEMS = {
    "psma25d_nndet": ("RetinaUNetPSMA2D", "PSMAD2_2d"),
    "psma3d_nndet": ("RetinaUNetPSMA3D", "PSMAD3_3d"),
}


def say(command, *arguments):
    from nndet_psma.hosts.nndetection.launch import launch

    assert launch(command, list(arguments)) == 0


def run_all(place, preset, say=say):
    """Prep, two folds, consolidation, prediction and evaluation; returns the folder of the models."""
    module, plan = SYSTEMS[preset]
    name = f"{module}_{plan}"
    say("nndet_prep", "900", "-o", f"train={preset}", *SETUP, "-np", "1", "-npp", "0")
    say("nndet_unpack", str(place.paths.preprocessed / plan / "imagesTr"), "1")
    for fold in (0, 1):
        options = [f"train={preset}", f"exp.fold={fold}", *SETUP, *SHORT]
        say("nndet_train", "900", "--sweep", "-o", *options)
    say("nndet_consolidate", "900", name, "--num_folds", "2", "--sweep_boxes")
    say("nndet_predict", "900", name, "-npp", "0", "-ntta", "0")
    say("nndet_eval", "900", name, "-1", "--test", "--boxes", "--case")
    return place.models / TASK / name


def enter(place, tmp_path, monkeypatch):
    """A copy of the task as the one of all commands, with what nnDetection wants besides."""
    shutil.copytree(place.data, tmp_path / "data")
    copied = type(place)(tmp_path / "data", tmp_path / "models")
    copied.models.mkdir()
    description = copied.paths.root / "dataset.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "target_class": 0}))  # nndet_eval --case needs one
    copied.enter(monkeypatch)
    monkeypatch.setenv("det_num_threads", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    return copied


SCRIPT = """
__requires__ = "nndet==0.1"
import sys
from {module} import {function}
if __name__ == "__main__":
    sys.exit({function}())
"""


@pytest.mark.slow
def test_nndetections_own_scripts_with_the_hook(nndetection, raw_place, tmp_path, monkeypatch):
    """As pip writes them, with the pins that older setuptools checks; every command in a process of its own."""
    from nndet_psma.hosts.nndetection.hook.place import install
    from nndet_psma.hosts.nndetection.launch import ENTRY_POINTS

    place = enter(raw_place, tmp_path, monkeypatch)
    site, scripts = tmp_path / "site", tmp_path / "bin"
    site.mkdir()
    scripts.mkdir()
    (site / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(site)!r})\n")
    ours = Path(__file__).parents[3]
    paths = [str(folder) for folder in (site, nndetection, ours)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    for command, place_of in ENTRY_POINTS.items():
        module, _, function = place_of.partition(":")
        (scripts / command).write_text(SCRIPT.format(module=module, function=function))

    def say(command, *arguments):
        done = subprocess.run(
            [sys.executable, str(scripts / command), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    with pytest.raises(AssertionError, match="DistributionNotFound"):
        say("nndet_train", "--help")
    install(site)
    say("nndet_searchpath")
    say("nndet_seg2nii", "--help")
    root = run_all(place, "psma25d_nndet", say)
    scores = json.loads((root / "consolidated" / "test_results" / "results_boxes.json").read_text())
    assert "mAP_IoU_0.10_0.50_0.05_MaxDet_100" in scores


@pytest.mark.slow
def test_from_raw_data_to_scores_and_bagging(nndetection, raw_place, tmp_path, monkeypatch):
    """Slices and volumes; then both systems' boxes of a test case vote, read from nnDetection's files by ours."""
    place = enter(raw_place, tmp_path, monkeypatch)
    predictions = {}
    for preset in SYSTEMS:
        root = run_all(place, preset)
        swept = {file.stem for file in (root / "consolidated" / "sweep").glob("*.json")}
        assert {"sweep_zone_share", "sweep_hu_rule", "sweep_model_iou"} <= swept
        assert ("sweep_link_iou" in swept) == (preset == "psma25d_nndet")
        scores = json.loads((root / "consolidated" / "test_results" / "results_boxes.json").read_text())
        assert "mAP_IoU_0.10_0.50_0.05_MaxDet_100" in scores
        folder = root / "consolidated" / "test_predictions"
        predictions[preset] = {name: read_nndetection_boxes(folder / f"{name}_boxes.pkl") for name in TEST}
    for name in TEST:
        voters = [found[name] for found in predictions.values()]
        bagged = foreign_prediction(voters, {0: "node"}, score_threshold=0.0, min_votes=1)
        assert bagged.case_id == name
        shape = np.array(bagged.image.shape)
        assert all((np.array(lesion.box[3:]) <= shape).all() for lesion in bagged.candidates)
        assert len(bagged.candidates) > 0
