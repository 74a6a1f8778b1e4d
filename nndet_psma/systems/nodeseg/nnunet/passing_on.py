"""A segmentation as it is passed on: safetensors and JSON outside, nnU-Net's folders and checkpoints again inside.

The archive has ``foldK/nnunet/model.safetensors``, ``plans.json``, ``dataset.json`` and ``checkpoint.json``. The two
files of nnU-Net hold only what :mod:`~nndet_psma.systems.nodeseg.nnunet.network_files` knows: no case is named there.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodeseg.nnunet.model import (
    CHECKPOINT,
    FINAL,
    SegmentationModel,
    inside,
    weights_place,
)
from nndet_psma.systems.nodeseg.nnunet.network_files import DATASET, PLANS, NetworkFiles, read_network_files
from nndet_psma.systems.nodeseg.nnunet.predictor import build_network, check_axes
from nndet_psma.systems.nodeseg.nnunet.weights import (
    check_fit,
    read_checkpoint,
    unique_weights,
    with_every_name,
    write_checkpoint,
)
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.trainers.networks.weights import check_finite


@dataclass(frozen=True)
class CheckpointNote(Artifact):
    """``checkpoint.json``: what checkpoints of nnU-Net hold beside weights and prediction asks for.

    Attributes:
        trainer_name: of nnU-Net's trainer.
        configuration: of nnU-Net's plans.
        mirrored_axes: of a patch (0 is z) along which training mirrored; None for none.
    """

    schema: ClassVar[str] = "nndet_psma.nodeseg_checkpoint"
    remade_by: ClassVar[str] = "nndet_psma export-model"

    trainer_name: str
    configuration: str
    mirrored_axes: list[int] | None


def write_weights(
    model: ModelFolder, plan: NodeSegPlan, source: int, folds: Sequence[int], scratch: Path
) -> dict[str, Path]:
    """The weights of ``folds`` as safetensors below ``scratch``, by their place in the archive.

    Raises:
        UserError: weights are missing or damaged.
    """
    written = {}
    for fold in folds:
        content = read_checkpoint(SegmentationModel(model).checkpoint(plan, source, fold))
        file = scratch / weights_place(fold)
        file.parent.mkdir(parents=True)
        save_file(unique_weights(content["network_weights"]), file)
        written[weights_place(fold)] = file
    return written


def texts(
    model: ModelFolder, plan: NodeSegPlan, source: int, folds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights.

    Raises:
        UserError: nnU-Net's files are not those that this package writes, or folds were mirrored differently.
    """
    segmentation = SegmentationModel(model)
    files = read_network_files(segmentation.trained(plan, source), plan)
    notes = [_note(segmentation.checkpoint(plan, source, fold), plan) for fold in folds]
    if any(note != notes[0] for note in notes):
        raise UserError(
            "the folds were trained differently", file=model.root, remedy="Export each for itself"
        )
    return {PLANS: files.plans, DATASET: files.dataset, CHECKPOINT: notes[0].to_json()}


def check_texts(folder: Path, plan: NodeSegPlan) -> None:
    """Judge the JSON files of an unpacked archive; nothing that they name is imported.

    Raises:
        UserError: says what is wrong.
    """
    read_network_files(folder, plan)
    _read_note(folder, plan)


def take_in(folder: Path, plan: NodeSegPlan, folds: Sequence[int]) -> None:
    """Make nnU-Net's folder with lean checkpoints of an unpacked archive; what it was made from goes away.

    Raises:
        UserError: weights do not fit the plans.
    """
    files, note = read_network_files(folder, plan), _read_note(folder, plan)
    network = _planned_network(files, plan)
    trained = folder / inside(plan)
    for fold in folds:
        weights = _weights(folder / weights_place(fold), network)
        write_checkpoint(
            trained / f"fold_{fold}" / FINAL,
            weights,
            trainer=note.trainer_name,
            configuration=note.configuration,
            mirrored_axes=note.mirrored_axes,
        )
        shutil.rmtree((folder / weights_place(fold)).parents[1])
    write_json(trained / PLANS, files.plans)
    write_json(trained / DATASET, files.dataset)
    for name in (PLANS, DATASET, CHECKPOINT):
        (folder / name).unlink()


def _planned_network(files: NetworkFiles, plan: NodeSegPlan) -> torch.nn.Module:
    """On the device "meta": names and shapes, no memory."""
    manager = PlansManager(files.plans)
    with torch.device("meta"):
        return build_network(manager, manager.get_configuration(plan.configuration), files.dataset)


def _weights(file: Path, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    try:
        given = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            "is no safetensors file",
            file=file,
            found=str(error).splitlines()[0],
            remedy="Export the model again with nndet_psma export-model",
        ) from None
    weights = with_every_name(network, given, file)
    check_fit(network, weights, file)
    check_finite(weights, file)
    return weights


def _note(file: Path, plan: NodeSegPlan) -> CheckpointNote:
    content = read_checkpoint(file)
    axes = content["inference_allowed_mirroring_axes"]
    check_axes(axes, plan, file)
    return CheckpointNote(plan.trainer, plan.configuration, None if axes is None else list(axes))


def _read_note(folder: Path, plan: NodeSegPlan) -> CheckpointNote:
    note = CheckpointNote.read(folder / CHECKPOINT)
    check_axes(note.mirrored_axes, plan, folder / CHECKPOINT)
    if (note.trainer_name, note.configuration) != (plan.trainer, plan.configuration):
        raise UserError(
            "names another trainer or configuration than the plan",
            file=folder / CHECKPOINT,
            expected=f"{plan.trainer}, {plan.configuration}",
            found=f"{note.trainer_name}, {note.configuration}"[:200],
        )
    return note
