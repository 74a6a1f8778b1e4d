"""Artefacts on disk: equal after a round trip, and every refusal names the file and the key."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from artifact_samples import ARTIFACTS, FINGERPRINT, PLAN

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.plan import PSMA25DPlan

BY_KIND = pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda artifact: type(artifact).__name__)


@BY_KIND
def test_round_trip_is_equal(artifact, tmp_path):
    file = tmp_path / "a.json"
    artifact.write(file)
    again = type(artifact).read(file)
    assert again == artifact
    assert again.content_hash() == artifact.content_hash()
    content = json.loads(file.read_text())
    assert list(content)[:2] == ["schema", "version"]
    assert content["schema"].startswith("nndet_psma.")


@BY_KIND
def test_another_version_is_refused_with_the_remedy(artifact, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(artifact.to_json() | {"version": 99}))
    message = rf"a\.json: {artifact.schema} of another schema version; expected {artifact.version}; found 99\. .*again"
    with pytest.raises(UserError, match=message):
        type(artifact).read(file)


@BY_KIND
def test_another_kind_of_file_is_refused(artifact, tmp_path):
    file = tmp_path / "a.json"
    for content in ([1], {"a": 1}, artifact.to_json() | {"schema": "nndet_psma.other"}):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=rf'another kind of file; expected "schema": "{artifact.schema}"'):
            type(artifact).read(file)


@BY_KIND
def test_unknown_and_missing_keys_are_refused(artifact, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(artifact.to_json() | {"typo": 1}))
    with pytest.raises(UserError, match=rf"a\.json: invalid {artifact.schema}: typo: unknown key"):
        type(artifact).read(file)
    content = artifact.to_json()
    content.pop("made_from", content.pop("task", None))
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"(made_from|task): missing key"):
        type(artifact).read(file)


def test_every_kind_has_its_own_schema_name():
    """Detectors share theirs: what stands in the file tells slices from patches."""
    kinds = [kind for kind in _kinds(Artifact) if not _kinds(kind)]
    detectors = [kind for kind in kinds if issubclass(kind, DetectorPlan)]
    assert {kind.schema for kind in detectors} == {DetectorPlan.schema}
    others = [kind.schema for kind in kinds if kind not in detectors]
    assert len({*others, DetectorPlan.schema}) == len(others) + 1 >= len(ARTIFACTS)


def _kinds(base):
    """Every class of this package below ``base``."""
    direct = [kind for kind in base.__subclasses__() if kind.__module__.startswith("nndet_psma.")]
    return [*direct, *(kind for each in direct for kind in _kinds(each))]


def test_hash_depends_on_every_value():
    changed = copy.deepcopy(PLAN.to_json())
    changed["detector"]["anchor_sizes"][1][0] = 8.5
    content = {k: v for k, v in changed.items() if k not in ("schema", "version")}
    assert PSMA25DPlan.parse(content, "x").content_hash() != PLAN.content_hash()


def _set(content, path, value):
    *parents, last = path
    for part in parents:
        content = content[part]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stages", 1, "windows"), ["hu_0_1"], r"stage 'narrow' uses unknown windows \['hu_0_1'\]"),
        (("stages", 1, "start_from"), "pre", "stage 'narrow' starts from 'pre', which no earlier stage is"),
        (
            ("stages", 0, "start_from"),
            "narrow",
            "stage 'wsi' starts from 'narrow', which no earlier stage is",
        ),
        (("stages", 2, "name"), "narrow", "two stages have the same name"),
        (("stages", 1, "region"), "ctv", r"stages\[1\].region: expected one of \['body', 'search'\]"),
        (("stages", 1, "iterations"), "many", r"stages\[1\].iterations: expected int, found 'many'"),
        (("detector", "levels"), [1, 2, 3], "3 levels but anchor sizes for 2"),
        (("detector", "anchor_sizes"), [[4.0, 6.0], [8.0]], "same number of anchor sizes"),
        (("detector", "input_size"), [64], "detector.input_size: expected 2 values, found 1"),
        (("windows", 0, "lower"), 310.0, "window 'narrow': lower 310.0 is not below upper 310.0"),
        (("windows", 0, "name"), "soft", "two windows have the same name"),
        (("ct_modality",), None, "windows are planned but no modality is CT"),
        (("ct_modality",), 7, "ct_modality 7 is no modality"),
        (("ctv_modality",), 7, "ctv_modality 7 is no modality"),
        (("scalings", 0, "upper"), 0.0, "scaling 'PET': lower 0.0 is not below upper 0.0"),
        (("batch_size",), 0, r"batch_size: expected a number in \[1, 4096\], found 0"),
        (("spacing",), [3.0, 0.0, 1.0], r"spacing\[1\]: expected a number in \[0.01, 100\]"),
        (("neighbours",), -1, r"neighbours: expected a number in \[0, 50\]"),
        (("margin_mm",), -1.0, r"margin_mm: expected a number in \[0, 3000\], found -1.0"),
        (("body_margin_mm",), -2.0, r"body_margin_mm: expected a number in \[0, 3000\], found -2.0"),
        (("margin_mm",), 0.5, "zone_mm 1 lies beyond margin_mm 0.5: nothing is seen there"),
        (("positive_fraction",), 0.0, r"positive_fraction must lie in \(0, 1\]"),
        (("hard_negative_fraction",), 1.5, r"hard_negative_fraction must lie in \[0, 1\]"),
        (("ctv_modality",), 0, "ct_modality and ctv_modality are both 0"),
        (("scalings", 0, "modality"), 2, "scaling 'PET' names modality 2"),
        (("postproc_grid", "min_votes"), [1, 3], "min_votes 3 of only 2 voters"),
        (("folds", 0, "val"), ["a"], "fold 0 trains and validates on case a"),
        (("folds", 1, "val"), [], "fold 1 has no validation case"),
        (("stages", 1, "milestones"), [166, 133], "stage 'narrow': milestones .* do not ascend"),
        (("stages", 1, "milestones"), [500], "stage 'narrow': milestones .* within 200 iterations"),
        (("stages", 1, "warmup"), 300, "stage 'narrow': warm-up of 300 in 200 iterations"),
        (("stages", 1, "learning_rate"), 0.0, "stage 'narrow': 200 iterations at a rate of 0.0"),
        (("detector", "levels"), [2, 1], "levels ascend among the ResNet layers 1..4"),
        (("detector", "levels"), [1, 5], "levels ascend among the ResNet layers 1..4"),
        (
            ("detector", "input_size"),
            [64, 100],
            r"input_size \(64, 100\) is no multiple of the coarsest stride 8",
        ),
        (
            ("detector", "body_input_size"),
            [0, 64],
            r"body_input_size\[0\]: expected a number in \[1, 16384\]",
        ),
        (("detector", "scale"), 0.0, r"detector.scale: expected a number in \[0.001, 100\]"),
        (("detector", "input_std"), 0.0, "input_std must be positive"),
        (("detector", "roi_samples"), 0, r"roi_samples: expected a number in \[1, 100000\]"),
        (("detector", "nms_iou"), 0.0, "min_score 0.02 or nms_iou 0.0 is out of range"),
        (("detector", "aspect_ratios"), [], "anchor sizes and aspect ratios must be positive"),
    ],
)
def test_contradictions_of_an_edited_plan(path, value, message, tmp_path):
    content = copy.deepcopy(PLAN.to_json())
    _set(content, path, value)
    file = tmp_path / "PSMA25D.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"PSMA25D\.json: invalid nndet_psma\.plan: .*{message}"):
        PSMA25DPlan.read(file)


def test_plan_without_voter(tmp_path):
    content = copy.deepcopy(PLAN.to_json())
    for stage in content["stages"]:
        stage["voter"] = False
    file = tmp_path / "p.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"p\.json: .*no stage is a voter"):
        PSMA25DPlan.read(file)


def test_a_stage_that_sees_nothing(tmp_path):
    content = copy.deepcopy(PLAN.to_json())
    content["stages"][0]["windows"] = []
    content["scalings"] = []
    file = tmp_path / "p.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="stage 'wsi' sees nothing"):
        PSMA25DPlan.read(file)


def test_plans_that_prepare_images_alike_share_a_folder():
    alike = replace(PLAN, plan_id="OTHER", margin_mm=9.0, windows=PLAN.windows[::-1], batch_size=2)
    assert alike.data_identifier == PLAN.data_identifier
    assert PLAN.data_identifier.startswith("3x1x1mm_")
    for change in (
        {"spacing": (3.0, 1.0, 1.0001)},
        {"body_margin_mm": 6.0},
        {"modalities": {"0": "CT", "1": "PET"}},
    ):
        assert replace(PLAN, ctv_modality=None, **change).data_identifier != PLAN.data_identifier


def test_plan_look_ups():
    assert [stage.name for stage in PLAN.voters] == ["narrow", "both"]
    assert PLAN.stage("wsi").region == "body"
    assert PLAN.ct_name == "CT"
    # (1 window + PET) x 3 slices, (2 windows + PET) x 3 slices
    assert [PLAN.channels(stage) for stage in PLAN.stages] == [6, 6, 9]
    with pytest.raises(ValueError, match="no stage 'x'; stages are wsi, narrow, both"):
        PLAN.stage("x")


def test_fingerprint_lesions(tmp_path):
    assert FINGERPRINT.lesions == FINGERPRINT.cases[0].lesions
    file = tmp_path / "f.json"
    content = copy.deepcopy(FINGERPRINT.to_json())
    content["cases"][0]["lesions"][0]["box"][2] = "3"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"cases\[0\]\.lesions\[0\]\.box\[2\]: expected float, found '3'"):
        Fingerprint.read(file)
