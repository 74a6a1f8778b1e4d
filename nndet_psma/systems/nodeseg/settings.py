"""``trainer_cfg`` of node segmentation: what changes a run without changing the plan."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain, to_plain
from nndet_psma.systems.nodeseg.plan import SegmentationTraining

_OF_THE_RUN = ("num_gpus", "workers", "compile", "validate")
MACHINE_KEYS = {
    "num_gpus": "they share the planned batch",
    "workers": "cut patches as chance has it, however many they are",
    "compile": "changes results by rounding at most",
    "validate": "predicts after the training",
    "save_every": "a checkpoint changes nothing",
}
"""Keys that may differ between an interrupted run and the one that goes on, and why. Every other key counts."""


@dataclass(frozen=True)
class NodeSegSettings:
    """Keys of ``trainer_cfg``; None keeps the plan's value.

    Attributes:
        epochs: see ``SegmentationTraining``, as the next ones.
        iterations: steps per epoch.
        validation_iterations: validation batches per epoch.
        learning_rate: at the start.
        loss: what is minimised.
        augmentation: of patches.
        save_every: epochs between checkpoints.
        seed: of weights, patches and augmentation.
        num_gpus: GPUs that train together; None as planned.
        workers: processes that cut patches; None: none on a CPU, which makes runs repeatable, else nnU-Net's number.
        compile: ``torch.compile`` the network.
        validate: let nnU-Net predict its validation cases in the end, for ``nnUNetv2_find_best_configuration``.
    """

    epochs: int | None = None
    iterations: int | None = None
    validation_iterations: int | None = None
    learning_rate: float | None = None
    loss: Literal["dice_ce", "dice", "tversky", "tversky_ce"] | None = None
    augmentation: Literal["nnunet", "dwi2022", "none"] | None = None
    save_every: int | None = None
    seed: int | None = None
    num_gpus: int | None = None
    workers: int | None = None
    compile: bool = False
    validate: bool = True

    def changes(self) -> dict[str, Any]:
        """Settings of the plan's training that are set here."""
        names = [each.name for each in fields(self) if each.name not in _OF_THE_RUN]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def result_keys(self, planned: SegmentationTraining) -> dict[str, Any]:
        """The training as it will be, as plain values, but for what changes no weights."""
        training = to_plain(self.training(planned))
        return {name: value for name, value in training.items() if name not in MACHINE_KEYS}

    def training(self, planned: SegmentationTraining) -> SegmentationTraining:
        """The plan's training with what is set here.

        Raises:
            UserError: a value out of range.
        """
        try:
            return from_plain(SegmentationTraining, {**to_plain(planned), **self.changes()}, "trainer_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(
                f"configuration: {error}", remedy="nndet_psma config prints every key with its default"
            ) from None
