"""Our modules in nnDetection: registered, trainable, predicting whole cases on any device."""

import sys

import numpy as np
import pytest
import torch
from artifact_samples import PLAN

pytestmark = pytest.mark.usefixtures("nndetection")

NETWORKS = {2: "RetinaUNetPSMA2D", 3: "RetinaUNetPSMA3D"}
SHAPE = (6, 40, 40)


def nndetection_plan(dim):
    """What a planner writes, with the smallest of networks; 9 channels of the sample plan."""
    from nndet_psma.hosts.nndetection.channels import Recipe

    plan = {
        "network_dim": dim,
        "patch_size": np.array([32, 32] if dim == 2 else [4, 32, 32]),
        "batch_size": 2,
        "architecture": {
            "arch_name": NETWORKS[dim],
            "dim": dim,
            "in_channels": 9,
            "classifier_classes": 1,
            "seg_classes": 1,
            "start_channels": 8,
            "max_channels": 16,
            "fpn_channels": 16,
            "head_channels": 16,
            "conv_kernels": [[3] * dim] * 3,
            "strides": [[2, 2], [2, 2]] if dim == 2 else [[1, 2, 2], [1, 2, 2]],
            "decoder_levels": (1, 2),
            "topk_candidates": 100,
        },
        "anchors": {name: [(4, 8), (8, 16)] for name in ("width", "height", "depth")[:dim]} | {"stride": 1},
    }
    Recipe(PLAN, PLAN.stage("both")).into(plan)
    return plan


def make(dim):
    from nndet.ptmodule import MODULE_REGISTRY
    from omegaconf import OmegaConf

    from nndet_psma.hosts.nndetection import plugin  # noqa: F401  registers
    from nndet_psma.hosts.nndetection.availability import require_nndetection

    config = OmegaConf.load(require_nndetection() / "nndet" / "conf" / "train" / "v001.yaml")
    torch.manual_seed(0)
    plan = nndetection_plan(dim)
    module = MODULE_REGISTRY[NETWORKS[dim]](
        model_cfg=OmegaConf.to_container(config["model_cfg"]),
        trainer_cfg=OmegaConf.to_container(config["trainer_cfg"]),
        plan=plan,
    )
    return module, plan


def case(seen=slice(2, 4)):
    """Noise in some slices, 0 elsewhere; HU 50; wholly in the CTV."""
    data = np.zeros((11, *SHAPE), dtype=np.float32)
    data[:9, seen] = np.random.default_rng(0).random((9, *SHAPE), dtype=np.float32)[:, seen]
    data[9] = 50.0
    return {"data": data}


PROPERTIES = {
    "transpose_backward": [0, 1, 2],
    "original_spacing": np.array([3.0, 1.0, 1.0]),
    "spacing_after_resampling": np.array([3.0, 1.0, 1.0]),
    "crop_bbox": [(0, 6), (0, 40), (0, 40)],
    "original_size_of_raw_data": np.array(SHAPE),
    "itk_origin": (0.0, 0.0, 0.0),
    "itk_spacing": (1.0, 1.0, 3.0),
    "itk_direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
}


def test_everything_is_registered():
    from nndet.io.datamodule import DATALOADER_REGISTRY
    from nndet.planning import PLANNER_REGISTRY
    from nndet.ptmodule import MODULE_REGISTRY

    from nndet_psma.hosts.nndetection import plugin

    for registry, classes in (
        (PLANNER_REGISTRY, plugin.PLANNERS),
        (MODULE_REGISTRY, plugin.MODULES),
        (DATALOADER_REGISTRY, plugin.LOADERS),
    ):
        for cls in classes:
            assert registry.get(cls.__name__) is cls


