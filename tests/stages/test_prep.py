"""Stage prep on the tiny raw task: what is written, kept, refused and overwritten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_place import GRID, PREP_OPTIONS, SHAPE, SPACING, TASK, Workplace, snapshot, tiny_case

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.cli.config import compose_config, system_of_config
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.faults.findings import CheckReport, Finding
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.planners.describe import describe_plan
from nndet_psma.preprocess.store import read_case
from nndet_psma.stages import prep
from nndet_psma.stages.prep import prepare_task
from nndet_psma.systems.psma25d.system import PSMA25D

CASES = [f"case_{i}" for i in range(6)]


def _run(place: Workplace, *overrides: str, check: bool = False):
    return _run_plain(place, *PREP_OPTIONS, *overrides, check=check)


def _run_plain(place: Workplace, *overrides: str, check: bool = False):
    config = compose_config(TASK, overrides)
    said: list[str] = []
    result = prepare_task(
        place.paths,
        system_of_config(config),
        config,
        full_check=False,
        check=check,
        processes=1,
        preprocessing_processes=1,
        say=said.append,
    )
    return result, said


@pytest.fixture(scope="module")
def prepared(raw_place: Workplace, tmp_path_factory: pytest.TempPathFactory):
    """The raw task prepared once; read only."""
    place = raw_place.copy(tmp_path_factory.mktemp("prepared"))
    result, said = _run(place, check=True)
    return place, result, said


@pytest.fixture
def own(prepared, tmp_path: Path) -> Workplace:
    return prepared[0].copy(tmp_path)


def test_end_to_end(prepared):
    place, result, said = prepared
    assert result.findings == []
    assert result.made == CASES
    assert result.total == 6
    assert not result.kept_plan
    assert said == [
        "check of names, headers and labels",
        "fingerprint of 6 cases",
        "plan PSMA25D: written",
        "preprocessed 6 cases, 0 were current",
    ]
    assert read_plan(place.paths.plan("PSMA25D")) == result.plan
    assert Fingerprint.read(place.paths.fingerprint) == result.fingerprint
    assert sorted(file.name for file in place.store.iterdir()) == CASES
    assert result.plan.made_from == result.fingerprint.content_hash()


def test_what_was_measured_and_stored(prepared):
    place, result, _ = prepared
    ct, ctv, instances = tiny_case("case_0")
    case = result.fingerprint.cases[0]
    assert (case.shape, case.spacing, case.patient_id, case.stratum) == (SHAPE, SPACING, "patient_a", "low")
    assert case.ctv_box == (1, 12, 12, 9, 30, 36)  # the file's CTV [1:9, 12:30, 12:36]
    assert [lesion.instance for lesion in case.lesions] == [1, 2]
    assert case.lesions[0].volume_mm3 == (instances == 1).sum() * 16
    assert case.lesion_hu.total == (instances > 0).sum()
    assert case.region_hu.total == ((ctv > 0) & (instances == 0)).sum()
    stored = read_case(place.store, "case_0")
    # same spacing, so the store is a crop of the file: all slices, the body and 5 mm (3 pixels) round it
    corner = stored.source.to_voxels(stored.geometry.to_patient(np.zeros((1, 3))))[0].round().astype(int)
    part = tuple(slice(a, a + n) for a, n in zip(corner, stored.geometry.shape, strict=True))
    assert corner[0] == 0
    assert stored.geometry.shape[0] == SHAPE[0]
    assert np.array_equal(stored.arrays["CT"], ct[part])
    assert np.array_equal(stored.instances, instances[part])


def test_again_nothing_is_redone(own, monkeypatch):
    before = snapshot(own.paths.preprocessed)

    def fail(*_):
        pytest.fail("a finished case was measured again")

    monkeypatch.setattr("nndet_psma.planners.fingerprint.measure.measure_case", fail)
    result, said = _run(own)
    assert result.kept_plan
    assert result.made == []
    assert said[-2:] == ["plan PSMA25D: kept", "preprocessed 0 cases, 6 were current"]
    assert snapshot(own.paths.preprocessed) == before


def test_edited_plan_is_refused_kept_or_overwritten(own):
    file = own.paths.plan("PSMA25D")
    edited = replace(read_plan(file), margin_mm=9.0, batch_size=3)
    edited.write(file)
    message = r"another plan of this name exists.*found other values of batch_size, margin_mm\. Keep it with"
    with pytest.raises(UserError, match=message):
        _run(own)
    assert read_plan(file) == edited

    result, _ = _run(own, "prep.plan=false")
    assert result.plan == edited
    assert result.kept_plan
    assert result.made == []  # a margin changes no array

    result, _ = _run(own, "prep.overwrite=true")
    assert (result.plan.margin_mm, result.plan.batch_size) == (6.48, 2)
    assert read_plan(file) == result.plan


def test_a_kept_plan_needs_no_folds(own):
    """Folds are planned, so splits.json matters only to those who plan."""
    own.paths.splits.write_text("[]")
    result, _ = _run(own, "prep.plan=false")
    assert result.kept_plan
    with pytest.raises(UserError, match=r"splits\.json"):
        _run(own, "prep.overwrite=true")


@pytest.mark.parametrize("system", ["retina3d", "nodeseg"])
def test_the_plan_of_another_system_is_not_replaced_without_a_word(own, system):
    before = own.paths.plan("PSMA25D").read_bytes()
    message = r"PSMA25D\.json: another plan of this name exists, one of psma25d\. .*train=psma25d"
    for plan in ("prep.plan=true", "prep.plan=false"):
        with pytest.raises(UserError, match=message):
            _run_plain(own, f"train={system}", "plan=PSMA25D", plan)
    assert own.paths.plan("PSMA25D").read_bytes() == before


def test_another_name_leaves_the_first_plan(own):
    before = own.paths.plan("PSMA25D").read_bytes()
    _run(own, "plan=MINE", "plan_cfg.min_margin_mm=8")
    assert own.paths.plan("PSMA25D").read_bytes() == before
    assert read_plan(own.paths.plan("MINE")).margin_mm == 8


def test_plan_of_another_release_names_the_way_out(own):
    file = own.paths.plan("PSMA25D")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 0}))
    with pytest.raises(UserError, match=r"another schema version.*prep\.overwrite=true again"):
        _run(own)
    assert not _run(own, "prep.overwrite=true")[0].kept_plan


def test_without_a_plan_there_is_none_to_keep(raw_place, tmp_path):
    with pytest.raises(UserError, match=r"PSMA25D\.json: file does not exist"):
        _run(raw_place.copy(tmp_path), "prep.plan=false")


def test_parts_can_be_left_out(own, monkeypatch):
    monkeypatch.setattr(prep, "measure_fingerprint", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(PSMA25D, "prepare", lambda *_: pytest.fail("built"))
    monkeypatch.setattr(prep, "check_report", lambda *_, **__: pytest.fail("checked"))
    parts = ["prep.fingerprint=false", "prep.process=false", "prep.check=false"]
    result, said = _run(own, *parts, check=True)
    assert said == ["plan PSMA25D: kept"]
    assert len(result.fingerprint.cases) == 6


def test_findings_are_said_in_full_and_errors_stop(own, monkeypatch):
    warning = Finding("PET not SUV", "warning", None, "is odd")
    monkeypatch.setattr(prep, "check_report", lambda *_, **__: CheckReport(TASK, True, findings=[warning]))
    _, said = _run(own, check=True)
    assert said[1] == "warning: is odd."  # no file and no remedy: nothing is said of them
    error = Finding("NaN voxels", "error", "a.nii", "is bad", expected="good", remedy="Mend it")
    found = CheckReport(TASK, True, findings=[error, error, warning])
    monkeypatch.setattr(prep, "check_report", lambda *_, **__: found)
    with pytest.raises(UserError, match=r"a\.nii: is bad; expected good\. Mend it\. 1 more errors"):
        _run(own, check=True)
    report = json.loads((own.paths.preprocessed / "check.json").read_text())
    assert (report["schema"], report["errors"], report["warnings"]) == ("nndet_psma.check_report", 2, 1)


def test_new_case_is_measured_and_made_alone(own):
    (own.paths.root / "clinical.csv").unlink()
    for folder in (own.paths.images("Tr"), own.paths.labels("Tr")):
        for file in list(folder.glob("case_2*")):
            file.rename(file.with_name(file.name.replace("case_2", "case_9")))
    result, _ = _run(own, "prep.overwrite=true")
    assert result.made == ["case_9"]
    assert [case.case_id for case in result.fingerprint.cases] == [*CASES[:2], *CASES[3:], "case_9"]
    assert {case for fold in result.plan.folds for case in fold.val} == {*CASES, "case_9"} - {"case_2"}


def test_modality_that_becomes_the_ctv_is_measured_again(own):
    file = own.paths.root / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"modalities": {"0": "CT", "1": "PET"}}))
    result, _ = _run(own, "prep.overwrite=true", "prep.process=false")
    assert result.fingerprint.cases[0].ctv_box is None
    assert sorted(result.fingerprint.cases[0].intensities) == ["CT", "PET"]
    assert result.plan.ctv_modality is None


@pytest.mark.parametrize(
    "grid", [GRID, replace(GRID, spacing=(4.0, 2.0, 2.5))], ids=["other shape", "other spacing"]
)
def test_another_grid_is_told_even_without_the_check(own, grid):
    file = own.paths.images("Tr") / "case_3_0001.nii.gz"
    ctv = np.ones((10, 40, 47) if grid is GRID else SHAPE, np.uint8)
    write_volume(file, ctv, replace(grid, shape=ctv.shape))
    with pytest.raises(UserError, match=r"case_3_0001\.nii\.gz: CTV of case case_3 lies on another grid"):
        _run(own, "prep.overwrite=true")


def test_plan_overwrites(prepared):
    plan = prepared[1].plan
    assert PSMA25D().overwrite(plan, {}) is plan
    changed = PSMA25D().overwrite(
        plan, {"detector": {"scale": 2}, "batch_size": 7, "postproc_grid": {"min_votes": [1]}}
    )
    assert changed.detector == replace(plan.detector, scale=2.0)
    assert changed.batch_size == 7
    assert changed.postproc_grid == plan.postproc_grid | {"min_votes": [1]}


@pytest.mark.parametrize(
    ("overwrites", "message"),
    [
        ({"batchsize": 1}, "batchsize: unknown key"),
        ({"detector": {"scael": 2}}, r"detector\.scael: unknown key"),
        ({"batch_size": "many"}, "batch_size: expected int, found 'many'"),
        ({"detector": 3}, "detector: expected an object, found int"),
        ({"detector": {"levels": [1, 2, 3]}}, "3 levels but anchor sizes for 2"),
        ({"stages": []}, "no stage is a voter"),
        ({"windows": []}, "uses unknown windows"),
    ],
)
def test_wrong_plan_overwrites(prepared, overwrites, message):
    with pytest.raises(UserError, match=rf"plan_overwrites: invalid nndet_psma\.plan: .*{message}"):
        PSMA25D().overwrite(prepared[1].plan, overwrites)


def test_overwrites_of_the_command_line():
    config = compose_config(TASK, ["+plan_overwrites.detector.scale=2.0", "+plan_overwrites.windows=[]"])
    assert config.plan_overwrites == {"detector": {"scale": 2.0}, "windows": []}
    assert compose_config(TASK, []).plan_overwrites == {}


def test_description_of_the_plan(prepared):
    rows = {key: value for key, value, _, _ in describe_plan(prepared[1].plan)}
    assert rows["margin_mm"] == "6.48"
    assert rows["batch_size"] == "2"
    first = prepared[1].plan.stages[0]
    assert rows["stages"].startswith(f"wsi: {first.iterations} at {first.learning_rate:g}, 3 channels; hu_")
    assert rows["windows"].endswith("-125..225")
    assert set(rows) == set(prepared[1].plan.decisions)
