"""Training: curves of every stage, and what it cost against what was estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nndet_psma.report.charts.charts import training_chart, validation_chart
from nndet_psma.report.model_source import ModelSource
from nndet_psma.report.page.content import Block, Folded, Missing, Note, Section, Table
from nndet_psma.report.training_cost import CostRow, compared_rows
from nndet_psma.trainers.watch.memory_check import MemoryCheck


def training_section(source: ModelSource) -> Section:
    """Loss and validation curves of every fold and stage, numbers of their ends, cost."""
    section = Section("training", "Training")
    stages = source.stages
    chart = training_chart(stages, source.metrics)
    if chart is not None:
        section.blocks.append(chart)
        checked = validation_chart(stages, source.metrics)
        if checked is not None:
            section.blocks.append(checked)
        section.blocks.append(Folded("Numbers of every stage", [_ends(source)]))
    if "metrics" in source.missing:
        section.blocks.append(source.missing["metrics"])
    elif chart is None:
        section.blocks.append(Note("This system keeps no training curves."))
    if source.facts.cost_note:
        section.blocks.append(Note(source.facts.trained_note or f"Cost: {source.facts.cost_note}."))
    if not source.facts.cost:
        return section
    section.blocks.extend(_cost(source))
    section.blocks.append(memory_table(source.memory) if source.memory else _no_memory(source))
    return section


def _ends(source: ModelSource) -> Table:
    rows = [
        [f"fold {fold}", name, f"{rows[-1]['step']:.0f}", f"{rows[-1]['loss']:.3f}", _speed(rows[-1])]
        for fold, stages in source.metrics.items()
        for name, rows in stages.items()
        if rows
    ]
    return Table("End of every training", ("Fold", "Stage", "Steps", "Last loss", "Slices per second"), rows)


def _speed(row: Mapping[str, float]) -> str:
    return f"{row['images_per_second']:.1f}" if "images_per_second" in row else "–"


def _cost(source: ModelSource) -> list[Block]:
    """The planner's estimate beside what the folds' files tell."""
    rows = compared_rows(source.facts.cost, source.cost, source.facts.trainings * len(source.plan.folds))
    table = Table(
        "Cost of the training: estimated by the planner, and measured",
        ("Of", "Estimated", "Measured", "The estimate is"),
        [[_cost_name(row), row.value, row.measured or "not known", row.evidence] for row in rows],
    )
    if not source.cost.stages:
        return [table, Missing("measured cost: no stage has left its metrics.csv.")]
    text = (
        "Measured hours are those of the logged steps of finished stages; validation, checkpoints and waiting are not "
        "counted. The estimate takes the speed named in its last column, not that of this machine: where other work "
        "ran beside the training, the two differ."
    )
    return [table, Note(text)]


def _cost_name(row: CostRow) -> str:
    name = row.key.removeprefix("cost.")
    return {"total": "whole task", "memory": "memory", "cost": "cost"}.get(name, f"stage {name}")


def memory_table(checks: Sequence[tuple[str, MemoryCheck]]) -> Table:
    """GPU memory of every stage that left a ``memory.json``."""
    rows = [
        [
            f"{fold}, {check.stage}",
            f"{check.estimated_gb:.2f}",
            f"{check.measured_gb:.2f}",
            f"{check.ratio:.2f}",
            f"{check.batch_size} slices of {check.input_size[0]} × {check.input_size[1]}, {check.device}",
        ]
        for fold, check in checks
    ]
    header = ("Stage", "Estimated, GB", "Measured, GB", "Ratio", "Load")
    return Table("GPU memory of the training, without CUDA's own (memory.json)", header, rows)


def _no_memory(source: ModelSource) -> Block:
    if source.plan.target.device == "gpu":
        return Missing("GPU memory: no stage has left a memory.json (it was not trained on a GPU).")
    return Note("GPU memory: none was used; this plan is for a CPU, so there is no memory.json.")
