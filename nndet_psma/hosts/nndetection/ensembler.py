"""nnDetection's box ensembler with our filters, for patches and for slices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nndet.inference.ensembler.detection import BoxEnsemblerSelective
from numpy.typing import NDArray
from torch import Tensor

from nndet_psma.boxes.box import from_nndetection, to_nndetection
from nndet_psma.boxes.detections import Detections
from nndet_psma.hosts.boxes_pkl.files import EXTRA
from nndet_psma.hosts.nndetection.evidence import CaseEvidence, FilterLimits
from nndet_psma.postproc.steps.linking import link_slices

ZONE_SHARES = (None, *(round(step / 10, 1) for step in range(1, 11)))
HU_RULES = (None, *product(range(5), (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)))
LINK_IOUS = (0.1, 0.3, 0.5)
LINK_GAPS = (1, 0, 2)

_REMEMBERED: dict[str, tuple[Any, Detections]] = {}
"""By state file: what was asked of nnDetection's ensembling last, and its answer (some hundred boxes)."""


class PSMAEnsembler3D(BoxEnsemblerSelective):
    """Boxes of patches, views and models fused by nnDetection, then filtered by zone and HU.

    The filters judge in preprocessed space, so restored and unrestored predictions hold the same boxes. Thresholds
    are the parameters ``zone_share`` and ``hu_rule`` (:meth:`FilterLimits.keep`), swept by nnDetection's own sweep
    after its parameters. ``hu_rule`` is threshold and quantile at once: one parameter is tuned at a time, and they
    only make sense together.
    """

    own: ClassVar[frozenset[str]] = frozenset({"zone_share", "hu_rule"})
    evidence: CaseEvidence
    limits: FilterLimits
    source: str | None = None

    @classmethod
    def from_case(
        cls,
        case: dict[str, Any],
        properties: dict[str, Any],
        parameters: dict[str, Any] | None = None,
        *,
        limits: FilterLimits,
        **kwargs: Any,
    ) -> PSMAEnsembler3D:
        """For one preprocessed case.

        Args:
            case: ``data`` ``[C + 2, z, y, x]``.
            properties: nnDetection's, of the case.
            parameters: of an inference plan.
            limits: what the thresholds refer to.
            kwargs: what nnDetection's ensembler takes.
        """
        made: PSMAEnsembler3D = super().from_case(case, properties, parameters or {}, **kwargs)
        made.evidence = CaseEvidence.of_case(case[made.data_key])
        made.limits = limits
        return made

    @classmethod
    def get_default_parameters(cls) -> dict[str, Any]:
        """nnDetection's, and our filters off."""
        return {**super().get_default_parameters(), "zone_share": None, "hu_rule": None}

    @classmethod
    def sweep_parameters(cls) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
        """Start, and the values tried one parameter after the other; off comes first, so it wins a tie."""
        _, values = super().sweep_parameters()
        return cls.get_default_parameters(), {**values, "zone_share": ZONE_SHARES, "hu_rule": HU_RULES}

    @classmethod
    def from_checkpoint(cls, base_dir: str | PathLike[str], case_id: str, **kwargs: Any) -> PSMAEnsembler3D:
        """From a state file; what it fuses is remembered while only our own parameters change.

        nnDetection's sweep reads every case anew for every value, and our parameters come last.
        """
        made: PSMAEnsembler3D = super().from_checkpoint(base_dir, case_id, **kwargs)
        file = Path(base_dir) / f"{case_id}_{cls.ID}.pt"
        made.source = f"{file} {file.stat().st_mtime_ns}"
        return made

    @torch.no_grad()
    def get_case_result(
        self, restore: bool = False, names: Sequence[Hashable] | None = None
    ) -> dict[str, Any]:
        """The prediction of the case, as nnDetection's ensembler returns it.

        Args:
            restore: boxes in voxels of the image file instead of the preprocessed case.
            names: of the models and views to use; None: all.
        """
        found = self.finish(self._fused(names))
        grid = ("original_size_of_raw_data", "itk_origin", "itk_spacing", "itk_direction")
        return {
            "pred_boxes": self._restored(found) if restore else _tensor(to_nndetection(found.boxes)),
            "pred_scores": _tensor(found.scores),
            "pred_labels": _tensor(found.labels),
            "restore": restore,
            **({EXTRA: (1.0, 1.0, 1.0)} if restore else {}),
            **{key: self.properties[key] for key in grid},
        }

    def _restored(self, found: Detections) -> Tensor:
        """nnDetection's boxes in the image: tight ones are restored, then made one voxel of the image longer.

        nnDetection restores boxes that are longer by a voxel of the preprocessed case, which its truth in the image
        is not.
        """
        tight: Tensor = self.restore_prediction(_tensor(to_nndetection(found.boxes, extra=0.0)))
        return _tensor(to_nndetection(from_nndetection(tight.numpy(), extra=0.0)))

    def _fused(self, names: Sequence[Hashable] | None) -> Detections:
        """What nnDetection makes of all models and views, before our filters."""
        used = list(self.model_results) if names is None else list(names)
        asked = (used, {name: value for name, value in self.parameters.items() if name not in self.own})
        if self.source in _REMEMBERED and _REMEMBERED[self.source][0] == asked:
            return _REMEMBERED[self.source][1]
        per_model = [self.process_model(name) for name in used]
        boxes, probs, labels, weights = (list(part) for part in zip(*per_model, strict=True))
        found = _detections(*self.process_ensemble(boxes, probs, labels, weights))
        if self.source is not None:
            _REMEMBERED[self.source] = asked, found
        return found

    def finish(self, found: Detections) -> Detections:
        """What becomes of the fused boxes (3D, tight)."""
        return found.select(self._kept(found))

    def _kept(self, found: Detections) -> Any:
        return self.limits.keep(
            found, self.evidence, self.parameters["zone_share"], self.parameters["hu_rule"]
        )

    def save_state(self, target_dir: Path, name: str, **kwargs: Any) -> None:
        """nnDetection's state with the evidence beside it."""
        ours = {"psma_evidence": self.evidence.to_state(), "psma_limits": list(self._plain_limits())}
        super().save_state(target_dir=target_dir, name=name, **ours, **kwargs)

    def _plain_limits(self) -> tuple[float, list[float]]:
        return self.limits.margin_mm, list(self.limits.hu_thresholds)

    def _load(self, state: dict[str, Any]) -> None:
        plain = dict(state)
        self.evidence = CaseEvidence.from_state(plain.pop("psma_evidence"))
        margin, thresholds = plain.pop("psma_limits")
        self.limits = FilterLimits(margin, tuple(thresholds))
        super()._load(plain)


