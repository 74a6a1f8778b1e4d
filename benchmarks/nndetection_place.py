"""nnDetection's toy task, and the commands of both engines on it: shared by the benchmarks of this folder."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import ONE_THREAD, Cost, executable, measure

import nndet_psma
from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.hosts.boxes_pkl.files import read_nndetection_boxes
from nndet_psma.submission.foreign_boxes import foreign_prediction
from nndet_psma.systems.retina3d.plan import Detector3D

HOST = "nndet_psma.hosts.nndetection"
TASK = "Task000_Example"
EPOCHS, AVERAGED = 10, 2  # upstream: 50 and 10


def find_nndetection(python: str, folder: Path | None) -> dict[str, str]:
    """``PYTHONPATH`` with which ``python`` finds nnDetection and this package; ends the program where it does not."""
    known = [str(Path(nndet_psma.__file__).parents[1]), str(folder or ""), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(part for part in known if part)}
    code = f"from {HOST}.availability import require_nndetection; require_nndetection()"
    found = subprocess.run([python, "-c", code], env={**os.environ, **environment}, capture_output=True)
    if found.returncode:
        reason = found.stderr.decode(errors="replace").strip().splitlines()[-1:]
        sys.exit(
            "nnDetection is not there: name its folder with --nndetection or put it on PYTHONPATH, and name the "
            f"interpreter that has its packages with --python\n{''.join(reason)}"
        )
    return environment


def place_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where nnDetection and temporary files are."""
    parser.add_argument("--nndetection", type=Path, help="nnDetection's folder; default: found on PYTHONPATH")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has nnDetection's packages; default: this"
    )
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    parser.add_argument("--json", type=Path)


def draw_task(folder: Path, cases: int, test_cases: int) -> Path:
    """nnDetection's toy task in ``folder``."""
    numbers = ["--cases", str(cases), "--test-cases", str(test_cases)]
    command = [executable("nndet_example"), "--kind", "squares", "-o", str(folder), *numbers]
    measure(command, {**os.environ, **ONE_THREAD})
    return folder / TASK


