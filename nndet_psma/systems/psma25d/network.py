"""The 2.5D two-stage detector: torchvision Faster / Mask R-CNN built from the plan."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from nndet_psma.systems.psma25d.backbone import build_backbone
from nndet_psma.systems.psma25d.box_loss import use_l1
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.systems.psma25d.transform import PassThroughTransform
from nndet_psma.trainers.networks.sampling import BoxSampler

_BOX_POOL = 7
_MASK_POOL = 14
_RPN_POSITIVE_SHARE, _ROI_POSITIVE_SHARE = 0.5, 0.25  # torchvision's defaults


def build_detector(detector: Detector, channels: int, classes: int) -> FasterRCNN:
    """Detector for slices ``[channels, H, W]`` and ``classes`` foreground classes (torchvision labels 1..classes).

    Xu et al. 2023 block the mask branch ("Pretraining to fine tuning"); ``detector.mask_branch`` brings it back.
    """
    backbone = build_backbone(detector, channels)
    names = [str(i) for i in range(len(detector.levels))]
    anchors = AnchorGenerator(
        sizes=tuple(tuple(sizes) for sizes in detector.anchor_sizes),
        aspect_ratios=(tuple(detector.aspect_ratios),) * len(detector.levels),
    )
    box_pool = MultiScaleRoIAlign(names, output_size=_BOX_POOL, sampling_ratio=2)
    kwargs = {
        "rpn_anchor_generator": anchors,
        "box_roi_pool": box_pool,
        "box_head": TwoMLPHead(detector.fpn_channels * _BOX_POOL**2, detector.head_channels),
        "box_predictor": FastRCNNPredictor(detector.head_channels, classes + 1),
        "rpn_batch_size_per_image": detector.rpn_samples,
        "rpn_pre_nms_top_n_train": 2 * detector.proposals_train,
        "rpn_post_nms_top_n_train": detector.proposals_train,
        "rpn_pre_nms_top_n_test": 2 * detector.proposals_test,
        "rpn_post_nms_top_n_test": detector.proposals_test,
        "box_batch_size_per_image": detector.roi_samples,
        "box_score_thresh": detector.min_score,
        "box_nms_thresh": detector.nms_iou,
        "box_detections_per_img": detector.detections_per_slice,
    }
    model = (
        _with_masks(backbone, names, classes, kwargs)
        if detector.mask_branch
        else FasterRCNN(backbone, **kwargs)
    )
    # drawn per image, so that several processes draw what one process draws
    model.rpn.fg_bg_sampler = BoxSampler(detector.rpn_samples, _RPN_POSITIVE_SHARE, stream=0)
    model.roi_heads.fg_bg_sampler = BoxSampler(detector.roi_samples, _ROI_POSITIVE_SHARE, stream=1)
    if detector.box_loss == "l1":
        use_l1(model)
    model.transform = PassThroughTransform(channels, size_divisible=2 ** (max(detector.levels) + 1))
    return model


def _with_masks(backbone: nn.Module, names: list[str], classes: int, kwargs: dict[str, Any]) -> MaskRCNN:
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

    width = backbone.out_channels
    return MaskRCNN(
        backbone,
        mask_roi_pool=MultiScaleRoIAlign(names, output_size=_MASK_POOL, sampling_ratio=2),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, classes + 1),
        **kwargs,
    )
