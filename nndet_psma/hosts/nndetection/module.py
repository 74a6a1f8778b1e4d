"""What our nnDetection modules share: their ensembler, and a predictor for any device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from nndet.inference.ensembler.segmentation import SegmentationEnsembler
from nndet.inference.transforms import Inference2D, get_tta_transforms
from nndet.ptmodule.retinaunet.v001 import RetinaUNetV001

from nndet_psma.hosts.nndetection.channels import Recipe
from nndet_psma.hosts.nndetection.ensembler import PSMAEnsembler3D, PSMAEnsembler25D
from nndet_psma.hosts.nndetection.evidence import FilterLimits
from nndet_psma.hosts.nndetection.predictor import PSMAPredictor, usual_device

_VIEWS = {2: 4, 3: 8}
_ENSEMBLERS: dict[tuple[Hashable, int], Callable[..., Any]] = {
    ("boxes", 2): PSMAEnsembler25D,
    ("boxes", 3): PSMAEnsembler3D,
    ("seg", 3): SegmentationEnsembler,
}


class PSMAModule(RetinaUNetV001):
    """nnDetection's RetinaUNet on our channels; network, losses and schedule are its own."""

    @staticmethod
    def get_ensembler_cls(key: Hashable, dim: int) -> Callable[..., Any]:
        """Class that makes one prediction of those of all tiles, views and models.

        Args:
            key: "boxes" or "seg" (3D only).
            dim: of the network.

        Raises:
            NotImplementedError: there is none.
        """
        if (key, dim) not in _ENSEMBLERS:
            raise NotImplementedError(f"no ensembler for {key} of a {dim}D network")
        return _ENSEMBLERS[key, dim]

    @classmethod
    def get_predictor(
        cls,
        plan: dict[str, Any],
        models: Sequence[Any],
        num_tta_transforms: int | None = None,
        do_seg: bool = False,
        device: str | None = None,
        **kwargs: Any,
    ) -> PSMAPredictor:
        """Predictor of whole preprocessed cases.

        Args:
            plan: nnDetection's, with or without ``inference_plan``.
            models: of this plan; their boxes are fused.
            num_tta_transforms: mirrored views: 0, 4, or 8 in 3D; None: all.
            do_seg: predict the segmentation, too (3D).
            device: None: the first GPU, else the CPU.
            kwargs: what nnDetection's ``Predictor`` takes.
        """
        dim = int(plan["network_dim"])
        recipe = Recipe.of(plan)
        limits = FilterLimits.of_grid(recipe.plan.margin_mm, recipe.plan.postproc_grid)
        boxes = cls.get_ensembler_cls("boxes", dim).from_case  # type: ignore[attr-defined]
        ensembler = {"boxes": partial(boxes, parameters=plan.get("inference_plan", {}), limits=limits)}
        if do_seg:
            ensembler["seg"] = cls.get_ensembler_cls("seg", dim).from_case  # type: ignore[attr-defined]
        views = _VIEWS[dim] if num_tta_transforms is None else min(num_tta_transforms, _VIEWS[dim])
        forward, inverse = get_tta_transforms(views, True)
        return PSMAPredictor(
            ensembler=ensembler,
            models=models,
            crop_size=plan["patch_size"],
            tta_transforms=forward,
            tta_inverse_transforms=inverse,
            batch_size=plan["batch_size"],
            pre_transform=Inference2D(["data"]) if dim == 2 else None,
            device=device or usual_device(),
            **kwargs,
        )
