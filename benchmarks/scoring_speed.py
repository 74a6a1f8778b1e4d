"""Average precision and FROC of 1000 cases x 100 boxes: ours against picai_eval, CPU time of one thread.

    .venv/bin/python benchmarks/scoring_speed.py [--cases 1000] [--boxes 100] [--rounds 3] [--json FILE]

Two comparisons, interleaved, medians of the rounds:

* curves: both start from who found whom. picai_eval's ``Metrics`` gets our matches as its list of (is lesion,
  confidence, overlap); ours ranks the records. Counts at every threshold must agree.
* whole: ours matches boxes at nine IoUs and three further hit rules, then computes the curves; picai_eval starts from
  detection maps, so its matching is measured on a few small maps (48 x 48 x 48 voxels) and scaled up, and its curves
  added. A real map has a hundred times as many voxels, so this favours picai_eval.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.average_precision import average_precision
from nndet_psma.evaluation.detection.froc import froc_curve
from nndet_psma.evaluation.detection.operating_points import operating_points
from nndet_psma.evaluation.detection.ranking import rank_detections
from nndet_psma.evaluation.detection.record import CaseRecord, Truth, build_record

_TARGET = 20
_MAPS = 4
_SIDE = 48


def random_case(rng: np.random.Generator, boxes: int, slices: int | None) -> tuple[Truth, Detections, Any]:
    """Up to three lesions and ``boxes`` predictions, a few of them near a lesion."""
    count = int(rng.integers(0, 4))
    lower = rng.uniform(0, 30, (count, 3))
    lesions = np.concatenate([lower, lower + rng.uniform(3, 10, (count, 3))], axis=1)
    near = (lesions[rng.integers(0, count, 3 * count)] if count else lesions) + rng.normal(
        0, 0.7, (3 * count, 6)
    )
    far = rng.uniform(0, 36, (boxes - len(near), 3))
    found = np.concatenate([near, np.concatenate([far, far + rng.uniform(2, 8, far.shape)], axis=1)])
    scores = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 4, len(far))])
    if slices is None:
        return (
            Truth(np.zeros(count, dtype=np.int64), lesions, spacing=(1, 1, 1)),
            Detections.build(found, scores),
            None,
        )
    middles = lesions[:, [0, 3]].mean(axis=1).astype(np.int64)
    truth = Truth(
        np.zeros(count, dtype=np.int64), lesions, middles, np.arange(count), lesions[:, [1, 2, 4, 5]], slices,
        spacing=(1, 1, 1), short_axes_mm=rng.uniform(3, 14, count),
    )  # fmt: skip
    flat = Detections.build(
        found[:, [1, 2, 4, 5]], scores, dim=2, slice=np.clip(found[:, 0] + 3, 0, slices - 1).astype(int)
    )
    return truth, Detections.build(found, scores), flat


def random_records(cases: int, boxes: int, slices: int | None = None, seed: int = 0) -> list[CaseRecord]:
    """Records of random cases, each its own patient."""
    rng = np.random.default_rng(seed)
    return [build_record(f"c{i:05d}", f"p{i:05d}", *random_case(rng, boxes, slices)) for i in range(cases)]


def as_picai(records: Sequence[CaseRecord]) -> dict[str, list[tuple[int, float, float]]]:
    """Our matches in picai_eval's form; a missed lesion has confidence 0."""
    results = {}
    for record in records:
        claims = record.claims(0.1)
        rows = [(int(c >= 0), p.score, 0.0) for p, c in zip(record.predictions, claims, strict=True)]
        results[record.case_id] = rows + [(1, 0.0, 0.0)] * (len(record.lesions) - sum(c >= 0 for c in claims))
    return results


def their_curves(results: dict[str, list[tuple[int, float, float]]]) -> tuple[Any, ...]:
    """AP and FROC of picai_eval."""
    from picai_eval.metrics import Metrics

    metrics = Metrics(results)
    return metrics.AP, metrics.lesion_TPR, metrics.lesion_FPR, metrics.lesion_TP, metrics.lesion_FP


def our_curves(records: Sequence[CaseRecord]) -> tuple[Any, ...]:
    """AP and FROC of ours."""
    ranked = rank_detections(records, iou=0.1, max_detections=None)
    return average_precision(ranked), froc_curve(ranked), ranked


def their_matching() -> None:
    """picai_eval's ``evaluate_case`` of a few detection maps with cubes as candidates."""
    from picai_eval.eval import evaluate_case

    rng = np.random.default_rng(0)
    for _ in range(_MAPS):
        found, lesion = np.zeros((_SIDE,) * 3, dtype=np.float32), np.zeros((_SIDE,) * 3, dtype=np.int32)
        for index in range(100):  # cubes of 4 voxels on a grid, apart from each other
            z, y, x = (int(v) * 8 + 2 for v in np.unravel_index(index, (5, 5, 5)))
            found[z : z + 4, y : y + 4, x : x + 4] = rng.uniform(0.01, 1)
            if index < 2:
                lesion[z : z + 5, y : y + 4, x : x + 4] = 1
        evaluate_case(found, lesion)


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    times: dict[str, list[float]] = {"ours": [], "theirs": [], "matching": [], "maps": []}
    records: list[CaseRecord] = []
    for _ in range(args.rounds):
        rng = np.random.default_rng(0)
        inputs = [random_case(rng, args.boxes, None) for _ in range(args.cases)]
        seconds, records = cpu(
            lambda: [build_record(f"c{i:05d}", f"p{i:05d}", *each) for i, each in enumerate(inputs)]  # noqa: B023
        )
        times["matching"].append(seconds)
        results = as_picai(records)
        seconds, ours = cpu(lambda: our_curves(records))  # noqa: B023
        times["ours"].append(seconds)
        seconds, theirs = cpu(lambda: their_curves(results))  # noqa: B023
        times["theirs"].append(seconds)
        times["maps"].append(cpu(their_matching)[0] / _MAPS * args.cases)
    check(ours, theirs)
    median = {name: statistics.median(values) for name, values in times.items()}
    whole = median["ours"] + median["matching"], median["theirs"] + median["maps"]
    print(f"{args.cases} cases x {args.boxes} boxes, CPU seconds of one thread, median of {args.rounds}")
    rows = [
        [
            "curves (AP and FROC from matches)",
            median["ours"],
            median["theirs"],
            median["theirs"] / median["ours"],
        ],
        ["whole (with matching)", *whole, whole[1] / whole[0]],
    ]
    print(table(["what", "ours", "picai_eval", "ratio"], rows))
    enough = min(row[-1] for row in rows) >= _TARGET
    print(f"at least {_TARGET} x: {'yes' if enough else 'NO'}; counts at every threshold agree")
    write_result(args.json, {"cases": args.cases, "boxes": args.boxes, "cpu_s": median})


def check(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    """Counts agree at every threshold that picai_eval took (of many it takes a sample; its last stands for misses)."""
    points = {round(p.threshold, 12): (p.tp, p.fp) for p in operating_points(ours[2])}
    counts = set(points.values())
    known = list(zip(theirs[3][:-1].tolist(), theirs[4][:-1].tolist(), strict=True))
    if not known or not set(known) <= counts:
        raise SystemExit("picai_eval counts otherwise")


if __name__ == "__main__":
    main()
