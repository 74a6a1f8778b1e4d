"""Planner of ``nodestatus``: crops, sampling, network and schedule from the nodes of the training cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from nndet_psma.artifacts.candidate_table import UNKNOWN_STATION
from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.classifier_plan import (
    ClassifierNetwork,
    CropAugmentation,
    CropPlan,
    Sampling,
)
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.histogram import Histogram
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.instance_notes import read_measured, read_stations, read_unknown
from nndet_psma.planners.classifier_options import ClassifierOptions
from nndet_psma.planners.classifier_rules import (
    FEW_OF_A_CLASS,
    MANY_OBJECTS,
    class_folds,
    crop_margin,
    crop_shape,
    crop_side,
    crop_spacing,
    refuse_lonely_stations,
    training_stage,
)
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.shared import note_machine, refuse_options
from nndet_psma.planners.windows import make_window, quantile_windows
from nndet_psma.preprocess.object_features import CTV, FEATURES
from nndet_psma.systems.nodestatus.plan import NodeStatusPlan
from nndet_psma.systems.system import PlanJob
from nndet_psma.trainers.classifier.sampling import Sampler, mixed_stations
from nndet_psma.trainers.settings import TrainerSettings

Job = PlanJob[NodeStatusPlan, ClassifierOptions, TrainerSettings]

BLIND = "blind"
_TAILS_PERCENT = (0.5, 2.0)  # the widest and the narrowest of Xu et al. 2023
_SOFT_TISSUE = (-125.0, 225.0)
_BATCH = 32
_RATE = 1e-3  # AdamW, batch 32
_WIDTHS = {"cpu": [16, 32, 64, 128], "gpu": [32, 64, 128, 256]}
_VGG_WIDTHS = [64, 128, 256, 512, 512]
_MEANINGLESS: dict[str, object] = {
    "margin_coverage": 0.99,
    "min_margin_mm": 6.48,
    "margin_mm": None,
    "patch_size": None,
}


def plan_node_status(job: Job) -> NodeStatusPlan:
    """The plan.

    Raises:
        UserError: no CT, not two classes, no node of a class, all positive nodes in one patient, a station named once,
            or stations that cannot be balanced.
    """
    options, fields = job.config.plan_cfg, job.fields()
    refuse_options(options, job.config.planner, _MEANINGLESS)
    if fields["ct_modality"] is None or len(job.description.labels) != 2:
        raise UserError(
            f"{job.config.planner} needs a CT and two classes",
            file=job.paths.root,
            expected='"labels": {"0": "negative_node", "1": "positive_node"}',
            found=f"modalities {', '.join(job.description.modalities.values())}; "
            f"classes {', '.join(job.description.labels.values())}",
        )
    nodes, ledger = _Nodes(job), Ledger()
    note_machine(ledger, job.target)
    folds = _folds(job, nodes, ledger)
    spacing, crop = _crop(job, nodes, ledger)
    sampling = _sampling(options, nodes, folds, ledger)
    windows = _windows(job, options, ledger)
    stages, batch = _stages(options, windows, nodes, sampling, ledger)
    ledger.note("equal_short_mm", "median short axis of the training nodes", f"{len(nodes.cases)} nodes")
    has_ctv = fields["ctv_modality"] is not None
    decisions = {**fields.pop("decisions"), **ledger.decisions}
    for key in ("spacing", "batch_size", "folds"):
        fields.pop(key)
    _warn_few(job, nodes, folds)
    return NodeStatusPlan(
        **fields,
        decisions=decisions,
        spacing=(spacing, spacing, spacing),
        batch_size=batch,
        folds=folds,
        crop=crop,
        windows=windows,
        network=_network(job, ledger),
        stages=stages,
        optimizer="adamw",
        augmentation=CropAugmentation(
            options.rotation_degrees, options.shift_voxels, options.flip, options.brightness
        ),
        sampling=sampling,
        prevalence=nodes.prevalence,
        equal_short_mm=round(float(np.median([node.short_axis_mm for node in job.fingerprint.lesions])), 3),
        features=[*FEATURES, *([CTV] if has_ctv else []), *nodes.measured],
    )


class _Nodes:
    """Nodes of the training cases: class (-1 unknown), station, case and extent of each; what was measured of all."""

    def __init__(self, job: Job) -> None:
        raw = {case.case_id: case for case in job.cases}
        self.cases: list[str] = []
        self.stations: list[str] = []
        self.extents: list[float] = []
        labels: list[int] = []
        named: list[set[str]] = []
        for case in job.fingerprint.cases:
            given = read_measured(raw[case.case_id])
            stations, unknown = read_stations(raw[case.case_id]) or {}, read_unknown(raw[case.case_id])
            for node in case.lesions:
                self.cases.append(case.case_id)
                self.stations.append(stations.get(node.instance) or UNKNOWN_STATION)
                self.extents.append(max(node.size_mm))
                named.append(set(given.get(node.instance, {})))
                labels.append(-1 if node.instance in unknown else node.label)
        self.labels = np.array(labels, dtype=np.int64)
        self.measured = sorted(set.intersection(*named)) if named else []
        positive, negative = int((self.labels == 1).sum()), int((self.labels == 0).sum())
        names = list(job.description.labels.values())
        for count, name in ((positive, names[1]), (negative, names[0])):
            if count == 0:
                raise UserError(
                    f"no training node is a {name}, so there is nothing to tell apart",
                    file=job.paths.root,
                    found=f"{positive} {names[1]}, {negative} {names[0]}",
                    remedy="Add nodes of both classes to labelsTr",
                )
        refuse_lonely_stations([name for name in self.stations if name != UNKNOWN_STATION])
        self.counts = (negative, positive)
        self.prevalence = round(positive / (positive + negative), 6)

    def count(self, label: int, case_ids: set[str]) -> int:
        """Nodes of a class in some cases."""
        return sum(
            own == label and case in case_ids for own, case in zip(self.labels, self.cases, strict=True)
        )


def _folds(job: Job, nodes: _Nodes, ledger: Ledger) -> list[FoldPlan]:
    """The user's splits.json, else patients whole and spread by their positive nodes."""
    if job.paths.splits.is_file():
        return job.folds.folds
    patients = {case.case_id: case.patient_id for case in job.fingerprint.cases}
    positives = {case_id: nodes.count(1, {case_id}) for case_id in patients}
    options = job.config.plan_cfg
    folds, evidence = class_folds(positives, patients, options.num_folds, options.seed)
    ledger.note("folds", "classifier_rules.class_folds: patients whole, positive nodes spread", evidence)
    return folds


