"""Time by part and memory of predicting one CT of 512 x 512 x 150 voxels with its CTV and five voters.

    python benchmarks/prediction_time.py                  # two cores
    python benchmarks/prediction_time.py --device cuda    # the plan for a GPU, on a GPU

The CT is anatomy-like, 3 x 0.8 x 0.8 mm; the CTV covers a third of its slices. It is planned as a task of such patients
would be, with five HU windows, and the detectors get random weights: they find as many boxes as they may everywhere,
so post-processing has more to do than with a trained model. Prediction runs in a process of its own, as often as
--runs says; times are medians, CPU time of all threads. The first run warms up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from measure import measure, table, write_result

SPACING = (3.0, 0.8, 0.8)
WINDOWS = [(-90.0, 311.0), (-84.0, 175.0), (-80.0, 150.0), (-60.0, 130.0), (-125.0, 225.0)]
PARTS: dict[str, list[tuple[float, float]]] = {}


def main() -> int:
    """Make case and model, predict in another process, print the table."""
    args = _arguments()
    if args.root is not None:
        return _predict(args)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        root = Path(folder)
        _make(root / "Task300_Large", tuple(args.shape), args.device)
        threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        threads["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(args.threads)
        command = [sys.executable, __file__, "--root", str(root), "--device", args.device]
        command += ["--runs", str(args.runs), "--threads", str(args.threads)]
        cost = measure(command, {**os.environ, **threads}, root / "log")
        found = json.loads((root / "parts.json").read_text())
    rows = [[name, wall, cpu] for name, (wall, cpu) in found["parts"].items()]
    print(f"{found['slices']} slices searched, {found['boxes']} boxes, detector input {found['input']}")
    print(table(["part", "wall s", "CPU s"], rows))
    print(f"peak memory {cost.peak_gb:.2f} GB (loading torch alone takes about 0.4 GB)")
    write_result(args.json, {"shape": args.shape, "device": args.device, **found, "cost": asdict(cost)})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(150, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _make(root: Path, shape: tuple[int, ...], device: str) -> None:
    """The case, a plan for five such patients, and random weights for every stage."""
    import large_ct

    from nndet_psma.artifacts.fingerprint import Fingerprint
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.planners.detector_options import DetectorOptions
    from nndet_psma.planners.machine import make_plan

    large_ct.SPACING = SPACING
    os.environ["LARGE_SHAPE"] = json.dumps(shape)
    large_ct.make(root)
    large_ct.fingerprint(root)
    paths = TaskPaths(root)
    measured = Fingerprint.read(paths.fingerprint)
    cases = [replace(measured.cases[0], case_id=f"case_{i}", patient_id=f"case_{i}") for i in range(5)]
    target = "cpu" if device == "cpu" else "gpu"
    options = DetectorOptions(target=target, gpu_memory_gb=24, windows=WINDOWS, max_voters=5, weights="none")
    plan = make_plan(
        replace(measured, cases=cases), paths, options,
        planner="PSMA25DPlanner", plan_id="P", trainer="MaskRCNN25D",
    )  # fmt: skip
    _write_model(root.parent / "model" / "consolidated", plan)


def _write_model(folder: Path, plan) -> None:  # noqa: ANN001
    import torch

    from nndet_psma.inference.tuning import untuned
    from nndet_psma.systems.psma25d.network import build_detector
    from nndet_psma.trainers.networks.weights import write_model

    torch.manual_seed(0)
    plan.write(folder / "plan.json")
    untuned(plan, [0]).write(folder / "plan_inference.json")
    for stage in plan.stages:
        model = build_detector(plan.detector, plan.channels(stage), len(plan.classes))
        write_model(model, folder / "fold0" / stage.name / "model.safetensors")


def _predict(args: argparse.Namespace) -> int:
    """What nndet_predict does for one case, part by part."""
    import torch

    from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.inference.predictor import VoterEnsemble

    torch.set_num_threads(args.threads)
    paths = TaskPaths(args.root / "Task300_Large")
    description = read_description(paths.root)
    case = list_cases(paths, description)[0]
    device = torch.device(args.device)
    with _timed("load the weights"):
        predictor = VoterEnsemble(
            ModelFolder(args.root / "model"), CONSOLIDATED, source_folds=[0], device=device
        )
    for run in range(args.runs + 1):
        facts = _one_run(args.root / "out", case, description, predictor)
        if run == 0:
            loaded = PARTS.pop("load the weights")
            PARTS.clear()
            PARTS["load the weights"] = loaded
    medians = {
        name: [statistics.median(figures) for figures in zip(*runs, strict=True)]
        for name, runs in PARTS.items()
    }
    once = [figures for name, figures in medians.items() if name != "load the weights"]
    medians["one case, weights loaded"] = [sum(figures) for figures in zip(*once, strict=True)]
    (args.root / "parts.json").write_text(json.dumps({"parts": medians, **facts}))
    return 0


def _one_run(out: Path, case, description, predictor) -> dict[str, object]:  # noqa: ANN001
    from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction, read_raw, write_raw
    from nndet_psma.dataset.images.images import original_geometry, read_volume
    from nndet_psma.inference.postprocessing import make_prediction
    from nndet_psma.postproc.steps.settings import PostprocSettings
    from nndet_psma.preprocess.prepare import prepare_case
    from nndet_psma.preprocess.region import stage_region
    from nndet_psma.systems.psma25d.predict import case_map

    plan = predictor.plan
    with _timed("read CT and CTV"):
        ct, ctv = (read_volume(file) for file in case.images)
    with _timed("crop, resample, distance to the CTV"):
        prepared = prepare_case(case.case_id, {"CT": ct}, plan, ctv=ctv)
    del ct, ctv
    found = {}
    for name, voters in predictor.voters.items():
        with _timed(f"voter {name}"):
            found[name] = predictor.ask(voters, prepared)
            if predictor.device.type == "cuda":
                import torch

                torch.cuda.synchronize()
    region = stage_region(prepared, plan, plan.voters[0])
    examined = (float(region.slices.min()), *region.box[:2], float(region.slices.max() + 1), *region.box[2:])
    meta = RawMeta(
        case.case_id, "x", "ctv", prepared.geometry, original_geometry(case.images[0]), examined,
        {name: len(parts) for name, parts in found.items()},
    )  # fmt: skip
    with _timed("write raw predictions"):
        write_raw(out / "raw.npz", RawPrediction(meta, found))
    settings = PostprocSettings(**plan.postproc_defaults)
    with _timed("post-processing"):
        prediction = make_prediction(read_raw(out / "raw.npz"), settings, plan.classes)
    with _timed("write lesions"):
        prediction.write(out / "case_boxes.json")
    boxes = sum(len(part) for parts in found.values() for part in parts)
    size = case_map(region, plan, plan.voters[0], False).size
    return {"slices": len(region.slices), "boxes": boxes, "input": list(size)}


@contextmanager
def _timed(name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    PARTS.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - cpu))


if __name__ == "__main__":
    sys.exit(main())
