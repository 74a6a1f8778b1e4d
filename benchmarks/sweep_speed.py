"""The joint sweep against scoring the same settings one after the other.

``python benchmarks/sweep_speed.py``: table 3 of Xu 2023 (10 x 5 x 10 x 10 x 5 x 10 settings, every filter also off, 65
score thresholds) on made-up predictions of 18 patients and 5 voters, as many boxes as the demonstration's detectors
leave. A sample of the settings is scored one by one through the whole post-processing; counts must agree. CPU time of
one process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import table, write_result

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.one_setting import count_setting
from nndet_psma.postproc.sweep.sweep import SweepCase, SweepResult, sweep

SPACING = (3.0, 1.0, 1.0)


def make_case(rng: np.random.Generator, name: str, voters: int, boxes: int, slices: int) -> SweepCase:
    """Nodes that most voters see, look-alikes that some see, and boxes of one voter alone."""
    lesions = int(rng.integers(1, 8))
    truth, at, owner = [], [], []
    for lesion in range(lesions):
        centre, side, first = rng.uniform(30, 130, 2), rng.uniform(5, 12, 2), int(rng.integers(0, slices - 5))
        for z in range(first, first + int(rng.integers(2, 6))):
            truth.append([*(centre - side / 2), *(centre + side / 2)])
            at.append(z)
            owner.append(lesion)
    mimics = rng.uniform(30, 130, (int(boxes * 0.3), 2))
    mimic_slice = rng.integers(0, slices, len(mimics))
    raw = {}
    for voter in range(voters):
        seen = rng.random(len(truth)) < 0.8
        fooled = rng.random(len(mimics)) < 0.5
        centres = [np.array(truth).reshape(-1, 2, 2).mean(axis=1)[seen], mimics[fooled]]
        centres.append(rng.uniform(20, 140, (boxes - len(centres[0]) - len(centres[1]), 2)))
        centre = np.concatenate(centres) + rng.normal(0, 1, (boxes, 2))
        side = rng.uniform(5, 12, (boxes, 2))
        position = np.concatenate([np.array(at)[seen], mimic_slice[fooled]])
        position = np.concatenate([position, rng.integers(0, slices, boxes - len(position))])
        real = np.arange(boxes) < seen.sum()
        raw[f"window{voter}"] = [
            Detections.build(
                np.hstack([centre - side / 2, centre + side / 2]),
                np.where(real, rng.beta(2, 3, boxes), rng.beta(1, 5, boxes)),
                dim=2,
                slice=position,
                zone_mm=np.maximum(0, rng.normal(1, 3, boxes)),
                hu_quantiles=np.sort(rng.normal(90, 40, (boxes, 10)), axis=1).astype(np.float32),
            )
        ]
    found = Detections.build(truth, np.ones(len(truth)), dim=2, slice=np.array(at), lesion=np.array(owner))
    return SweepCase(name, raw, found, lesions, slices, SPACING)


def sample_settings(
    result: SweepResult, base: PostprocSettings, number: int, rng: np.random.Generator
) -> list:
    """(cell, settings) of some settings of the table."""
    cells = rng.choice(result.table.value.size, number, replace=False)
    sample = []
    for cell in zip(*np.unravel_index(cells, result.table.value.shape), strict=True):
        f, v, i, h = cell
        settings = base.but(
            {
                **result.table.variants[f],
                "min_votes": int(result.table.min_votes[v]),
                "vote_iou": float(result.table.vote_iou[i]),
                "hit_iou": float(result.table.hit_iou[h]),
                "score_threshold": float(result.table.score_threshold[cell]),
            }
        )
        sample.append((cell, settings))
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=18)
    parser.add_argument("--voters", type=int, default=5)
    parser.add_argument("--boxes", type=int, default=400, help="per voter and patient")
    parser.add_argument("--sample", type=int, default=20, help="settings scored one by one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [make_case(rng, str(i), args.voters, args.boxes, 30) for i in range(args.patients)]
    grid = replace(SweepGrid.paper_grid(), min_votes=tuple(range(1, args.voters + 1)))
    base = PostprocSettings(nms_iou=0.3)
    groups = [range(first, args.patients, 5) for first in range(5)]
    rows = []
    for name, own in (("plain", ()), ("with nested value, 5 groups", groups)):
        cpu, wall = [], []
        for _ in range(args.repeats):
            started = time.process_time(), time.perf_counter()
            result = sweep(cases, grid, criterion="f1", base=base, groups=own)
            cpu.append(time.process_time() - started[0])
            wall.append(time.perf_counter() - started[1])
        rows.append([name, statistics.median(cpu), min(cpu), max(cpu), statistics.median(wall)])
    single = []
    for cell, settings in sample_settings(result, base, args.sample, rng):
        started_at = time.process_time()
        counts = count_setting(cases, settings)
        single.append(time.process_time() - started_at)
        expected = tuple(
            int(each[cell]) for each in (result.table.boxes, result.table.true, result.table.found)
        )
        if counts != expected:
            raise SystemExit(f"{settings}: one by one {counts}, table {expected}")
    one_by_one = statistics.mean(single) * result.num_settings
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    boxes = args.patients * args.voters * args.boxes
    print(
        f"{args.patients} patients, {args.voters} voters, {boxes} boxes, {result.num_settings} settings scored"
    )
    print(table(["sweep", "CPU s, median", "min", "max", "wall s, median"], rows))
    print(f"one setting alone: {statistics.mean(single):.3g} s (of {args.sample}, all with equal counts)")
    print(f"all of them one by one: {one_by_one / 3600:.3g} h, {one_by_one / rows[0][1]:.3g} times as long")
    print(f"peak memory {peak:.2f} GB; plain value {result.best.value:.3f}, nested {result.nested.value:.3f}")
    write_result(args.json, {"rows": rows, "one_setting_s": single, "peak_gb": peak})


if __name__ == "__main__":
    main()
