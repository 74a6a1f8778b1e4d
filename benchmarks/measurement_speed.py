"""Labelling and measuring of all nodes of a mask: under one second for 384 x 384 x 40 voxels and 60 nodes.

One thread. Nodes are ellipsoids of 5 to 20 mm at any orientation on a grid of 0.8 x 0.8 x 3 mm; scipy's labelling alone
is given beside it, so that the share of the measurement can be seen.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.boxes.labels import node_components
from nndet_psma.nodes.measurement import measure_nodes
from nndet_psma.nodes.staging import stage_nodes

_SHAPE, _SPACING = (40, 384, 384), (3.0, 0.8, 0.8)
_LIMIT_S = 1.0


def node_mask(count: int) -> np.ndarray:
    """A mask with ``count`` ellipsoids that do not touch."""
    rng = np.random.default_rng(0)
    mask = np.zeros(_SHAPE, dtype=np.uint8)
    across = int(np.ceil(np.sqrt(count / 2)))  # two layers
    for index in range(count):
        layer, place = divmod(index, across * across)
        y, x = (int((at + 0.5) * _SHAPE[1] / across) for at in divmod(place, across))
        centre = np.array([10 + 20 * layer, y, x])
        cut = tuple(
            slice(max(0, c - r), c + r + 1) for c, r in zip(centre.tolist(), (9, 17, 17), strict=True)
        )
        grid = np.stack(np.meshgrid(*[np.arange(s.start, min(s.stop, n)) for s, n in zip(cut, _SHAPE, strict=True)],
                                    indexing="ij"), axis=-1)  # fmt: skip
        local = (grid - centre) * _SPACING @ Rotation.random(random_state=index).as_matrix()
        mask[cut][((local / rng.uniform(2.5, 10, 3)) ** 2).sum(axis=-1) <= 1] = 1
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    mask, geometry = node_mask(args.nodes), Geometry(_SHAPE, _SPACING)
    whole, labelling, found = [], [], 0
    for _ in range(args.rounds):
        start = time.perf_counter()
        ndimage.label(mask, np.ones((3, 3, 3)))
        labelling.append(time.perf_counter() - start)
        start = time.perf_counter()
        nodes = measure_nodes(node_components(mask)[0], geometry)
        stage_nodes(nodes)
        whole.append(time.perf_counter() - start)
        found = len(nodes)
    seconds = {"whole_s": statistics.median(whole), "scipy_label_s": statistics.median(labelling)}
    print(f"{found} nodes on {' x '.join(map(str, _SHAPE))} voxels, median of {args.rounds}")
    print(table(["what", "s"], [[name, value] for name, value in seconds.items()]))
    print(f"under {_LIMIT_S:g} s: {'yes' if seconds['whole_s'] < _LIMIT_S else 'NO'}")
    write_result(args.json, {"nodes": found, **seconds})


if __name__ == "__main__":
    main()
