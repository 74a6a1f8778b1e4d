"""The ablation of Xu et al. 2023 (table 4) on a phantom task, in one command: pretraining, filters, window bagging.

    python benchmarks/ablation.py [--folder DIR] [--cases 24] [--iterations-factor 1.0] [--json FILE]

Two models are trained on the same folds: one as planned, one without whole-slice pretraining, whose voters are trained
for as many steps as fill the seconds that all stages of the first took. Both are printed: a busy
machine parts them. Test cases are predicted by all folds;
a row is one window's detector alone, the same with the zone and HU filters, or the vote of all windows. Intervals are
of 95 % over patients. All rows of a model use the thresholds tuned for the whole; the paper tunes for each row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import executable, table, write_result

from nndet_psma.core.stopwatch import run_measured
from nndet_psma.report.training_cost import TrueCost, true_cost

TASK, FOLDS = "100", 2
FULL, SCRATCH = "PSMA25D", "PSMA25D_NoPretraining"
COLUMNS = {
    "AP_IoU_0.10_MaxDet_100": "AP at IoU 0.1",
    "paper_sensitivity": "sensitivity",
    "paper_precision": "precision",
    "paper_f1": "F1",
    "paper_auc": "slice AUC",
}


class Place:
    """A folder with a task and its models, and the commands that work in it."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.environment = {
            **os.environ,
            "det_data": str(folder / "data"),
            "det_models": str(folder / "models"),
        }
        for name in ("data", "models"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.models, self.options = folder / "models", options

    def run(self, *command: str) -> None:
        """Run one command; its failure ends the benchmark."""
        cost = run_measured([executable(command[0]), *command[1:]], self.environment)
        if cost.code != 0:
            sys.exit(cost.code)

    def model(self, plan: str) -> str:
        """Name of the model folder."""
        return f"MaskRCNN25D_{plan}"

    def train(self, plan: str, *options: str) -> TrueCost:
        """Plan and train all folds; what the steps took."""
        chosen = [f"plan={plan}", f"plan_cfg.num_folds={FOLDS}", *self.options, *options]
        self.run("nndet_prep", TASK, "-o", *chosen)
        for fold in range(FOLDS):
            self.run(
                "nndet_train", TASK, "--sweep", "-o", *chosen, f"exp.fold={fold}", "trainer_cfg.log_every=1"
            )
        return true_cost(sorted(self.models.glob(f"*/{self.model(plan)}/fold*")))

    def rows(self, plan: str) -> list[dict[str, Any]]:
        """``ablation.json`` of the test cases."""
        model = self.model(plan)
        self.run("nndet_consolidate", TASK, model, "--sweep_boxes")
        self.run("nndet_predict", TASK, model, "--fold", "-1")
        self.run("nndet_eval", TASK, model, "-1", "--test", "--boxes")
        file = next(self.models.glob(f"*/{model}/consolidated/test_results/ablation.json"))
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found


def iterations_of_equal_time(full: TrueCost) -> int:
    """Steps of each voter that take, without pretraining, the seconds of all stages with it."""
    voters = [stage for stage in full.stages if stage.stage != "wsi"]
    return max(1, round(full.hours_total * 3600 / sum(stage.seconds_per_step for stage in voters)))


def row_cells(pretrained: bool, row: Mapping[str, Any]) -> list[str]:
    """One line of the table."""
    ticks = ["yes" if on else "" for on in (pretrained, row["filters"], row["bagging"])]
    return [*ticks, str(row["voters"]), *(_score(row["scores"][name]) for name in COLUMNS)]


def _score(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "undefined"
    if score["ci_low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} ({score['ci_low']:.3f} to {score['ci_high']:.3f})"


def run_all(folder: Path, args: argparse.Namespace) -> None:
    """Train both models and print the table."""
    place = Place(folder, [f"plan_cfg.iterations_factor={args.iterations_factor}", *args.options])
    example = ["nndet_example", "--cases", str(args.cases), "--test-cases", str(args.test_cases)]
    place.run(*example, "--seed", str(args.seed), "--task", TASK)
    full = place.train(FULL)
    steps = iterations_of_equal_time(full)
    scratch = place.train(SCRATCH, "plan_cfg.wsi_pretraining=false", f"trainer_cfg.iterations={steps}")
    rows = {plan: place.rows(plan) for plan in (SCRATCH, FULL)}
    lines = [row_cells(plan == FULL, row) for plan, found in rows.items() for row in found]
    print(table(["pretraining", "filters", "bagging", "window", *COLUMNS.values()], lines))
    seconds = {plan: cost.hours_total * 3600 for plan, cost in ((FULL, full), (SCRATCH, scratch))}
    print("\nseconds of training: " + ", ".join(f"{plan} {value:.0f}" for plan, value in seconds.items()))
    write_result(args.json, {"seconds": seconds, "rows": rows})


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep task and models here (default: a temporary folder)")
    parser.add_argument("--cases", type=int, default=24, help="training cases (default %(default)s)")
    parser.add_argument("--test-cases", type=int, default=10, help="test cases (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom (default %(default)s)")
    parser.add_argument("--iterations-factor", type=float, default=1.0, help="of the planned steps")
    parser.add_argument("--json", type=Path, help="write rows and seconds here")
    parser.add_argument(
        "-o", dest="options", nargs="*", default=[], metavar="KEY=VALUE", help="for both models"
    )
    args = parser.parse_args()
    if args.folder is not None:
        run_all(args.folder, args)
        return 0
    with TemporaryDirectory() as folder:
        run_all(Path(folder), args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
