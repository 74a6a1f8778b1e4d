"""How long ``--help`` and planning take: our commands against nnDetection's.

    python benchmarks/host_startup.py --nndetection ~/nnDetection [--python ~/nndet/bin/python] [--json FILE]

nnDetection is the unmodified upstream, started with the repairs that current PyTorch needs
(``python -m nndet_psma.hosts.nndetection``); it imports everything before it looks at its arguments.

Planning is measured on nnDetection's toy task (``nndet_example --kind squares``), measured (upstream: cropped and
analysed) beforehand: as a command (``nndet_prep`` with only its planning left on), and alone, within a process that has
imported all it needs. "D3V001" is upstream's own planner. Without CUDA its command fails; alone, two of its calls are
replaced: what it puts on the GPU stays on the CPU, and every network is taken to fit, which otherwise is found by
training steps. Its figure is what remains. "PSMAD3" is our planner inside nnDetection, which needs no replacement; its
command also reads the fingerprint of every case, which the first of its runs has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from measure import ONE_THREAD, Cost, executable, measure, median_cost, table, write_result
from nndetection_place import HOST, TASK, draw_task, find_nndetection, place_options

COMMANDS = ("nndet_prep", "nndet_train", "nndet_sweep", "nndet_consolidate", "nndet_predict", "nndet_eval")
PLANNERS = {
    "retina3d": ["plan_cfg.target=cpu"],
    "PSMAD3": ["train=psma3d_nndet", "model_cfg.plan_cfg.target=cpu"],
    "D3V001": [],
}
"""Options of ``nndet_prep -o`` by planner; the first is the embedded engine's."""
ANALYSIS = {
    "retina3d": (["prep.process=false"], ["prep.check=false", "prep.fingerprint=false"]),
    "nndetection": (["prep.plan=false", "prep.process=false"], ["prep.crop=false", "prep.analyze=false"]),
}
"""By engine, the options of ``nndet_prep`` that measure the data, and those that then leave it out."""


def main() -> int:
    """Run both sides in turn and print the tables."""
    args = _arguments()
    if args.plan_with:
        print(json.dumps(plan_alone(args.plan_with)))
        return 0
    upstream = {**os.environ, **ONE_THREAD, **find_nndetection(args.python, args.nndetection)}
    theirs = [args.python, "-m", HOST]
    helps = {name: _help(name, theirs, upstream, args.runs) for name in COMMANDS}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        plans = _plan(Path(folder), args.python, upstream, args.runs)
    print(_help_table(helps))
    print()
    print(_plan_table(plans))
    shown = {name: {side: asdict(cost) for side, cost in pair.items()} for name, pair in helps.items()}
    write_result(args.json, {"runs": args.runs, "help": shown, "plan": plans})
    return 0


def plan_alone(planner: str) -> float:
    """CPU seconds of planning, imports and reading of the configuration left out."""
    plan = _embedded_planning() if planner == "retina3d" else _upstream_planning(planner)
    start = time.process_time()
    plan()
    return time.process_time() - start


def _embedded_planning() -> Callable[[], object]:
    from nndet_psma.artifacts.fingerprint import Fingerprint
    from nndet_psma.dataset.task.paths import TaskPaths, data_root
    from nndet_psma.planners.detector_options import DetectorOptions
    from nndet_psma.planners.machine import make_plan
    from nndet_psma.systems.retina3d.planner import Retina3DPlanner

    paths = TaskPaths(data_root() / TASK)
    options = DetectorOptions.parse({"target": "cpu"})
    names = {"planner": Retina3DPlanner.__name__, "plan_id": "RETINA3D", "trainer": "RetinaNet3D"}
    return lambda: make_plan(Fingerprint.read(paths.fingerprint), paths, options, **names)


def _upstream_planning(name: str) -> Callable[[], object]:
    from nndet_psma.hosts.nndetection.compat import apply_repairs

    apply_repairs()
    from hydra import initialize_config_module
    from nndet.planning import PLANNER_REGISTRY
    from nndet.utils.config import compose
    from omegaconf import OmegaConf

    import nndet_psma.hosts.nndetection.plugin  # noqa: F401 - registers PSMAD3

    if name == "D3V001":
        _without_cuda()
    initialize_config_module(config_module="nndet.conf", version_base="1.1")
    config = OmegaConf.to_container(compose("000", "config.yaml", overrides=PLANNERS[name]), resolve=True)
    folder = Path(config["host"]["preprocessed_output_dir"])
    planner = PLANNER_REGISTRY.get(config["planner"])(preprocessed_output_dir=folder)
    return lambda: planner.plan_experiment(model_name=config["module"], model_cfg=config["model_cfg"])


