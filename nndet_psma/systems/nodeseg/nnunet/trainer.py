"""nnU-Net's trainer for nodes: small ones as often as large ones, choice of loss, the DWI study's schedule.

The settings stand in nnU-Net's plans and may be overridden by a variable, so that ``nnUNetv2_train`` trains the same.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import nn

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.logs import LOGGER
from nndet_psma.systems.nodeseg.nnunet.transforms import SmallAffineTransform, before
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint
from nndet_psma.systems.nodeseg.plan import SegmentationTraining
from nndet_psma.systems.nodeseg.sampling import (
    VALIDATION_VARIABLE,
    BalancedNodes,
    TverskyLoss,
    training_settings,
)

_ROTATION, _SHEAR, _TRANSLATION = 5.0, 5.0, 0.1  # dwi2022


class nnUNetTrainerNodeSeg(nnUNetTrainer):
    """nnU-Net's trainer with the settings of :class:`nndet_psma.systems.nodeseg.plan.SegmentationTraining`.

    The name stands in checkpoints: nnU-Net looks the class up by it when it predicts.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings: SegmentationTraining = training_settings(plans, os.environ)
        self.initial_lr = self.settings.learning_rate
        self.num_epochs = self.settings.epochs
        self.num_iterations_per_epoch = self.settings.iterations
        self.num_val_iterations_per_epoch = self.settings.validation_iterations
        self.oversample_foreground_percent = self.settings.foreground_share
        self.save_every = self.settings.save_every
        self.print_to_log_file(f"node segmentation: {self.settings}")

    def initialize(self) -> None:
        """Seed, then build everything."""
        self._seed(0)
        super().initialize()

    def on_train_epoch_start(self) -> None:
        """Seed by epoch, so that a training that was interrupted goes on as if it had not been."""
        self._seed(self.current_epoch + 1)
        super().on_train_epoch_start()

    def configure_optimizers(self) -> tuple[Any, Any]:
        """SGD of nnU-Net, or Adam; nnU-Net's polynomial decay, or a constant rate."""
        optimizer, scheduler = super().configure_optimizers()
        if self.settings.optimizer == "adam":
            optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr)
            scheduler = type(scheduler)(optimizer, self.initial_lr, self.num_epochs)
        if self.settings.schedule == "constant":
            scheduler = _ConstantRate(optimizer, self.initial_lr)
        return optimizer, scheduler

    def _build_loss(self) -> nn.Module:
        """nnU-Net's loss under deep supervision, its two parts weighed or exchanged."""
        loss: nn.Module = super()._build_loss()
        inner: Any = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
        if self.settings.loss in ("dice", "tversky"):
            inner.weight_ce = 0
        if self.settings.loss.startswith("tversky"):
            batch = bool(self.configuration_manager.batch_dice)
            inner.dc = TverskyLoss(
                self.settings.tversky_alpha,
                self.settings.tversky_beta,
                batch=batch,
                gather=_gathered if self.is_ddp and batch else None,
            )
        return loss

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's data sets; the one for training centres patches on every node alike."""
        training, validation = super().get_tr_and_val_datasets()
        return BalancedNodes(training, self.settings.node_balance, self.settings.case_share), validation

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """As nnU-Net; mirroring may be off, and the patch as cut where nothing turns it by nnU-Net's large angles."""
        rotation, flat, patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.settings.mirror:
            axes, self.inference_allowed_mirroring_axes = (), None
        if self.settings.augmentation != "nnunet":
            patch = list(self.configuration_manager.patch_size)
        return rotation, flat, patch, axes

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's augmentation, the DWI study's, or none but mirroring."""
        if self.settings.augmentation == "nnunet":
            return super().get_training_transforms(*args, **kwargs)
        scales = args[2] if len(args) > 2 else kwargs["deep_supervision_scales"]
        named = ("is_cascaded", "foreground_labels", "regions", "ignore_label")
        plain = super().get_validation_transforms(scales, **{k: v for k, v in kwargs.items() if k in named})
        axes = args[3] if len(args) > 3 else kwargs["mirror_axes"]
        own = [SmallAffineTransform(_ROTATION, _SHEAR, _TRANSLATION)]
        own = own if self.settings.augmentation == "dwi2022" else []
        return before([*own, *([MirrorTransform(axes)] if axes else [])], plain)

    def print_to_log_file(self, *args: Any, **kwargs: Any) -> None:
        """As nnU-Net, which writes a log of its own; also into ``train.log`` of the fold."""
        super().print_to_log_file(*args, **kwargs)
        text = " ".join(map(str, args)).strip()
        if self.local_rank == 0 and text:
            LOGGER.info("nnU-Net: %s", text)

    def run_training(self) -> None:
        """As nnU-Net; ends early when ``patience`` runs out."""
        try:
            super().run_training()
        except _PatienceOverError:
            self.on_train_end()

    def on_epoch_end(self) -> None:
        """As nnU-Net; then looks whether the validation loss has fallen within the last ``patience`` epochs."""
        super().on_epoch_end()
        losses = [float(value) for value in self.logger.get_value("val_losses", step=None)]
        if is_over(losses, self.settings.patience) and self.current_epoch < self.num_epochs:
            self.print_to_log_file(
                f"no lower validation loss for {self.settings.patience} epochs: training ends"
            )
            raise _PatienceOverError

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's prediction of the validation cases, unless switched off: the sweep predicts them, too."""
        if os.environ.get(VALIDATION_VARIABLE, "1") != "0":
            super().perform_actual_validation(save_probabilities)

    def save_checkpoint(self, filename: str) -> None:
        """Write whole or not at all."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_file(Path(filename)) as temporary:
            super().save_checkpoint(str(temporary))

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """As nnU-Net, which unpickles anything: a file is first seen to hold nothing but weights and numbers."""
        if isinstance(filename_or_checkpoint, str):
            read_checkpoint(Path(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)

    def _seed(self, epoch: int) -> None:
        if self.settings.seed is None:
            return
        fold = self.fold if isinstance(self.fold, int) else 99
        seed = hash((self.settings.seed, fold, epoch, self.local_rank)) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class _PatienceOverError(Exception):
    """Leaves nnU-Net's loop over epochs, which has no other way out."""


def is_over(losses: list[float], patience: int | None) -> bool:
    """Whether none of the last ``patience`` losses lies below all before."""
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])


class _ConstantRate:
    """The rate of the start for all epochs; nnU-Net asks nothing else of a schedule than ``step``."""

    def __init__(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        self.optimizer, self.rate = optimizer, rate

    def step(self, current_step: int | None = None) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate


def _gathered(count: torch.Tensor) -> torch.Tensor:
    """Counts of all processes along the first axis."""
    return torch.cat(list(AllGatherGrad.apply(count)))