class PSMAEnsembler25D(PSMAEnsembler3D):
    """Boxes of slices: fused slice by slice, filtered, then linked into 3D boxes by our linking.

    A slice box is held as the 3D box of one slice, so that nnDetection's suppression and clustering, which work on 3D
    boxes, never mix slices.
    """

    own = PSMAEnsembler3D.own | {"link_iou", "link_gap"}

    @classmethod
    def get_default_parameters(cls) -> dict[str, Any]:
        """As in 3D, with room for the boxes of all slices, and how slices are linked."""
        return {
            **super().get_default_parameters(),
            "model_detections_per_image": 1000,
            "ensemble_topk": 2000,
            "link_iou": LINK_IOUS[0],
            "link_gap": LINK_GAPS[0],
        }

    @classmethod
    def sweep_parameters(cls) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
        """As in 3D and the linking; boxes are one slice thick, so nnDetection's size filter would drop them all."""
        start, values = super().sweep_parameters()
        kept = {name: tried for name, tried in values.items() if name != "remove_small_boxes"}
        return start, {**kept, "link_iou": LINK_IOUS, "link_gap": LINK_GAPS}

    @staticmethod
    def _apply_offsets_to_boxes(boxes: list[Tensor], tile_offset: Sequence[Sequence[int]]) -> list[Tensor]:
        """Boxes ``[N, 4]`` of tiles of one slice, placed in the case: ``[N, 6]``, one slice thick."""
        placed = []
        for of_tile, (z, y, x) in zip(boxes, tile_offset, strict=True):
            flat = of_tile.reshape(-1, 4)
            first = torch.full_like(flat[:, 0], float(z))
            columns = [first, flat[:, 0] + y, first + 1, flat[:, 2] + y, flat[:, 1] + x, flat[:, 3] + x]
            placed.append(torch.stack(columns, dim=1))
        return placed

    def finish(self, found: Detections) -> Detections:
        """Lesions of the slice boxes that the filters keep."""
        boxes = found.boxes.copy()
        boxes[:, 3] = np.rint(boxes[:, 3])  # a weighted mean of equal numbers need not be that number
        boxes[:, 0] = boxes[:, 3] - 1
        slices = Detections(boxes, found.scores, found.labels)
        kept = slices.select(self._kept(slices))
        flat = Detections(
            kept.boxes[:, [1, 2, 4, 5]],
            kept.scores,
            kept.labels,
            {"slice": kept.boxes[:, 0].astype(np.int64)},
        )
        z, y, x = (float(step) for step in self.properties["spacing_after_resampling"])
        iou, gap = self.parameters["link_iou"], self.parameters["link_gap"]
        return link_slices(flat, link_iou=iou, max_gap=gap, spacing=(z, y, x))[1]


def _detections(boxes: Tensor, probs: Tensor, labels: Tensor) -> Detections:
    """Our tight boxes of nnDetection's."""
    array = boxes.detach().cpu().numpy().reshape(-1, 6).astype(np.float64)
    tight = from_nndetection(array)
    tight[:, :3] = np.minimum(tight[:, :3], tight[:, 3:])  # a box thinner than a voxel
    return Detections(tight, probs.numpy().astype(np.float64), labels.numpy().astype(np.int64))


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values).float()
