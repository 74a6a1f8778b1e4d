"""Suppression and clustering of 10,000 boxes against MONAI's and ensemble-boxes' functions on the CPU.

``python benchmarks/clustering_speed.py``: the same random boxes for all, one thread, CPU time, interleaved, medians.
Kept boxes must be the same for suppression. MONAI and ensemble-boxes are no dependencies: install
them, or put their sources on PYTHONPATH; what cannot be imported is left out and named. ensemble-boxes suppresses in 2D
only; its 3D fusion joins boxes by another rule (each box goes to the fused box it overlaps best), so only the times can
be compared; it takes minutes, hence ``--fusion``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)

import numpy as np

from nndet_psma.boxes.clustering import nms_mask, weighted_box_clustering
from nndet_psma.boxes.detections import Detections

IOU = 0.3
EXTENT = {2: (512, 512), 3: (150, 512, 512)}
Kept = set[int] | None


def make_boxes(number: int, objects: int, dim: int, seed: int) -> Detections:
    """Boxes scattered round ``objects`` places, distinct scores; coordinates that float32 holds exactly."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.05, 0.95, (objects, dim)) * np.array(EXTENT[dim])
    side = rng.uniform(4, 20, (objects, dim))
    place = rng.integers(0, objects, number)
    middle = centre[place] + rng.normal(0, 1.5, (number, dim))
    half = side[place] * rng.uniform(0.8, 1.2, (number, dim)) / 2
    boxes = np.round(np.hstack([middle - half, middle + half]).clip(0) * 16) / 16
    score = (rng.permutation(number) + 1) / (number + 1)
    columns = {"slice": np.zeros(number, dtype=np.int64)} if dim == 2 else {}
    return Detections.build(boxes, score.astype(np.float32), dim=dim, **columns)


def ours(boxes: Detections) -> Kept:
    return set(np.flatnonzero(nms_mask(boxes, IOU)).tolist())


def ours_clustering(boxes: Detections) -> Kept:
    weighted_box_clustering([boxes.select(slice(part, None, 5)) for part in range(5)], iou=IOU)
    return None


def monai_nms() -> Callable[[Detections], Kept] | str:
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from monai.data.box_utils import non_max_suppression
    except ImportError as error:
        return f"MONAI: {error}"
    torch.set_num_threads(1)

    def run(boxes: Detections) -> Kept:
        tensor = torch.from_numpy(boxes.boxes.astype(np.float32))
        kept = non_max_suppression(tensor, torch.from_numpy(boxes.scores.astype(np.float32)), IOU)
        return set(kept.tolist())

    return run


def ensemble_boxes() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ensemble_boxes as package
    except ImportError as error:
        return f"ensemble-boxes: {error}"
    return package


def ensemble_nms(package: Any) -> Callable[[Detections], Kept]:
    def run(boxes: Detections) -> Kept:
        scaled = boxes.boxes / 1024  # it wants coordinates up to 1; a power of two keeps them exact
        _, scores, _ = package.nms([scaled], [boxes.scores], [boxes.labels], iou_thr=IOU)
        by_score = {float(score): row for row, score in enumerate(boxes.scores)}
        return {by_score[float(score)] for score in scores}

    return run


def ensemble_fusion(package: Any) -> Callable[[Detections], Kept]:
    def run(boxes: Detections) -> Kept:
        parts = [boxes.select(slice(part, None, 5)) for part in range(5)]
        package.weighted_boxes_fusion_3d(
            [part.boxes / 1024 for part in parts],
            [part.scores for part in parts],
            [part.labels for part in parts],
            iou_thr=IOU,
        )
        return None

    return run


def compare(
    runs: dict[str, Callable[[Detections], Kept]], boxes: Detections, repeats: int
) -> list[list[Any]]:
    """Median CPU seconds of each, taken in turn, and as a multiple of the first."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    kept: dict[str, Kept] = {}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            kept[name] = run(boxes)
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - start)
    first = next(iter(runs))
    for name, rows in kept.items():
        if rows is not None and rows != kept[first]:
            raise SystemExit(
                f"{name} keeps other boxes than {first}: {len(rows)} and {len(kept[first] or ())}"
            )
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        [name, middle[name], min(seconds[name]), max(seconds[name]), middle[name] / middle[first]]
        for name in runs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fusion", action="store_true", help="also time ensemble-boxes' 3D fusion")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    monai, ensemble = monai_nms(), ensemble_boxes()
    for missing in (each for each in (monai, ensemble) if isinstance(each, str)):
        print(f"left out: {missing}")
    result = {}
    for objects in (args.boxes, args.boxes // 5, args.boxes // 10):
        flat, solid = (make_boxes(args.boxes, objects, dim, seed=objects) for dim in (2, 3))
        others_3d = {} if isinstance(monai, str) else {"MONAI": monai}
        others_2d = {} if isinstance(ensemble, str) else {"ensemble-boxes nms": ensemble_nms(ensemble)}
        fusion = (
            {}
            if isinstance(ensemble, str) or not args.fusion
            else {"ensemble-boxes fusion 3D": ensemble_fusion(ensemble)}
        )
        for title, runs, boxes in (
            ("3D suppression", {"nms": ours, **others_3d}, solid),
            ("2D suppression", {"nms": ours, **others_2d}, flat),
            ("3D clustering of 5 parts", {"weighted_box_clustering": ours_clustering, **fusion}, solid),
        ):
            rows = compare(runs, boxes, args.repeats)
            result[f"{title}, {objects} objects"] = rows
            print(f"\n{title}: {args.boxes} boxes of {objects} objects")
            print(table(["function", "CPU s, median", "min", "max", "times ours"], rows))
    write_result(args.json, result)


if __name__ == "__main__":
    main()
