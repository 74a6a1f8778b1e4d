"""Our planners in nnDetection on the tiny task: channels, sizes, anchors, folds; and the parts they are made of."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from tiny_place import TASK

from nndet_psma.artifacts.plan import Target
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.nndetection.anchors import fit_edges, mean_best_iou
from nndet_psma.hosts.nndetection.memory import CountingEstimator, activation_count

WINDOWS = [[110.0, 190.0], [-125.0, 225.0]]
OPTIONS = {"target": "cpu", "num_folds": 2, "windows": WINDOWS}


def model_config(**options):
    from omegaconf import OmegaConf

    from nndet_psma.hosts.nndetection.availability import require_nndetection

    config = OmegaConf.load(require_nndetection() / "nndet" / "conf" / "train" / "v001.yaml")["model_cfg"]
    return {**OmegaConf.to_container(config), "plan_cfg": {**OPTIONS, **options}}


@pytest.fixture(scope="module")
def analysed(nndetection, raw_place, tmp_path_factory):
    """The tiny task after nnDetection's own cropping and analysis; read only."""
    root = tmp_path_factory.mktemp("analysed") / TASK
    shutil.copytree(raw_place.data / TASK, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(nndetection))  # "scripts" is a common name
        from scripts.preprocess import run_cropping_and_convert, run_dataset_analysis
    data = {"dim": 3, "modalities": {"0": "CT", "1": "CTV"}, "labels": {"0": "node"}, "target_class": 0}
    cropped, out = root / "raw_cropped", root / "preprocessed"
    run_cropping_and_convert(cropped, root / "raw_splitted", data, overwrite=False, num_processes=1)
    out.mkdir(exist_ok=True)
    run_dataset_analysis(cropped, out, data, num_processes=1)
    return root


@pytest.fixture
def task(analysed, tmp_path):
    """A copy to plan in."""
    shutil.copytree(analysed, tmp_path / TASK)
    return TaskPaths(tmp_path / TASK)


def planned(task, name, **options):
    """Plans by name."""
    from nndet.io.load import load_pickle
    from nndet.planning import PLANNER_REGISTRY

    from nndet_psma.hosts.nndetection import plugin  # noqa: F401  registers

    planner = PLANNER_REGISTRY.get(name)(preprocessed_output_dir=task.preprocessed)
    module = {"PSMAD2": "RetinaUNetPSMA2D", "PSMAD3": "RetinaUNetPSMA3D"}[name]
    names = planner.plan_experiment(module, model_config(**options))
    return planner, {plan: load_pickle(task.preprocessed / f"{plan}.pkl") for plan in names}


def test_plan_of_slices(task):
    """Two windows of three slices each: six channels; the raw task still has two files per case."""
    _, plans = planned(task, "PSMAD2", neighbours=1)
    (plan,) = plans.values()
    assert list(plans) == ["PSMAD2_2d"]
    assert (plan["network_dim"], plan["dim"], len(plan["patch_size"])) == (2, 3, 2)
    assert plan["architecture"]["in_channels"] == 6
    assert plan["architecture"]["dim"] == 2
    assert plan["num_modalities"] == 2
    assert dict(plan["use_mask_for_norm"]) == dict.fromkeys(range(6), True)
    assert set(plan["normalization_schemes"].values()) == {"raw"}
    assert plan["planner_id"] == "PSMAD2"
    assert set(plan["anchors"]) == {"width", "height", "stride"}
    levels = len(plan["architecture"]["decoder_levels"])
    assert [len(sizes) for sizes in plan["anchors"]["width"]] == [3] * levels


def test_plan_of_volumes(task):
    """Two windows, no neighbours; the patch is no larger than what is searched."""
    planner, plans = planned(task, "PSMAD3")
    (plan,) = plans.values()
    assert list(plans) == ["PSMAD3_3d"]
    assert plan["network_dim"] == 3
    assert plan["architecture"]["in_channels"] == 2
    assert set(plan["anchors"]) == {"width", "height", "depth", "stride"}
    np.testing.assert_array_equal(plan["target_spacing"], planner.recipe.plan.spacing)
    searched = np.array(plan["dataset_properties"]["all_sizes"])
    whole = np.array(planner.load_data_properties()["all_sizes"])
    assert (searched.max(axis=0) < whole.max(axis=0)).any()
    np.testing.assert_allclose(plan["median_shape_transposed"], np.median(searched, axis=0))


def test_plan_and_reasons_are_written_for_people(task):
    _, plans = planned(task, "PSMAD3")
    ours = read_plan(task.plan("PSMAD3_3d"))
    assert ours.plan_id == "PSMAD3_3d"
    assert ours.trainer == "RetinaUNetPSMA3D"
    assert "margin_mm" in ours.decisions
    assert plans["PSMAD3_3d"]["psma"]["plan"]["margin_mm"] == ours.margin_mm
    assert task.fingerprint.is_file()


