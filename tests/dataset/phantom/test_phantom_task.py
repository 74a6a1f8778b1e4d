"""The raw task a phantom is written as: files, resuming, refusing."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom import task as task_module
from nndet_psma.dataset.phantom.options import PhantomOptions
from nndet_psma.dataset.phantom.task import KINDS, MARKER, generate_task

SMALL = PhantomOptions(size=(12, 54, 74), spacing=(12.0, 5.0, 5.0))


def generate(folder: Path, **changes) -> Path:
    request = {"kind": "psma", "cases": 3, "test_cases": 1, "seed": 0, "options": SMALL, **changes}
    generate_task(folder, **request)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("data") / "Task100_Phantom")


def test_files_of_a_task(task):
    cases = ["psma_000", "psma_001", "psma_002"]
    expected = {"dataset.json", "clinical.csv", MARKER}
    for names, split in ((cases, "Tr"), (["psma_test_000"], "Ts")):
        for name in names:
            expected |= {f"raw_splitted/images{split}/{name}_{k}.nii.gz" for k in ("0000", "0001")}
            expected |= {f"raw_splitted/labels{split}/{name}{end}" for end in (".nii.gz", ".json")}
    assert set(contents(task)) == expected


def test_description(task):
    assert json.loads((task / "dataset.json").read_text()) == {
        "task": "Task100_Phantom",
        "name": "Phantom",
        "dim": 3,
        "target_class": 0,
        "test_labels": True,
        "labels": {"0": "positive_node"},
        "modalities": {"0": "CT", "1": "CTV"},
    }


def test_images_and_labels_agree(task):
    raw = task / "raw_splitted"
    for label in sorted(raw.glob("labels*/*.nii.gz")):
        name = label.name.removesuffix(".nii.gz")
        images = label.parent.parent / label.parent.name.replace("labels", "images")
        volumes = [
            sitk.ReadImage(str(f))
            for f in (images / f"{name}_0000.nii.gz", images / f"{name}_0001.nii.gz", label)
        ]
        assert {v.GetSize() for v in volumes} == {(74, 54, 12)}
        assert {v.GetSpacing() for v in volumes} == {(5.0, 5.0, 12.0)}
        ids = np.unique(sitk.GetArrayFromImage(volumes[2]))[1:]
        stated = json.loads((label.parent / f"{name}.json").read_text())
        assert stated == {"instances": {str(k): 0 for k in ids}}
        assert ids.tolist() == list(range(1, len(ids) + 1))


def test_clinical_table_covers_both_splits(task):
    with (task / "clinical.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["case_id"] for row in rows] == ["psma_000", "psma_001", "psma_002", "psma_test_000"]
    assert list(rows[0]) == ["case_id", "patient_id", "nccn_risk", "psa", "prostatectomy"]
    for row in rows:
        assert row["nccn_risk"] in {"metastatic", "high", "intermediate", "unknown"}
        assert float(row["psa"]) > 0
        assert row["prostatectomy"] in {"0", "1"}


def test_cases_do_not_depend_on_their_number_nor_on_processes(task, tmp_path):
    fewer = contents(generate(tmp_path / "Task100_Phantom", cases=2, test_cases=0, processes=2))
    images = {name: content for name, content in fewer.items() if name.startswith("raw_splitted")}
    assert len(images) == 8
    assert images.items() <= contents(task).items()


def test_killed_run_goes_on_and_ends_the_same(task, tmp_path, monkeypatch):
    folder = tmp_path / "Task100_Phantom"
    genuine = task_module.write_case
    written = []

    def dies_at_the_third(destination, kind, spec, options):
        if len(written) == 2:
            (destination / "raw_splitted/imagesTr/.tmp-12345678-x.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(spec.case_id)
        return genuine(destination, kind, spec, options)

    monkeypatch.setattr(task_module, "write_case", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate(folder)
    assert not (folder / "dataset.json").exists()
    (folder / "raw_splitted/labelsTr/psma_001.json").unlink()  # as if killed before its last file

    again, seen = [], []
    monkeypatch.setattr(task_module, "write_case", lambda *a: (again.append(a[2].case_id), genuine(*a))[1])
    generate(folder, on_case=seen.append)
    assert again == ["psma_001", "psma_002", "psma_test_000"]
    assert seen == ["psma_000", *again]
    assert contents(folder) == contents(task)


def test_finished_task_is_left_alone(task):
    before = {f: f.stat().st_mtime_ns for f in (task / "raw_splitted").rglob("*.nii.gz")}
    generate(task)
    assert before == {f: f.stat().st_mtime_ns for f in (task / "raw_splitted").rglob("*.nii.gz")}


def test_fewer_cases_remove_the_surplus(tmp_path):
    folder = generate(tmp_path / "Task100_Phantom", cases=2, test_cases=1)
    generate(folder, cases=1, test_cases=0)
    names = {f.name for f in (folder / "raw_splitted").rglob("*") if f.is_file()}
    assert names == {"psma_000_0000.nii.gz", "psma_000_0001.nii.gz", "psma_000.nii.gz", "psma_000.json"}
    assert json.loads((folder / "dataset.json").read_text())["test_labels"] is False


def test_foreign_folder_is_refused_and_with_force_only_raw_data_goes(tmp_path):
    folder = tmp_path / "Task100_Phantom"
    (folder / "raw_splitted/imagesTr").mkdir(parents=True)
    (folder / "raw_splitted/imagesTr/mine_0000.nii.gz").write_bytes(b"precious")
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match=r"the task folder is taken.*found files of another task.*--force"):
        generate(folder, cases=1, test_cases=0)
    assert (folder / "raw_splitted/imagesTr/mine_0000.nii.gz").read_bytes() == b"precious"
    generate(folder, cases=1, test_cases=0, force=True)
    assert not (folder / "raw_splitted/imagesTr/mine_0000.nii.gz").exists()
    assert (folder / "notes.txt").read_text() == "keep"
    assert (folder / "dataset.json").is_file()


def test_another_seed_is_not_mixed_in(tmp_path):
    folder = generate(tmp_path / "Task100_Phantom", cases=1, test_cases=0)
    before = contents(folder)
    with pytest.raises(UserError, match="another kind, seed or options"):
        generate(folder, cases=1, test_cases=0, seed=1)
    assert contents(folder) == before
    generate(folder, cases=1, test_cases=0, seed=1, force=True)
    assert contents(folder) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mouse"}, "unknown kind of task 'mouse'; expected one of psma, dwi, squares"),
        ({"cases": 0}, "wrong number of cases"),
        ({"test_cases": -1}, "wrong number of cases"),
        ({"seed": -1}, "seed is negative"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "Task100_Phantom", **change)
    assert list(tmp_path.iterdir()) == []


def test_kinds_draw_as_many_images_as_they_name():
    assert {name: len(kind.modalities) for name, kind in KINDS.items()} == {
        "psma": 2,
        "dwi": 2,
        "squares": 1,
        "node_status": 1,
    }
