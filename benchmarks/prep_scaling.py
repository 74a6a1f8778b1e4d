"""Does the cost of ``nndet_prep`` grow linearly with the cases? Small phantoms, 10 to 80 of them.

    python benchmarks/prep_scaling.py

Each size is prepared from nothing with ``--full_check``, one thread per process. The last line fits
``fixed + per case x cases`` to the CPU times and names the largest deviation from it.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from measure import ONE_THREAD, Cost, executable, measure, median_cost, table, write_result

SIZE, SPACING = "14 72 96", "8 4 4"
FOLDER = "Task100_PSMAPhantom"


def main() -> int:
    """Prepare every size and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        _phantom(scratch / "all", max(args.cases))
        runs: dict[int, list[Cost]] = {count: [] for count in args.cases}
        for _ in range(args.runs):
            for count in args.cases:
                runs[count].append(_prepare(scratch, count, args.processes))
    medians = {count: median_cost(costs) for count, costs in runs.items()}
    rows = [
        [n, c.cpu_seconds, c.cpu_seconds / n, c.seconds, c.seconds / n, c.peak_gb] for n, c in medians.items()
    ]
    print(table(["cases", "CPU s", "CPU s per case", "wall s", "wall s per case", "peak GB"], rows))
    fixed, slope, deviation = _fit([(float(n), cost.cpu_seconds) for n, cost in medians.items()])
    print(f"\nCPU = {fixed:.2f} s + {slope:.3f} s per case; largest deviation {100 * deviation:.1f} %")
    content = {str(count): [asdict(cost) for cost in costs] for count, costs in runs.items()}
    write_result(args.json, {"runs": content, "fixed_s": fixed, "per_case_s": slope, "deviation": deviation})
    return 0


def _phantom(data: Path, cases: int) -> None:
    command = [executable("nndet_example"), "--cases", str(cases), "--test-cases", "0", "-o", str(data)]
    measure([*command, "--size", SIZE, "--spacing", SPACING], {**os.environ, **ONE_THREAD})


def _prepare(scratch: Path, count: int, processes: int) -> Cost:
    """The first ``count`` cases as a task of their own."""
    source, root = scratch / "all" / FOLDER, scratch / "some" / FOLDER
    shutil.rmtree(root, ignore_errors=True)
    with (source / "clinical.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))[: count + 1]
    kept = {row[0] for row in rows[1:]}
    for name in ("imagesTr", "labelsTr"):
        (root / "raw_splitted" / name).mkdir(parents=True)
        for file in (source / "raw_splitted" / name).iterdir():
            if any(file.name.startswith(f"{case}.") or file.name.startswith(f"{case}_") for case in kept):
                os.link(file, root / "raw_splitted" / name / file.name)
    description = (source / "dataset.json").read_text().replace('"test_labels": true', '"test_labels": false')
    (root / "dataset.json").write_text(description)
    with (root / "clinical.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    folders = {"det_data": str(root.parent), "det_models": str(scratch / "models")}
    command = [executable("nndet_prep"), "100", "--full_check", "-np", str(processes), "-npp", str(processes)]
    return measure(command, {**os.environ, **ONE_THREAD, **folders}, scratch / "prep.log")


def _fit(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Least squares: fixed part, slope, largest relative deviation."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    fixed = mean_y - slope * mean_x
    return fixed, slope, max(abs(y - fixed - slope * x) / y for x, y in points)


if __name__ == "__main__":
    sys.exit(main())
