"""The training loop on a model of one layer: schedule, resumption, checkpoints, losses that are not finite."""

from __future__ import annotations

import csv

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from nndet_psma.artifacts.plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.trainers.loop import LoopSettings, build_optimizer, learning_rate, train_loop


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
    values = {"made_from": "abc", "seed": 3, "workers": 0, "save_every": 2, "log_every": 1, **changes}
    return LoopSettings(folder=folder, **values)


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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_interrupted_and_resumed_is_bitwise_the_same(tmp_path, optimizer, stop_after):
    whole = _train(tmp_path / "whole", optimizer=optimizer)

    def interrupt(step, loss):
        if step == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", optimizer=optimizer, on_step=interrupt)
    torch.manual_seed(1234)  # what else the process drew must not matter
    batches = Numbers()
    resumed = _train(tmp_path / "cut", batches, optimizer=optimizer)
    assert _same(whole, resumed)
    assert batches.asked[0] == 2 * ((stop_after - 1) // 2)  # goes on after the last saved step
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def _rows(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        return [
            (row["step"], row["learning_rate"], row["loss"], row["fit"]) for row in csv.DictReader(handle)
        ]


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
    sgd = build_optimizer(model, _stage(), _settings(None, momentum=0.8, weight_decay=0.01))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.8, 0.01)
    assert len(sgd.param_groups[0]["params"]) == 1
    assert isinstance(build_optimizer(model, _stage(), _settings(None, optimizer="adamw")), torch.optim.AdamW)


def test_checkpoint_of_something_else_is_refused(tmp_path):
    _train(tmp_path)
    with pytest.raises(
        UserError, match=r"checkpoint: checkpoint belongs to another plan.*train\.mode=overwrite"
    ):
        _train(tmp_path, made_from="other")


def test_loss_that_is_not_finite_names_the_slices_and_keeps_the_checkpoint(tmp_path):
    def explode(model, batch):
        bad = batch["slices"] == ["case_3:1"]
        return {"fit": model(batch["x"]).mean() * (float("nan") if bad else 1.0)}

    with pytest.raises(UserError, match=r"stage 's' is not finite at step 4; found .*nan.*case_3:1"):
        _train(tmp_path, losses=explode)
    assert '"step": 2' in (tmp_path / "checkpoint/progress.json").read_text()
    assert all(torch.isfinite(v).all() for v in _train(tmp_path).state_dict().values())


def test_gradients_are_clipped(tmp_path):
    def steep(model, batch):
        return {"fit": 1e6 * model(batch["x"]).sum()}

    still = _train(tmp_path / "still", stage=_stage(0))
    moved = _train(
        tmp_path / "moved", stage=_stage(1, learning_rate=1.0, warmup=0), losses=steep,
        clip_norm=0.5, weight_decay=0.0,
    )  # fmt: skip
    pairs = zip(still.parameters(), moved.parameters(), strict=True)
    squares = [float((a - b).detach().pow(2).sum()) for a, b in pairs]
    assert sum(squares) ** 0.5 == pytest.approx(0.5, rel=1e-4)


def test_learning_overfits_one_batch(tiny_task):
    """The tiny detector on one batch, 40 steps: the loss must fall to less than half."""
    from dataclasses import replace

    from nndet_psma.artifacts.plan import Augmentation
    from nndet_psma.models.maskrcnn25d import build_detector
    from nndet_psma.trainers.batches import SliceBatches

    plan = replace(tiny_task.plan, augmentation=Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    stage = replace(plan.stages[-1], iterations=40, learning_rate=0.003, milestones=[], warmup=5)
    batch = SliceBatches(tiny_task.store, plan, stage, ["case_0", "case_1"], 4, 0)[0]
    torch.manual_seed(0)
    model = build_detector(plan.detector, plan.channels(stage), 1).train()
    optimizer = build_optimizer(model, stage, _settings(None, optimizer="adamw"))
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
