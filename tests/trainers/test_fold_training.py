"""Stages of a fold: where they start, when they are redone, and that a killed process loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from loop_observers import After
from safetensors.torch import load_file
from stage_hashes import stage_hash
from tiny_place import TRAIN_OPTIONS, environment

from nndet_psma.artifacts.channels import Window
from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.starting import load_detector
from nndet_psma.systems.psma25d.trainer import MaskRCNN25D
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.settings import TrainerSettings

SETTINGS = TrainerSettings(iterations=4, num_workers=0, save_every=2, log_every=2, pictures_every=0)


def _job(place, folder, **changes) -> FoldJob:
    values = {
        "plan": place.plan,
        "fold": 0,
        "store": place.store,
        "folder": folder,
        "settings": SETTINGS,
    }
    return FoldJob(**{**values, **changes})


def _train(place, folder, **changes) -> None:
    MaskRCNN25D().train(_job(place, folder, **changes))


@pytest.fixture(scope="module")
def whole(tiny_task, tmp_path_factory):
    """A fold trained without interruption; read only."""
    folder = tmp_path_factory.mktemp("whole")
    _train(tiny_task, folder)
    return folder


def _weights(folder) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in folder.glob("*/model.safetensors")}


def test_every_stage_leaves_weights(tiny_task, whole):
    assert set(_weights(whole)) == {stage.name for stage in tiny_task.plan.stages}
    stage = tiny_task.plan.voters[0]
    model = load_detector(
        tiny_task.plan, stage, whole / stage.name / "model.safetensors", torch.device("cpu")
    )
    assert not model.training


@pytest.mark.parametrize(("stage", "step"), [(0, 1), (0, 3), (1, 3), (2, 4)])
def test_interrupted_fold_ends_with_the_same_bytes(tiny_task, whole, tmp_path, monkeypatch, stage, step):
    import nndet_psma.trainers.stage_run as module

    name = tiny_task.plan.stages[stage].name
    real = module.train_loop

    def stopping(model, losses, batches, of_stage, settings, accelerator):
        observers = [After(step)] if of_stage.name == name else []
        return real(model, losses, batches, of_stage, replace(settings, observers=observers), accelerator)

    monkeypatch.setattr(module, "train_loop", stopping)
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_task, tmp_path)
    assert not (tmp_path / name / "model.safetensors").exists()
    monkeypatch.setattr(module, "train_loop", real)
    torch.manual_seed(4711)
    _train(tiny_task, tmp_path)
    assert _weights(tmp_path) == _weights(whole)


def test_killed_process_ends_with_the_same_bytes(tiny_task, whole, in_task):
    """SIGKILL in the middle of the second stage, then the same command again."""
    options = ["exp.fold=0", "trainer_cfg.iterations=4", *TRAIN_OPTIONS]
    code = "import sys; from nndet_psma.cli.train import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "900", "-o", *options]
    fold = in_task.model / "fold0"
    second = fold / tiny_task.plan.stages[1].name
    process = subprocess.Popen(command, env=environment(in_task), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (second / "checkpoint/progress.json").is_file():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = (fold / "wsi/model.safetensors").stat().st_mtime_ns
    from nndet_psma.cli.train import main

    assert main(["900", "-o", *options]) == 0
    assert _weights(fold) == _weights(whole)
    assert (fold / "wsi/model.safetensors").stat().st_mtime_ns == before
    assert not list(fold.rglob(".tmp-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signalled_command_saves_and_ends_with_the_same_bytes(tiny_task, whole, in_task, number):
    """Ctrl-C or SIGTERM in the second stage, with loader processes; then the same command again."""
    options = ["exp.fold=0", "trainer_cfg.iterations=4", *TRAIN_OPTIONS, "trainer_cfg.num_workers=1"]
    # the signal comes from within a step, so that it is certain which one
    code = (
        "import sys, signal; import nndet_psma.trainers.stage_run as m; real = m.train_loop; calls = []\n"
        "def loop(model, losses, batches, stage, *rest):\n"
        "    def counting(inner, batch):\n"
        "        calls.append(stage.name)\n"
        f"        if len(calls) == 7: signal.raise_signal({int(number)})\n"
        "        return losses(inner, batch)\n"
        "    return real(model, counting, batches, stage, *rest)\n"
        "m.train_loop = loop\n"
        "from nndet_psma.cli.train import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "900", "-o", *options],
        env=environment(in_task), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.count("\n") == 1
    assert "start the same command again to go on" in done.stderr
    fold = in_task.model / "fold0"
    second = fold / tiny_task.plan.stages[1].name
    assert '"step": 3' in (second / "checkpoint/progress.json").read_text()
    assert not (second / "lock.json").exists()
    from nndet_psma.cli.train import main

    assert main(["900", "-o", *options]) == 0
    assert _weights(fold) == _weights(whole)


def test_two_runs_in_one_folder(tiny_task, whole, tmp_path):
    """The second is refused, finished stages need no lock, and the first goes on untouched."""
    from nndet_psma.core.lock import FolderLock

    before = sorted(tmp_path.rglob("*"))
    with FolderLock(tmp_path / "wsi"):
        for overwrite in (False, True):
            with pytest.raises(UserError, match=rf"wsi: another training runs.*process {os.getpid()} on"):
                _train(tiny_task, tmp_path, overwrite=overwrite)
        assert [path.name for path in (tmp_path / "wsi").iterdir()] == ["lock.json"]
    assert before == []
    with FolderLock(whole / "wsi"):
        _train(tiny_task, whole, voter="wsi")


def test_overwrite_clears_the_folder(tiny_task, tmp_path):
    (tmp_path / "wsi/best").mkdir(parents=True)
    (tmp_path / "wsi/failed_step.json").write_text("{}")
    _train(tiny_task, tmp_path, voter="wsi", settings=replace(SETTINGS, iterations=1), overwrite=True)
    assert not (tmp_path / "wsi/best").exists()
    assert not (tmp_path / "wsi/failed_step.json").exists()
    assert not (tmp_path / "wsi/lock.json").exists()


def test_best_of_validation_patients_resumes_too(tiny_task, tmp_path, monkeypatch):
    """Averaged weights, validated after steps 2 and 4; interrupted after step 3."""
    import nndet_psma.trainers.stage_run as module
    from nndet_psma.trainers.checkpoint import Best

    settings = replace(SETTINGS, select="best", validate_every=2, ema_decay=0.9)
    jobs = {name: {"voter": "wsi", "settings": settings} for name in ("straight", "cut")}
    _train(tiny_task, tmp_path / "straight", **jobs["straight"])
    real = module._observers
    monkeypatch.setattr(module, "_observers", lambda *of: [*real(*of), After(3)])
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_task, tmp_path / "cut", **jobs["cut"])
    monkeypatch.setattr(module, "_observers", real)
    _train(tiny_task, tmp_path / "cut", **jobs["cut"])
    assert _weights(tmp_path / "cut") == _weights(tmp_path / "straight")
    best = Best.read(tmp_path / "cut/wsi/best/best.json")
    assert best == Best.read(tmp_path / "straight/wsi/best/best.json")
    assert best.step in (2, 4)
    assert 0 <= best.value <= 1
    assert "average precision at IoU 0.1 on validation patients" in best.criterion
    assert (tmp_path / "cut/wsi/best/model.safetensors").read_bytes() == _weights(tmp_path / "cut")["wsi"]


def test_validation_without_lesions(tiny_task, tmp_path):
    from nndet_psma.artifacts.plan import FoldPlan

    fold = FoldPlan(["case_0", "case_2"], ["case_5"])
    plan = replace(tiny_task.plan, folds=[fold])
    with pytest.raises(
        UserError, match=r"no validation case of fold 0 has a lesion.*trainer_cfg\.select=last"
    ):
        _train(tiny_task, tmp_path, plan=plan, voter="wsi", settings=replace(SETTINGS, select="best"))


def test_compiled_backbone_keeps_its_names(tiny_task, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    _train(tiny_task, tmp_path, voter="wsi", settings=replace(SETTINGS, iterations=1, compile=True))
    assert compiled == ["IntermediateLayerGetter"]
    assert "backbone.body.conv1.weight" in load_file(tmp_path / "wsi/model.safetensors")


def test_channels_last_is_another_order_only(tiny_task, whole, tmp_path):
    _train(tiny_task, tmp_path, voter="wsi", settings=replace(SETTINGS, channels_last=True))
    ours, theirs = (load_file(folder / "wsi/model.safetensors") for folder in (tmp_path, whole))
    moved = {name: (ours[name].float() - theirs[name].float()).abs().max() for name in ours}
    assert max(moved.values()) < 0.02  # AdamW makes a step of its rate from a gradient of rounding size


def test_workers_train_the_same_weights(tiny_task, whole, tmp_path):
    _train(tiny_task, tmp_path, settings=replace(SETTINGS, num_workers=2), voter="wsi")
    assert _weights(tmp_path)["wsi"] == _weights(whole)["wsi"]


def test_finished_stages_are_not_touched(tiny_task, whole):
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*") if file.is_file()}
    _train(tiny_task, whole)
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*") if file.is_file()} == before


def test_one_voter_and_what_it_starts_from(tiny_task, whole, tmp_path):
    voter = tiny_task.plan.voters[1].name
    _train(tiny_task, tmp_path, voter=voter)
    assert set(_weights(tmp_path)) == {"wsi", voter}
    assert _weights(tmp_path)[voter] == _weights(whole)[voter]


def test_no_iterations_write_the_weights_that_a_stage_starts_from(tiny_task, tmp_path):
    """So a voter starts exactly from the whole-slice weights."""
    _train(tiny_task, tmp_path, settings=replace(SETTINGS, iterations=0))
    weights = _weights(tmp_path)
    assert set(weights) == {stage.name for stage in tiny_task.plan.stages}
    assert len(set(weights.values())) == 1


def test_voter_with_more_channels_starts_from_the_same_response(tiny_task, tmp_path):
    plan = tiny_task.plan
    both = [window.name for window in plan.windows]
    stages = [plan.stages[0], replace(plan.stages[1], windows=both)]
    wide = replace(plan, stages=stages, postproc_grid={**plan.postproc_grid, "min_votes": [1]})
    _train(tiny_task, tmp_path, plan=wide, settings=replace(SETTINGS, iterations=0))
    narrow = load_file(tmp_path / "wsi/model.safetensors")
    widened = load_file(tmp_path / plan.stages[1].name / "model.safetensors")
    name = "backbone.body.conv1.weight"
    assert widened[name].shape[1] == 2 * narrow[name].shape[1]
    torch.testing.assert_close(widened[name].sum(1), narrow[name].sum(1))
    assert all(torch.equal(widened[key], narrow[key]) for key in narrow if key != name)


def test_other_settings_or_plan_are_refused(tiny_task, whole):
    plan = tiny_task.plan
    first, second = (json.dumps(fold.train) for fold in plan.folds[:2])
    for changes, told in (
        (
            {"settings": replace(SETTINGS, learning_rate=0.5)},
            "trainer_cfg.learning_rate was at its default, is 0.5",
        ),
        (
            {"plan": replace(plan, margin_mm=plan.margin_mm + 1)},
            f"plan.margin_mm was {plan.margin_mm}, is {plan.margin_mm + 1}",
        ),
        ({"fold": 1}, f"train was {first}, is {second}"),
    ):
        with pytest.raises(
            UserError, match=r"wsi: was trained from another plan.*train\.mode=overwrite"
        ) as refused:
            _train(tiny_task, whole, **changes)
        assert told in str(refused.value)


def test_a_folder_without_a_record_of_what_it_was_trained_from_is_judged_by_its_hash(
    tiny_task, whole, tmp_path
):
    shutil.copytree(whole, tmp_path / "old")
    for file in (tmp_path / "old").rglob("identity.json"):
        file.unlink()
    _train(tiny_task, tmp_path / "old")
    with pytest.raises(UserError, match=r"wsi: was trained from another plan"):
        _train(tiny_task, tmp_path / "old", settings=replace(SETTINGS, learning_rate=0.5))


def test_changed_data_are_refused(tiny_task, whole, tmp_path):
    from nndet_psma.preprocess.store import read_case, write_case

    place = tiny_task.copy(tmp_path)
    name = place.plan.folds[0].train[0]
    case = read_case(place.store, name)
    write_case(place.store, replace(case, arrays={k: v + 1 for k, v in case.arrays.items()}), "new files")
    with pytest.raises(UserError, match="another plan, fold, configuration or data"):
        _train(place, whole)


def test_overwrite_trains_again(tiny_task, tmp_path):
    _train(tiny_task, tmp_path, voter="wsi", settings=replace(SETTINGS, iterations=0))
    first = _weights(tmp_path)
    _train(tiny_task, tmp_path, voter="wsi", settings=replace(SETTINGS, iterations=2), overwrite=True)
    assert _weights(tmp_path) != first
    assert (tmp_path / "wsi/metrics.csv").is_file()


def test_hash_changes_with_what_matters_only(tiny_task):
    plan = tiny_task.plan
    voter, last = plan.voters
    start = stage_hash(plan, voter, 0, SETTINGS)
    shifted = [
        Window(plan.windows[0].name, plan.windows[0].lower - 1, plan.windows[0].upper),
        *plan.windows[1:],
    ]
    different = [
        stage_hash(replace(plan, windows=shifted), voter, 0, SETTINGS),
        stage_hash(replace(plan, detector=replace(plan.detector, nms_iou=0.7)), voter, 0, SETTINGS),
        stage_hash(replace(plan, seed=1), voter, 0, SETTINGS),
        stage_hash(replace(plan, batch_size=3), voter, 0, SETTINGS),
        stage_hash(replace(plan, optimizer="sgd"), voter, 0, SETTINGS),
        stage_hash(plan, last, 0, SETTINGS),
        stage_hash(plan, voter, 1, SETTINGS),
        stage_hash(plan, replace(voter, start_from=None), 0, SETTINGS),
        stage_hash(plan, voter, 0, replace(SETTINGS, learning_rate=0.5)),
        stage_hash(plan, voter, 0, SETTINGS, ["other data"]),
        stage_hash(plan, voter, 0, replace(SETTINGS, ema_decay=0.9)),
        stage_hash(plan, voter, 0, replace(SETTINGS, precision="fp16")),
        stage_hash(plan, voter, 0, replace(SETTINGS, select="best")),
        stage_hash(plan, voter, 0, replace(SETTINGS, select="best", validate_every=2)),
        # the ancestor's schedule
        stage_hash(
            replace(plan, stages=[replace(plan.stages[0], learning_rate=0.7), *plan.stages[1:]]), voter, 0, SETTINGS
        ),
    ]  # fmt: skip
    assert plan.optimizer == "adamw"
    assert len({start, *different}) == 1 + len(different)
    same = [
        stage_hash(plan, voter, 0, replace(SETTINGS, num_workers=5, save_every=1, log_every=1)),
        stage_hash(plan, voter, 0, replace(SETTINGS, pictures_every=0, validate_every=2, channels_last=True)),
        stage_hash(replace(plan, postproc_grid={}, decisions={}, made_from="x"), voter, 0, SETTINGS),
    ]
    assert same == [start, start, start]


def test_mixed_precision_needs_a_gpu(tiny_task, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"mixed precision bf16 needs a GPU.*trainer_cfg\.precision"):
        _train(tiny_task, tmp_path, settings=replace(SETTINGS, precision="bf16"))


def test_registered():
    assert TRAINERS["MaskRCNN25D"] is MaskRCNN25D
    with pytest.raises(UserError, match=r"unknown trainer \(module\) 'Foo'; expected one of MaskRCNN25D"):
        TRAINERS["Foo"]
