"""The training loop on a model of one layer: schedule, resumption, checkpoints, losses that are not finite."""

from __future__ import annotations

import csv
import errno
import json
import signal
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from loop_observers import After, Record, SendSignal
from torch import nn
from torch.utils.data import Dataset

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.trainers.checkpoint import Best, Progress
from nndet_psma.trainers.loop import LoopSettings, train_loop
from nndet_psma.trainers.schedule import build_optimizer, learning_rate
from nndet_psma.trainers.settings import TrainerSettings
from nndet_psma.trainers.stopping import Stopped


class Numbers(Dataset):
    """Item i is a batch drawn from the seed i."""

    def __init__(self, steps: int = 6) -> None:
        self.steps = steps
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        self.asked.append(step)
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return {"x": x, "slices": [f"case_{step}:1"]}


def _losses(model, batch):
    noise = torch.rand(4, 1)  # the model's own chance, as in torchvision's samplers
    return {"fit": ((model(batch["x"]) - noise) ** 2).mean()}


def _stage(iterations: int = 6, **changes) -> Stage:
    values = {
        "learning_rate": 0.1,
        "milestones": [min(4, iterations)],
        "warmup": min(2, iterations),
        **changes,
    }
    return Stage("s", "search", [], None, True, iterations, **values)


def _settings(folder, **changes) -> LoopSettings:
    """Changes of ``trainer_cfg`` and of the loop's own settings by name."""
    names = {field.name for field in fields(TrainerSettings)} - {"seed", "clip_norm"}
    values = {"made_from": "abc", "seed": 3, "num_workers": 0, "save_every": 2, "log_every": 1, **changes}
    trainer = TrainerSettings(**{name: values.pop(name) for name in names & set(values)})
    return LoopSettings(folder=folder, trainer=trainer, **values)


