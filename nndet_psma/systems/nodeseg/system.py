"""``nodeseg``: nodes segmented by nnU-Net v2; every contiguous segmented region is a node with a box and a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nndet_psma.artifacts.model_folder import PLAN, ModelFolder
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.jobs.graph import Step
from nndet_psma.systems.box_system import BoxSystem
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import VOTER, NodeSegPlan
from nndet_psma.systems.nodeseg.settings import MACHINE_KEYS, NodeSegSettings
from nndet_psma.systems.system import Facts, MetricRows, OpenOptions, PlanJob, TrainJob, TuneJob

if TYPE_CHECKING:
    from nndet_psma.inference.case_predictor import CasePredictor
    from nndet_psma.postproc.sweep.case import SweepCase

STEP = "nnU-Net"
"""A segmentation has one training; this is what it is called beside the stages of detectors."""

_EDITABLE = ("training", "candidates", "postproc_defaults", "postproc_grid")
_NEEDED = "nnunetv2"


class NodeSeg(BoxSystem[NodeSegPlan, NodeSegOptions, NodeSegSettings]):
    """Node segmentation inside nnU-Net; its plans, loop and checkpoints, our choices and thresholds."""

    name = "nodeseg"
    host = "nnunet"
    planner = "NodeSegPlanner"
    trainer = "nnUNetTrainerNodeSeg"
    plan_id = "NodeSeg"
    plan_type = NodeSegPlan
    options_type = NodeSegOptions
    settings_type = NodeSegSettings
    presets = "nndet_psma.systems.nodeseg.presets"
    workers_key = "workers"
    tta = True
    texts: ClassVar[tuple[str, ...]] = ("plans.json", "dataset.json", "checkpoint.json")
    searched_without_ctv: ClassVar[str] = "the body is searched, or the whole image where there is no CT"

    def require(self) -> None:
        """nnU-Net."""
        require_nnunet()

    def make_plan(self, job: PlanJob[NodeSegPlan, NodeSegOptions, NodeSegSettings]) -> NodeSegPlan:
        """Export the cases, let nnU-Net plan with our choices."""
        from nndet_psma.systems.nodeseg.nnunet.prepare import make_plan

        return make_plan(job, lambda plan: self.overwrite(plan, job.config.plan_overwrites))

    def overwrite(self, plan: NodeSegPlan, changes: Mapping[str, Any]) -> NodeSegPlan:
        """``plan_overwrites`` put in; what nnU-Net plans itself is refused, for which ``plan_cfg`` asks."""
        foreign = [key for key in changes if key not in _EDITABLE]
        if foreign:
            raise UserError(
                f"plan_overwrites.{foreign[0]} cannot be put into nnU-Net's plans",
                expected=f"one of {', '.join(_EDITABLE)}",
                remedy="Use plan_cfg for the others",
            )
        return super().overwrite(plan, changes)

    def to_train(self, plan: NodeSegPlan, config: RunConfig[NodeSegOptions, NodeSegSettings]) -> NodeSegPlan:
        """The plan as it is: nnU-Net reads its own, which is made already."""
        if config.exp.voter is not None:
            raise UserError(
                "a segmentation has no voters",
                found=f"exp.voter={config.exp.voter}",
                remedy="Leave exp.voter out",
            )
        if config.plan_overwrites:
            raise UserError(
                "nnU-Net's plans are made by nndet_prep, so plan_overwrites come too late here",
                remedy="Give them to nndet_prep (with -o prep.overwrite=true), or set trainer_cfg",
            )
        return plan

    def hand_over(
        self, job: PlanJob[NodeSegPlan, NodeSegOptions, NodeSegSettings], plan: NodeSegPlan
    ) -> None:
        """Folds and training settings into nnU-Net's files."""
        from nndet_psma.systems.nodeseg.nnunet.prepare import hand_over

        hand_over(job, plan)

    def prepare(
        self, job: PlanJob[NodeSegPlan, NodeSegOptions, NodeSegSettings], plan: NodeSegPlan
    ) -> list[str]:
        """nnU-Net's preprocessing."""
        from nndet_psma.systems.nodeseg.nnunet.prepare import prepare

        return prepare(job, plan)

    def check_prepared(
        self, job: TrainJob[NodeSegPlan, NodeSegOptions, NodeSegSettings], prepared: NodeSegPlan
    ) -> list[str]:
        """Cases that nnU-Net has preprocessed; those of the fold must be among them."""
        from nndet_psma.systems.nodeseg.nnunet.train import prepared_cases

        return prepared_cases(job)

    def train(self, job: TrainJob[NodeSegPlan, NodeSegOptions, NodeSegSettings]) -> None:
        """nnU-Net's loop, checkpoints and resume."""
        from nndet_psma.systems.nodeseg.nnunet.train import train_fold

        train_fold(job)

    def steps(self, plan: NodeSegPlan, settings: NodeSegSettings, fold: int) -> list[Step]:
        """One training per fold."""
        from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel

        training = settings.training(plan.training)
        root = Path()
        result = SegmentationModel(ModelFolder(root)).checkpoint(plan, fold)
        return [Step("", (), training.epochs * training.iterations, str(result))]

    def result_settings(self, settings: NodeSegSettings) -> dict[str, Any]:
        """All but what belongs to the machine."""
        return {name: value for name, value in to_plain(settings).items() if name not in MACHINE_KEYS}

    def open(self, model: ModelFolder, fold: int, options: OpenOptions) -> CasePredictor:
        """The networks of the fold, or of all consolidated folds."""
        require_nnunet()
        from nndet_psma.systems.nodeseg.nnunet.predict import NodeSegPredictor

        return NodeSegPredictor(model, fold, options)

    def validate(self, job: TuneJob[NodeSegOptions, NodeSegSettings], fold: int) -> None:
        """Raw boxes of the fold's validation cases, on the canonical grid of their files."""
        from nndet_psma.systems.nodeseg.nnunet.sweep import predict_validation

        predict_validation(job, fold)

    def sweep_cases(
        self, job: TuneJob[NodeSegOptions, NodeSegSettings], plan: NodeSegPlan, files: Sequence[Path]
    ) -> list[SweepCase]:
        """Boxes on the canonical grid of the files."""
        from nndet_psma.systems.nodeseg.nnunet.sweep import sweep_cases

        return sweep_cases(job.paths, files)

    def weights(self, model: ModelFolder, plan: NodeSegPlan, fold: int) -> dict[str, Path]:
        """nnU-Net's final checkpoint, and its descriptions beside it."""
        from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel

        return SegmentationModel(model).files(plan, fold)

    def copy_weights(self, source: Path, target: Path) -> None:
        """Checkpoints are cut down to weights and plain values: the copy can be given away."""
        from nndet_psma.systems.nodeseg.nnunet.model import FINAL
        from nndet_psma.systems.nodeseg.nnunet.weights import write_lean

        if source.name == FINAL:
            write_lean(source, target)
        else:
            super().copy_weights(source, target)

    def exported(
        self, model: ModelFolder, plan: NodeSegPlan, source: int, folds: Sequence[int], scratch: Path
    ) -> dict[str, Path]:
        """nnU-Net's checkpoints, written anew as safetensors."""
        from nndet_psma.systems.nodeseg.nnunet.passing_on import write_weights

        return write_weights(model, plan, source, folds, scratch)

    def places(self, plan: NodeSegPlan, folds: Sequence[int]) -> set[str]:
        """One file per fold."""
        from nndet_psma.systems.nodeseg.nnunet.model import weights_place

        return {weights_place(fold) for fold in folds}

    def exported_texts(
        self, model: ModelFolder, plan: NodeSegPlan, source: int, folds: Sequence[int]
    ) -> dict[str, dict[str, Any]]:
        """What nnU-Net builds and prepares by, without what only its planning needs."""
        from nndet_psma.systems.nodeseg.nnunet.passing_on import texts

        return texts(model, plan, source, folds)

    def check_texts(self, folder: Path, plan: NodeSegPlan) -> None:
        """Only what our planner writes: nnU-Net imports and calls whatever its plans name."""
        from nndet_psma.systems.nodeseg.nnunet.network_files import check_names

        check_names(plan, folder / PLAN)
        from nndet_psma.systems.nodeseg.nnunet.passing_on import check_texts

        check_texts(folder, plan)

    def take_in(self, folder: Path, plan: NodeSegPlan, folds: Sequence[int]) -> None:
        """nnU-Net's folder with lean checkpoints."""
        from nndet_psma.systems.nodeseg.nnunet.passing_on import take_in

        take_in(folder, plan, folds)

    def curves(
        self, model: ModelFolder, fold: int, plan: NodeSegPlan
    ) -> tuple[dict[str, MetricRows], list[str]]:
        """Of nnU-Net's checkpoint; the consolidated model keeps none."""
        from nndet_psma.systems.nodeseg.nnunet.curves import training_curve

        try:
            rows = training_curve(model, fold, plan)
        except UserError as error:
            return {}, [f"fold {fold}: {error}"]
        return ({STEP: rows}, []) if rows else ({}, [f"fold {fold} has left no log"])

    def facts(self, plan: NodeSegPlan, precision: str = "no") -> Facts:
        """Nothing is known of the cost before nnU-Net's first epoch."""
        return Facts(
            "nnU-Net segments the images; voxels that touch are one lesion.",
            spacing=plan.spacing,
            margin_mm=None if plan.ctv_modality is None else plan.margin_mm,
            windows=plan.windows,
            voters={VOTER: "nnU-Net"},
            cost_note="nnU-Net's training; nothing is known of it before the first epoch, which tells its seconds",
            trained_note="nnU-Net ran this training: its cost was not estimated, and its own log beside the checkpoint "
            "tells the seconds of every epoch.",
        )


def require_nnunet() -> None:
    """Say how to get nnU-Net where it is not installed.

    Raises:
        UserError: it is not.
    """
    from importlib.util import find_spec

    if find_spec(_NEEDED) is None:
        raise UserError(
            "nnU-Net v2 is not installed, which -o train=nodeseg runs in", remedy=f"pip install {_NEEDED}"
        )