@pytest.mark.parametrize("preset", ["psma25d_nndet", "psma3d_nndet"])
def test_presets_name_what_is_registered(preset):
    from importlib.resources import files

    from nndet.ptmodule import MODULE_REGISTRY
    from omegaconf import OmegaConf

    from nndet_psma.hosts.nndetection import plugin
    from nndet_psma.planners.detector_options import DetectorOptions

    text = files("nndet_psma.hosts.nndetection.conf").joinpath("train", f"{preset}.yaml").read_text()
    config = OmegaConf.to_container(OmegaConf.create(text))
    names = {cls.__name__ for cls in (*plugin.PLANNERS, *plugin.LOADERS)}
    assert MODULE_REGISTRY.get(config["module"]) in plugin.MODULES
    assert config["planner"] in names
    mode = config["plan"].removeprefix(f"{config['planner']}_")
    assert config["augment_cfg"]["dataloader"].format(mode[0]) in names
    DetectorOptions.parse(config["model_cfg"]["plan_cfg"])


@pytest.mark.parametrize("dim", [2, 3])
def test_training_step_gives_gradients(dim):
    module, plan = make(dim)
    images = torch.rand(2, 9, *plan["patch_size"])
    box = [8.0, 8.0, 16.0, 16.0] if dim == 2 else [0.0, 8.0, 3.0, 16.0, 8.0, 16.0]
    targets = {
        "target_boxes": [torch.tensor([box])] * 2,
        "target_classes": [torch.tensor([0])] * 2,
        "target_seg": torch.zeros(2, *plan["patch_size"]),
    }
    losses, prediction = module.model.train_step(images, targets, evaluation=False, batch_num=0)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert prediction is None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.model.parameters())


@pytest.mark.parametrize("dim", [2, 3])
def test_whole_case_is_predicted_by_several_models(dim):
    """Boxes of two models and all views, 3D and within the case (nnDetection's begin one voxel lower)."""
    (module, plan), (other, _) = make(dim), make(dim)
    predictor = module.get_predictor(plan, [module, other], num_tta_transforms=4, device="cpu")
    result = predictor.predict_case(case(), PROPERTIES, restore=True)["boxes"]
    boxes = result["pred_boxes"].numpy()
    assert boxes.shape[1] == 6
    assert len(boxes) == len(result["pred_scores"]) > 0
    assert result["restore"] is True
    assert (boxes >= -1.001).all()
    assert (boxes[:, [2, 3, 5]] <= np.array(SHAPE) + 1e-3).all()
    assert len(predictor.ensembler["boxes"].model_results) == 2 * 4


@pytest.mark.parametrize(("dim", "views"), [(2, 4), (3, 8)])
def test_all_mirrored_views_are_the_default(dim, views):
    module, plan = make(dim)
    assert len(module.get_predictor(plan, [module], device="cpu").tta_transforms) == views
    assert len(module.get_predictor(plan, [module], num_tta_transforms=8).tta_transforms) == views


def test_two_models_of_one_plan_are_both_heard():
    """The second alone, and both: other scores."""
    module, plan = make(3)
    other, _ = make(3)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.01)
    scores = []
    for models in ([module], [module, other]):
        predictor = module.get_predictor(plan, models, num_tta_transforms=0, device="cpu")
        scores.append(predictor.predict_case(case(), PROPERTIES)["boxes"]["pred_scores"].numpy())
    assert len(scores[0]) != len(scores[1]) or not np.allclose(scores[0], scores[1])


@pytest.mark.parametrize("dim", [2, 3])
def test_tiles_show_the_networks_channels_where_there_is_something(dim):
    module, plan = make(dim)
    predictor = module.get_predictor(plan, [module], num_tta_transforms=0, device="cpu")
    tiles = predictor.tile_case(case())
    assert {tile["data"].shape[0] for tile in tiles} == {9}
    assert all(tile["data"].any() for tile in tiles)
    if dim == 2:
        assert {tile["tile_origin"][0] for tile in tiles} == {2, 3}


def test_case_without_anything_still_gives_a_prediction():
    module, plan = make(2)
    predictor = module.get_predictor(plan, [module], num_tta_transforms=0, device="cpu")
    assert len(predictor.tile_case(case(seen=slice(0, 0)))) == 1


