"""Measure the constants of ``nndet_psma/systems/psma25d/planning/memory.py``: what the detector keeps for the
backward pass.

Run ``python benchmarks/memory_model.py`` and paste the two tables it prints. The network is built by
``systems.psma25d.network.build_detector`` and run on PyTorch's fake tensors, which have the shapes, types and autocast
rules of a GPU but no data, so neither a GPU nor memory is needed. Fake tensors do not run the sampling of boxes (it
depends on data); the last part therefore takes real training steps on the CPU and follows their allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.systems.psma25d.planning.memory import BACKBONES, Network, activation_bytes, temporary_bytes

SIDES = (256, 512)  # two sizes: the slope is per pixel, the rest (statistics, half copies of weights) is not


def detector(backbone: str, norm: str, **changes: Any) -> Detector:
    """A detector on all four levels with six anchors per cell."""
    values: dict[str, Any] = {
        "backbone": backbone, "weights": "none", "norm": norm, "levels": [1, 2, 3, 4], "fpn_channels": 256,
        "head_channels": 1024, "scale": 1.0, "body_scale": 1.0, "input_size": (64, 64),
        "body_input_size": (64, 64), "anchor_sizes": [[8.0, 11.0], [16.0, 22.0], [32.0, 45.0], [64.0, 90.0]],
        "aspect_ratios": [0.5, 1.0, 2.0],
        "input_mean": 0.0, "input_std": 1.0, "rpn_samples": 256, "roi_samples": 512, "proposals_train": 1000,
        "proposals_test": 1000, "detections_per_slice": 50, "min_score": 0.02, "nms_iou": 0.3,
        "mask_branch": False,
    }  # fmt: skip
    return Detector(**{**values, **changes})


def saved_bytes(run: Callable[[], Any], model: nn.Module) -> int:
    """Bytes that ``run`` keeps for backward: every storage once, those of the model's own tensors left out."""
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is not given out again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        keep_alive = run()
    total = sum(storage.nbytes() for storage in kept.values())
    del keep_alive
    return total


@contextmanager
def fake_gpu(mixed: bool) -> Iterator[None]:
    """Fake tensors on a GPU that need not exist, with its autocast when ``mixed``.

    ``torch.autocast("cuda")`` switches itself off without a GPU, hence the switches below it.
    """
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(), torch.device("cuda"):
        torch.set_autocast_enabled("cuda", mixed)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])


def _slope(run: Callable[[Tensor], Any], model: nn.Module) -> float:
    """Bytes per input pixel of three channels."""
    small, large = (saved_bytes(lambda s=s: run(torch.empty(1, 3, s, s)), model) for s in SIDES)
    return (large - small) / (SIDES[1] ** 2 - SIDES[0] ** 2)


def measured_stage_bytes(backbone: str, norm: str, mixed: bool) -> list[float]:
    """Bytes per input pixel of stem and layers 1..4; a layer with the input of its lateral convolution."""
    with fake_gpu(mixed):
        model = build_detector(detector(backbone, norm, fpn_channels=8), 3, 1).train()
        cumulative = [_slope(lambda x, d=depth: _prefix(model.backbone, x, d), model) for depth in range(5)]
    return [round(b - a, 2) for a, b in zip([0.0, *cumulative], cumulative, strict=False)]


def _prefix(backbone: Any, x: Tensor, depth: int) -> list[Tensor]:
    """Stem and the first ``depth`` layers, each with its lateral convolution."""
    out = []
    for name, module in backbone.body.items():
        if name.startswith("layer"):
            if int(name[-1]) > depth:
                break
            x = module(x)
            out.append(backbone.fpn.inner_blocks[int(name[-1]) - 1](x))
        else:
            x = module(x)
    return [*out, x]


def pyramid_bytes(channels: int, mixed: bool) -> float:
    """Bytes per pyramid channel and pyramid cell of the FPN and the RPN head, both together."""
    with fake_gpu(mixed):
        model = build_detector(detector("resnet18", "batch", fpn_channels=channels), 3, 1).train()
        whole = _slope(lambda x: model.rpn.head(list(model.backbone(x).values())), model)
        body = _slope(lambda x: _prefix(model.backbone, x, 4), model)
    return (whole - body) / channels / sum(4.0**-level for level in (2, 3, 4, 5))


def roi_bytes(channels: int, head: int, mixed: bool) -> float:
    """Bytes per sampled box in the box head, pooled features included."""
    dtype = torch.bfloat16 if mixed else torch.float32
    with fake_gpu(mixed):
        det = detector("resnet18", "batch", fpn_channels=channels, head_channels=head)
        heads = build_detector(det, 3, 1).train().roi_heads

        def run(count: int) -> Any:
            pooled = torch.empty(count, channels, 7, 7, dtype=dtype, requires_grad=True)
            return heads.box_predictor(heads.box_head(pooled))

        few, many = (saved_bytes(lambda n=n: run(n), heads) for n in (64, 128))
    return (many - few) / 64


