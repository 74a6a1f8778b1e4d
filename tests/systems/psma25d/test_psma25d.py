"""The planner of the central system on fingerprints made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planner_samples import box_lesion, hand_made_case, regions

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram, LesionFingerprint
from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners import machine as prepare
from nndet_psma.planners.describe import BOOKKEEPING, describe_plan
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.planner import PSMA25DPlanner
from nndet_psma.systems.psma25d.system import PSMA25D
from nndet_psma.systems.system import PlanJob

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0)
# 5 of 1000 voxels between neighbouring limits: table 2 of Xu et al. 2023, as in test_rules
TABLE_2 = Histogram.of(
    np.concatenate(
        [
            np.repeat([-97, -90, -84, -79], 5),
            np.full(955, 40),
            np.repeat([141, 151, 169, 310, 400], 5),
        ]
    )
)
STATISTICS = regions(-100.0, 30.0, 8.0, 5.0)


def lesion(number: int, side: int, outside: float | None) -> LesionFingerprint:
    return box_lesion(number, (3, side, side), corner=(10, 30, 30), outside=outside)


def hand_made(modalities: tuple[str, ...] = ("CT", "CTV"), cases: int = 6, lesions: int = 2) -> Fingerprint:
    """Cases of 40 x 200 x 240 voxels of 3 x 1 x 1 mm; two cases of one patient; lesions of 8 to 13 voxels."""
    has_ctv, has_ct = "CTV" in modalities, "CT" in modalities
    made = []
    for i in range(cases):
        found = [lesion(n + 1, 8 + i, 1.5 * n if has_ctv else None) for n in range(lesions)]
        made.append(
            hand_made_case(
                f"case_{i}",
                patient="patient" if i < 2 else f"case_{i}",
                stratum="high" if i % 2 else "low",
                shape=(40, 200, 240),
                body_box=(0.0, 20.0, 20.0, 40.0, 180.0, 220.0),
                ctv_box=(5.0, 50.0, 60.0, 35.0, 130.0, 160.0) if has_ctv else None,
                intensities={name: STATISTICS for name in modalities if name != "CTV"},
                lesions=found,
                lesion_hu=TABLE_2 if has_ct and found else Histogram(),
            )
        )
    return Fingerprint("Task900_X", {str(i): m for i, m in enumerate(modalities)}, {"0": "node"}, made)


FOLDS = FoldChoice([FoldPlan(["case_2", "case_3"], ["case_0", "case_1"])], "by hand", "four cases")


def plan_for(
    fingerprint: Fingerprint, target: Target = CPU, options: DetectorOptions | None = None
) -> PSMA25DPlan:
    return PSMA25DPlanner().plan(
        fingerprint,
        options or DetectorOptions(),
        plan_id="PSMA25D",
        trainer="MaskRCNN25D",
        target=target,
        folds=FOLDS,
    )


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("modalities", [("CT", "CTV"), ("CT",), ("PET",), ("CT", "PET", "CTV")])
def test_plan_is_valid_complete_and_deterministic(
    modalities: tuple[str, ...], target: Target, tmp_path: Path
) -> None:
    fingerprint = hand_made(modalities)
    plan = plan_for(fingerprint, target)
    plan.write(tmp_path / "plan.json")
    assert PSMA25DPlan.read(tmp_path / "plan.json") == plan
    assert plan_for(fingerprint, target).content_hash() == plan.content_hash()
    assert plan.made_from == fingerprint.content_hash()
    rows = describe_plan(plan)
    assert all(all(row) for row in rows)  # no empty value, rule or evidence
    decided = {row.key.split(".")[0] for row in rows}
    assert set(plan.to_json()) - {"detector3d"} - decided == set(
        BOOKKEEPING
    )  # nothing is decided without saying why
    stride = 2 ** (max(plan.detector.levels) + 1)
    for size in (*plan.detector.input_size, *plan.detector.body_input_size):
        assert size % stride == 0


def test_with_ct_and_ctv() -> None:
    plan = plan_for(hand_made(), GPU)
    assert (plan.ct_modality, plan.ctv_modality) == (0, 1)
    assert plan.spacing == (3.0, 1.0, 1.0)
    assert plan.margin_mm == 6.48
    assert [(w.lower, w.upper) for w in plan.windows] == [
        (-97, 310), (-90, 169), (-84, 151), (-79, 141), (-125, 225),
    ]  # fmt: skip
    assert plan.scalings == []
    assert plan.neighbours == 1
    assert plan.postproc_defaults["zone_mm"] == 6.48
    # median side (8 + ... + 13) / 6 = 10.5 voxels become 32 pixels: 3.047, in steps of 0.05 downwards
    assert plan.detector.scale == pytest.approx(3.0)
    # CTV box 80 x 100 voxels grown by 6.48 on each side: 92.96 x 112.96 voxels, 279 x 339 pixels; turned by any angle
    # and enlarged by 1.11 the longer side needs 376 each way, a rounded corner up to 34 more, in steps of 16
    assert all(384 <= side <= 416 for side in plan.detector.input_size)
    assert "keep 9" in plan.decisions["augmentation.rotation_degrees"].evidence
    assert plan.augmentation.rotation_degrees == 180.0
    # 12 lesions on 3 slices each of 6 CTVs with 30 slices: 2 * 36 / 180 is below a half
    assert plan.positive_fraction == 0.5
    assert plan.channels(plan.voters[0]) == 3


def test_stages_are_one_pretraining_then_one_voter_per_window() -> None:
    plan = plan_for(hand_made(), GPU)
    first, *voters = plan.stages
    assert (first.name, first.region, first.windows, first.start_from, first.voter) == (
        "wsi", "body", ["hu_m125_225"], None, False,
    )  # fmt: skip
    assert [voter.name for voter in voters] == [window.name for window in plan.windows]
    for voter in voters:
        assert (voter.region, voter.windows, voter.start_from, voter.voter) == (
            "search", [voter.name], "wsi", True,
        )  # fmt: skip


def test_without_pretraining_voters_start_from_the_backbone() -> None:
    plan = plan_for(hand_made(), CPU, DetectorOptions(wsi_pretraining=False))
    assert all(stage.voter and stage.start_from is None for stage in plan.stages)


def test_voters_are_limited_by_machine_and_user() -> None:
    assert len(plan_for(hand_made(), CPU).voters) == 3
    limited = plan_for(hand_made(), GPU, DetectorOptions(max_voters=2))
    assert [voter.name for voter in limited.voters] == ["hu_m79_141", "hu_m125_225"]
    assert "left out as most alike: -97..310, -90..169, -84..151" in limited.decisions["windows"].evidence
    assert limited.postproc_grid["min_votes"] == [1, 2]


def test_margin_grows_with_lesions_outside() -> None:
    fingerprint = hand_made()
    far = replace(fingerprint.cases[0], lesions=[lesion(1, 9, 11.3)])
    plan = plan_for(replace(fingerprint, cases=[far, *fingerprint.cases[1:]]))
    assert plan.margin_mm == 11.3
    assert "11.30 mm" in plan.decisions["margin_mm"].evidence
    assert plan.postproc_grid["zone_mm"][-1] == 11.3


def test_without_ctv_the_body_is_searched() -> None:
    plan = plan_for(hand_made(("CT",)))
    assert plan.ctv_modality is None
    assert plan.margin_mm == 0
    assert plan.postproc_defaults["zone_mm"] is None
    assert plan.postproc_grid["zone_mm"] == [None]
    assert plan.detector.input_size == plan.detector.body_input_size


def test_pet_alone_is_scaled() -> None:
    plan = plan_for(hand_made(("PET",)))
    assert plan.windows == []
    (scaling,) = plan.scalings
    # 0.5 % and 99.5 % of the body; the median in lesions (5) is lower than that
    assert (scaling.modality, scaling.name, scaling.lower, scaling.upper) == (0, "PET", -100.0, 8.0)
    assert [(s.name, s.windows, s.voter) for s in plan.stages] == [("wsi", [], False), ("all", [], True)]
    assert plan.postproc_grid["hu_threshold"] == [None]


def test_names_of_modalities_are_read_as_the_description_reads_them() -> None:
    fingerprint = replace(hand_made(), modalities={"0": " ct", "1": "Ctv "})
    plan = plan_for(fingerprint)
    assert (plan.ct_modality, plan.ctv_modality) == (0, 1)


def test_options_of_patches_are_refused() -> None:
    options = DetectorOptions.parse({"patch_size": [16, 32, 32]})
    with pytest.raises(UserError, match=r"plan_cfg\.patch_size means nothing to PSMA25DPlanner"):
        plan_for(hand_made(), CPU, options)


def test_no_lesion_is_refused() -> None:
    with pytest.raises(UserError, match="no training case has a lesion"):
        plan_for(hand_made(lesions=0))


def test_windows_as_channels() -> None:
    plan = plan_for(hand_made(), CPU, DetectorOptions(channels="multiwindow"))
    first, only = plan.stages
    assert first.name == "wsi"
    assert (only.name, only.voter, only.start_from) == ("multiwindow", True, "wsi")
    assert only.windows == [window.name for window in plan.windows]
    assert len(plan.windows) == 5  # channels cost little: the CPU's limit on voters does not count
    assert plan.channels(only) == 5 * 3
    assert plan.postproc_grid["min_votes"] == [1]


def test_the_papers_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    from nndet_psma.cli.config import compose_config

    config = compose_config("Task900_X", ["train=psma25d_xu2023"])
    # data that would give something else: lesions far outside, of 12 slices, and another HU distribution
    fingerprint = hand_made()
    far = [box_lesion(1, (12, 30, 30), corner=(10, 30, 30), outside=20.0)]
    fingerprint = replace(
        fingerprint,
        cases=[replace(c, lesions=far, lesion_hu=Histogram(0, [1] * 100)) for c in fingerprint.cases],
    )
    plan = plan_for(fingerprint, Target("gpu", 48.0, 4), config.plan_cfg)
    assert [(w.lower, w.upper) for w in plan.windows] == [
        (-97, 310), (-90, 169), (-84, 151), (-79, 141), (-125, 225),
    ]  # fmt: skip
    assert (plan.margin_mm, plan.neighbours) == (6.48, 1)
    assert "contains 0.0% of 6 lesions" in plan.decisions["margin_mm"].evidence
    assert (plan.detector.backbone, plan.detector.weights, plan.batch_size) == (
        "resnext101_32x8d",
        "imagenet",
        64,
    )
    assert plan.optimizer == "sgd"
    wsi, *voters = plan.stages
    assert (wsi.iterations, wsi.learning_rate, wsi.milestones) == (3000, 0.01, [2000])
    assert {(v.iterations, v.learning_rate, tuple(v.milestones)) for v in voters} == {
        (6000, 0.005, (4000, 5000))
    }
    assert (plan.augmentation.rotation_degrees, plan.augmentation.scale) == (180.0, (0.89, 1.11))
    assert plan.detector.anchor_sizes == [[32.0], [64.0], [128.0], [256.0]][: len(plan.detector.levels)]
    assert plan.detector.aspect_ratios == [0.5, 1.0, 2.0]
    assert plan.postproc_grid["hu_threshold"] == [None, 80.0, 100.0, 120.0, 140.0, 160.0]
    assert plan.postproc_grid["zone_mm"][-1] == 6.48
    longest = max(112.96 * plan.detector.scale, 92.96 * plan.detector.scale)
    assert longest == pytest.approx(720, abs=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"spacing": (2.0, 0.5, 0.5)}, lambda p: p.spacing == (2.0, 0.5, 0.5)),
        ({"neighbours": 0}, lambda p: p.neighbours == 0 and p.channels(p.voters[0]) == 1),
        ({"margin_mm": 3.0}, lambda p: p.margin_mm == 3.0 and p.postproc_grid["zone_mm"][-1] == 3.0),
        ({"backbone": "resnet50"}, lambda p: p.detector.backbone == "resnet50"),
        ({"weights": "none"}, lambda p: (p.detector.weights, p.detector.norm) == ("none", "batch")),
        ({"batch_size": 3}, lambda p: p.batch_size == 3),
        (
            {"windows": [(0.0, 100.0), (-50.0, 200.0)]},
            lambda p: [w.upper for w in p.windows] == [100.0, 200.0],
        ),
        ({"augmentation": "light"}, lambda p: p.augmentation.rotation_degrees == 15.0),
        ({"wsi_pretraining": False}, lambda p: p.hard_negative_fraction == 0.0),
        ({"input_side": 400}, lambda p: max(p.detector.input_size) in range(400, 433)),
    ],
)
def test_the_user_decides(options: dict, expected) -> None:
    plan = plan_for(hand_made(), GPU, DetectorOptions(**options))
    assert expected(plan)
    assert plan != plan_for(hand_made(), GPU)


def test_no_room_to_grow_bounds_the_angle() -> None:
    """The longest side of 800 pixels would need 888 x 888, more than the 800 x 800 of a slice."""
    plan = plan_for(hand_made(), GPU, DetectorOptions(input_side=800))
    assert max(plan.detector.input_size) < 816
    assert 0 < plan.augmentation.rotation_degrees < 20
    assert "no room to grow" in plan.decisions["augmentation.rotation_degrees"].evidence


def xu2023(**changes: object) -> SliceOptions:
    return replace(compose_config("Task900_X", ["train=psma25d_xu2023"]).plan_cfg, **changes)


def test_the_papers_preset_takes_detectron2s_values_where_the_paper_is_silent() -> None:
    plan = plan_for(hand_made(), GPU, xu2023())
    found = plan.detector
    assert (found.nms_iou, found.min_score, found.detections_per_slice) == (0.5, 0.05, 100)
    assert (found.frozen_layers, found.box_loss) == (2, "l1")
    assert (plan.positive_fraction, plan.hard_negative_fraction, plan.detector.positive_draw) == (
        1.0,
        0.0,
        "slices",
    )
    assert (plan.clip_norm, plan.norm_decay) == (0.0, False)
    # 1000 iterations at batch 64; at batch B as many images, 64 / B times the iterations
    assert {stage.warmup for stage in plan.stages} == {round(1000 * 64 / plan.batch_size)}
    # 720 pixels at 0.89 to 1.11: 640 to 800, in every direction, rounded up to the stride
    assert all(side in range(800, 896) for side in (*found.input_size, *found.body_input_size))
    rules = {key for key, decision in plan.decisions.items() if decision.rule == "detectron2 default"}
    assert rules == {
        "positive_fraction", "hard_negative_fraction", "clip_norm", "norm_decay", "stages.warmup",
        "augmentation.rotation_degrees", "detector.positive_draw",
        *(f"detector.{n}" for n in ("nms_iou", "min_score", "detections_per_slice", "frozen_layers", "box_loss")),
    }  # fmt: skip
    values = {row.key: row.value for row in describe_plan(plan)}
    assert values["stages.warmup"].startswith("wsi: ")


def test_the_users_choice_goes_before_detectron2s() -> None:
    plan = plan_for(hand_made(), GPU, xu2023(nms_iou=0.4, positive_fraction=0.6, canvas="bound"))
    assert (plan.detector.nms_iou, plan.positive_fraction) == (0.4, 0.6)
    assert plan.decisions["detector.nms_iou"].rule == "plan_cfg.nms_iou"
    assert plan.augmentation.rotation_degrees < 20


def test_nothing_untrained_is_frozen() -> None:
    assert plan_for(hand_made(), GPU, xu2023(weights="none")).detector.frozen_layers == 0
    with pytest.raises(UserError, match="never trained"):
        plan_for(hand_made(), CPU, SliceOptions(frozen_layers=1))
    with pytest.raises(UserError, match="no stage can mine"):
        plan_for(hand_made(), GPU, SliceOptions(wsi_pretraining=False, hard_negative_fraction=0.5))


def test_few_cases_with_most_slices_are_not_drawn_more_often() -> None:
    """Six cases with 2 nodes of 3 slices count as 6. With 40 nodes in one: (5 * 6 + 120)^2 / (5 * 36 + 14400) = 1.5."""
    even, uneven = hand_made(), hand_made()
    many = [lesion(n + 1, 8, 0.0) for n in range(40)]
    uneven.cases[3] = replace(uneven.cases[3], lesions=many, positive_slices=120)
    assert plan_for(even).detector.positive_draw == "slices"
    plan = plan_for(replace(uneven, cases=uneven.cases))
    assert plan.detector.positive_draw == "cases"
    assert "6 cases count as 1.5" in plan.decisions["detector.positive_draw"].evidence
    assert plan_for(uneven, CPU, SliceOptions(positive_draw="lesions")).detector.positive_draw == "lesions"


def test_what_a_plan_does_not_use_is_not_written() -> None:
    """Files and hashes of plans and trainings of before stay."""
    written = plan_for(hand_made()).to_json()
    assert not {"clip_norm", "norm_decay"} & set(written)
    assert not {"frozen_layers", "box_loss", "positive_draw"} & set(written["detector"])


def test_a_batch_that_does_not_fit_is_said() -> None:
    plan = plan_for(hand_made(), Target("gpu", 8.0), DetectorOptions(batch_size=64, input_side=800))
    assert plan.batch_size == 64
    assert "more than the 8 GB of the GPU" in plan.decisions["batch_size"].evidence


def test_a_backbone_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="resnext101_32x8d does not fit the GPU"):
        plan_for(
            hand_made(), Target("gpu", 2.0), DetectorOptions(backbone="resnext101_32x8d", input_side=800)
        )


def test_a_small_gpu_gets_smaller_slices() -> None:
    large, small = (
        plan_for(hand_made(), Target("gpu", gb), DetectorOptions(input_side=3000)) for gb in (80, 3)
    )
    assert small.detector.scale < large.detector.scale
    assert small.detector.input_size[0] < large.detector.input_size[0]
    assert "shrunk to fit the memory" in small.decisions["detector.scale"].rule


def test_two_dimensional_data() -> None:
    fingerprint = hand_made()
    flat = [
        replace(
            case,
            shape=(1, 200, 240),
            body_box=(0.0, 20.0, 20.0, 1.0, 180.0, 220.0),
            ctv_box=(0.0, 50.0, 60.0, 1.0, 130.0, 160.0),
            lesions=[box_lesion(1, (1, 9, 9), corner=(0, 60, 70))],
            positive_slices=1,
            search_slices=1,
        )
        for case in fingerprint.cases
    ]
    plan = plan_for(replace(fingerprint, cases=flat))
    assert plan.neighbours == 0
    assert plan.channels(plan.voters[0]) == 1


def test_several_classes_and_modalities() -> None:
    fingerprint = replace(hand_made(("CT", "PET", "CTV")), labels={"0": "node", "1": "bone"})
    plan = plan_for(fingerprint)
    assert plan.classes == {"0": "node", "1": "bone"}
    assert [s.name for s in plan.scalings] == ["PET"]
    assert plan.channels(plan.voters[0]) == (1 + 1) * 3


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_visible_gpus_gb", lambda: [])


def test_target_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    assert prepare.choose_target(DetectorOptions(target="cpu", gpu_memory_gb=40)) == CPU
    assert prepare.choose_target(DetectorOptions(target="gpu")) == Target("gpu", 24.0)
    assert prepare.choose_target(DetectorOptions(target="gpu", gpu_memory_gb=11)) == Target("gpu", 11)
    assert prepare.choose_target(DetectorOptions(target="auto")) == CPU
    assert prepare.choose_target(DetectorOptions(target="auto", gpu_memory_gb=48)) == Target("gpu", 48)


def test_target_with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_visible_gpus_gb", lambda: [80.0, 48.0])
    assert prepare.choose_target(DetectorOptions()) == Target("gpu", 48.0)  # the smaller of the two
    assert prepare.choose_target(DetectorOptions(num_gpus=2)) == Target("gpu", 48.0, 2)
    assert prepare.choose_target(DetectorOptions(gpu_memory_gb=11)) == Target("gpu", 11)
    assert prepare.choose_target(DetectorOptions(target="cpu")) == CPU


def test_unknown_planner_lists_the_known(tmp_path: Path) -> None:
    job: PlanJob = PlanJob(
        paths=TaskPaths(tmp_path),
        config=compose_config("Task900_X", ["planner=Nothing"]),
        description=DatasetDescription(
            "Task900_X", "X", 3, {0: "node"}, {0: "CT", 1: "CTV"}, None, False, {}
        ),
        cases=[],
        fingerprint=hand_made(),
        target=CPU,
        folds=FoldChoice([], "", ""),
        there=None,
        processes=1,
        say=print,
    )
    with pytest.raises(UserError, match=r"unknown planner 'Nothing'.*PSMA25DPlanner"):
        PSMA25D().make_plan(job)
