"""How the segmentation network learns: schedule by machine, sampling by how rare and how unequal nodes are."""

from __future__ import annotations

import math
from dataclasses import replace

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Decision, Target
from nndet_psma.planners.ledger import Ledger
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import SegmentationTraining

_GPU = (1000, 250, 50, 50)  # epochs, steps, validation batches, epochs between checkpoints: nnU-Net's
_CPU = (30, 20, 4, 5)
_RARE = 1e-3  # share of the searched volume
_NNUNET_FOREGROUND = 0.33
_LEAST_CASE_SHARE = 0.67
_RATES = {"sgd": 1e-2, "adam": 1e-4}  # nnU-Net, dwi2022


def choose_training(
    ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions, target: Target
) -> SegmentationTraining:
    """Settings of ``nnUNetTrainerNodeSeg``, each with its rule and evidence."""
    cpu = target.device == "cpu"
    epochs, iterations, validation, save = _CPU if cpu else _GPU
    share = _foreground_share(ledger, fingerprint, options)
    cases = _case_share(ledger, fingerprint, options)
    volumes = sorted(lesion.volume_mm3 for lesion in fingerprint.lesions)
    ledger.note(
        "training.node_balance",
        "1: patches are centred on every node equally often",
        f"the largest node has {volumes[-1] / max(volumes[0], 1e-9):.0f} times the volume of the smallest",
    )
    epochs = options.epochs or epochs
    iterations = options.iterations or iterations
    ledger.note(
        "training.epochs",
        "plan_cfg.epochs" if options.epochs else "CPU: a small budget" if cpu else "nnU-Net's 1000",
        f"{epochs} of {iterations} steps",
    )
    rate = options.learning_rate or _RATES[options.optimizer]
    ledger.note("training.learning_rate", "nnU-Net: SGD at 0.01; dwi2022: Adam at 0.0001", options.optimizer)
    ledger.note("training.loss", "plan_cfg.loss", "nnU-Net: Dice and cross-entropy; dwi2022: Dice")
    ledger.note("training.augmentation", "plan_cfg.augmentation", "nnU-Net's unless asked otherwise")
    return SegmentationTraining(
        loss=options.loss,
        tversky_alpha=options.tversky_alpha,
        tversky_beta=options.tversky_beta,
        optimizer=options.optimizer,
        learning_rate=rate,
        schedule=options.schedule,
        patience=options.patience,
        epochs=epochs,
        iterations=iterations,
        validation_iterations=options.validation_iterations or validation,
        augmentation=options.augmentation,
        mirror=True if options.mirror is None else options.mirror,
        foreground_share=share,
        case_share=cases,
        node_balance=options.node_balance,
        save_every=save,
        seed=options.seed,
    )


def epoch_steps(
    training: SegmentationTraining, options: NodeSegOptions, batch_size: int
) -> tuple[SegmentationTraining, dict[str, Decision]]:
    """The training whose epochs show ``plan_cfg.epoch_images`` images in batches that memory holds, and why.

    The last batch of an epoch is full. Unchanged where no number of images is asked for, or one of steps.
    """
    images = options.epoch_images
    if images is None or options.iterations is not None:
        return training, {}
    steps = math.ceil(images / batch_size)
    evidence = f"{training.epochs} of {steps} steps: {images} images in batches of {batch_size}"
    why = {"training.epochs": Decision("plan_cfg.epochs, plan_cfg.epoch_images", evidence)}
    return replace(training, iterations=steps), why


def _foreground_share(ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions) -> float:
    searched = sum(case.ctv_volume_mm3 or case.body_volume_mm3 or 0.0 for case in fingerprint.cases)
    nodes = sum(lesion.volume_mm3 for lesion in fingerprint.lesions)
    rare = nodes < _RARE * searched
    evidence = f"nodes fill {nodes / searched:.2%} of the searched volume" if searched else "volume unknown"
    if options.foreground_share is not None:
        ledger.note("training.foreground_share", "plan_cfg.foreground_share", evidence)
        return options.foreground_share
    rule = f"half where nodes fill less than {_RARE:.1%}, else nnU-Net's third"
    ledger.note("training.foreground_share", rule, evidence)
    return 0.5 if rare else _NNUNET_FOREGROUND


def _case_share(ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions) -> float:
    positive = sum(bool(case.lesions) for case in fingerprint.cases)
    evidence = f"{positive} of {len(fingerprint.cases)} cases have a node"
    if options.case_share is not None:
        ledger.note("training.case_share", "plan_cfg.case_share", evidence)
        return options.case_share
    few = positive < _LEAST_CASE_SHARE * len(fingerprint.cases)
    rule = (
        "two thirds of the draws where fewer cases have a node; a case without one cannot be centred on one"
    )
    ledger.note("training.case_share", rule, evidence)
    return _LEAST_CASE_SHARE if few else 0.0