class Embedded:
    """Our own engine on its own copy of the task; what a step made before is removed first."""

    name, model = "embedded", "RetinaNet3D_RETINA3D"
    prep_arguments: tuple[str, ...] = ("-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu")
    predict_arguments: tuple[str, ...] = ()

    def __init__(self, folder: Path, raw: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.root, models = folder, folder / "data" / TASK, folder / "models"
        shutil.copytree(raw, self.root)
        models.mkdir()
        self.fold = models / TASK / self.model / "fold0"
        places = {"det_data": str(folder / "data"), "det_models": str(models)}
        self.environment = {**os.environ, **ONE_THREAD, **environment, **places}

    def start(self, command: str) -> list[str]:
        return [executable(command)]

    def train_options(self, iterations: int) -> list[str]:
        return [f"trainer_cfg.iterations={iterations}", "trainer_cfg.num_workers=0"]

    def prediction(self, case: RawCase, description: DatasetDescription) -> Prediction:
        return Prediction.read(self.fold / "test_predictions" / f"{case.case_id}_boxes.json")

    def prep(self) -> Cost:
        """Check, fingerprint, plan and preprocess."""
        for name in ("preprocessed", "raw_cropped"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return self.say("nndet_prep", "000", *self.prep_arguments)

    def train(self, iterations: int) -> Cost:
        """Train fold 0."""
        shutil.rmtree(self.fold, ignore_errors=True)
        return self.say("nndet_train", "000", "-o", "exp.fold=0", *self.train_options(iterations))

    def sweep(self) -> Cost:
        """Predict the validation cases and tune thresholds."""
        return self.say("nndet_sweep", "000", self.model, "0")

    def predict(self) -> Cost:
        """Preprocess and predict the test cases."""
        for old in [self.fold / "test_predictions", *(self.root / "preprocessed").glob("*/imagesTs")]:
            shutil.rmtree(old, ignore_errors=True)
        return self.say("nndet_predict", "000", self.model, "-f", "0", "-ntta", "0", *self.predict_arguments)

    def say(self, command: str, *arguments: str) -> Cost:
        """Run a command to its end; what it says goes to a file of its name."""
        print(f"{self.name}: {command}", file=sys.stderr)
        return measure([*self.start(command), *arguments], self.environment, self.folder / f"{command}.log")


class EmbeddedSGD(Embedded):
    """Our own engine with nnDetection's optimiser and learning rate."""

    name = "embedded, SGD at 0.01"
    prep_arguments = (*Embedded.prep_arguments, "+plan_overwrites.optimizer=sgd")

    def train_options(self, iterations: int) -> list[str]:
        return [*super().train_options(iterations), "trainer_cfg.learning_rate=0.01"]


class Genuine(Embedded):
    """nnDetection with the patch, batch and network sizes of an embedded plan."""

    name, model = "nnDetection", "RetinaUNetPSMA3D_PSMAD3_3d"
    preset = ("train=psma3d_nndet", "model_cfg.plan_cfg.target=cpu")
    prep_arguments = ("-np", "1", "-npp", "0", "-o", *preset)
    predict_arguments = ("-npp", "0")

    def __init__(
        self, folder: Path, raw: Path, environment: Mapping[str, str], python: str, plan: DetectorPlan
    ) -> None:
        own = {"det_num_threads": "1", "det_verbose": "0", "MLFLOW_TRACKING_URI": str(folder / "mlruns")}
        super().__init__(folder, raw, {**environment, **own})
        self.python, self.plan = python, plan

    def start(self, command: str) -> list[str]:
        return [self.python, "-m", HOST, command]

    def train_options(self, iterations: int) -> list[str]:
        each, detector = iterations // (EPOCHS + AVERAGED), self.plan.detector3d
        epochs = {"max_num_epochs": EPOCHS, "swa_epochs": AVERAGED, "num_train_batches_per_epoch": each}
        trainer = {
            **epochs,
            "num_val_batches_per_epoch": 1,
            "warm_iterations": each,
            "gpus": 0,
            "precision": 32,
        }
        patches = {"patch_size": plain(detector.patch_size), "batch_size": self.plan.batch_size}
        return [
            *self.preset,
            "augment_cfg.multiprocessing=False",
            *(f"trainer_cfg.{key}={value}" for key, value in trainer.items()),
            *(f"+augment_cfg.{key}={value}" for key, value in patches.items()),
            *(f"+model_cfg.plan_arch_overwrites.{key}={value}" for key, value in sizes(detector).items()),
            *(f"+model_cfg.plan_anchors_overwrites.{key}={value}" for key, value in edges(detector).items()),
        ]

    def prediction(self, case: RawCase, description: DatasetDescription) -> Prediction:
        boxes = read_nndetection_boxes(self.fold / "test_predictions" / f"{case.case_id}_boxes.pkl")
        grid = original_geometry(case.images[0])
        return foreign_prediction([boxes], description.labels, image=grid, score_threshold=0.0)

    def prep(self) -> Cost:
        """As its own command; then unpacked, which its training asks for."""
        cost = super().prep()
        self.say("nndet_unpack", str(self.root / "preprocessed" / "PSMAD3_3d" / "imagesTr"), "1")
        return cost

    def train(self, iterations: int) -> Cost:
        """Train; its ``nndet_predict`` takes every checkpoint of a fold for a model, so only the last is kept."""
        cost = super().train(iterations)
        for file in self.fold.glob("model_best*.ckpt"):
            file.unlink()
        return cost


def sizes(detector: Detector3D) -> dict[str, Any]:
    """Stages, widths and levels of a detector under upstream's names; its first stage never pools."""
    return {
        "conv_kernels": plain(detector.kernels),
        "strides": plain(detector.strides[1:]),
        "start_channels": detector.channels[0],
        "max_channels": max(detector.channels),
        "fpn_channels": detector.fpn_channels,
        "head_channels": detector.head_channels,
        "decoder_levels": plain(detector.levels),
    }


def edges(detector: Detector3D) -> dict[str, str]:
    """Anchor edges per level under upstream's names of the axes z, y, x."""
    return {
        name: plain([sorted(shape[axis] for shape in shapes) for shapes in detector.anchor_shapes])
        for axis, name in enumerate(("width", "height", "depth"))
    }


def plain(value: Any) -> str:
    """A nested sequence in Hydra's grammar."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(plain(part) for part in value) + "]"
    return f"{value:g}"
