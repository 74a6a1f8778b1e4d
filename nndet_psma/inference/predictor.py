"""Raw predictions of a case from every voter and fold of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.trainers.registry import TRAINERS, Trainer


@dataclass(frozen=True)
class Voter:
    """One detector: a stage of one fold."""

    stage: Stage
    model: nn.Module


class VoterEnsemble:
    """Holds the detectors of a model and asks them all.

    Args:
        folder: model folder.
        fold: which fold, -1 for the consolidated ensemble.
        source_folds: folds inside the consolidated model; ignored otherwise.
        device: where to run.
        batch_size: slices per forward pass; None takes the training batch.
        tta: also look at mirror images.
        whole_slices: use the whole-slice stage instead of the voters: for images without CTV.

    Raises:
        UserError: weights are missing or do not fit.
    """

    def __init__(
        self,
        folder: ModelFolder,
        fold: int,
        *,
        source_folds: list[int] | None = None,
        device: torch.device,
        batch_size: int | None = None,
        tta: bool = False,
        whole_slices: bool = False,
    ) -> None:
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise UserError(
                f"inference_kwargs.batch_size is {batch_size!r}", expected="null or a number from 1"
            )
        self.plan = folder.plan(fold, DetectorPlan)
        self.trainer: Trainer[Any] = TRAINERS[self.plan.trainer]()
        self.device = device
        self.batch_size = batch_size or self.plan.batch_size
        self.tta = tta
        stages = whole_slice_stages(self.plan) if whole_slices else self.plan.voters
        sources = source_folds if fold == CONSOLIDATED and source_folds is not None else [None]
        files = {
            stage.name: [folder.weights(fold, stage.name, source) for source in sources] for stage in stages
        }
        self.weights_hash = hash_json(
            [
                self.plan.content_hash(),
                hash_files(_existing(files)),
                tta,
                {name: len(f) for name, f in files.items()},
            ]
        )
        self.voters = {
            stage.name: [
                Voter(stage, _watched(self.trainer.load(self.plan, stage, file, device), file))
                for file in files[stage.name]
            ]
            for stage in stages
        }

    def predict(self, case: PreparedCase, image: Geometry, made_from: str) -> RawPrediction:
        """Raw predictions of one case.

        Args:
            case: prepared as in training.
            image: grid of the image file, for the way back.
            made_from: hash to record.
        """
        found = {name: self.ask(voters, case) for name, voters in self.voters.items()}
        first = next(iter(self.voters.values()))[0].stage
        meta = RawMeta(
            case_id=case.case_id,
            made_from=made_from,
            region="ctv" if first.region == "search" and case.ctv_distance is not None else "body",
            store=case.geometry,
            image=image,
            examined=_examined(case, self.plan, first),
            parts={name: len(parts) for name, parts in found.items()},
        )
        return RawPrediction(meta, found)

    def ask(self, voters: list[Voter], case: PreparedCase) -> list[Detections]:
        """One part per fold and view, fold by fold; the folds of a voter share the slices it looks at."""
        by_view = []
        for mirrored in (False, True) if self.tta else (False,):
            try:
                by_view.append(
                    self.trainer.predict(
                        [voter.model for voter in voters],
                        case,
                        self.plan,
                        voters[0].stage,
                        device=self.device,
                        batch_size=self.batch_size,
                        mirrored=mirrored,
                    )
                )
            except torch.cuda.OutOfMemoryError:
                raise UserError(
                    f"the memory of {self.device} is full with {self.batch_size} images at once",
                    remedy="Use -o inference_kwargs.batch_size with a smaller number",
                ) from None
        return [view[fold] for fold in range(len(voters)) for view in by_view]


def choose_device(name: str) -> torch.device:
    """ "auto" takes the first GPU, else the CPU; other names as in torch.

    Raises:
        UserError: that device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(
            f"unknown device '{name}'",
            expected="auto, cpu, cuda or cuda:N",
            remedy="Leave inference_kwargs.device at auto",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name} asked for",
            found=f"{torch.cuda.device_count()} visible GPUs",
            remedy="Use inference_kwargs.device=cpu",
        )
    return device


def whole_slice_stages(plan: DetectorPlan) -> list[Stage]:
    """Stages that search images without CTV.

    Raises:
        UserError: the plan has none.
    """
    stages = [stage for stage in plan.stages if stage.region == "body"]
    if not stages:
        raise UserError(
            "the model has no whole-slice stage, so it cannot search images without CTV",
            remedy="Provide a CTV file for every case",
        )
    return stages


def _watched(model: nn.Module, file: Path) -> nn.Module:
    """The model, whose layers look at what they answer until it is sound once: looking always would cost time.

    Finite weights, too, can give infinity or NaN, of which a detector makes no box: that must not pass for a healthy
    patient.
    """

    def watch(layer: nn.Module) -> None:
        def look(*arguments: Any) -> None:
            answer = arguments[-1]
            if isinstance(answer, torch.Tensor) and not bool(torch.isfinite(answer).all()):
                raise UserError(
                    "the network answers with NaN or infinity",
                    file=file,
                    remedy="Its weights are broken: train it again, or ask for the file again",
                )
            handle.remove()

        handle = layer.register_forward_hook(look)

    for layer in model.modules():
        if next(layer.children(), None) is None:
            watch(layer)
    return model


def _existing(files: dict[str, list[Path]]) -> list[Path]:
    listed = [file for of_stage in files.values() for file in of_stage]
    for file in listed:
        if not file.is_file():
            raise UserError(
                "weights are missing", file=file, remedy="Run nndet_train (and nndet_consolidate) again"
            )
    return listed


def _examined(case: PreparedCase, plan: DetectorPlan, stage: Stage) -> tuple[float, ...]:
    region = stage_region(case, plan, stage)
    y0, x0, y1, x1 = region.box
    return float(region.slices.min()), y0, x0, float(region.slices.max() + 1), y1, x1
