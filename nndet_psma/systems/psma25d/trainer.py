"""Trainer of the central system: whole-slice pretraining, then one search-region detector per HU window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.systems.psma25d.batches import SliceBatches
from nndet_psma.systems.psma25d.mining import hard_negatives, keep_scores, mine, mined_before
from nndet_psma.systems.psma25d.pictures import SlicePictures, centre_channel
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.planning.cost import SliceLoad, stage_load, what_to_lower
from nndet_psma.systems.psma25d.predict import predict_region, predict_slices
from nndet_psma.systems.psma25d.selection import CRITERION, match_slices
from nndet_psma.systems.psma25d.starting import load_detector, starting_detector
from nndet_psma.trainers.box_stage import BoxStageSystem
from nndet_psma.trainers.checkpoint import MODEL_FILE
from nndet_psma.trainers.distributed import gather, on_main, together
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.selection import BoxHits
from nndet_psma.trainers.stage_run import FINISHED_FILE, train_stages
from nndet_psma.trainers.stage_system import StageRun
from nndet_psma.trainers.watch.memory_check import gpu_room
from nndet_psma.trainers.watch.pictures import Shade

Run = StageRun[PSMA25DPlan]


@TRAINERS.register
class MaskRCNN25D:
    """Trains the stages of ``psma25d`` (Xu et al. 2023, figure 2)."""

    def train(self, job: FoldJob[PSMA25DPlan]) -> None:
        """Train every stage of the fold that is not finished; see :class:`FoldJob`."""
        train_stages(job, _SliceSystem())

    def load(self, plan: PSMA25DPlan, stage: Stage, file: Path, device: torch.device) -> nn.Module:
        """See :func:`nndet_psma.systems.psma25d.starting.load_detector`."""
        return load_detector(plan, stage, file, device)

    def predict(
        self,
        models: Sequence[nn.Module],
        case: PreparedCase,
        plan: PSMA25DPlan,
        stage: Stage,
        *,
        device: torch.device,
        batch_size: int,
        mirrored: bool,
    ) -> list[Detections]:
        """2D boxes; the slices of the case are prepared once for all models."""
        region = stage_region(case, plan, stage)
        return predict_region(
            models, case, plan, stage, region, device=device, batch_size=batch_size, mirrored=mirrored
        )


class _SliceSystem(BoxStageSystem[PSMA25DPlan]):
    """The torchvision detector on slices, with hard negatives mined between stages."""

    criterion = CRITERION

    def model(self, run: Run) -> nn.Module:
        """The stage's detector with the weights of the stage before, of the user, or of the plan."""
        return starting_detector(run.job.plan, run.stage, run.start)

    def batches(self, run: Run) -> SliceBatches:
        """Slices of the fold's training cases."""
        hard = _hard_negatives(run)
        batches: SliceBatches = together(run.accelerator, lambda: SliceBatches(
            run.job.store, run.job.plan, run.stage, run.train_cases, run.batch_size, run.seed, hard
        ))  # fmt: skip
        return batches

    def counts(self, model: nn.Module) -> dict[str, int]:
        """Anchors and boxes that were drawn."""
        plain: Any = model
        anchors, boxes = plain.rpn.fg_bg_sampler, plain.roi_heads.fg_bg_sampler
        return {
            "loss_objectness": anchors.drawn,
            "loss_rpn_box_reg": anchors.drawn,
            "loss_classifier": boxes.drawn,
            "loss_box_reg": boxes.drawn,
            "loss_mask": boxes.positives,
        }

    def predict(self, run: Run, model: nn.Module, case: PreparedCase) -> Detections:
        """Boxes of the stage's slices."""
        device = run.accelerator.device
        return predict_slices(model, case, run.job.plan, run.stage, device=device, batch_size=run.images)

    def match(self, run: Run, found: Detections, case: PreparedCase) -> BoxHits:
        """Boxes against the lesions of their slices."""
        return match_slices(found, case, run.job.plan, run.stage)

    def load(self, run: Run) -> SliceLoad:
        """Of slices."""
        return stage_load(run.job.plan, run.stage)

    def pictures(self, run: Run) -> SlicePictures:
        """Of slices, the centre one in the first window."""
        plan = run.job.plan
        shade = Shade(plan.detector.input_mean, plan.detector.input_std)
        every = run.job.settings.pictures_every
        return SlicePictures(run.folder, every, centre_channel(plan.neighbours), shade)

    def remedy(self, run: Run) -> str:
        """The batch that fits by the planner's estimate."""
        room = gpu_room(run.accelerator.device)
        return what_to_lower(run.job.plan, run.stage, run.images, run.training, *room)

    def compile(self, model: nn.Module) -> None:
        """The ResNet: what follows changes shape in every step."""
        model.get_submodule("backbone.body").compile()

    def after(self, run: Run) -> None:
        """Mine once for all stages that start from this one: they may be trained side by side."""
        children = [stage for stage in run.job.plan.stages if stage.start_from == run.stage.name]
        for child in {stage.region: stage for stage in children}.values():
            _hard_negatives(replace(run, stage=child))


def _hard_negatives(run: Run) -> list[str]:
    """Slices that fooled the stage this one starts from; none where it starts from the backbone alone."""
    job, stage = run.job, run.stage
    if stage.start_from is None or job.plan.hard_negative_fraction == 0:
        return []
    folder = job.folder / stage.start_from
    made_from = hash_json([(folder / FINISHED_FILE).read_text(), stage.region])
    # all or none mine, whatever each of them sees on a slow file system
    known = gather(run.accelerator, mined_before(folder, made_from))
    scores: dict[str, float] | None = known[0]
    if scores is None:
        mined = gather(run.accelerator, together(run.accelerator, lambda: _mine_share(run)))
        scores = {name: score for part in mined for name, score in part.items()}
        kept = scores
        on_main(run.accelerator, lambda: keep_scores(folder, made_from, kept))
    hard = hard_negatives(scores)
    LOGGER.info("stage %s: %d of %d slices without a lesion are hard", stage.name, len(hard), len(scores))
    return hard


def _mine_share(run: Run) -> dict[str, float]:
    job, device = run.job, run.accelerator.device
    parent = job.plan.stage(str(run.stage.start_from))
    model = load_detector(job.plan, parent, job.folder / parent.name / MODEL_FILE, device)
    return mine(
        model, job.store, run.share(run.train_cases), job.plan, parent, run.stage,
        device=device, batch_size=run.images, advance=run.lock.beat,
    )  # fmt: skip
