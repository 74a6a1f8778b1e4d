"""Wall time, CPU time and peak memory of every stage of the demonstration, and the time of ``--help``.

    make bench            # the demonstration once, in a temporary folder; prints a table

Figures depend on the machine: quote them with its cores and memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from nndet_psma.cli import demo
from nndet_psma.core.stopwatch import run_measured

HELP_RUNS = 5
COMMANDS = ("prep", "train", "sweep", "consolidate", "predict", "eval", "example", "unpack")


def measure_help() -> list[tuple[str, float]]:
    """Median seconds of ``--help`` per command."""
    rows = []
    for name in [f"nndet_{command}" for command in COMMANDS] + ["nndet_psma"]:
        executable = str(Path(sys.executable).with_name(name))
        silent = ["sh", "-c", f"{executable} --help >/dev/null"]
        rows.append(
            (name, statistics.median(run_measured(silent, os.environ).seconds for _ in range(HELP_RUNS)))
        )
    return rows


def main() -> int:
    """Print both tables."""
    print("| command | --help, median s |\n|---|---|")
    for name, seconds in measure_help():
        print(f"| {name} | {seconds:.2f} |")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--help-only", action="store_true")
    if parser.parse_args().help_only:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return demo.main(["--folder", folder])


if __name__ == "__main__":
    sys.exit(main())
