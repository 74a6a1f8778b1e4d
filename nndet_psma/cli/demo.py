"""``nndet_psma demo``: phantom task, every stage through the commands a user types, scores and report."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import console, say

if TYPE_CHECKING:
    from nndet_psma.core.stopwatch import StepCost

TASK = "100"
MODEL = "MaskRCNN25D_PSMA25D"
UNTRAINED = "_untrained"


def build_parser() -> argparse.ArgumentParser:
    """Where to, and how large."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma demo", description="Make a phantom task and run every stage on it, on CPU or GPU."
    )
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where to (default ./demo)")
    parser.add_argument("--cases", type=int, default=32, help="training cases (default %(default)s)")
    parser.add_argument("--test-cases", type=int, default=10, help="test cases (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="start from nothing")
    return parser


def commands(args: argparse.Namespace) -> list[list[str]]:
    """The command lines, in order: as a user would type them."""
    planning = ["plan_cfg.num_folds=2"]
    untrained = [f"exp.tag={UNTRAINED}", "trainer_cfg.iterations=0"]
    example = ["nndet_example", "--cases", str(args.cases), "--test-cases", str(args.test_cases)]
    return [
        [*example, "--seed", str(args.seed), "--task", TASK],
        ["nndet_prep", TASK, "--full_check", "-o", *planning],
        ["nndet_train", TASK, "-o", "exp.fold=0", "--sweep"],
        ["nndet_train", TASK, "-o", "exp.fold=1", "--sweep"],
        ["nndet_consolidate", TASK, MODEL, "--sweep_boxes"],
        ["nndet_predict", TASK, MODEL, "--fold", "-1"],
        ["nndet_eval", TASK, MODEL, "-1", "--test", "--boxes", "--case", "--analyze_boxes"],
        ["nndet_train", TASK, "-o", "exp.fold=0", *untrained],
        ["nndet_consolidate", TASK, MODEL + UNTRAINED],
        ["nndet_predict", TASK, MODEL + UNTRAINED, "--fold", "-1"],
        ["nndet_eval", TASK, MODEL + UNTRAINED, "-1", "--test", "--case"],
        ["nndet_psma", "report", TASK, MODEL],
    ]


def run(args: argparse.Namespace) -> int:
    """Run the commands one after the other; stops at the first that fails."""
    from nndet_psma.core.stopwatch import run_measured

    folder = args.folder.resolve()
    if args.overwrite and folder.exists():
        shutil.rmtree(folder)
    environment = {
        **os.environ,
        "det_data": str(folder / "det_data"),
        "det_models": str(folder / "det_models"),
    }
    for name in ("det_data", "det_models"):
        Path(environment[name]).mkdir(parents=True, exist_ok=True)
    costs = []
    for command in commands(args):
        say(f"\n$ {' '.join(command)}")
        cost = run_measured(_executable(command), environment)
        costs.append((" ".join(command[:2]) if command[0] == "nndet_psma" else command[0], cost))
        if cost.code != 0:
            return cost.code
    _print_end(folder, costs)
    return 0


def _executable(command: list[str]) -> list[str]:
    """The command of this very environment, whatever PATH says."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _print_end(folder: Path, costs: list[tuple[str, StepCost]]) -> None:
    from rich.table import Table

    models = next((folder / "det_models").glob("Task*"))
    table = Table("stage", "wall time, s", "peak memory, GB", title="cost")
    for name, cost in costs:
        table.add_row(name, f"{cost.seconds:.0f}", f"{cost.peak_gb:.2f}")
    table.add_row("all", f"{sum(cost.seconds for _, cost in costs):.0f}", "")
    console().print(table)
    scores = Table("model", "AP at IoU 0.1", "FROC score at IoU 0.1", title="test cases")
    for label, model in (("trained", MODEL), ("untrained detector", MODEL + UNTRAINED)):
        scores.add_row(label, *_test_scores(models / model))
    console().print(scores)
    say(f"report: {models / MODEL / 'report.html'}")


def _test_scores(model: Path) -> list[str]:
    from nndet_psma.core.atomic import read_json

    scores = read_json(model / "consolidated" / "test_results" / "scores.json")["scores"]
    cells = []
    for key in ("AP_IoU_0.10_MaxDet_100", "FROC_score_IoU_0.10"):
        found = scores[key]
        cells.append(f"{found['value']:.3f} ({found['ci_low']:.3f} to {found['ci_high']:.3f})")
    return cells


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
