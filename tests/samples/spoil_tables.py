"""One fault of description, tables, folds or the whole set each: kind -> (spoil, end of the file that is named)."""

from __future__ import annotations

import json

import numpy as np
from good_task import CT, GRID, LESIONS, MODALITIES, SHAPE, SPLITS, GoodTask

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume


def _described(**changes):
    return lambda task: task.describe(**changes)


def _written(text: str):
    return lambda task: (task.paths.root / "dataset.json").write_text(text)


def _clinical(*rows: str):
    return lambda task: task.paths.clinical.write_text("\n".join(rows) + "\n")


def _rows(change):
    """The rows of the good table, without header, changed."""
    rows = [f"{case},{case[-1].upper()}" for case in LESIONS]
    return _clinical("case_id,patient_id", *change(rows))


def _folds(change):
    return lambda task: task.fold(change(json.loads(json.dumps(SPLITS))))


def _same_patient(task: GoodTask) -> None:
    _rows(lambda rows: [rows[0], "case_b,A", *rows[2:]])(task)


def _overlap(folds):
    """case_a also in train of the fold that validates it."""
    folds[0]["train"].append("case_a")
    return folds


def _healthy(task: GoodTask, case: str) -> None:
    write_volume(task.label(case), np.zeros(SHAPE, np.uint8), GRID)
    task.classes(case, {})


def _fold_without_lesions(task: GoodTask) -> None:
    _healthy(task, "case_a")
    _healthy(task, "case_b")


def _no_lesions(task: GoodTask) -> None:
    task.paths.splits.unlink()
    for case in ("case_a", "case_b", "case_c"):
        _healthy(task, case)


def _one_case(task: GoodTask) -> None:
    task.without_tables()
    for case in ("case_a", "case_b"):
        for file in [*task.files(case), task.table(case)]:
            file.unlink()


def _twins(task: GoodTask) -> None:
    """case_c's images are case_b's; the masks stay different."""
    for index in range(len(MODALITIES)):
        task.image("case_c", index).write_bytes(task.image("case_b", index).read_bytes())


def _same_mask(task: GoodTask) -> None:
    task.label("case_c").write_bytes(task.label("case_b").read_bytes())


def _in_both_splits(task: GoodTask) -> None:
    for file in [*task.files("case_t"), task.table("case_t")]:
        file.rename(file.with_name(file.name.replace("case_t", "case_a")))
    task.without_tables()


FAULTS = {
    # description
    "no description": (lambda t: (t.paths.root / "dataset.json").unlink(), "Task100_Good"),
    "several descriptions": (lambda t: (t.paths.root / "dataset.yaml").write_text("a: 1"), "Task100_Good"),
    "description not readable": (_written("{"), "dataset.json"),
    "description of nnU-Net": (
        _written(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0}, "numTraining": 3})),
        "dataset.json",
    ),
    "description key missing": (_described(task=...), "dataset.json"),
    "description key of wrong type": (_described(target_class="node"), "dataset.json"),
    "wrong dim": (_described(dim="3d"), "dataset.json"),
    "labels not from 0": (_described(labels={"1": "node"}), "dataset.json"),
    "modalities not from 0": (_described(modalities={"1": "CT"}), "dataset.json"),
    "background class": (_described(labels={"0": "node", "1": "Background"}), "dataset.json"),
    "duplicate class": (_described(labels={"0": "node", "1": "Node"}), "dataset.json"),
    "duplicate modality": (_described(modalities={**MODALITIES, "4": "adc"}), "dataset.json"),
    "no image modality": (_described(modalities={"0": "CTV"}), "dataset.json"),
    "unknown target class": (_described(target_class=4), "dataset.json"),
    "task name mismatch": (_described(task="Task100_Other"), "dataset.json"),
    # tables
    "table not readable": (
        lambda t: t.paths.clinical.write_bytes("case_id,ort\ncase_a,Köln\n".encode("latin-1")),
        "clinical.csv",
    ),
    "no case_id column": (_clinical("patient", "P"), "clinical.csv"),
    "column twice": (_clinical("case_id,psa,psa"), "clinical.csv"),
    "row of wrong length": (_rows(lambda rows: [*rows, "case_x,1,2"]), "clinical.csv"),
    "row without case_id": (_rows(lambda rows: [*rows, ",X"]), "clinical.csv"),
    "case twice in table": (_rows(lambda rows: [*rows, rows[0]]), "clinical.csv"),
    "unknown case in table": (_rows(lambda rows: [*rows, "case_x,X"]), "clinical.csv"),
    "case missing in table": (_rows(lambda rows: rows[:-1]), "clinical.csv"),
    "missing patient_id": (_rows(lambda rows: [*rows[:-1], "case_t,"]), "clinical.csv"),
    # folds
    "folds not readable": (lambda t: t.paths.splits.write_text("{}"), "splits.json"),
    "fold malformed": (_folds(lambda folds: [*folds, {"train": ["case_a"]}]), "splits.json"),
    "fold with unknown case": (
        _folds(lambda folds: [{**folds[0], "train": ["case_b", "nobody"]}, *folds[1:]]),
        "splits.json",
    ),
    "case on both sides of a fold": (_folds(_overlap), "splits.json"),
    "patient on both sides of a fold": (_same_patient, "splits.json"),
    "case validated twice": (
        _folds(lambda folds: [*folds, {"train": ["case_b"], "val": ["case_a"]}]),
        "splits.json",
    ),
    "case never validated": (_folds(lambda folds: folds[:2]), "splits.json"),
    "fold without lesions": (_fold_without_lesions, "splits.json"),
    # data set
    "duplicate images": (_twins, "case_c_0000.nii.gz"),
    "duplicate masks": (_same_mask, "labelsTr/case_c.nii.gz"),
    "case twice": (_in_both_splits, "imagesTs/case_a_0000.nii.gz"),
    "patient in training and test": (_rows(lambda rows: [*rows[:-1], "case_t,A"]), "clinical.csv"),
    "mixed spacings": (
        lambda t: t.regrid(Geometry(SHAPE, (0.9, 2.0, 2.0), GRID.origin)),
        "case_b_0000.nii.gz",
    ),
    "mixed voxel types": (
        lambda t: t.edit(t.image("case_b", CT), lambda hu: hu.astype(np.float32)),
        "case_b_0000.nii.gz",
    ),
    "no lesions": (_no_lesions, "labelsTr"),
    "class without lesions": (_described(labels={"0": "node", "1": "bone"}), "labelsTr"),
    "one training case": (_one_case, "imagesTr"),
}
ALSO = {
    "background class": {"class without lesions"},
    "duplicate class": {"class without lesions"},
}
