"""``nndet_psma convert dicom``: arguments and messages."""

import numpy as np
import pytest
from dicom_samples import make_structures, rectangle, save, write_series

from nndet_psma.cli.convert import build_parser, main, run
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert import dicom as dicom_convert
from nndet_psma.dataset.convert.nifti import Conversion
from nndet_psma.dataset.task.description import read_description


@pytest.fixture
def patient(tmp_path):
    folder = write_series(tmp_path / "p1", np.zeros((4, 8, 8), np.int16), spacing=(3.0, 1.0, 1.0))
    rois = [
        ("PSMA+1", [rectangle(3.0, (1.5, 4.5), (1.5, 4.5))]),
        ("CTV_LN", [rectangle(3.0, (0.5, 6.5), (0.5, 6.5))]),
    ]
    save(make_structures(rois), folder / "rs")
    return folder


def test_as_in_the_readme(patient, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("det_data", str(tmp_path))
    argv = ["dicom", str(patient), "--task", "100", "--ctv-roi", "CTV_LN", "--lesion-roi", "PSMA+*"]
    assert main([*argv, "--num_processes", "1"]) == 0
    told = capsys.readouterr().out
    assert "Task100_DICOM: 1 training cases, 0 test cases, 1 lesions; 0 cases were finished before" in told
    assert "Next: nndet_psma check 100 --full" in told
    assert read_description(tmp_path / "Task100_DICOM").modalities == {0: "CT", 1: "CTV"}


def test_images_for_prediction(patient, tmp_path, capsys):
    assert (
        run(build_parser().parse_args(["dicom", str(patient), "--task", "7", "--output", str(tmp_path)])) == 0
    )
    assert (
        f"nndet_predict MODEL_TASK MODEL -i {tmp_path}/Task007_DICOM/raw_splitted/imagesTs"
        in capsys.readouterr().out
    )


def test_every_argument_arrives(patient, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        dicom_convert, "convert_dicom", lambda *a, **k: made.append((a, k)) or Conversion((), (), (), 0)
    )
    argv = [
        "dicom",
        "a",
        "b",
        "--task",
        "5",
        "--name",
        "Mine",
        "--modalities",
        "CT",
        "PET",
        "--lesion-roi",
        "x",
        "y",
    ]
    argv += [
        "--lesion-roi",
        "z",
        "--ctv-roi",
        "c",
        "--mask-roi",
        "bladder=B*",
        "--class",
        "node",
        "--allow-empty",
    ]
    argv += [
        "--b-value",
        "800",
        "--series",
        "CT=soft",
        "--mapping",
        "m.csv",
        "--test-share",
        "0.2",
        "--seed",
        "3",
    ]
    run(build_parser().parse_args([*argv, "--output", str(tmp_path), "--overwrite", "--num_processes", "2"]))
    [((source, paths), rest)] = made
    assert paths.root == tmp_path / "Task005_Mine"
    assert [str(folder) for folder in source.folders] == ["a", "b"]
    assert (source.modalities, source.lesion_rois, source.ctv_roi) == (("CT", "PET"), ("x", "y", "z"), "c")
    assert (source.mask_rois, source.class_name, source.allow_empty) == ({"BLADDER": "B*"}, "node", True)
    assert (source.choice.b_value, source.choice.names) == (800, {"CT": "soft"})
    assert (str(rest["mapping"]), rest["test_share"], rest["seed"]) == ("m.csv", 0.2, 3)
    assert (rest["overwrite"], rest["num_processes"]) == (True, 2)


def test_bad_names(patient, tmp_path, capsys):
    with pytest.raises(UserError, match="no valid task"):
        run(build_parser().parse_args(["dicom", str(patient), "--task", "1000"]))
    (tmp_path / "Task100_Other").mkdir()
    with pytest.raises(UserError, match=r"Task100_Other: number 100 belongs to another task.*--task"):
        run(build_parser().parse_args(["dicom", str(patient), "--task", "100", "--output", str(tmp_path)]))
    for wrong in (["--series", "CT"], ["--mask-roi", "=x"], ["--modalities", "US"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(["dicom", "a", "--task", "1", *wrong])
    assert "expected NAME=PATTERN, found '=x'" in capsys.readouterr().err


def test_error_is_one_line(patient, tmp_path, capsys):
    argv = ["dicom", str(patient), "--task", "1", "--output", str(tmp_path), "--lesion-roi", "FDG*"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no structure for lesion; found 'PSMA+1', 'CTV_LN'" in error
