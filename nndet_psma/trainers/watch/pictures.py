"""Pictures of training slices with what is to be found and what is found, every now and then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.observer import StepReport

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

PICTURES_FOLDER = "pictures"
_SLICES, _COLUMNS = 8, 4
_TILE = 384  # pixels of a slice's longer side; smaller slices are enlarged
_GAP = 6
_DETECTIONS = 5  # drawn per slice, the best; early on all of them lie over each other
_LEAST_EVERY = 50  # steps; the default must not show a short stage's every move
_TENTH = 10
_BETWEEN = (70, 70, 70)
_TARGET, _FOUND = (60, 220, 90), (255, 150, 40)  # green and orange


class Shade(NamedTuple):
    """How a channel becomes grey: ``value * std + mean`` is 0 (black) to 1 (white)."""

    mean: float = 0.0
    std: float = 1.0


class BatchPictures(ABC):
    """Writes ``pictures/step_000200.png``: up to eight images of a batch; an observer of the loop.

    Targets are green, the best five detections of the present weights orange with their scores. Nothing in a picture or
    its name tells the case. For the detections the model is put in evaluation mode without gradients and then put
    back, module by module, with the random numbers where they were: training goes on bit by bit as without pictures.
    A picture that cannot be made is logged, and no more are tried.

    Args:
        folder: of the stage.
        every: steps between pictures, besides one after the first step; 0: none; None: a tenth of the stage, but at
            least 50.
        channel: shown.
        shade: undoes the detector's normalisation.
    """

    def __init__(
        self, folder: Path, every: int | None = None, channel: int = 0, shade: Shade | None = None
    ) -> None:
        if every is not None and every < 0:
            raise ValueError(f"steps between pictures must not be negative, found {every}")
        self.folder = folder / PICTURES_FOLDER
        self.every, self.channel, self.shade = every, channel, shade or Shade()
        self._broken = False

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Draw the step's batch when its turn has come."""
        if self._broken or not is_due(report.step, report.iterations, self.every):
            return
        try:
            self._draw(report, model)
        except (OSError, ValueError, RuntimeError, ImportError, UserError) as error:
            # a picture is not worth a training: no memory left on the GPU, no space on the disk
            self._broken = True
            LOGGER.warning("no more pictures of batches: %s", error)

    def on_end(self, finished: bool) -> None:  # noqa: B027
        """Nothing is left to do."""

    def _draw(self, report: StepReport, model: nn.Module) -> None:
        chosen = choose_slices(report.batch["targets"])
        images = [report.batch["images"][i] for i in chosen]
        found = detect(model, images)
        tiles = [
            self.tile(image, report.batch["targets"][i], detections)
            for i, image, detections in zip(chosen, images, found, strict=True)
        ]
        with atomic_file(self.folder / f"step_{report.step:06d}.png") as temporary:
            tile_up(tiles, _COLUMNS).save(temporary)

    @abstractmethod
    def tile(self, image: Tensor, target: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Image:
        """The picture of one image ``[C, ...]`` with its target boxes and what is ``found`` in it."""


def is_due(step: int, iterations: int, every: int | None) -> bool:
    """Whether a picture is drawn after ``step`` (from 1); ``every`` as in :class:`BatchPictures`."""
    if every == 0:
        return False
    steps = max(_LEAST_EVERY, iterations // _TENTH) if every is None else every
    return step == 1 or step % steps == 0


def choose_slices(targets: Sequence[Mapping[str, Tensor]]) -> list[int]:
    """Up to eight slices of a batch: at most six with a target, then without; indices ascend within each kind."""
    positive = [i for i, target in enumerate(targets) if len(target["boxes"])]
    negative = [i for i, target in enumerate(targets) if not len(target["boxes"])]
    room = max(_SLICES - len(negative), _SLICES * 3 // 4)
    return [*positive[:room], *negative][:_SLICES]


def detect(model: nn.Module, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Detections (torchvision's dictionaries) of slices ``[C, H, W]``; leaves the model and random numbers as found.

    A model wrapped for several processes or compiled is unwrapped: the others must not be waited for, and another
    input size is no reason to compile again.
    """
    bare = _unwrapped(model)
    with _undisturbed(bare):
        detections: list[dict[str, Tensor]] = bare(list(images))
    return detections


def draw_slice(grey: NDArray[np.uint8], targets: Any, detections: Mapping[str, Any]) -> Image:
    """A slice ``[H, W]``, enlarged; boxes ``(x0, y0, x1, y1)`` are in its pixels, detections have scores."""
    from PIL import Image as Images
    from PIL import ImageDraw

    factor = max(1.0, _TILE / max(grey.shape))
    size = (round(grey.shape[1] * factor), round(grey.shape[0] * factor))
    image = Images.fromarray(grey).resize(size, Images.Resampling.BILINEAR).convert("RGB")
    canvas = ImageDraw.Draw(image)
    boxes, scores = _numbers(detections["boxes"]).reshape(-1, 4) * factor, _numbers(detections["scores"])
    for row in np.argsort(-scores, kind="stable")[:_DETECTIONS]:
        corners = _corners(boxes[row])
        canvas.rectangle(corners, outline=_FOUND, width=2)
        canvas.text((corners[0], max(0.0, corners[1] - 12)), f"{scores[row]:.2f}", fill=_FOUND)
    for box in _numbers(targets).reshape(-1, 4) * factor:  # last, over what covers them
        canvas.rectangle(_corners(box), outline=_TARGET, width=2)
    return image


def tile_up(tiles: Sequence[Image], columns: int) -> Image:
    """Tiles side by side, row by row, with grey between them (masked slices are black)."""
    from PIL import Image as Images

    width, height = (max(tile.size[axis] for tile in tiles) + _GAP for axis in (0, 1))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Images.new("RGB", (columns * width - _GAP, rows * height - _GAP), _BETWEEN)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode and all random numbers are put back."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def _unwrapped(model: nn.Module) -> nn.Module:
    from torch import nn

    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def grey(channel: Tensor, shade: Shade) -> NDArray[np.uint8]:
    """A channel ``[H, W]`` as grey values from 0 to 255."""
    values = _numbers(channel) * shade.std + shade.mean
    grey: NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return grey


def _numbers(tensor: Any) -> NDArray[np.float32]:
    """On the CPU as float32 (bfloat16 is unknown to numpy)."""
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return values


def _corners(box: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Corners in order; a hair's breadth of a box is still drawn."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return x0, y0, max(x0, x1), max(y0, y1)