def _without_cuda() -> None:
    """Upstream's planner gets by without a GPU, its trial steps left out."""
    import torch
    from nndet.planning.estimator import MemoryEstimatorDetection

    torch.Tensor.cuda = lambda self, *_, **__: self
    MemoryEstimatorDetection.estimate = lambda self, *_, **__: (0, True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    place_options(parser)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plan-with", choices=list(PLANNERS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _help(name: str, theirs: Sequence[str], upstream: Mapping[str, str], runs: int) -> dict[str, Cost]:
    print(f"{name} --help", file=sys.stderr)
    ours, other = [], []
    folders = {"det_data": os.curdir, "det_models": os.curdir}  # upstream does not even help without
    for _ in range(runs):
        ours.append(measure([executable(name), "--help"], {**os.environ, **ONE_THREAD}))
        other.append(measure([*theirs, name, "--help"], {**upstream, **folders}))
    return {"ours": median_cost(ours), "nnDetection": median_cost(other)}


def _plan(
    folder: Path, python: str, upstream: Mapping[str, str], runs: int
) -> dict[str, dict[str, float | None]]:
    """By planner, CPU seconds of the command and of planning alone."""
    environments = {}
    for side, given in (("embedded", {**os.environ, **ONE_THREAD}), ("nndetection", upstream)):
        draw_task(folder / side / "data", 10, 0)
        (folder / side / "models").mkdir()
        places = {"det_data": str(folder / side / "data"), "det_models": str(folder / side / "models")}
        environments[side] = {**given, **places}
    result = {}
    for planner in PLANNERS:
        print(f"planning with {planner}", file=sys.stderr)
        embedded = planner == "retina3d"
        environment = environments["embedded" if embedded else "nndetection"]
        start = [executable("nndet_prep")] if embedded else [python, "-m", HOST, "nndet_prep"]
        alone = [sys.executable if embedded else python, __file__, "--plan-with", planner]
        result[planner] = {
            "command": _command_seconds(start, planner, environment, folder / f"{planner}.log", runs),
            "alone": statistics.median(_spoken(alone, environment) for _ in range(runs)),
        }
    return result


def _command_seconds(
    start: Sequence[str], planner: str, environment: Mapping[str, str], log: Path, runs: int
) -> float | None:
    """CPU seconds of ``nndet_prep`` that only plans; None where it fails, as upstream's planner without CUDA."""
    before, off = ANALYSIS["retina3d" if planner == "retina3d" else "nndetection"]
    common = [*start, "000", "-np", "1", "--no_check", "-o", *PLANNERS[planner]]
    measure([*common, *before], environment, log)
    command = [*common, *off, "prep.process=false", "prep.overwrite=true"]
    try:
        return median_cost(measure(command, environment, log) for _ in range(runs)).cpu_seconds
    except RuntimeError as error:
        if planner != "D3V001":
            raise
        print(error, file=sys.stderr)
        return None


def _spoken(command: Sequence[str], environment: Mapping[str, str]) -> float:
    done = subprocess.run(list(command), env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[-1]}: {done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def _help_table(helps: Mapping[str, Mapping[str, Cost]]) -> str:
    header = ["--help", "ours, CPU s", "nnDetection, CPU s", "ours, wall s", "nnDetection, wall s"]
    rows = []
    for name, pair in helps.items():
        ours, theirs = pair["ours"], pair["nnDetection"]
        rows.append([name, ours.cpu_seconds, theirs.cpu_seconds, ours.seconds, theirs.seconds])
    return table(header, rows)


def _plan_table(plans: Mapping[str, Mapping[str, float | None]]) -> str:
    rows = [
        [name, "fails without CUDA" if found["command"] is None else found["command"], found["alone"]]
        for name, found in plans.items()
    ]
    return table(["planner", "nndet_prep, planning only, CPU s", "planning alone, CPU s"], rows)


if __name__ == "__main__":
    sys.exit(main())