def test_thresholds_of_an_inference_plan_are_used():
    module, plan = make(2)
    plan["inference_plan"] = {"zone_share": 0.5, "model_score_thresh": 0.999}
    predictor = module.get_predictor(plan, [module], num_tta_transforms=0, device="cpu")
    result = predictor.predict_case(case(), PROPERTIES)["boxes"]
    assert len(result["pred_boxes"]) == 0
    assert predictor.ensembler["boxes"].parameters["zone_share"] == 0.5
    assert predictor.ensembler["boxes"].limits.margin_mm == PLAN.margin_mm


def test_device_is_the_gpu_where_there_is_one(monkeypatch):
    from nndet_psma.hosts.nndetection.predictor import usual_device

    for there, expected in ((False, "cpu"), (True, "cuda:0")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert usual_device() == expected


def test_segmentation_of_slices_is_not_offered():
    from nndet_psma.hosts.nndetection.module import PSMAModule

    with pytest.raises(NotImplementedError, match="no ensembler for seg of a 2D network"):
        PSMAModule.get_ensembler_cls("seg", 2)


def test_segmentation_of_volumes_is():
    module, plan = make(3)
    predictor = module.get_predictor(plan, [module], num_tta_transforms=0, do_seg=True, device="cpu")
    result = predictor.predict_case(case(), {**PROPERTIES, "size_after_cropping": SHAPE})
    assert set(result) == {"boxes", "seg"}


class TestSuppression:
    """What stands in for nnDetection's CUDA code, on CPU tensors."""

    @pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
    def test_same_as_nndetections_own_for_the_cpu(self, threshold):
        from nndet.core.boxes import nms as _loads  # noqa: F401

        from nndet_psma.hosts.nndetection.nms import nms_3d

        theirs = sys.modules["nndet.core.boxes.nms"].nms_cpu
        random = np.random.default_rng(3)
        lower, size = random.uniform(0, 5, (60, 3)), random.uniform(4, 8, (60, 3))
        corners = np.concatenate([lower, lower + size], axis=1)[:, [0, 1, 3, 4, 2, 5]]
        boxes, scores = torch.from_numpy(corners).float(), torch.from_numpy(random.random(60)).float()
        kept = nms_3d(boxes, scores, threshold)
        assert kept.tolist() == theirs(boxes, scores, threshold).tolist()
        assert 0 < len(kept) < 60

    @pytest.mark.parametrize("block", [1, 7, 60, 1000])
    def test_blocks_change_nothing_and_bound_what_is_held(self, block, monkeypatch):
        from nndet.core.boxes import ops

        from nndet_psma.hosts.nndetection import nms

        random = np.random.default_rng(4)
        lower, size = random.uniform(0, 9, (60, 3)), random.uniform(4, 8, (60, 3))
        corners = np.concatenate([lower, lower + size], axis=1)[:, [0, 1, 3, 4, 2, 5]]
        boxes, scores = torch.from_numpy(corners).float(), torch.from_numpy(random.random(60)).float()
        genuine, held = ops.box_iou, []
        monkeypatch.setattr(ops, "box_iou", lambda a, b: held.append(len(a)) or genuine(a, b))
        monkeypatch.setattr(nms, "BLOCK", block)
        kept = nms.nms_3d(boxes, scores, 0.2)
        assert kept.tolist() == sys.modules["nndet.core.boxes.nms"].nms_cpu(boxes, scores, 0.2).tolist()
        assert max(held) <= block

    def test_no_boxes(self):
        from nndet_psma.hosts.nndetection.nms import nms_3d

        assert nms_3d(torch.zeros(0, 6), torch.zeros(0), 0.5).tolist() == []

    def test_given_only_where_missing(self, monkeypatch):
        from nndet.core.boxes import nms as _loads  # noqa: F401

        from nndet_psma.hosts.nndetection.nms import nms_3d, provide_gpu_nms

        module = sys.modules["nndet.core.boxes.nms"]
        monkeypatch.setattr(module, "nms_gpu", None)
        assert provide_gpu_nms()
        assert module.nms_gpu is nms_3d
        assert not provide_gpu_nms()
