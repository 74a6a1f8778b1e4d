"""Images per second against torchvision's own recipe for training a detector, with the same network and slices.

    python benchmarks/training_vs_torchvision.py [--device cuda] [--json FILE]

Theirs is what torchvision's detection reference and its fine-tuning tutorial do: a folder of PNG pictures with PNG
instance masks (here the training slices of fold 0, windowed and cropped to the search region), one item per picture,
boxes from the masks, a random mirror, lists collated by zip, then ``GeneralizedRCNNTransform`` on the device, which
normalises, resizes every picture to the planned size and pads the batch. Ours is ``train_loop`` on ``SliceBatches``
with the planned augmentation (resize, rotation, shift, mirror, smoothing, brightness, noise), which theirs has not.
Both have the planned network, batch, optimiser and workers, and are trained in turns. Ours runs in the precision of
``--precision``, theirs always in fp32, as their recipe does without ``--amp``. On a GPU the rates are per second of
wall time, on CPU per second of CPU time of all processes, which other work on the machine does not lengthen. Pixels are
counted where they enter the backbone: ours are always the planned ones, theirs as many as the largest of a batch needs.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measure import table, write_result
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional
from training_place import BareStep, Place, open_place, parser_of, stopwatch

from nndet_psma.preprocess.windows import slice_channels

_MARGIN = 2  # steps at the start of a block, in which caches and loaders warm up


class PictureFolder(Dataset[Any]):
    """Pictures and instance masks, one item each."""

    def __init__(self, folder: Path) -> None:
        self.pictures = sorted(folder.glob("*_image.png"))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        file = self.pictures[index]
        image = functional.to_dtype(
            functional.pil_to_tensor(Image.open(file).convert("RGB")), torch.float32, scale=True
        )
        mask = functional.pil_to_tensor(Image.open(str(file).replace("_image", "_mask")))
        if torch.rand(1) < 0.5:
            image, mask = functional.horizontal_flip(image), functional.horizontal_flip(mask)
        ids = torch.unique(mask)
        masks = (mask == ids[ids > 0][:, None, None]).to(torch.uint8)
        boxes = masks_to_boxes(masks) if len(masks) else torch.zeros((0, 4))
        boxes[:, 2:] += 1
        return image, {"boxes": boxes.float(), "labels": torch.ones(len(masks), dtype=torch.int64)}


def main() -> int:
    """Train both ways in turns and print the table."""
    parser = parser_of(__doc__, steps=15)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="no")
    args = parser.parse_args()
    ours, theirs = [], []
    with open_place(args) as place, TemporaryDirectory() as folder:
        caption = place.describe()
        pictures = _export(place, Path(folder))
        for number in range(args.runs):
            print(f"run {number + 1} of {args.runs}", file=sys.stderr)
            ours.append(_ours(place, args.steps, args.precision))
            theirs.append(_theirs(place, pictures, args.steps))
    pairs = list(zip(ours, theirs, strict=True))
    names = {"images per second": 0, "megapixels per second": 1}
    rows, ratios = [], {}
    for name, place_in in names.items():
        ratios[name] = statistics.median(a[place_in] / b[place_in] for a, b in pairs)
        middle = [statistics.median(run[place_in] for run in runs) for runs in (ours, theirs)]
        rows.append([name, *middle, f"{ratios[name]:.3f}"])
    print(caption)
    print(table(["", "ours", "torchvision's recipe", "ratio"], rows))
    content = {"precision": args.precision, "ours": ours, "theirs": theirs, "ratios": ratios}
    write_result(args.json, {"setting": caption, **content})
    return 0


def _export(place: Place, folder: Path) -> PictureFolder:
    """Every training slice as pictures; as many without as with a lesion."""
    batches = place.batches()
    chosen = batches.positive + batches.negative[: len(batches.positive)]
    for ref in chosen:
        case, region = batches.cases[ref.case], batches.regions[ref.case]
        (y0, x0, y1, x1), kept = region.seen(ref.z)
        channels = slice_channels(
            case.arrays, batches.sources[:1], ref.z, place.plan.neighbours, None, (y0, x0, y1, x1)
        )
        instances = np.asarray(case.instances[ref.z, y0:y1, x0:x1]) if case.instances is not None else None
        seen = np.ones((y1 - y0, x1 - x0), bool) if kept is None else kept
        colours = channels[np.linspace(0, len(channels) - 1, 3).round().astype(int)] * seen
        name = folder / f"{case.case_id}_{ref.z:04d}"
        Image.fromarray((colours * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(f"{name}_image.png")
        Image.fromarray((instances * seen).astype(np.uint8)).save(f"{name}_mask.png")
    return PictureFolder(folder)


def _ours(place: Place, steps: int, precision: str) -> tuple[float, float]:
    from accelerate import Accelerator

    from nndet_psma.trainers.loop import LoopSettings, train_loop
    from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

    class Clock:
        """Notes when every step ended."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step(self, report: Any, model: Any) -> None:
            self.ends.append(time.perf_counter())

        def on_end(self, finished: bool) -> None:
            return

    clock, model, batches = Clock(), place.model(), place.batches()
    pixels = _count_pixels(model)
    stage = adjusted_stage(place.stage, TrainerSettings(iterations=steps + _MARGIN))
    with TemporaryDirectory() as folder:
        settings = LoopSettings(
            folder=Path(folder), made_from="benchmark", seed=0, optimizer=place.plan.optimizer, observers=(clock,),
            trainer=TrainerSettings(num_workers=place.workers, save_every=10**6, precision=precision),
        )  # fmt: skip
        accelerator = Accelerator(cpu=place.device.type == "cpu")
        before = _cpu_seconds()
        train_loop(model, _losses, batches, stage, settings, accelerator)
        used = _cpu_seconds() - before
    return _rates(place, steps, clock.ends, used, pixels)


