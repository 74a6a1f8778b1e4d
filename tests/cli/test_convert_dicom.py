"""``nndet_psma convert dicom``: arguments and messages."""

import numpy as np
import pytest
from dicom_samples import make_structures, rectangle, save, uid, write_series

from nndet_psma.cli.convert import build_parser, main, run
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert import dicom as dicom_convert
from nndet_psma.dataset.convert.dicom import DicomConversion
from nndet_psma.dataset.dicom.suv import SuvGiven
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
        dicom_convert, "convert_dicom", lambda *a, **k: made.append((a, k)) or DicomConversion((), (), (), 0)
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
    argv += ["--accept-derived", "--structure-set", "newest", "--contour-gaps", "separate"]
    argv += ["--inner-contours", "hole", "--patients", "per-study", "--dose", "185", "--weight", "80.5"]
    argv += ["--injected-at", "10:00", "--suv-factor", "0.001"]
    run(build_parser().parse_args([*argv, "--output", str(tmp_path), "--overwrite", "--num_processes", "2"]))
    [((source, paths), rest)] = made
    assert paths.root == tmp_path / "Task005_Mine"
    assert [str(folder) for folder in source.folders] == ["a", "b"]
    assert (source.modalities, source.lesion_rois, source.ctv_roi) == (("CT", "PET"), ("x", "y", "z"), "c")
    assert (source.mask_rois, source.class_name, source.allow_empty) == ({"BLADDER": "B*"}, "node", True)
    assert (source.choice.b_value, source.choice.names) == (800, {"CT": "soft"})
    assert source.choice.accept_derived
    assert (source.structure_set, source.patients, source.injected_at) == ("newest", "per-study", "10:00")
    assert (source.rules.gaps, source.rules.inner) == ("separate", "hole")
    assert source.suv == SuvGiven(factor=0.001, dose_mbq=185, weight_kg=80.5)
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


def test_some_failed(patient, tmp_path, capsys):
    for name in ("p2", "p3"):
        tags = {"PatientID": name, "StudyInstanceUID": uid(name), "series": name}
        folder = write_series(tmp_path / name, np.zeros((6, 8, 8), np.int16), **tags)
        next(folder.glob("*01")).unlink()
    argv = ["dicom", str(patient), str(tmp_path / "p2"), str(tmp_path / "p3"), "--task", "1"]
    assert main([*argv, "--output", str(tmp_path / "out"), "--num_processes", "1"]) == 3
    told = capsys.readouterr()
    assert "0 training cases, 1 test cases" in told.out
    lines = told.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("not converted: ") and "slices are missing" in line for line in lines)
    assert (tmp_path / "out" / "Task001_DICOM" / "dataset.json").is_file()


def test_notes_are_told(patient, tmp_path, capsys):
    save(
        make_structures([("thin", [rectangle(3.0 * k, (1.5, 4.5), (1.5, 4.5)) for k in (0, 2)])]),
        patient / "rs2",
    )
    argv = ["dicom", str(patient), "--task", "1", "--output", str(tmp_path), "--lesion-roi", "thin"]
    assert main([*argv, "--contour-gaps", "interpolate"]) == 0
    assert "case_0001: lesion: contours of a structure interpolated on 1 slices" in capsys.readouterr().out
