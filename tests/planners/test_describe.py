"""Plans in words, and what differs between two."""

from __future__ import annotations

from dataclasses import replace

from artifact_samples import PLAN

from nndet_psma.artifacts.plan import Decision
from nndet_psma.planners.describe import compare_plans, describe_plan


def test_every_decision_with_its_value() -> None:
    keys = (
        "margin_mm",
        "windows",
        "scalings",
        "stages",
        "folds",
        "target",
        "augmentation",
        "detector.levels",
    )
    plan = replace(PLAN, decisions={key: Decision("rule", "evidence") for key in keys})
    rows = {row.key: row.value for row in describe_plan(plan)}
    assert list(rows) == list(keys)
    assert rows["margin_mm"] == "6.48"
    assert rows["windows"] == "-97..310, -125..225"
    assert rows["scalings"] == "PET 0..20"
    assert rows["stages"].startswith("wsi: 100 at 0.01, 6 channels; narrow: 200 at 0.005, 6 channels; both")
    assert rows["folds"] == "1/1, 1/1 train/validation cases"
    assert rows["target"] == "CPU"
    assert rows["augmentation"] == "scale 0.9..1.1, rotation 15 degrees"
    assert rows["detector.levels"] == "[1, 2]"


def test_a_plan_equals_itself_whatever_its_reasons() -> None:
    assert compare_plans(PLAN, replace(PLAN, decisions={"margin_mm": Decision("other", "words")})) == []


def test_differences_are_dotted_and_explained() -> None:
    other = replace(
        PLAN,
        batch_size=8,
        detector=replace(PLAN.detector, scale=1.5),
        stages=[*PLAN.stages[:2], replace(PLAN.stages[2], iterations=300)],
        decisions={"batch_size": Decision("rule", "more memory"), "detector": Decision("rule", "by hand")},
    )
    rows = {row.key: row for row in compare_plans(PLAN, other)}
    assert sorted(rows) == ["batch_size", "detector.scale", "stages.both.iterations"]
    assert rows["batch_size"][1:] == ("4", "8", "", "more memory")
    assert rows["detector.scale"][1:] == ("2", "1.5", "", "by hand")
    assert rows["stages.both.iterations"][1:3] == ("200", "300")


def test_a_window_more_or_less_is_a_difference_by_name() -> None:
    fewer = replace(
        PLAN,
        windows=PLAN.windows[1:],
        stages=[PLAN.stages[0], replace(PLAN.stages[1], windows=["soft"])],
        postproc_grid={},
    )
    keys = [row.key for row in compare_plans(PLAN, fewer)]
    assert {"windows.narrow", "stages.both", "stages.narrow.windows"} <= set(keys)
    rows = {row.key: row for row in compare_plans(PLAN, fewer)}
    assert rows["windows.narrow"][1:3] == ("lower -97, upper 310", "")
    assert rows["stages.both"].first.startswith("region search, windows ['narrow', 'soft'], start_from wsi")
    assert not any(key.startswith("windows.soft") for key in keys)
