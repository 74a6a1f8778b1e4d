"""Trainer of ``retina3d``: a one-stage 3D detector on patches, in nnDetection's manner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.systems.retina3d.batches import PatchBatches
from nndet_psma.systems.retina3d.network import PatchDetector, build_retinanet3d
from nndet_psma.systems.retina3d.pictures import PatchPictures
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.systems.retina3d.planning.cost import PatchLoad, stage_load, what_to_lower
from nndet_psma.systems.retina3d.predict import predict_patches
from nndet_psma.systems.retina3d.selection import CRITERION, match_volume
from nndet_psma.trainers.box_stage import BoxStageSystem
from nndet_psma.trainers.distributed import together
from nndet_psma.trainers.networks.weights import read_model
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.selection import BoxHits
from nndet_psma.trainers.stage_run import train_stages
from nndet_psma.trainers.stage_system import StageRun
from nndet_psma.trainers.watch.memory_check import gpu_room
from nndet_psma.trainers.watch.pictures import Shade

Run = StageRun[Retina3DPlan]


@TRAINERS.register
class RetinaNet3D:
    """Trains the stages of ``retina3d`` and asks what they trained, patch by patch."""

    def train(self, job: FoldJob[Retina3DPlan]) -> None:
        """Train every stage of the fold that is not finished; see :class:`FoldJob`."""
        train_stages(job, _PatchSystem())

    def load(self, plan: Retina3DPlan, stage: Stage, file: Path, device: torch.device) -> nn.Module:
        """The trained detector of a stage, in evaluation mode.

        Raises:
            UserError: names the layer that is missing, unknown or of another shape.
        """
        model = _build(plan, stage)
        read_model(model, file)
        return model.to(device).eval()

    def predict(
        self,
        models: Sequence[nn.Module],
        case: PreparedCase,
        plan: Retina3DPlan,
        stage: Stage,
        *,
        device: torch.device,
        batch_size: int,
        mirrored: bool,
    ) -> list[Detections]:
        """3D boxes; the patches of the case are read once for all models."""
        return predict_patches(
            models, case, plan, stage, device=device, batch_size=batch_size, mirrored=mirrored
        )


class _PatchSystem(BoxStageSystem[Retina3DPlan]):
    """The RetinaNet on patches; its negatives are mined inside every patch, so none are mined between stages."""

    criterion = CRITERION

    def model(self, run: Run) -> nn.Module:
        """The stage's detector, with the weights of the stage before or of the user where there are any."""
        model = _build(run.job.plan, run.stage)
        if run.start is not None:
            read_model(model, run.start)
        return model

    def batches(self, run: Run) -> PatchBatches:
        """Patches of the fold's training cases."""
        batches: PatchBatches = together(run.accelerator, lambda: PatchBatches(
            run.job.store, run.job.plan, run.stage, run.train_cases, run.batch_size, run.seed
        ))  # fmt: skip
        return batches

    def losses(self, model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Losses of a batch; patches are of one size, so they go in as they are."""
        parts: dict[str, torch.Tensor] = model(batch["images"], batch["targets"])
        return parts

    def counts(self, model: nn.Module) -> dict[str, int]:
        """Anchors, and patches with a lesion, that the losses are means over."""
        plain: Any = model
        counts: dict[str, int] = plain.counts
        return counts

    def predict(self, run: Run, model: nn.Module, case: PreparedCase) -> Detections:
        """3D boxes."""
        device, plan = run.accelerator.device, run.job.plan
        return predict_patches([model], case, plan, run.stage, device=device, batch_size=run.images)[0]

    def match(self, run: Run, found: Detections, case: PreparedCase) -> BoxHits:
        """3D boxes against lesions."""
        return match_volume(found, case, run.job.plan, run.stage)

    def load(self, run: Run) -> PatchLoad:
        """Of patches."""
        return stage_load(run.job.plan, run.stage)

    def pictures(self, run: Run) -> PatchPictures:
        """Of patches, in the first window."""
        detector = run.job.plan.detector3d
        shade = Shade(detector.input_mean, detector.input_std)
        return PatchPictures(run.folder, run.job.settings.pictures_every, shade=shade)

    def remedy(self, run: Run) -> str:
        """The batch that fits by the planner's estimate."""
        room = gpu_room(run.accelerator.device)
        return what_to_lower(run.job.plan, run.stage, run.images, run.training, *room)

    def compile(self, model: nn.Module) -> None:
        """Encoder and pyramid; matching and sampling change shape in every step."""
        model.get_submodule("encoder").compile()
        model.get_submodule("pyramid").compile()


def _build(plan: Retina3DPlan, stage: Stage) -> PatchDetector:
    if plan.neighbours:
        raise UserError(
            f"plan {plan.plan_id} has {plan.neighbours} neighbouring slices as channels",
            expected="neighbours 0: a patch has its neighbours in it",
            remedy="Plan again with nndet_prep -o prep.overwrite=true",
        )
    return build_retinanet3d(plan.detector3d, plan.channels(stage), len(plan.classes))