def _losses(model: Any, batch: Any) -> Any:
    return model(list(batch["images"]), batch["targets"])


def _theirs(place: Place, pictures: PictureFolder, steps: int) -> tuple[float, float]:
    model: Any = place.torchvision_model()
    detector = place.plan.detector
    size = detector.input_size if place.stage.region == "search" else detector.body_input_size
    divisible = 2 ** (max(detector.levels) + 1)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model.transform = GeneralizedRCNNTransform(min(size), max(size), mean, std, size_divisible=divisible)
    step, pixels = BareStep(model, place.plan, place.stage), _count_pixels(model)
    needed = place.batch_size * (steps + _MARGIN)
    sampler = torch.utils.data.RandomSampler(pictures, replacement=True, num_samples=needed)
    loader = DataLoader(
        pictures, place.batch_size, sampler=sampler, num_workers=place.workers, collate_fn=_collate
    )
    clock, ends, before = stopwatch(place.device, cpu_time=False), [], _cpu_seconds()
    for images, targets in loader:
        moved = [image.to(place.device) for image in images]
        step(moved, [{name: value.to(place.device) for name, value in t.items()} for t in targets])
        ends.append(clock())
    return _rates(place, steps, ends, _cpu_seconds() - before, pixels)


def _count_pixels(model: Any) -> list[int]:
    """Pixels of an image as they enter the backbone, batch by batch."""
    pixels: list[int] = []
    model.backbone.register_forward_pre_hook(
        lambda module, given: pixels.append(given[0].shape[-1] * given[0].shape[-2])
    )
    return pixels


def _rates(
    place: Place, steps: int, ends: list[float], cpu_seconds: float, pixels: list[int]
) -> tuple[float, float]:
    """Images and megapixels per second: of the wall between steps or, on CPU, of what all steps computed."""
    if place.device.type == "cpu":
        rate = place.batch_size * (steps + _MARGIN) / cpu_seconds
    else:
        rate = place.batch_size * steps / (ends[-1] - ends[_MARGIN - 1])
    return rate, rate * statistics.mean(pixels) / 1e6


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _collate(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items, strict=True))


if __name__ == "__main__":
    sys.exit(main())