def _crop(job: Job, nodes: _Nodes, ledger: Ledger) -> tuple[float, CropPlan]:
    options = job.config.plan_cfg
    z, y, _ = job.fields()["spacing"]
    if options.spacing is not None and len(set(options.spacing)) > 1:
        raise UserError(
            "configuration: crops are isotropic",
            found=f"plan_cfg.spacing={options.spacing}",
            expected="one number, e.g. plan_cfg.spacing=1.0",
        )
    own = options.spacing is not None
    spacing = crop_spacing(y, z) if options.spacing is None else options.spacing[0]
    rule = "plan_cfg.spacing" if own else "classifier_rules.crop_spacing: 1 mm, or coarser as the data is"
    ledger.note("spacing", rule, f"median of the cases {y:g} mm in plane, {z:g} mm between slices")
    side, extent = crop_side(nodes.extents, spacing)
    rule = "classifier_rules.crop_side: 99 % of the nodes with 12 mm to spare"
    if options.crop_mm is not None:
        side, rule = max(1, round(options.crop_mm / spacing)), "plan_cfg.crop_mm"
    dimension = options.dimension or ("3d" if len(nodes.cases) >= MANY_OBJECTS else "2.5d")
    size = crop_shape(side, dimension, options.neighbours)
    ledger.note("crop.size", rule, f"99 % of {len(nodes.cases)} nodes are at most {extent:.1f} mm long")
    ledger.note("crop.dimension", "plan_cfg.dimension" if options.dimension else
                f"3d from {MANY_OBJECTS} nodes on", f"{len(nodes.cases)} nodes")  # fmt: skip
    margin = crop_margin(size, options.rotation_degrees, options.shift_voxels)
    return spacing, CropPlan(size, margin, dimension, options.neighbours, options.input, options.outside_hu)


