"""How long 1000 bootstrap draws over 1000 patients take: every score with its interval, ``score_records``.

    .venv/bin/python benchmarks/bootstrap_speed.py [--patients 1000] [--boxes 20] [--draws 1000] [--json FILE]

CPU time of one process with one thread. Beside it, in the same run, the draws one by one (the same numbers, checked),
measured on a few draws and scaled up.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import time
from pathlib import Path

import numpy as np
from scoring_speed import random_records

from nndet_psma.evaluation.detection.drawn_scores import drawn_values
from nndet_psma.evaluation.detection.score_tables import build_tables, score_values
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.evaluation.statistics.bootstrap import patient_weights

_ONE_BY_ONE = 5
_TARGET_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=20, help="boxes of each patient")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    records = random_records(args.patients, args.boxes, slices=40)

    start = time.process_time()
    score_records(records, classes=["node"], bootstrap_draws=0)
    plain = time.process_time() - start
    start = time.process_time()
    score_records(records, classes=["node"], bootstrap_draws=args.draws)
    whole = time.process_time() - start

    tables = build_tables(records, ["node"])
    draws = patient_weights([r.patient_id for r in records], draws=_ONE_BY_ONE, seed=0)
    start = time.process_time()
    singly = [score_values(tables, weights) for weights in draws]
    one_by_one = (time.process_time() - start) / _ONE_BY_ONE * args.draws
    together = drawn_values(tables, draws)
    worst = max(
        abs(each[key] - together[key][row])
        for row, each in enumerate(singly)
        for key in each
        if each[key] is not None
    )
    if not worst < 1e-9:
        raise SystemExit(f"draws at once and one by one differ by {worst}")

    print(f"{args.patients} patients, {args.boxes} boxes each, {args.draws} draws; CPU seconds, one thread")
    rows = [
        ["scores without intervals", plain],
        ["scores, strata, operating points with intervals", whole],
        ["the scores alone, draw by draw (scaled up)", one_by_one],
    ]
    print(table(["what", "CPU s"], rows))
    print(f"under {_TARGET_S:g} s: {'yes' if whole < _TARGET_S else 'NO'}; largest difference {worst:.1e}")
    write_result(
        args.json,
        {"draws": args.draws, "patients": args.patients, "boxes": args.boxes, "cpu_s": whole,
         "cpu_s_without_intervals": plain, "cpu_s_one_by_one": one_by_one},
    )  # fmt: skip


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
