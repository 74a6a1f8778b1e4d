"""Distance metrics of segmentations against MONAI's: the same values, at least as fast. One thread.

MONAI transforms distances in the volume between the masks, once per metric; ours searches trees of surface voxels once
for all. Timed are Hausdorff, HD95 and the symmetric mean surface distance together, on three kinds of masks: many nodes
in a pelvis, one node, and one organ. Ours also yields Dice, PPV, TPR, volumetric similarity, the voxel-wise
distances of dwi2022 and Mahalanobis in the time given.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measurement_speed import node_mask

from nndet_psma.evaluation.masks.segmentation_scores import segmentation_scores

_SPACING = (3.0, 0.8, 0.8)


def masks() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs (prediction, truth) by name."""
    nodes = node_mask(60) > 0
    z, y, x = np.ogrid[:40, :384, :384]
    node = ((z - 20) * 3 / 6) ** 2 + ((y - 100) * 0.8 / 8) ** 2 + ((x - 200) * 0.8 / 5) ** 2 <= 1
    organ = ((z - 20) * 3 / 50) ** 2 + ((y - 190) * 0.8 / 60) ** 2 + ((x - 190) * 0.8 / 60) ** 2 <= 1
    return {
        name: (_moved(mask), mask) for name, mask in (("60 nodes", nodes), ("node", node), ("organ", organ))
    }


def _moved(mask: np.ndarray) -> np.ndarray:
    moved = np.roll(mask, (0, 2, -1), (0, 1, 2))
    moved[20:] = np.roll(mask, (1, 0, 0), (0, 1, 2))[20:]
    return moved


def theirs(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Hausdorff, HD95, symmetric mean surface distance of MONAI."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, truth)]
    common: dict[str, Any] = {"include_background": True, "spacing": list(_SPACING)}
    found = [
        compute_hausdorff_distance(*pair, **common),
        compute_hausdorff_distance(*pair, percentile=95, **common),
        compute_average_surface_distance(*pair, symmetric=True, **common),
    ]
    return tuple(float(each) for each in found)


def ours(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """The same of ours."""
    scores = segmentation_scores(prediction, truth, _SPACING)
    found = (scores.surface_hausdorff_mm, scores.hd95_mm, scores.surface_distance_mm)
    return tuple(float("nan") if value is None else value for value in found)


def timed(work: Callable[[], tuple[float, ...]], rounds: int) -> tuple[float, tuple[float, ...]]:
    seconds, found = [], ()
    for _ in range(rounds):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, figures = [], {}
    for name, pair in masks().items():
        theirs(*pair)  # imports
        mine, values = timed(lambda: ours(*pair), args.rounds)  # noqa: B023
        peer, expected = timed(lambda: theirs(*pair), args.rounds)  # noqa: B023
        if not np.allclose(values, expected, rtol=1e-5):
            raise SystemExit(f"{name}: values differ, {values} and {expected}")
        rows.append([name, mine, peer, peer / mine])
        figures[name] = {"ours_s": mine, "monai_s": peer}
    print(table(["masks", "ours, s", "MONAI, s", "ratio"], rows))
    enough = all(row[-1] >= 1 for row in rows)
    print(f"same values, at least as fast: {'yes' if enough else 'NO'}")
    write_result(args.json, {"shape": [40, 384, 384], "seconds": figures})


if __name__ == "__main__":
    main()
