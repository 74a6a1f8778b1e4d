"""The planner of the 3D detector on fingerprints made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from planner_samples import TAILS, box_lesion, fingerprint, hand_made_case, regions, table_2_histogram

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.describe import BOOKKEEPING, compare_plans, describe_plan
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.planners.training_memory import Training
from nndet_psma.postproc.sweep.candidates import sweep_grid
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.systems.retina3d.planner import Retina3DPlanner, wide_window
from nndet_psma.systems.retina3d.planning.cost import patch_step_seconds, stage_load
from nndet_psma.systems.retina3d.planning.layers import PatchNetwork, patch_flops
from nndet_psma.trainers.cost.cost import cost_rows, estimate_cost
from nndet_psma.trainers.cost.devices import CPU_CORE_3D
from nndet_psma.trainers.cost.stage_load import StageLoads

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0)
FOLDS = FoldChoice([FoldPlan(["case_2", "case_3"], ["case_0", "case_1"])], "by hand", "four cases")


def plan_for(
    found: Fingerprint, target: Target = CPU, options: DetectorOptions | None = None
) -> Retina3DPlan:
    return PLANNERS["Retina3DPlanner"]().plan(
        found,
        options or DetectorOptions(),
        plan_id="RETINA3D",
        trainer="RetinaNet3D",
        target=target,
        folds=FOLDS,
    )


def loads_of(plan: Retina3DPlan) -> StageLoads:
    return {stage.name: stage_load(plan, stage) for stage in plan.stages}


def unusual(modalities: tuple[str, ...], classes: int) -> Fingerprint:
    """Cases of other modalities, without CTV, with lesions of every class."""
    cases = [
        hand_made_case(
            f"case_{i}",
            intensities={name: regions(0.0, 1.0, 4.0, 9.0) for name in modalities},
            lesions=[box_lesion(n + 1, (2 + n, 6, 8), outside=None, label=n) for n in range(classes)],
        )
        for i in range(4)
    ]
    return Fingerprint(
        "Task901_Y",
        {str(i): m for i, m in enumerate(modalities)},
        {str(n): f"c{n}" for n in range(classes)},
        cases,
    )


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    "kind", [{}, {"ctv": False}, {"pet": True}, {"ct": False, "ctv": False, "pet": True}]
)
def test_plan_is_valid_complete_and_deterministic(
    kind: dict[str, bool], target: Target, tmp_path: Path
) -> None:
    found = fingerprint(**kind)
    plan = plan_for(found, target)
    plan.write(tmp_path / "plan.json")
    assert Retina3DPlan.read(tmp_path / "plan.json") == plan
    assert plan_for(found, target).content_hash() == plan.content_hash()
    assert plan.made_from == found.content_hash()
    rows = describe_plan(plan)
    assert all(all(row) for row in rows)  # no empty value, rule or evidence
    decided = {row.key.split(".")[0] for row in rows}
    held = {key for key, value in plan.to_json().items() if value is not None or key.endswith("_modality")}
    assert held - decided == set(BOOKKEEPING)  # nothing is decided without saying why
    assert sweep_grid(plan).others["fold_iou"]


def test_with_ct_and_ctv() -> None:
    plan = plan_for(fingerprint(), GPU)
    assert (plan.ct_modality, plan.ctv_modality, plan.neighbours) == (0, 1, 0)
    assert plan.spacing == (3.0, 1.0, 1.0)
    (stage,) = plan.stages
    assert (stage.name, stage.region, stage.voter, stage.start_from) == ("retina3d", "search", True, None)
    # 0.5 % and 99.5 % of table 2's voxels are -97 and 310 HU; soft tissue reaches down to -125
    assert [(w.lower, w.upper) for w in plan.windows] == [(-125.0, 310.0)]
    assert plan.channels(stage) == 1
    assert (plan.positive_fraction, plan.hard_negative_fraction) == (0.5, 0.0)
    assert plan.postproc_defaults["zone_mm"] == plan.margin_mm == 6.48
    # CTV box of 12 slices of 3 mm grown by 6.48 mm: 16.3 slices, 93 x 113 pixels: the whole region fits
    detector = plan.detector3d
    assert all(side >= wanted for side, wanted in zip(detector.patch_size, (17, 93, 113), strict=True))
    assert detector.strides[1] == (1, 2, 2)  # 3 mm slices wait for the plane
    assert detector.kernels[0] == (1, 3, 3)
    # lesions of 2 slices and 5 or 6 voxels: stage 2 has the stride (1, 4, 4), which they hold
    assert detector.levels[0] == 2
    assert "6.48 mm" in plan.decisions["margin_mm"].rule


def test_without_ctv_the_body_is_searched() -> None:
    plan = plan_for(fingerprint(ctv=False))
    assert plan.stages[0].region == "body"
    assert plan.margin_mm == 0
    assert plan.postproc_defaults["zone_mm"] is None
    assert plan.postproc_grid["zone_mm"] == [None]


def test_any_modalities_and_classes() -> None:
    plan = plan_for(unusual(("DWI", "ADC", "T2"), 3))
    assert plan.windows == []
    assert [scaling.name for scaling in plan.scalings] == ["DWI", "ADC", "T2"]
    assert plan.channels(plan.stages[0]) == 3
    assert plan.classes == {"0": "c0", "1": "c1", "2": "c2"}
    assert plan.postproc_grid["hu_threshold"] == [None]


def test_windows_as_channels() -> None:
    many = plan_for(fingerprint(pet=True), CPU, DetectorOptions(channels="multiwindow", quantiles=TAILS))
    assert [(w.lower, w.upper) for w in many.windows] == [
        (-97, 310), (-90, 169), (-84, 151), (-79, 141), (-125, 225),
    ]  # fmt: skip
    assert many.channels(many.stages[0]) == 6
    own = plan_for(fingerprint(), CPU, DetectorOptions(windows=[(-50.0, 150.0), (-200.0, 400.0)]))
    assert [(w.lower, w.upper) for w in own.windows] == [(-50, 150), (-200, 400)]
    assert own.decisions["windows"].rule.startswith("plan_cfg.windows")


def test_the_wide_window_is_never_narrower_than_soft_tissue() -> None:
    assert wide_window(Histogram(), (-125.0, 225.0)).lower == -125
    narrow = wide_window(Histogram(0, [10]), (-125.0, 225.0))
    assert (narrow.lower, narrow.upper) == (-125, 225)
    wide = wide_window(table_2_histogram(), (-50.0, 200.0))
    assert (wide.lower, wide.upper) == (-97, 310)


def test_users_patch_batch_and_spacing() -> None:
    options = DetectorOptions(patch_size=(17, 60, 60), batch_size=3, spacing=(2.0, 1.5, 1.5))
    plan = plan_for(fingerprint(), GPU, options)
    assert plan.spacing == (2.0, 1.5, 1.5)
    # 17 -> 8.5 -> 4.25 cells: two poolings; 60 -> 7.5: three
    assert plan.detector3d.patch_size == (20, 64, 64)
    assert plan.batch_size == 3
    assert plan.decisions["batch_size"].rule == "plan_cfg.batch_size"
    assert plan.decisions["detector3d.patch_size"].rule.startswith("plan_cfg.patch_size")


def test_several_gpus_share_a_batch() -> None:
    one, four = (plan_for(fingerprint(), Target("gpu", 24.0, gpus)) for gpus in (1, 4))
    assert four.batch_size == 4 * one.batch_size
    assert four.stages[0].iterations == round(one.stages[0].iterations / 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", "resnet50"),
        ("weights", "imagenet"),
        ("input_side", 800),
        ("neighbours", 2),
        ("max_voters", 3),
        ("anchors", "torchvision"),
    ],
)
def test_options_of_slices_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"plan_cfg.{name} means nothing to Retina3DPlanner.*found {value}"):
        plan_for(fingerprint(), CPU, replace(DetectorOptions(), **{name: value}))


def test_no_lesion_and_no_room_are_refused() -> None:
    with pytest.raises(UserError, match="no training case has a lesion"):
        plan_for(fingerprint(lesions=0))
    with pytest.raises(UserError, match="does not fit the GPU"):
        plan_for(fingerprint(), Target("gpu", 1.6))


def test_the_preset_composes_and_plans() -> None:
    from nndet_psma.cli.config import compose_config

    config = compose_config("Task900_Tiny", ["train=retina3d"])
    assert (config.module, config.planner, config.plan) == ("RetinaNet3D", "Retina3DPlanner", "RETINA3D")
    assert (config.sweep.search, config.sweep.criterion) == ("joint", "auto")
    assert plan_for(fingerprint(), CPU, config.plan_cfg) == plan_for(fingerprint(), CPU)


def test_a_patch_without_voxels_is_refused() -> None:
    with pytest.raises(UserError, match="patch_size must be at least 1"):
        DetectorOptions.parse({"patch_size": [0, 64, 64]})


def test_cost_is_flops_over_speed() -> None:
    plan = plan_for(fingerprint(), CPU)
    network = PatchNetwork.of(plan.detector3d, channels=1, classes=1)
    voxels = 1
    for side in plan.detector3d.patch_size:
        voxels *= side
    cost = estimate_cost(plan, loads_of(plan), cores=1)
    # 75 GFLOPS of a core, 50 ms per step
    expected = 0.05 + 2 * patch_flops(network, voxels) / 75e9
    assert cost.seconds_per_step["retina3d"] == pytest.approx(expected)
    assert cost.hours_total == pytest.approx(plan.stages[0].iterations * expected / 3600)
    assert cost.hours_total < 0.2  # a few minutes
    assert "in 3D" in cost.assumption
    rows = cost_rows(plan, loads_of(plan), cores=1)
    assert [row.key for row in rows] == ["cost.retina3d", "cost.total", "cost.memory"]
    assert "400 steps x 2 patches x" in rows[0].evidence


def test_cost_on_gpus() -> None:
    plans = [plan_for(fingerprint(), Target("gpu", 24.0, gpus)) for gpus in (1, 2)]
    one, two = (estimate_cost(plan, loads_of(plan)) for plan in plans)
    assert two.seconds_per_step["retina3d"] == pytest.approx(one.seconds_per_step["retina3d"] / 0.95)
    assert two.memory_gb > one.memory_gb  # buckets of the gradients
    plan = plan_for(fingerprint(), GPU)
    training = Training(plan.optimizer)
    assert one.memory_gb == pytest.approx(
        stage_load(plan, plan.stages[0]).memory(plan.batch_size, training).total
    )
    assert one.memory_gb <= 0.92 * 24


def test_step_seconds_grow_with_the_work() -> None:
    plan = plan_for(fingerprint(), GPU)
    network = PatchNetwork.of(plan.detector3d, channels=1, classes=1)
    few, many = (patch_step_seconds(network, 10**6, n, CPU_CORE_3D) - 0.05 for n in (1, 3))
    assert many == pytest.approx(3 * few)
    assert patch_step_seconds(network, 10**6, 1, CPU_CORE_3D, 2) - 0.05 == pytest.approx(few / 2**0.9)


def test_plans_of_two_machines_differ_by_key() -> None:
    rows = {row.key for row in compare_plans(plan_for(fingerprint(), CPU), plan_for(fingerprint(), GPU))}
    assert {"detector3d.channels", "target.device", "batch_size"} <= rows


def test_the_registered_planner_is_this_one() -> None:
    assert PLANNERS["Retina3DPlanner"] is Retina3DPlanner


def test_large_lesions_fit_into_the_cpus_patch() -> None:
    """Tumours of 96 mm at 1 mm: the CPU's 64 voxels hold 1.5 of them at 2.25 mm; a GPU needs no coarser grid."""
    tumour = box_lesion(1, (30, 96, 96), corner=(4, 50, 50))
    cases = [hand_made_case(f"case_{i}", shape=(60, 300, 300), lesions=[tumour]) for i in range(4)]
    stats = {"PET": regions(0.0, 1.0, 4.0, 9.0)}
    found = Fingerprint("T", {"0": "PET"}, {"0": "x"}, [replace(case, intensities=stats) for case in cases])
    plan = plan_for(found, CPU)
    assert plan.spacing == (3.0, 2.25, 2.25)
    assert "affordable_spacing" in plan.decisions["spacing"].rule
    assert "more than 64 voxels" in plan.decisions["spacing"].evidence
    assert min(plan.detector3d.patch_size[1:]) == 64
    assert plan_for(found, GPU).spacing == (3.0, 1.0, 1.0)
