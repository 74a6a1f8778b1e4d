"""Two processes on the CPU (gloo) train what one process trains; a checkpoint goes on with another number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import REPOSITORY
from safetensors.torch import load_file
from tiny_place import environment
from train_job import job, train
from two_processes import run_two

from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.trainer import MaskRCNN25D
from nndet_psma.trainers.distributed import global_means, join_processes, on_main, summed, together

SCRIPT = REPOSITORY / "tests" / "samples" / "train_job.py"
# Sums are taken in another order, so weights differ in the last places of fp32. After eight steps the largest
# difference seen was 3e-8 with GroupNorm and 1e-6 in running statistics of batch norm (near 1); draws by process,
# a mean of means and norms that are not shared all make 4e-5 and more.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def _weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {file.parent.name: load_file(file) for file in folder.glob("*/model.safetensors")}


def _assert_close(first: Path, second: Path) -> None:
    one, two = _weights(first), _weights(second)
    assert set(one) == set(two)
    assert len(one) == 2
    for stage in one:
        torch.testing.assert_close(two[stage], one[stage], **TOLERANCE)
    assert not torch.equal(*(state["backbone.body.conv1.weight"] for state in one.values()))  # stages trained


@pytest.fixture(scope="module")
def one(tiny_task, tmp_path_factory):
    """By norm, what one process trains: two stages, mined hard negatives, mask branch, averaged weights."""
    folders = {norm: tmp_path_factory.mktemp(norm) for norm in ("group", "batch")}
    for norm, folder in folders.items():
        MaskRCNN25D().train(job(tiny_task, folder, norm))
    return folders


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_two_processes_train_what_one_trains(tiny_task, one, tmp_path, norm):
    assert run_two(train, tiny_task, tmp_path, norm) == [0, 0]
    _assert_close(one[norm], tmp_path)


def test_stopped_on_two_goes_on_with_one(tiny_task, one, tmp_path):
    """SIGTERM reaches the second process in step 3: both finish it, the first saves, and one process goes on."""
    assert run_two(train, tiny_task, tmp_path, "group", 3) == [143, 143]
    assert '"step": 3' in (tmp_path / "wsi/checkpoint/progress.json").read_text()
    assert not list(tmp_path.glob("*/lock.json"))
    MaskRCNN25D().train(job(tiny_task, tmp_path, "group"))
    _assert_close(one["group"], tmp_path)


@pytest.mark.slow
def test_under_torchrun(tiny_task, one, tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(SCRIPT),
    ]
    done = subprocess.run(
        [*command, str(tiny_task.data), str(tmp_path), "group"],
        env={**environment(tiny_task), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _assert_close(one["group"], tmp_path)


def _check_together() -> None:
    """Rank 0 has 3 boxes of loss 2, rank 1 one box of loss 6: the mean over all four is 3."""
    accelerator = join_processes(2)
    rank = accelerator.process_index
    losses = {"a": torch.tensor([2.0, 6.0][rank]), "none": torch.tensor([1.0, float("nan")][rank])}
    means = global_means(losses, {"a": [3, 1][rank], "none": [2, 0][rank]}, accelerator)
    assert [total / 2 for total in summed(list(means.values()), accelerator)] == [3.0, 1.0]

    def fail_on(which):
        def act():
            if rank == which:
                raise UserError(f"failed on {which}")
            return rank

        return act

    with pytest.raises(UserError, match="failed on 0"):
        on_main(accelerator, fail_on(0))  # told to both
    assert together(accelerator, fail_on(2)) == rank
    expected = "failed on 1" if rank == 1 else "another process of this training stopped"
    with pytest.raises(UserError, match=expected):
        together(accelerator, fail_on(1))
    with pytest.raises(UserError, match="2 processes share a batch of 1 slices"):
        join_processes(1)


def test_means_and_errors_over_processes():
    assert run_two(_check_together) == [0, 0]


def test_one_process_does_the_plain_thing():
    accelerator = join_processes(1)
    losses = {"a": torch.tensor(2.0)}
    assert global_means(losses, {}, accelerator) == losses
    assert summed([torch.tensor(2.0), 3], accelerator) == [2.0, 3.0]
