"""What systems share whose folds are trained in stages by the one training engine: files, steps, curves, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.model_folder import WEIGHTS, ModelFolder
from nndet_psma.jobs.graph import Step
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.systems.system import MetricRows, System
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

SP = TypeVar("SP", bound=DetectorPlan | ClassifierPlan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741

_METRICS = "metrics.csv"


class StagedSystem(System[SP, O, TrainerSettings], Generic[SP, O]):
    """Stages of a fold, each with its folder of weights and curves."""

    settings_type = TrainerSettings
    workers_key = "num_workers"

    def steps(self, plan: SP, settings: TrainerSettings, fold: int) -> list[Step]:
        """The stages."""
        return [
            Step(
                stage.name,
                () if stage.start_from is None else (stage.start_from,),
                adjusted_stage(stage, settings).iterations,
                f"fold{fold}/{stage.name}/{WEIGHTS}",
                f"fold{fold}/{stage.name}",
            )
            for stage in plan.stages
        ]

    def result_settings(self, settings: TrainerSettings) -> dict[str, Any]:
        """All but what belongs to the machine."""
        return settings.result_keys()

    def weights(self, model: ModelFolder, plan: SP, fold: int) -> dict[str, Path]:
        """One file per stage."""
        return {
            f"fold{fold}/{stage.name}/{WEIGHTS}": model.weights(fold, stage.name) for stage in plan.stages
        }

    def curves(self, model: ModelFolder, fold: int, plan: SP) -> tuple[dict[str, MetricRows], list[str]]:
        """``metrics.csv`` of every stage."""
        from nndet_psma.trainers.metrics_log import read_metrics

        found: dict[str, MetricRows] = {}
        absent = []
        for stage in plan.stages:
            file = model.fold(fold) / stage.name / _METRICS
            rows = [row for row in read_metrics(file) if "loss" in row] if file.is_file() else []
            if rows:
                found[stage.name] = rows
            else:
                absent.append(f"metrics.csv is missing ({stage.name} of fold {fold})")
        return found, absent
