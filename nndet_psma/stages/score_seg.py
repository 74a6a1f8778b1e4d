"""Stage score seg: masks of nodes against a reference, as dwi2022 scores them: voxels, nodes, sizes and patients.

Three groups are scored: all nodes, the suspicious ones, and the largest of each case. A node belongs to a group by its
own measured size, on either side: a true node of 8.5 mm that was predicted with 7.5 mm is missed among the suspicious.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.labels import CONNECTIVITY, Connectivity
from nndet_psma.core.atomic import write_json, write_text
from nndet_psma.core.csv_table import read_table, write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.evaluation.masks.node_detection import (
    NodeDetection,
    detect_nodes,
    paired_nodes,
    touching_nodes,
)
from nndet_psma.evaluation.masks.pooled_segmentation import PooledSegmentation, pool_segmentation
from nndet_psma.evaluation.masks.segmentation_scores import SegmentationScores, segmentation_scores
from nndet_psma.evaluation.statistics.agreement import PatientAgreement, patient_agreement
from nndet_psma.evaluation.statistics.bland_altman import LimitsOfAgreement, bland_altman
from nndet_psma.evaluation.statistics.pearson import Correlation, pearson
from nndet_psma.evaluation.statistics.proportion import Proportion
from nndet_psma.nodes.measurement import NodeMeasurement, measure_nodes
from nndet_psma.nodes.staging import NodalStage, StagingRule, stage_nodes
from nndet_psma.report.structured.agreement_page import agreement_page
from nndet_psma.stages.measure import BOXES_SUFFIX, NodeSource, input_files, label_nodes

SCORES_JSON, CASES_CSV, SIZES_CSV, PAGE = (
    "seg_scores.json",
    "seg_cases.csv",
    "node_sizes.csv",
    "agreement.html",
)
GROUPS = ("all", "suspicious", "largest")
QUANTITIES = {"short_diameter_mm": ("Short diameter", "mm"), "volume_ml": ("Volume", "ml")}


@dataclass(frozen=True)
class SegJob:
    """What to score.

    Attributes:
        predictions: folder of masks, ``CASE.nii.gz``.
        truth: folder of masks of the same cases.
        rule: when a node is suspicious.
        nodes: as of :class:`~nndet_psma.stages.measure.MeasureJob`.
        connectivity: of components.
        patients: CSV with columns case_id and patient_id (``clinical.csv``); None takes every case for a patient.
        target: folder for tables and plots; None writes nothing.
        draws: of the bootstrap over patients.
        soft: as of :class:`~nndet_psma.stages.measure.MeasureJob`.
    """

    predictions: Path
    truth: Path
    rule: StagingRule = field(default_factory=StagingRule)
    nodes: NodeSource = "auto"
    connectivity: Connectivity = CONNECTIVITY
    patients: Path | None = None
    target: Path | None = None
    draws: int = 1000
    soft: bool = False


@dataclass(frozen=True)
class SegCase:
    """Scores of one case; groups by name, sizes as pairs (predicted, true) of nodes that belong together."""

    case_id: str
    groups: dict[str, SegmentationScores]
    nodes: dict[str, NodeDetection]
    sizes: dict[str, list[tuple[NodeMeasurement, NodeMeasurement]]]
    stages: tuple[NodalStage, NodalStage]


@dataclass(frozen=True)
class NodeScores:
    """Detection of one group of nodes, all cases together."""

    counts: NodeDetection
    precision: Proportion
    recall: Proportion
    f1: float | None


@dataclass(frozen=True)
class SizeAgreement:
    """Predicted against true sizes of one group of nodes."""

    correlation: Correlation
    limits: LimitsOfAgreement


@dataclass(frozen=True)
class SegScores:
    """Everything; dictionaries go by group, ``sizes`` by group and quantity."""

    cases: int
    patients: int
    segmentation: dict[str, PooledSegmentation]
    detection: dict[str, NodeScores]
    sizes: dict[str, dict[str, SizeAgreement]]
    staging: PatientAgreement


def score_seg(job: SegJob) -> SegScores:
    """Score all cases.

    Raises:
        UserError: no masks, a case on one side only, masks on different grids, or an unreadable file.
    """
    found, true = (input_files([side], masks_only=True) for side in (job.predictions, job.truth))
    different = sorted(set(found) ^ set(true))
    if different:
        side = job.truth if different[0] in found else job.predictions
        raise UserError(
            f"has no mask of case {different[0]}",
            file=side,
            expected="the same cases on both sides",
            found=f"{len(different)} cases differ",
            remedy="Give all-zero masks to cases without nodes",
        )
    for file in [*found.values(), *true.values()]:
        if file.name.endswith(BOXES_SUFFIX):
            raise UserError("is no mask", file=file, remedy="Score boxes with nndet_eval")
    patients = _patients(job.patients, list(found))
    cases = [score_case(case_id, found[case_id], true[case_id], job) for case_id in found]
    scores = combine(cases, patients, job)
    if job.target is not None:
        _write(job.target, cases, patients, scores)
    return scores


def score_case(case_id: str, predicted: Path, true: Path, job: SegJob) -> SegCase:
    """Score one mask against another on the same grid.

    Raises:
        UserError: different grids, or an unreadable file.
    """
    ours, theirs = read_volume(predicted), read_volume(true)
    if not ours.geometry.same_grid(theirs.geometry):
        raise UserError(
            f"the masks of case {case_id} lie on different grids",
            file=predicted,
            expected=f"{theirs.geometry.shape} voxels (z, y, x) in the same place",
            found=str(ours.geometry.shape),
            remedy="Resample one with nearest neighbour",
        )
    one, other = _side(ours, predicted, job), _side(theirs, true, job)
    shared = touching_nodes(one.ids, other.ids)
    groups, nodes, sizes = {}, {}, {}
    for group in GROUPS:
        mine, yours = one.group(group), other.group(group)
        groups[group] = segmentation_scores(one.mask(mine), other.mask(yours), ours.geometry.spacing)
        nodes[group] = detect_nodes(shared, mine, yours)
        sizes[group] = [(one.nodes[a], other.nodes[b]) for a, b in paired_nodes(shared, mine, yours)]
    return SegCase(case_id, groups, nodes, sizes, (one.stage, other.stage))


def combine(cases: Sequence[SegCase], patients: Sequence[str], job: SegJob) -> SegScores:
    """All cases together; a patient is N1 with any case N1."""
    return SegScores(
        len(cases),
        len(set(patients)),
        {
            group: pool_segmentation([case.groups[group] for case in cases], patients, draws=job.draws)
            for group in GROUPS
        },
        {group: _detection([case.nodes[group] for case in cases]) for group in GROUPS},
        {group: _sizes([pair for case in cases for pair in case.sizes[group]]) for group in GROUPS},
        _staging(cases, patients),
    )


@dataclass(frozen=True)
class _Side:
    """One mask: node ids, nodes by id, and its stage."""

    ids: NDArray[np.int32]
    nodes: dict[int, NodeMeasurement]
    stage: NodalStage

    def group(self, name: str) -> set[int]:
        if name == "suspicious":
            return set(self.stage.suspicious)
        if name == "largest":
            return set() if self.stage.largest is None else {self.stage.largest}
        return set(self.nodes)

    def mask(self, nodes: set[int]) -> NDArray[np.bool_]:
        chosen = np.zeros(max(self.nodes, default=0) + 1, dtype=bool)
        chosen[list(nodes)] = True
        found: NDArray[np.bool_] = chosen[self.ids]
        return found


def _side(volume: Volume, file: Path, job: SegJob) -> _Side:
    ids, _ = label_nodes(volume, file, job.nodes, job.connectivity, job.soft)
    nodes = measure_nodes(ids, volume.geometry)
    return _Side(ids, {node.node: node for node in nodes}, stage_nodes(nodes, job.rule))


def _detection(counts: Sequence[NodeDetection]) -> NodeScores:
    total = sum(counts, NodeDetection())
    return NodeScores(
        total,
        Proportion.of(total.right, total.right + total.false),
        Proportion.of(total.found, total.found + total.missed),
        total.f1,
    )


def _sizes(pairs: Sequence[tuple[NodeMeasurement, NodeMeasurement]]) -> dict[str, SizeAgreement]:
    found = {}
    for name in QUANTITIES:
        columns = [[float(getattr(pair[side], name)) for pair in pairs] for side in (0, 1)]
        found[name] = SizeAgreement(pearson(*columns), bland_altman(*columns))
    return found


def _staging(cases: Sequence[SegCase], patients: Sequence[str]) -> PatientAgreement:
    called: dict[str, bool] = {}
    positive: dict[str, bool] = {}
    score: dict[str, float] = {}
    for case, patient in zip(cases, patients, strict=True):
        ours, theirs = case.stages
        called[patient] = called.get(patient, False) or ours.stage == "N1"
        positive[patient] = positive.get(patient, False) or theirs.stage == "N1"
        score[patient] = max(score.get(patient, 0.0), ours.short_mm)
    return patient_agreement(list(called.values()), list(positive.values()), list(score.values()))


def _patients(file: Path | None, cases: Sequence[str]) -> list[str]:
    if file is None:
        return list(cases)
    table = read_table(file)
    by_case: Mapping[str, str] = dict(zip(table.texts("case_id"), table.texts("patient_id"), strict=True))
    if len(by_case) < len(table):
        raise UserError("has several rows of a case", file=file, expected="one row of each case_id")
    missing = [case for case in cases if case not in by_case]
    if missing:
        raise UserError(
            f"has no row of case {missing[0]}",
            file=file,
            expected="every case in column case_id",
            found=f"{len(missing)} cases missing",
            remedy="Add them",
        )
    return [by_case[case] for case in cases]


def _write(folder: Path, cases: Sequence[SegCase], patients: Sequence[str], scores: SegScores) -> None:
    write_json(folder / SCORES_JSON, to_plain(scores))
    names = [each.name for each in fields(SegmentationScores)]
    write_table(
        folder / CASES_CSV, ["case_id", "patient_id", "group", *names], _case_rows(cases, patients, names)
    )
    columns = ["case_id", "group", "predicted_node", "true_node"]
    columns += [f"{side}_{name}" for name in QUANTITIES for side in ("predicted", "true")]
    write_table(folder / SIZES_CSV, columns, _size_rows(cases))
    write_text(folder / PAGE, agreement_page(_columns(cases), QUANTITIES))


def _case_rows(cases: Sequence[SegCase], patients: Sequence[str], names: Sequence[str]) -> list[list[Any]]:
    return [
        [case.case_id, patient, group, *(_cell(getattr(case.groups[group], name)) for name in names)]
        for case, patient in zip(cases, patients, strict=True)
        for group in GROUPS
    ]


def _size_rows(cases: Sequence[SegCase]) -> list[list[Any]]:
    return [
        [case.case_id, group, one.node, other.node]
        + [_cell(float(getattr(node, name))) for name in QUANTITIES for node in (one, other)]
        for case in cases
        for group in GROUPS
        for one, other in case.sizes[group]
    ]


def _columns(cases: Sequence[SegCase]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Predicted and true values by group and quantity."""
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for group in GROUPS:
        pairs = [pair for case in cases for pair in case.sizes[group]]
        found[group] = {
            name: ([getattr(a, name) for a, _ in pairs], [getattr(b, name) for _, b in pairs])
            for name in QUANTITIES
        }
    return found


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.4f}"
