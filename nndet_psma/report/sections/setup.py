"""Sections on what was done: plan, data, training, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.report.charts.charts import data_chart, window_chart
from nndet_psma.report.model_source import ModelSource
from nndet_psma.report.page.content import Block, Folded, Missing, Note, Section, Table
from nndet_psma.report.texts import THRESHOLDS, percent


def plan_section(source: ModelSource) -> Section:
    """Windows over the HU histogram, and every decision with its reason."""
    section = Section("plan", "What was planned, and why")
    section.blocks.append(
        Note(
            "Rules turn measurements of the training data into settings; the table names each rule and its evidence. "
            f"{source.facts.summary}"
        )
    )
    if source.fingerprint is None:
        section.blocks.append(source.missing["fingerprint"])
    elif source.facts.windows:
        chart = window_chart(source.fingerprint, source.facts.windows)
        without = Missing("windows over the HU histogram: the training data hold no lesion voxels.")
        section.blocks.append(chart or without)
    rows = [list(row) for row in source.decisions]
    if rows:
        header = ("Setting", "Value", "Rule", "Evidence")
        section.blocks.append(Table("Decisions of the planner", header, rows))
    else:
        section.blocks.append(Missing("decisions: the plan holds none (it was written by hand)."))
    return section


def data_section(source: ModelSource) -> Section:
    """Sizes and counts of the training data, and the folds."""
    section = Section("data", "Training data")
    if source.fingerprint is None:
        section.blocks.append(source.missing["fingerprint"])
    else:
        section.blocks.extend(_data_blocks(source.fingerprint))
    rows = [[f"fold {k}", str(len(f.train)), str(len(f.val))] for k, f in enumerate(source.plan.folds)]
    section.blocks.append(
        Table("Folds (patients never lie in two)", ("Fold", "Training", "Validation"), rows)
    )
    ids = [[f"fold {k}", ", ".join(f.val)] for k, f in enumerate(source.plan.folds)]
    names = Table("Validation cases", ("Fold", "Cases"), ids)
    section.blocks.append(Folded("Which case is validated in which fold", [names]))
    return section


def _data_blocks(fingerprint: Fingerprint) -> list[Block]:
    cases, lesions = fingerprint.cases, fingerprint.lesions
    patients = len({case.patient_id for case in cases})
    facts = [
        ["Cases", str(len(cases))],
        ["Patients", str(patients)],
        ["Lesions", str(len(lesions))],
        ["Cases without lesion", str(sum(not case.lesions for case in cases))],
        ["Search region", _regions(cases)],
        ["Slice thickness, mm", _span([case.spacing[0] for case in cases])],
        ["Pixel size, mm", _span([case.spacing[2] for case in cases])],
        ["Slices per case", _span([float(case.shape[0]) for case in cases])],
        ["Slices per lesion", _span([float(lesion.slices) for lesion in lesions])],
        ["Lesion volume, ml", _span([lesion.volume_mm3 / 1000 for lesion in lesions])],
        ["Short axis of lesions, mm", _span([lesion.short_axis_mm for lesion in lesions])],
    ]
    outside = [lesion.outside_ctv_mm for lesion in lesions if lesion.outside_ctv_mm is not None]
    if outside:
        facts.append(["Lesions reach out of the CTV by, mm", _span(outside)])
    separability = fingerprint.summary.hu_separability
    if separability is not None:
        facts.append(["Lesion voxels told from the search region by HU (AUC)", f"{separability.auc:.2f}"])
    table = Table("Training data in numbers: median (smallest to largest)", ("Property", "Value"), facts)
    return [data_chart(fingerprint), table]


def _regions(cases: list[CaseFingerprint]) -> str:
    with_ctv = sum(case.ctv_box is not None for case in cases)
    return f"CTV in {with_ctv} of {len(cases)} cases" + ("" if with_ctv == len(cases) else ", else the body")


def _span(values: list[float]) -> str:
    if not values:
        return "–"
    ordered = sorted(values)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return f"{median:.3g} ({ordered[0]:.3g} to {ordered[-1]:.3g})"


def provenance_section(source: ModelSource) -> Section:
    """Thresholds and where they come from, hashes, versions."""
    section = Section("provenance", "Where the numbers come from")
    if source.inference is None:
        section.blocks.append(source.missing["inference"])
    else:
        section.blocks.extend(_thresholds(source.inference))
    facts = [
        ["Task", source.task],
        ["Model", source.model],
        ["Plan", f"{source.plan.plan_id} by {source.plan.planner}, hash {source.plan.content_hash()}"],
        ["Plan made from fingerprint", source.plan.made_from],
        ["Planned for", _target(source)],
        *_made_from(source.inference),
        ["Seed", str(source.plan.seed)],
        ["Intervals", _interval_text(source)],
        ["Page written by", f"nndet_psma {package_version()} on {source.date}"],
    ]
    section.blocks.append(Table("The model", ("What", "Value"), facts))
    section.blocks.extend(_environments(source))
    return section


def _target(source: ModelSource) -> str:
    """Planned machine; the memory of a CPU is not planned for where it is 0."""
    target = source.plan.target
    return f"{target.device}, {target.memory_gb:g} GB" if target.memory_gb else target.device


def _made_from(inference: InferencePlan | None) -> list[list[str]]:
    """What the thresholds belong to; nothing where they were never tuned."""
    if inference is None or not inference.made_from:
        return []
    return [["Thresholds made from", f"raw predictions with hash {inference.made_from}"]]


def package_version() -> str:
    """Of the installed package; "of a source folder" where it is not installed."""
    try:
        return version("nndet_psma")
    except PackageNotFoundError:
        return "of a source folder"


def _thresholds(inference: InferencePlan) -> list[Block]:
    value = "" if inference.value is None else f", which reached {inference.value:.3f} there"
    goal = f" They maximise {inference.criterion} on those cases{value}." if inference.criterion else ""
    rows = []
    for key, (name, meaning) in THRESHOLDS.items():
        if key in inference.settings:
            rows.append([name, _setting(inference.settings[key]), meaning])
    header = ("Threshold", "Value", "Meaning")
    folds = ", ".join(str(fold) for fold in inference.folds)
    blocks: list[Block] = [
        Note(f"Thresholds: {inference.source}.{goal} Weights of folds {folds} predict together.")
    ]
    if rows:
        blocks.append(Table("Thresholds of the post-processing", header, rows))
    return blocks


def _setting(value: Any) -> str:
    """Thresholds are numbers, or the name of a rule."""
    return "off" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _interval_text(source: ModelSource) -> str:
    scores = source.scores
    drawn = f"{scores.bootstrap_draws} draws of patients, seed {scores.seed}"
    return f"{percent(scores.level)}, {scores.intervals}, from {drawn}"


def _environments(source: ModelSource) -> list[Block]:
    """One table; folds trained in the same environment share a column."""
    if not source.environments:
        return [source.missing["environment"]]
    groups: dict[str, list[int]] = {}
    flat = {fold: _flat(content) for fold, content in source.environments.items()}
    for fold, values in flat.items():
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(fold)
    columns = [(", ".join(f"fold {f}" for f in folds), flat[folds[0]]) for folds in groups.values()]
    keys = list(dict.fromkeys(key for _, values in columns for key in values))
    rows = [[key, *(values.get(key, "–") for _, values in columns)] for key in keys]
    return [Table("Environment of the training", ("What", *(name for name, _ in columns)), rows)]


def _flat(content: Mapping[str, Any]) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            values |= {str(name): str(inner) for name, inner in value.items()}
        else:
            values[f"{key} hash" if key in ("plan", "config") else str(key)] = str(value)
    return values
