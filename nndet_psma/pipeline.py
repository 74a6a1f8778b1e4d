"""The map: the ordered table of stages, what each reads and writes, and the command that runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageEntry:
    """One stage.

    Attributes:
        name: of the stage.
        command: that runs it.
        reads: what it needs.
        writes: what it leaves.
        function: dotted path of the function behind the command.
    """

    name: str
    command: str
    reads: str
    writes: str
    function: str


STAGES = (
    StageEntry(
        "check",
        "nndet_psma check",
        "raw_splitted, dataset.json",
        "findings",
        "nndet_psma.dataset.checks.checks.check_task",
    ),
    StageEntry(
        "prep",
        "nndet_prep",
        "raw_splitted, dataset.json, clinical.csv, splits.json",
        "preprocessed/fingerprint.json, preprocessed/PLAN.json, preprocessed/store, preprocessed/analysis",
        "nndet_psma.stages.prep.prepare_task",
    ),
    StageEntry(
        "train",
        "nndet_train",
        "store, plan",
        "det_models/TASK/MODEL/foldN/STAGE/model.safetensors, metrics.csv",
        "nndet_psma.stages.train.train_fold",
    ),
    StageEntry(
        "sweep",
        "nndet_sweep",
        "weights, validation cases of the fold",
        "foldN/sweep.json, plan_inference.json, val_predictions",
        "nndet_psma.stages.sweep.sweep_fold",
    ),
    StageEntry(
        "consolidate",
        "nndet_consolidate",
        "folds",
        "consolidated/ with weights, plan.json, sweep.json, plan_inference.json, val_predictions",
        "nndet_psma.stages.sweep.consolidate",
    ),
    StageEntry(
        "predict",
        "nndet_predict",
        "images, consolidated model or fold",
        "test_predictions/CASE_boxes.json (or _judged, _call), raw/CASE.npz",
        "nndet_psma.stages.predict.predict_cases",
    ),
    StageEntry(
        "evaluate",
        "nndet_eval",
        "predictions, labels",
        "test_results/scores.json; boxes: results_boxes.json, records.json, lesions.csv, cases.csv, ablation.json; "
        "judgements: objects.csv",
        "nndet_psma.stages.evaluate.evaluate",
    ),
    StageEntry(
        "submit",
        "nndet_psma submit",
        "predictions",
        "boxes, judgements, tables, maps in the form that others read",
        "nndet_psma.stages.submit.submit",
    ),
    StageEntry(
        "report", "nndet_psma report", "all of it", "report.html", "nndet_psma.stages.report.write_report"
    ),
)
