"""What the detectors of the embedded engine share: prepared cases in a store, stages of training, voters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.artifacts.model_folder import WEIGHTS, ModelFolder
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.registry import trusted_code
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.systems.box_system import BoxSystem
from nndet_psma.systems.staged_system import StagedSystem
from nndet_psma.systems.system import Facts, OpenOptions, PlanJob, TrainJob, TuneJob
from nndet_psma.trainers.settings import TrainerSettings

if TYPE_CHECKING:
    from nndet_psma.inference.case_predictor import CasePredictor
    from nndet_psma.postproc.sweep.case import SweepCase
    from nndet_psma.trainers.cost.stage_load import StageLoad, StageLoads

DP = TypeVar("DP", bound=DetectorPlan)


class DetectorSystem(
    StagedSystem[DP, DetectorOptions], BoxSystem[DP, DetectorOptions, TrainerSettings], Generic[DP]
):
    """A detector trained in stages on the store; planner and trainer are found by their registered names."""

    options_type = DetectorOptions
    searched_without_ctv: ClassVar[str] = "the whole-slice detector searches whole slices"

    def check_plan(self, plan: DP, file: Path) -> None:
        """A planner or trainer that nobody knows, and what :class:`BoxSystem` refuses."""
        from nndet_psma.planners.registry import PLANNERS
        from nndet_psma.trainers.registry import TRAINERS

        for key, registry, name in (
            ("planner", PLANNERS, plan.planner),
            ("trainer", TRAINERS, plan.trainer),
        ):
            # a dotted path is imported where it is used: importing trainers takes seconds
            if name not in registry and "." not in name:
                raise UserError(
                    f"unknown {key} '{name}'", file=file, expected=f"one of {', '.join(registry)}"
                )
        super().check_plan(plan, file)

    @abstractmethod
    def stage_load(self, plan: DP, stage: Stage) -> StageLoad:
        """What training a stage asks of a machine."""

    def stage_loads(self, plan: DP) -> StageLoads:
        """Of all stages of a plan, by name."""
        return {stage.name: self.stage_load(plan, stage) for stage in plan.stages}

    def make_plan(self, job: PlanJob[DP, DetectorOptions, TrainerSettings]) -> DP:
        """The plan of the planner that the configuration names."""
        from nndet_psma.planners.registry import PLANNERS

        with trusted_code():  # the user's own configuration names it
            planner = PLANNERS[job.config.planner]()
        plan: Any = planner.plan(
            job.fingerprint,
            job.config.plan_cfg,
            plan_id=job.config.plan,
            trainer=job.config.module,
            target=job.target,
            folds=job.folds,
        )
        made: DP = plan  # a planner makes plans of its own system
        return made

    def prepare(self, job: PlanJob[DP, DetectorOptions, TrainerSettings], plan: DP) -> list[str]:
        """Build the store."""
        from nndet_psma.preprocess.build import build_store

        store = job.paths.store(plan.data_identifier)
        return build_store(store, list(job.cases), job.description, plan, job.processes)

    def check_prepared(self, job: TrainJob[DP, DetectorOptions, TrainerSettings], prepared: DP) -> list[str]:
        """The store's cases; raw data need not be on the machine that trains."""
        from nndet_psma.preprocess.build import preprocessing_hash

        if preprocessing_hash(job.plan, "") != preprocessing_hash(prepared, ""):
            raise UserError(
                "plan_overwrites change how images are preprocessed, which has happened already",
                file=job.paths.plan(job.config.plan),
                remedy="Give these overwrites to nndet_prep, too (with -o prep.overwrite=true)",
            )
        store = job.paths.store(job.plan.data_identifier)
        if not store.is_dir():
            raise UserError(
                "the cases are not preprocessed for this plan", file=store, remedy="Run nndet_prep"
            )
        return [each.name for each in store.iterdir() if each.is_dir() and not each.name.startswith(".")]

    def train(self, job: TrainJob[DP, DetectorOptions, TrainerSettings]) -> None:
        """Train the stages with the trainer that the configuration names."""
        from nndet_psma.trainers.registry import TRAINERS, FoldJob

        if job.plan.target.device == "cpu" and _gpu_visible():
            LOGGER.warning(
                "the plan is a small one for the CPU; nndet_prep -o plan_cfg.target=gpu plans for this GPU"
            )
        settings, voter = job.config.trainer_cfg, job.config.exp.voter
        store = job.paths.store(job.plan.data_identifier)
        with trusted_code():  # the user's own configuration names it
            trainer = TRAINERS[job.config.module]()
        trainer.train(FoldJob(job.plan, job.fold, store, job.folder, settings, job.overwrite, voter))

    def inputs(self, job: TrainJob[DP, DetectorOptions, TrainerSettings]) -> dict[str, str]:
        """Hash of every prepared case of the fold."""
        from nndet_psma.preprocess.store import inputs_hash

        fold = job.plan.folds[job.fold]
        store = job.paths.store(job.plan.data_identifier)
        return {case_id: inputs_hash(store, case_id) for case_id in (*fold.train, *fold.val)}

    def jobs_per_gpu(self, plan: DP, settings: TrainerSettings, memory_gb: float) -> int:
        """By the planner's estimate of the largest stage."""
        from nndet_psma.jobs.slots import jobs_per_gpu

        return jobs_per_gpu(plan, self.stage_loads(plan), settings, memory_gb)

    def open(self, model: ModelFolder, fold: int, options: OpenOptions) -> CasePredictor:
        """All voters of the fold, or of the consolidated model."""
        from nndet_psma.systems.detector_predictor import DetectorPredictor

        return DetectorPredictor(model, fold, options)

    def validate(self, job: TuneJob[DetectorOptions, TrainerSettings], fold: int) -> None:
        """Raw boxes of the fold's validation cases, on the store."""
        from nndet_psma.inference.predictor import choose_device
        from nndet_psma.inference.tuning import predict_validation

        plan = job.model.plan(fold, self.plan_type)
        inference = job.config.inference_kwargs
        predict_validation(
            job.model,
            fold,
            job.paths.store(plan.data_identifier),
            device=choose_device(inference.device),
            batch_size=inference.batch_size,
        )

    def sweep_cases(
        self, job: TuneJob[DetectorOptions, TrainerSettings], plan: DP, files: Sequence[Path]
    ) -> list[SweepCase]:
        """Boxes on the store's grid."""
        from nndet_psma.inference.tuning import sweep_case, volume_case
        from nndet_psma.postproc.steps.order import step_order
        from nndet_psma.postproc.steps.settings import PostprocSettings

        store = job.paths.store(plan.data_identifier)
        volumes = step_order(PostprocSettings(**plan.postproc_defaults).steps, plan.box_dim).dim == 3
        return [volume_case(file, store) if volumes else sweep_case(file, store) for file in files]

    def check_weights(self, folder: Path, plan: DP, folds: Sequence[int]) -> None:
        """Build every detector with its weights; the first that does not fit is named."""
        import torch

        from nndet_psma.trainers.registry import TRAINERS

        trainer = TRAINERS[plan.trainer]()
        for fold in folds:
            for stage in plan.stages:
                file = folder / f"fold{fold}" / stage.name / WEIGHTS
                trainer.load(plan, stage, file, torch.device("cpu"))

    def facts(self, plan: DP, precision: str = "no") -> Facts:
        """Voters by their windows, and the estimated cost."""
        from nndet_psma.trainers.cost.cost import cost_rows

        amount = len(plan.voters)
        summary = "One detector looks at the images."
        if amount > 1:
            summary = (
                f"{amount} detectors look at the images, each with its own view of the HU scale, and vote."
            )
        return Facts(
            summary,
            spacing=plan.spacing,
            margin_mm=None if plan.ctv_modality is None else plan.margin_mm,
            slices_seen=2 * plan.neighbours + 1,
            windows=plan.windows,
            voters=_voter_names(plan),
            trainings=len(plan.stages),
            cost=cost_rows(plan, self.stage_loads(plan), precision=precision),
        )


def _voter_names(plan: DetectorPlan) -> Mapping[str, str]:
    """A voter of one window is called by its window."""
    windows = {window.name: f"{window.lower:g} to {window.upper:g} HU" for window in plan.windows}
    return {
        stage.name: windows[stage.windows[0]]
        for stage in plan.voters
        if len(stage.windows) == 1 and stage.windows[0] in windows
    }


def _gpu_visible() -> bool:
    import torch

    return torch.cuda.is_available()