def test_one_plan_per_window_for_voters(task):
    _, plans = planned(task, "PSMAD3", channels="voters")
    assert list(plans) == ["PSMAD3_3d_hu_110_190", "PSMAD3_3d_hu_m125_225"]
    assert [plan["data_identifier"] for plan in plans.values()] == list(plans)
    assert [plan["architecture"]["in_channels"] for plan in plans.values()] == [1, 1]


def test_a_patients_cases_lie_in_one_fold(task):
    """case_0 and case_1 are of one patient; nnDetection's own folds would not know."""
    from nndet.io.load import load_pickle

    planned(task, "PSMAD3")
    splits = load_pickle(task.preprocessed / "splits_final.pkl")
    assert len(splits) == 2
    for fold in splits:
        assert len({"case_0", "case_1"} & set(fold["val"])) in (0, 2)
        assert not set(fold["train"]) & set(fold["val"])
    assert sorted(itertools.chain(*(fold["val"] for fold in splits))) == [f"case_{i}" for i in range(6)]


def test_folds_that_are_there_stay(task):
    from nndet.io.load import load_pickle, save_pickle

    mine = [{"train": np.array(["case_0"]), "val": np.array(["case_1"])}]
    save_pickle(mine, task.preprocessed / "splits_final.pkl")
    planned(task, "PSMAD3")
    assert load_pickle(task.preprocessed / "splits_final.pkl")[0]["val"].tolist() == ["case_1"]


def test_options_are_those_of_our_planner(task):
    with pytest.raises(UserError, match=r"plan_cfg.*margins"):
        planned(task, "PSMAD3", margins=3)


@pytest.mark.parametrize("name", ["PSMAD2", "PSMAD3"])
def test_preprocessed_cases_fit_the_plan(task, name):
    """Training and test cases by nnDetection's own code: the plan's channels, two more, and nnDetection's labels."""
    planner, plans = planned(task, name)
    ((identifier, plan),) = plans.items()
    planner.run_preprocessing(task.root / "raw_cropped" / "imagesTr", plan, 0)
    type(planner).run_preprocessing_test(task.preprocessed, task.raw_splitted, plan, 0)
    folder = task.preprocessed / identifier
    channels = plan["architecture"]["in_channels"] + 2
    trained = np.load(folder / "imagesTr" / "case_0.npz")
    tested = np.load(folder / "imagesTs" / "test_0.npz")
    assert trained["data"].shape[0] == tested["data"].shape[0] == channels
    assert trained["seg"].shape[1:] == trained["data"].shape[1:]
    assert 0.0 <= trained["data"][:-2].min() <= trained["data"][:-2].max() <= 1.0
    assert set(np.unique(trained["seg"])) == {-1, 0, 1, 2}
    assert len(np.load(folder / "labelsTr" / "case_0_boxes_gt.npz")["boxes"]) == 2


def test_true_slice_boxes_come_back_as_the_boxes_of_the_raw_labels(task):
    """A detector that boxes every slice as it was taught: linked and restored, these are nnDetection's raw boxes.

    Exactly so here: the tiny task is not resampled, and its lesions are widest on more than a quarter of their slices.
    """
    import SimpleITK as sitk
    from nndet.io.load import load_pickle
    from nndet.io.transforms.instances import instances_to_boxes_np

    from nndet_psma.hosts.nndetection.ensembler import PSMAEnsembler25D
    from nndet_psma.hosts.nndetection.evidence import FilterLimits

    planner, plans = planned(task, "PSMAD2")
    ((identifier, plan),) = plans.items()
    planner.run_preprocessing(task.root / "raw_cropped" / "imagesTr", plan, 0)
    folder = task.preprocessed / identifier / "imagesTr"
    case = np.load(folder / "case_0.npz")
    properties = load_pickle(folder / "case_0.pkl") | {"transpose_backward": [0, 1, 2]}
    parameters = {"link_iou": 0.01}  # the lowest slice of a ball is one voxel
    limits = FilterLimits(6.0, ())
    made = PSMAEnsembler25D.from_case({"data": case["data"]}, properties, parameters, limits=limits)
    made.add_model("model0_t0")
    for z, plane in enumerate(case["seg"][0]):
        boxes = instances_to_boxes_np(plane, dim=2)[0].reshape(-1, 4)
        result = {
            "pred_boxes": [torch.from_numpy(boxes).float()],
            "pred_scores": [torch.full((len(boxes),), 0.9)],
            "pred_labels": [torch.zeros(len(boxes))],
        }
        made.process_batch(
            result, {"tile_origin": [torch.tensor([o]) for o in (z, 0, 0)], "data": torch.zeros(1, 1, 48, 48)}
        )
    found = made.get_case_result(restore=True)["pred_boxes"].numpy()
    raw = sitk.GetArrayFromImage(sitk.ReadImage(str(task.labels("Tr") / "case_0.nii.gz")))
    truth = instances_to_boxes_np(raw, dim=3)[0]
    assert found.shape == truth.shape == (2, 6)
    order = [np.abs(found - box).sum(axis=1).argmin() for box in truth]
    np.testing.assert_allclose(found[order], truth, atol=1e-4)


