"""Random 2.5D slices a second and core: from the store with windows applied, and from what nnU-Net writes.

    python benchmarks/slice_reads.py

One CT is stored four ways: our store (int16 .npy, one file per modality), nnU-Net's .b2nd (float32, normalised, cut
into chunks for its 2d patches), an unpacked float32 .npy, and an .npz (both nnU-Net of old). A read is a centre slice
with one neighbour on each side, cropped to 256 x 256 at a random place; ours also applies a HU window. Everything
lies in the page cache, files stay open, one thread each; rates are per second of CPU time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)

import numpy as np

SIDE, WINDOW = 256, (-90.0, 311.0)


def main() -> int:
    """Write the four forms, read them and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(100, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    places = _places(args.shape, args.reads, rng)
    with tempfile.TemporaryDirectory() as folder:
        readers, sizes = _write(Path(folder), _ct(tuple(args.shape), rng))
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(args.runs):
            for name, read in readers.items():
                few = places[: 3 if name == ".npz" else None]
                rates[name].append(_rate(read, few))
    medians = {name: statistics.median(series) for name, series in rates.items()}
    ours = next(iter(medians.values()))
    rows = [[name, round(rate), sizes[name], ours / rate] for name, rate in medians.items()]
    print(table(["", "slices a second and core", "MB on disk", "ours is faster by"], rows))
    write_result(args.json, {"shape": args.shape, "runs": rates, "median": medians, "megabytes": sizes})
    return 0


def _ct(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A body of soft tissue with noise in air: compresses about as a CT does."""
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    body = (y[:, None] / 0.6) ** 2 + (x[None] / 0.85) ** 2 <= 1
    texture = rng.normal(0, 15, shape).astype(np.float32) + (40 * np.sin(9 * z))[:, None, None].astype(
        np.float32
    )
    return np.where(body[None], 40 + texture, -1000 + texture / 3).astype(np.int16)


def _places(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    upper = [shape[0] - 2, shape[1] - SIDE + 1, shape[2] - SIDE + 1]
    return [(int(z) + 1, int(y), int(x)) for z, y, x in (rng.integers(upper) for _ in range(count))]


def _rate(read: Callable[[int, int, int], np.ndarray], places: list[tuple[int, int, int]]) -> float:
    read(*places[0])
    start = time.process_time()
    for place in places:
        read(*place)
    return len(places) / (time.process_time() - start)


def _write(folder: Path, ct: np.ndarray) -> tuple[dict[str, Callable[..., np.ndarray]], dict[str, float]]:
    """Readers by name of the form, and megabytes on disk."""
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    from nndet_psma.boxes.geometry import Geometry
    from nndet_psma.preprocess.prepare import PreparedCase
    from nndet_psma.preprocess.store import read_case, write_case
    from nndet_psma.preprocess.windows import ChannelSource, slice_channels

    grid = Geometry(ct.shape, (3.0, 0.8, 0.8))
    write_case(folder, PreparedCase("case", {"CT": ct}, grid, grid, None, None, {}), "benchmark")
    stored = read_case(folder, "case").arrays
    source = [ChannelSource("CT", *WINDOW)]

    peer = ((ct.astype(np.float32) - 40) / 50)[None]
    blocks, chunks = comp_blosc2_params(peer.shape, ct.shape[1:], peer.itemsize)
    seg = np.zeros(peer.shape, np.int8)
    nnUNetDatasetBlosc2.save_case(
        peer,
        seg,
        {},
        str(folder / "peer"),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks,
        blocks_seg=blocks,
    )
    blosc, *_ = nnUNetDatasetBlosc2(str(folder), ["peer"]).load_case("peer")
    np.save(folder / "peer.npy", peer)
    unpacked = np.load(folder / "peer.npy", mmap_mode="r")
    np.savez_compressed(folder / "peer.npz", data=peer)

    def ours(z: int, y: int, x: int) -> np.ndarray:
        return slice_channels(stored, source, z, 1, box=(y, x, y + SIDE, x + SIDE))

    def from_blosc(z: int, y: int, x: int) -> np.ndarray:
        return np.asarray(blosc[0, z - 1 : z + 2, y : y + SIDE, x : x + SIDE])

    def from_npy(z: int, y: int, x: int) -> np.ndarray:
        return np.array(unpacked[0, z - 1 : z + 2, y : y + SIDE, x : x + SIDE])

    def from_npz(z: int, y: int, x: int) -> np.ndarray:
        with np.load(folder / "peer.npz") as content:
            return content["data"][0, z - 1 : z + 2, y : y + SIDE, x : x + SIDE]

    readers = {
        "our store, windowed": ours,
        "nnU-Net .b2nd": from_blosc,
        ".npy, float32, mapped": from_npy,
        ".npz": from_npz,
    }
    files = [folder / "case" / "CT.npy", folder / "peer.b2nd", folder / "peer.npy", folder / "peer.npz"]
    return readers, {name: file.stat().st_size / 1e6 for name, file in zip(readers, files, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
