"""The embedded ``retina3d`` against nnDetection's RetinaUNet on nnDetection's toy task, from raw data to AP.

    python benchmarks/retina3d_vs_nndetection.py --nndetection ~/nnDetection [--python ~/nndet/bin/python] [--json FILE]

``nndet_example --kind squares`` draws the task; each engine works on its own copy of the same files, with its own
commands, on the CPU with one thread, in one process. nnDetection is the unmodified upstream, started with the repairs
that current PyTorch needs (``python -m nndet_psma.hosts.nndetection``). Its own planner cannot plan without CUDA, so
our ``PSMAD3`` plans for it: network, losses, sampling, augmentation, optimiser and schedule are upstream's, the patch,
the batch and the fold are those of the embedded plan, and so are stages, widths and pyramid levels, which replace those
planned for upstream on a CPU. Its anchors are all combinations of the edges of the embedded plan's anchors.

Both see as many patches. Upstream's schedule (50 epochs, and 10 whose weights are averaged) is shortened in proportion;
the embedded engine trains as planned for a CPU (AdamW at 0.001), and once more with nnDetection's optimiser and rate.
Costs are CPU seconds of all processes, which other work on the machine lengthens little. Costs per case and per
iteration are the difference of two runs of the command of different length over their difference in cases or
iterations, so that starting the interpreter is left out. Nothing is mirrored in prediction, neighbouring patches would
overlap by half; thresholds come from each engine's own sweep over the validation cases of the fold. All boxes are
scored by our evaluation, nnDetection's after our conversion.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from measure import Cost, median_cost, table, write_result
from nndetection_place import (
    AVERAGED,
    EPOCHS,
    Embedded,
    EmbeddedSGD,
    Genuine,
    draw_task,
    find_nndetection,
    place_options,
)

from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.scores import Score, score_records
from nndet_psma.inference.records import make_record, read_truth

SCORES = {"AP, IoU 0.1": "AP_IoU_0.10_MaxDet_100", "mAP, IoU 0.1 to 0.5": "mAP_IoU_0.10_0.50_0.05_MaxDet_100"}


@dataclass(frozen=True)
class Result:
    """What one engine took and reached: costs (medians) of whole commands and, CPU seconds, of one more unit."""

    costs: dict[str, Cost]
    each: dict[str, float]
    scores: dict[str, Score]


def run_engine(engine: Embedded, iterations: int, runs: int) -> Result:
    """Everything from the raw task to scores."""
    prep, prep_each = _per_case(engine, "Tr", engine.prep, runs)
    few = EPOCHS + AVERAGED
    short, training = engine.train(few), engine.train(iterations)
    train_each = (training.cpu_seconds - short.cpu_seconds) / (iterations - few)
    sweep = engine.sweep()
    prediction, predict_each = _per_case(engine, "Ts", engine.predict, runs)
    return Result(
        {"prep": prep, "training": training, "sweep": sweep, "prediction": prediction},
        {"prep": prep_each, "training": train_each, "prediction": predict_each},
        _scores(engine),
    )


def _per_case(engine: Embedded, split: str, step: Callable[[], Cost], runs: int) -> tuple[Cost, float]:
    """Cost with all cases of a split, and CPU seconds of each of the cases that every other time are set aside."""
    wholes, differences = [], []
    for _ in range(runs):
        with _set_aside(engine, split) as away:
            part = step()
        wholes.append(step())
        differences.append((wholes[-1].cpu_seconds - part.cpu_seconds) / away)
    return median_cost(wholes), sorted(differences)[runs // 2]


@contextmanager
def _set_aside(engine: Embedded, split: str) -> Iterator[int]:
    """Half of a split's cases are elsewhere for a while; how many."""
    raw, aside = engine.root / "raw_splitted", engine.folder / "aside"
    cases = sorted(file.stem for file in (raw / f"labels{split}").glob("*.json"))
    away = cases[len(cases) // 2 :]
    moved = {}
    for kind in (f"images{split}", f"labels{split}"):
        (aside / kind).mkdir(parents=True, exist_ok=True)
        files = [
            file for case in away for ending in (".*", "_0*") for file in (raw / kind).glob(case + ending)
        ]
        moved |= {file: aside / kind / file.name for file in files}
    for file, target in moved.items():
        file.rename(target)
    try:
        yield len(away)
    finally:
        for file, target in moved.items():
            target.rename(file)


def _scores(engine: Embedded) -> dict[str, Score]:
    """Scores of the test cases; "pooled" takes all classes for one."""
    description = read_description(engine.root)
    records, pooled = [], []
    for case in list_cases(TaskPaths(engine.root), description, "Ts"):
        found = engine.prediction(case, description)
        truth, grid = read_truth(case, description)
        records.append(make_record(found, truth, grid, case.case_id, slice_iou=0.1))
        alike = replace(found, candidates=[replace(box, label=0) for box in found.candidates], lesions=[])
        truth = replace(truth, labels=truth.labels * 0)
        pooled.append(make_record(alike, truth, grid, case.case_id, slice_iou=0.1))
    names = [description.labels[index] for index in sorted(description.labels)]
    each, one = (score_records(r, classes=c).scores for r, c in ((records, names), (pooled, ["any"])))
    return {name: each[key] for name, key in SCORES.items()} | {
        f"{name}, classes pooled": one[key] for name, key in SCORES.items()
    }


def main() -> int:
    """Run the engines one after the other and print the table."""
    args = _arguments()
    environment = find_nndetection(args.python, args.nndetection)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        scratch = Path(folder)
        raw = draw_task(scratch / "raw", args.cases, args.test_cases)
        results: dict[str, Result] = {}
        for kind in (Embedded, EmbeddedSGD):
            engine = kind(scratch / kind.__name__, raw, {})
            runs = args.runs if kind is Embedded else 1  # the other differs in its scores only
            results[engine.name] = run_engine(engine, args.iterations, runs)
        plan = read_plan(TaskPaths(engine.root).plan("RETINA3D"))
        genuine = Genuine(scratch / "genuine", raw, environment, args.python, plan)
        results[genuine.name] = run_engine(genuine, args.iterations, args.runs)
    print(_report(results))
    content = {"iterations": args.iterations, "runs": args.runs}
    write_result(args.json, {**content, "results": {name: asdict(found) for name, found in results.items()}})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    place_options(parser)
    parser.add_argument("--iterations", type=int, default=120, help="a multiple of 12")
    parser.add_argument("--cases", type=int, default=10, help="10 at least, for five folds of half of them")
    parser.add_argument("--test-cases", type=int, default=10)
    parser.add_argument(
        "--runs", type=int, default=3, help="of preparation and prediction; training runs once"
    )
    args = parser.parse_args()
    if args.iterations % (EPOCHS + AVERAGED) or args.iterations <= EPOCHS + AVERAGED:
        parser.error(f"--iterations must be a multiple of {EPOCHS + AVERAGED}, above it")
    return args


def _report(results: Mapping[str, Result]) -> str:
    found = list(results.values())

    def row(name: str, value: Callable[[Result], Any]) -> Sequence[Any]:
        return [name, *(value(result) for result in found)]

    rows = []
    for step, unit in {"prep": "case", "training": "iteration", "prediction": "case"}.items():
        rows.append(row(f"{step}, CPU s per {unit}", lambda r, step=step: r.each[step]))
    for step in found[0].costs:
        rows.append(row(f"{step}, CPU s of the command", lambda r, step=step: r.costs[step].cpu_seconds))
        rows.append(row(f"{step}, peak GB", lambda r, step=step: r.costs[step].peak_gb))
    rows += [row(name, lambda r, name=name: _text(r.scores[name])) for name in found[0].scores]
    return table(["", *results], rows)


def _text(score: Score) -> str:
    if score.value is None:
        return "undefined"
    if score.ci_low is None or score.ci_high is None:
        return f"{score.value:.2f}"
    return f"{score.value:.2f} ({score.ci_low:.2f} to {score.ci_high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