def test_cases_of_another_plan_are_not_reused(task):
    """nnDetection would keep them and train on other windows than the plan says."""
    planner, plans = planned(task, "PSMAD3")
    (plan,) = plans.values()
    planner.run_preprocessing(task.root / "raw_cropped" / "imagesTr", plan, 0)
    planner.run_preprocessing(task.root / "raw_cropped" / "imagesTr", plan, 0)
    other, plans = planned(task, "PSMAD3", windows=[[0.0, 100.0]])
    (plan,) = plans.values()
    with pytest.raises(UserError, match=r"made for another plan of this name.*Delete that folder"):
        other.run_preprocessing(task.root / "raw_cropped" / "imagesTr", plan, 0)
    with pytest.raises(UserError, match="made for another plan of this name"):
        type(other).run_preprocessing_test(task.preprocessed, task.raw_splitted, plan, 0)


class TestAnchors:
    def test_boxes_of_one_size_get_that_size(self):
        """Level 1 has twice the edges: a box of 5 and one of 10 are both met exactly."""
        sizes = np.array([[5.0, 5.0]] * 10 + [[10.0, 10.0]] * 10)
        strides = np.array([[1, 1], [2, 2]])
        edges = fit_edges(sizes, strides)
        assert mean_best_iou(sizes, np.array(edges), strides) == 1.0

    def test_never_worse_than_quantiles(self):
        sizes = np.random.default_rng(1).uniform(2, 30, (80, 3))
        strides = np.array([[1, 1, 1], [1, 2, 2]])
        start = np.rint(np.quantile(sizes, [1 / 6, 0.5, 5 / 6], axis=0).T)
        edges = fit_edges(sizes, strides)
        assert np.array(edges).shape == (3, 3)
        assert mean_best_iou(sizes, np.array(edges), strides) >= mean_best_iou(sizes, start, strides)

    def test_mean_best_iou(self):
        """4 x 4 against 2 x 4 and 3 x 4: 12 of 16."""
        assert (
            mean_best_iou(np.array([[4.0, 4.0]]), np.array([[2.0, 3.0], [4.0, 4.0]]), np.ones((1, 2))) == 0.75
        )

    def test_edges_are_the_same_every_time(self):
        sizes = np.random.default_rng(2).uniform(2, 30, (500, 2))
        assert fit_edges(sizes, np.ones((1, 2))) == fit_edges(sizes, np.ones((1, 2)))

    def test_no_boxes(self):
        with pytest.raises(ValueError, match="anchors need boxes"):
            fit_edges(np.zeros((0, 3)), np.ones((1, 3)))


class TestMemory:
    NETWORK = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.InstanceNorm2d(4, affine=True), torch.nn.ReLU()
    )

    def test_activations_are_counted_without_computing(self):
        """Convolution and norm give 2 x 4 x 8 x 10 numbers each."""
        assert activation_count(self.NETWORK, (2, 3, 8, 10)) == 2 * (2 * 4 * 8 * 10)
        assert not any(p.is_meta for p in self.NETWORK.parameters())

    def test_bytes_on_a_cpu(self):
        """3 * 4 * 9 + 4 + 8 = 120 parameters of 16 bytes, 1280 activations of 4."""
        estimator = CountingEstimator(Target("cpu", 0.0))
        estimator.batch_size = 2
        needed, fits = estimator.estimate([1, 1], [8, 10], self.NETWORK, in_channels=3, optimizer_cls=None)
        assert needed == 120 * 16 + 1280 * 4
        assert fits

    def test_larger_patches_stop_fitting(self):
        estimator = CountingEstimator(Target("gpu", 2.0))
        verdicts = [
            estimator.estimate([8, 8], [side, side], self.NETWORK, in_channels=3)[1]
            for side in (64, 512, 4096, 16384)
        ]
        assert verdicts == [True, True, True, False]

    def test_suppression_of_volumes_is_counted(self):
        """256 rows of 10000 candidates, 40 bytes each: 102.4 MB, and a tenth for fragmentation."""
        network = torch.nn.Conv3d(1, 1, 1, bias=False)
        estimator = CountingEstimator(Target("gpu", 8.0))
        needed, _ = estimator.estimate([1, 1, 1], [2, 2, 2], network, in_channels=1)
        assert needed == round((16 + 2 * 8 + 102_400_000) * 1.1 + 0.9e9)

    def test_too_small_a_gpu_is_told(self):
        estimator = CountingEstimator(Target("gpu", 0.5))
        with pytest.raises(UserError, match=r"does not fit 0.5 GB.*gpu_memory_gb"):
            estimator.estimate([8, 8], [8, 8], self.NETWORK, in_channels=3)


def test_machine_decides_the_width(task):
    """A GPU of 24 GB gets nnDetection's own widths and batch, without there being one."""
    _, plans = planned(task, "PSMAD3", target="gpu", gpu_memory_gb=24.0)
    plan = plans["PSMAD3_3d"]
    assert plan["architecture"]["start_channels"] == 32
    assert plan["batch_size"] == 4
    assert "topk_candidates" not in plan["architecture"]
    _, plans = planned(task, "PSMAD3")
    assert plans["PSMAD3_3d"]["architecture"]["start_channels"] == 8