def mask_bytes(channels: int, mixed: bool) -> float:
    """Bytes per positive box in the mask head."""
    dtype = torch.bfloat16 if mixed else torch.float32
    with fake_gpu(mixed):
        det = detector("resnet18", "batch", fpn_channels=channels, mask_branch=True)
        heads = build_detector(det, 3, 1).train().roi_heads

        def run(count: int) -> Any:
            pooled = torch.empty(count, channels, 14, 14, dtype=dtype, requires_grad=True)
            return heads.mask_predictor(heads.mask_head(pooled))

        few, many = (saved_bytes(lambda n=n: run(n), heads) for n in (8, 16))
    return (many - few) / 8


def stage_parameters(backbone: str) -> list[int]:
    """Parameters of stem (three input channels) and layers 1..4, affine parameters of the norms included."""
    with fake_gpu(False):
        body = build_detector(detector(backbone, "batch"), 3, 1).backbone.body
    counts = [0] * 5
    for name, module in body.items():
        counts[int(name[-1]) if name.startswith("layer") else 0] += sum(
            p.numel() for p in module.parameters()
        )
    return counts


def real_step(det: Detector, batch: int) -> tuple[int, int, int]:
    """A real training step on the CPU: (bytes kept for backward, peak bytes of forward, of the whole step).

    The peaks count what the step itself allocates, gradients of parameters included, weights not.
    """
    torch.manual_seed(0)
    height, width = det.input_size
    model = build_detector(det, 3, 1).train()
    images = list(torch.rand(batch, 3, height, width))
    box = torch.tensor([[0.1 * width, 0.1 * height, 0.4 * width, 0.5 * height]])
    targets = [{"boxes": box, "labels": torch.ones(1, dtype=torch.int64)} for _ in images]
    if det.mask_branch:
        for target in targets:
            target["masks"] = torch.ones(1, height, width, dtype=torch.uint8)

    def forward() -> Tensor:
        return torch.stack(list(model(images, targets).values())).sum()

    kept = saved_bytes(forward, model)
    forward().backward()  # first-call allocations of the CPU kernels are not the step's
    model.zero_grad(set_to_none=True)
    return kept, _peak_bytes(forward), _peak_bytes(lambda: forward().backward())


def _peak_bytes(run: Callable[[], Any]) -> int:
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def network_of(det: Detector, channels: int = 3) -> Network:
    """What the model needs to know of a detector."""
    return Network.of(det, channels=channels, classes=1)


def _print_tables() -> None:
    print("_STAGE_BYTES: dict[tuple[str, bool], dict[str, Stages]] = {")
    for mixed, norms in ((False, ("batch", "frozen")), (True, ("group",))):
        for backbone in BACKBONES:
            found = {n: tuple(round(v) for v in measured_stage_bytes(backbone, n, mixed)) for n in norms}
            print(f'    ("{backbone}", {mixed}): {found},'.replace("'", '"'))
    print("}\n_STAGE_PARAMETERS: dict[str, Stages] = {")
    for backbone in BACKBONES:
        print(f'    "{backbone}": ({", ".join(f"{v:_}" for v in stage_parameters(backbone))}),')
    print("}")


def _print_checks() -> None:
    print("\nheads: bytes, fp32 and mixed")
    for channels in (64, 256):
        print(
            f"  pyramid, per channel and cell, {channels} channels:",
            *(pyramid_bytes(channels, m) for m in (False, True)),
        )
        print(
            f"  box head, per box, {channels} channels, 1024 wide:",
            *(roi_bytes(channels, 1024, m) for m in (False, True)),
        )
        print(
            f"  mask head, per positive box, {channels} channels:",
            *(mask_bytes(channels, m) for m in (False, True)),
        )
    print("\nreal CPU steps, MB: kept (model), forward peak and step peak (model without gradients)")
    cases = [
        ("resnet18", "frozen", 384, 2, 1),
        ("resnet18", "frozen", 64, 8, 512),
        ("resnet50", "batch", 256, 2, 64),
    ]
    for backbone, norm, side, batch, rois in cases:
        det = detector(backbone, norm, input_size=(side, side), roi_samples=rois, head_channels=64)
        kept, forward, step = real_step(det, batch)
        net, pixels = network_of(det), side * side
        model_kept = activation_bytes(net, pixels, batch)
        model_peak = model_kept + temporary_bytes(net, pixels, batch)
        print(f"  {backbone} {norm} {batch} x {side}^2, {rois} boxes: kept {kept / 1e6:.1f} ({model_kept / 1e6:.1f}), "
              f"peaks {forward / 1e6:.1f} and {step / 1e6:.1f} ({model_peak / 1e6:.1f})")  # fmt: skip


if __name__ == "__main__":
    _print_tables()
    _print_checks()