def _train(folder, batches=None, stage=None, losses=_losses, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    return train_loop(
        model, losses, batches or Numbers(), stage or _stage(), _settings(folder, **changes), Accelerator(cpu=True)
    )  # fmt: skip


def _same(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_learning_rate_by_hand():
    """Warm-up 0.001 + 0.999 * step / 4, then a tenth from 6 and again from 8."""
    stage = _stage(10, learning_rate=0.01, milestones=[6, 8], warmup=4)
    rates = [learning_rate(stage, step) for step in range(10)]
    rising = [0.01 * (0.001 + 0.999 * step / 4) for step in range(4)]
    assert rates == pytest.approx([*rising, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert learning_rate(_stage(warmup=0), 0) == 0.1


# plain, with averaged weights, and with fp16 and a loss scale that finds its level on the way
VARIANTS = [
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "ema_decay": 0.9},
    {"optimizer": "sgd", "precision": "fp16", "ema_decay": 0.5},
]


def _value(model):
    """Pretends to validate: something that rises and falls from step to step."""
    return float(torch.sin(1e3 * next(model.parameters()).detach().sum()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_interrupted_and_resumed_is_bitwise_the_same(tmp_path, variant, stop_after):
    whole = _train(tmp_path / "whole", **variant)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", observers=[After(stop_after)], **variant)
    torch.manual_seed(1234)  # what else the process drew must not matter
    batches = Numbers()
    resumed = _train(tmp_path / "cut", batches, **variant)
    assert _same(whole, resumed)
    assert batches.asked[0] == 2 * ((stop_after - 1) // 2)  # goes on after the last saved step
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def _rows(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        return [
            (row["step"], row["learning_rate"], row["loss"], row["fit"]) for row in csv.DictReader(handle)
        ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, variant, number, code):
    """With select=best, too: nothing is saved between the steps otherwise (save_every=100)."""
    variant = {**variant, "save_every": 100, "validate": _value, "select": "best", "validate_every": 2}
    whole = _train(tmp_path / "whole", **variant)
    record = Record()
    before = signal.getsignal(number)
    with pytest.raises(
        Stopped, match=r"at step [34], which is saved; start the same command again"
    ) as caught:
        _train(tmp_path / "cut", observers=[SendSignal(3, number), record], **variant)
    assert caught.value.exit_code == code
    assert record.ends == [False]
    assert signal.getsignal(number) is before
    assert Progress.read(tmp_path / "cut/checkpoint/progress.json").step == len(record.reports)
    batches = Numbers()
    assert _same(whole, _train(tmp_path / "cut", batches, **variant))
    assert batches.asked[0] == len(record.reports)
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")
    assert (tmp_path / "cut/best/best.json").read_text() == (tmp_path / "whole/best/best.json").read_text()


def test_signal_in_the_last_step_stops_before_the_next_stage(tmp_path):
    with pytest.raises(Stopped):
        _train(tmp_path, losses=_signalling(6))
    batches = Numbers()
    assert _same(_train(tmp_path, batches), _train(tmp_path / "whole"))
    assert batches.asked == []


def _signalling(step):
    calls = []

    def losses(model, batch):
        calls.append(1)
        if len(calls) == step:
            signal.raise_signal(signal.SIGTERM)
        return _losses(model, batch)

    return losses


def test_second_ctrl_c_does_not_wait(tmp_path):
    def twice(model, batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return _losses(model, batch)

    with pytest.raises(KeyboardInterrupt) as caught:
        _train(tmp_path, losses=twice)
    assert not isinstance(caught.value, Stopped)
    assert not (tmp_path / "checkpoint").exists()


def test_workers_outlive_ctrl_c(tmp_path):
    """A terminal sends it to them, too: the step is finished and saved with all the workers there."""
    import os

    def everybody(model, batch):
        if batch["slices"] == ["case_2:1"]:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            assert len(children) >= 2
            for pid in map(int, children):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        return _losses(model, batch)

    with pytest.raises(Stopped, match="at step 3"):
        _train(tmp_path, losses=everybody, num_workers=2)
    assert _same(_train(tmp_path, num_workers=2), _train(tmp_path / "whole"))


def test_observers_are_told_every_step_in_order(tmp_path):
    first, second = Record(), Record()
    model = _train(tmp_path, observers=[first, second])
    assert [report.step for report in first.reports] == [1, 2, 3, 4, 5, 6]
    assert first.reports == second.reports
    report = first.reports[4]
    assert (report.iterations, report.images, report.batch["slices"]) == (6, 1, ["case_4:1"])
    assert report.learning_rate == learning_rate(_stage(), 4)
    assert report.losses["loss"] == report.losses["fit"] > 0
    assert report.seconds > 0
    assert (first.ends, second.ends) == ([True], [True])
    assert model is not None


def test_seconds_are_those_of_the_steps(tmp_path):
    """Every step sleeps 20 ms, every observer 50 ms, which do not count."""
    import time

    def slow(model, batch):
        time.sleep(0.02)
        return _losses(model, batch)

    record = Record()
    _train(tmp_path, losses=slow, observers=[record, After(2, lambda: time.sleep(0.5))])
    seconds = [report.seconds for report in record.reports]
    assert min(seconds) >= 0.02
    assert seconds[2] < 0.4


def test_all_observers_hear_of_an_error(tmp_path):
    record = Record()
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, observers=[After(2), record])
    assert record.ends == [False]


def test_average_of_the_weights_is_returned(tmp_path):
    """Six steps without learning but one: the average by hand, decays (1 + n) / (10 + n)."""
    record = []

    class Weights(Record):
        def on_step(self, report, model):
            record.append(model[0].weight.detach().clone())

    plain = _train(tmp_path / "plain", observers=[Weights()])
    averaged = _train(tmp_path / "averaged", ema_decay=0.999)
    start = nn.Linear(3, 5)
    torch.manual_seed(0)
    start = nn.Linear(3, 5).weight.detach()
    expected = start
    for n, weight in enumerate(record, start=1):
        decay = (1 + n) / (10 + n)
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged[0].weight, expected)
    assert not torch.equal(averaged[0].weight, plain[0].weight)
    assert averaged[1].num_batches_tracked == 6


def test_best_weights_are_those_of_the_highest_value(tmp_path):
    """Values 0.5, 0.9, 0.7 after steps 2, 4, 6; the first of equal ones would stay."""
    values, states = [0.5, 0.9, 0.7], []

    def validate(model):
        assert not model.training
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return values[len(states) - 1]

    model = _train(tmp_path, validate=validate, validate_every=2, select="best", criterion="made up")
    assert all(torch.equal(v, states[1][k]) for k, v in model.state_dict().items())
    assert Best.read(tmp_path / "best/best.json") == Best(4, 0.9, "made up")
    with (tmp_path / "metrics.csv").open() as handle:
        assert [row["val_ap"] for row in csv.DictReader(handle)] == ["", "0.5", "", "0.9", "", "0.7"]
    last = _train(tmp_path / "last", validate=lambda model: 1.0, validate_every=4)
    assert Best.read(tmp_path / "last/best/best.json").step == 4  # kept, but not taken
    assert not _same(last, model)
    assert _same(last, _train(tmp_path / "never"))


def test_metrics_hold_one_row_per_logged_step(tmp_path):
    _train(tmp_path, log_every=4)
    steps = [row[0] for row in _rows(tmp_path)]
    assert steps == ["4", "6"]  # the last step is always logged
    assert [float(row[1]) for row in _rows(tmp_path)] == pytest.approx([0.1, 0.01])


def test_finished_loop_takes_no_further_step(tmp_path):
    first = _train(tmp_path)
    batches = Numbers()
    assert _same(first, _train(tmp_path, batches))
    assert batches.asked == []


def test_planned_optimiser():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    sgd = build_optimizer(model, _stage(), "sgd", momentum=0.8, weight_decay=0.01)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.8, 0.01)
    assert len(sgd.param_groups[0]["params"]) == 1
    assert isinstance(build_optimizer(model, _stage(), "adamw"), torch.optim.AdamW)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(5), nn.GroupNorm(1, 5), nn.LayerNorm(5)])
def test_weight_decay_may_leave_norms_alone(norm):
    model = nn.Sequential(nn.Linear(3, 5), norm)
    layers, norms = build_optimizer(model, _stage(), "sgd", weight_decay=0.01, norm_decay=False).param_groups
    assert [p.shape for p in layers["params"]] == [(5, 3), (5,)]
    assert [p is q for p, q in zip(norms["params"], (norm.weight, norm.bias), strict=True)] == [True, True]
    assert (layers["weight_decay"], norms["weight_decay"]) == (0.01, 0.0)


def test_checkpoint_of_something_else_is_refused(tmp_path):
    _train(tmp_path)
    with pytest.raises(
        UserError, match=r"checkpoint: checkpoint belongs to another plan.*train\.mode=overwrite"
    ):
        _train(tmp_path, made_from="other")


def _spoilt_at(step, factor):
    def losses(model, batch):
        bad = batch["slices"] == [f"case_{step - 1}:1"]
        return {"fit": (model(batch["x"]) ** 2).mean() * (factor if bad else 1.0)}

    return losses


def test_loss_that_is_not_finite_names_the_slices_and_keeps_the_checkpoint(tmp_path):
    explode = _spoilt_at(4, float("nan"))
    with pytest.raises(
        UserError, match=r"step 4 of stage 's' has a loss that is not finite; found .*nan.*case_3:1"
    ):
        _train(tmp_path, losses=explode)
    assert '"step": 2' in (tmp_path / "checkpoint/progress.json").read_text()
    failed = json.loads((tmp_path / "failed_step.json").read_text())
    assert (failed["step"], failed["slices"], failed["losses"]["loss"]) == (4, ["case_3:1"], "nan")
    assert all(torch.isfinite(v).all() for v in _train(tmp_path).state_dict().values())
    assert not (tmp_path / "failed_step.json").exists()


def test_exploding_loss_stops(tmp_path):
    stage, steps = _stage(14, learning_rate=1e-4), {"save_every": 5}
    with pytest.raises(UserError, match=r"step 12 of stage 's' has a loss more than 1000 times the usual"):
        _train(tmp_path, Numbers(14), stage, losses=_spoilt_at(12, 1e6), **steps)
    assert Progress.read(tmp_path / "checkpoint/progress.json").step == 10
    _train(tmp_path / "early", Numbers(14), stage, losses=_spoilt_at(9, 1e6), **steps)  # too early to judge


def test_gradient_that_is_not_finite_stops(tmp_path):
    def steep(model, batch):
        return {"fit": torch.sqrt((model(batch["x"]) * 0).abs().sum())}  # 0, with the slope of a root at 0

    with pytest.raises(UserError, match=r"step 1 of stage 's' has gradients that are not finite"):
        _train(tmp_path, losses=steep)


def test_fp16_leaves_steps_out_and_gives_up_after_fifty(tmp_path):
    def steep(model, batch):
        return {"fit": torch.sqrt((model(batch["x"]) * 0).abs().sum())}

    with pytest.raises(UserError, match=r"step 50 .*last of 50 in a row whose fp16 gradients are not finite"):
        _train(tmp_path, Numbers(60), _stage(60), losses=steep, precision="fp16", save_every=49)
    progress = Progress.read(tmp_path / "checkpoint/progress.json")
    assert (progress.skipped, progress.skipped_in_row, progress.step) == (49, 49, 49)
    assert progress.scaler["scale"] == 2.0 ** (16 - 49)
    with pytest.raises(UserError, match="step 50 "):  # the count is kept in the checkpoint
        _train(tmp_path, Numbers(60), _stage(60), losses=steep, precision="fp16")


def test_a_flipped_bit_of_the_optimiser_is_noticed(tmp_path):
    """Weights have a checksum of their own; a moment of the optimiser would have changed the training unnoticed."""
    with pytest.raises(Stopped):
        _train(tmp_path, losses=_signalling(4))
    file = tmp_path / "checkpoint/optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"optimizer\.pt: differs from what was written.*train\.mode=overwrite"
    ):
        _train(tmp_path)


def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    real, calls = Path.write_bytes, []

    def full(self, content):
        calls.append(self.name)
        if len(calls) == 4:  # the optimiser of the second checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="checkpoint: the disk is full"):
        _train(tmp_path)
    assert calls[-1].endswith("optimizer.pt")
    assert '"step": 2' in (tmp_path / "checkpoint/progress.json").read_text()
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    assert _same(_train(tmp_path), _train(tmp_path / "whole"))


def test_full_gpu_says_what_to_lower(tmp_path):
    def full(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"GPU is full in step 1 of stage 's'\. Lower it"):
        _train(tmp_path, losses=full, out_of_memory=lambda: "Lower it")


@pytest.mark.parametrize(("limit", "length"), [(0.5, 0.5), (0.0, 2.0)])
def test_gradients_are_clipped_unless_the_limit_is_0(tmp_path, limit, length):
    """The gradient of twice the bias of the last layer is 2, of nothing else; the rate is 1."""

    def steep(model, batch):
        return {"fit": 2 * model[-1].bias.sum() + 0 * model(batch["x"]).sum()}

    still = _train(tmp_path / "still", stage=_stage(0))
    moved = _train(
        tmp_path / "moved", stage=_stage(1, learning_rate=1.0, warmup=0), losses=steep,
        clip_norm=limit, weight_decay=0.0,
    )  # fmt: skip
    pairs = zip(still.parameters(), moved.parameters(), strict=True)
    squares = [float((a - b).detach().pow(2).sum()) for a, b in pairs]
    assert sum(squares) ** 0.5 == pytest.approx(length, rel=1e-4)


def test_learning_overfits_one_batch(tiny_task):
    """The tiny detector on one batch, 40 steps: the loss must fall to less than half."""
    from dataclasses import replace

    from nndet_psma.artifacts.detector_plan import Augmentation
    from nndet_psma.systems.psma25d.batches import SliceBatches
    from nndet_psma.systems.psma25d.network import build_detector

    plan = replace(tiny_task.plan, augmentation=Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    stage = replace(plan.stages[-1], iterations=40, learning_rate=0.003, milestones=[], warmup=5)
    batch = SliceBatches(tiny_task.store, plan, stage, ["case_0", "case_1"], 4, 0)[0]
    torch.manual_seed(0)
    model = build_detector(plan.detector, plan.channels(stage), 1).train()
    optimizer = build_optimizer(model, stage, "adamw")
    history = []
    for step in range(stage.iterations):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step)
        loss = sum(model(list(batch["images"]), batch["targets"]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