def _sampling(options: ClassifierOptions, nodes: _Nodes, folds: list[FoldPlan], ledger: Ledger) -> Sampling:
    """Balanced within stations where every fold's training has a station with both classes."""
    mixed = mixed_stations(nodes.labels, nodes.stations)
    unmixed = sorted(set(nodes.stations) - set(mixed))
    evidence = f"{len(mixed)} stations hold both classes" + (f", {', '.join(unmixed)} one" if unmixed else "")
    chosen: Sampling = options.sampling or ("location" if _balances(nodes, folds) else "status")
    if chosen.startswith("location") and not set(mixed) - {UNKNOWN_STATION}:
        raise UserError(
            "no station holds nodes of both classes, so stations cannot be balanced",
            found=", ".join(f"{k} ({v})" for k, v in sorted(Counter(nodes.stations).items())),
            remedy="Use -o plan_cfg.sampling=status, or add stations to the JSON of the cases",
        )
    for fold in folds:
        here = np.isin(nodes.cases, fold.train)
        Sampler(chosen, np.where(here, nodes.labels, -1), nodes.stations, options.seed)
    rule = (
        "plan_cfg.sampling" if options.sampling else "location where stations hold both classes, else status"
    )
    ledger.note("sampling", rule, evidence)
    ledger.note(
        "prevalence",
        "share of positive nodes",
        f"{nodes.counts[1]} of {sum(nodes.counts)} nodes of known class",
    )
    return chosen


def _balances(nodes: _Nodes, folds: list[FoldPlan]) -> bool:
    """Whether every fold trains on a named station with nodes of both classes."""
    return all(
        set(mixed_stations(np.where(np.isin(nodes.cases, fold.train), nodes.labels, -1), nodes.stations))
        - {UNKNOWN_STATION}
        for fold in folds
    )


def _windows(job: Job, options: ClassifierOptions, ledger: Ledger) -> list[Window]:
    if options.windows is not None:
        ledger.note("windows", "plan_cfg.windows", "as told")
        return [make_window(limits) for limits in options.windows]
    pooled = Histogram.pooled([case.lesion_hu for case in job.fingerprint.cases])
    choice = quantile_windows(pooled, _TAILS_PERCENT, _SOFT_TISSUE)
    evidence = "; ".join([f"HU of {len(job.fingerprint.lesions)} nodes", *choice.notes])
    ledger.note("windows", "windows.quantile_windows: tails of the nodes' HU, and soft tissue", evidence)
    return choice.windows


def _stages(
    options: ClassifierOptions, windows: list[Window], nodes: _Nodes, sampling: Sampling, ledger: Ledger
) -> tuple[list[Stage], int]:
    batch = options.batch_size or _BATCH
    rate = options.learning_rate or _RATE * batch / _BATCH
    objects = Sampler(sampling, nodes.labels, nodes.stations, options.seed).balanced_size
    names = [window.name for window in windows]
    make: Callable[[str, list[str]], Stage] = lambda name, seen: training_stage(  # noqa: E731
        name, seen, options.epochs, objects, batch, rate
    )
    members = [make(f"member{number}", names) for number in range(options.members)]
    ledger.note(
        "stages", f"{options.epochs} passes over the balanced set in batches of {batch}", f"{objects} nodes"
    )
    return [*members, *([make(BLIND, [])] if options.blind else [])], batch


def _network(job: Job, ledger: Ledger) -> ClassifierNetwork:
    options = job.config.plan_cfg
    planned = _WIDTHS[job.target.device] if options.network == "resnet" else _VGG_WIDTHS
    ledger.note("network", "plan_cfg.network", f"{options.network}, widths for the {job.target.device}")
    return ClassifierNetwork(
        options.network, options.widths or planned, options.dropout, options.label_smoothing
    )


def _warn_few(job: Job, nodes: _Nodes, folds: list[FoldPlan]) -> None:
    least = min(nodes.count(label, set(fold.train)) for label in (0, 1) for fold in folds)
    if least < FEW_OF_A_CLASS:
        job.say(
            f"warning: a fold trains on {least} nodes of a class, fewer than {FEW_OF_A_CLASS}: "
            "trust the simple models of the table of shortcuts rather than the network"
        )
