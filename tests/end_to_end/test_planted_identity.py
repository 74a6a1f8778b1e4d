"""A patient planted in a DICOM study is found in no output, but for what DICOM demands of a DICOM file."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_samples import make_slices, make_structures, rectangle, save, save_all, uid
from tiny_place import GRID, MODEL, SPACING, TRAIN_OPTIONS, tiny_case

from nndet_psma.cli import predict, train
from nndet_psma.cli.umbrella import main

FOLDER = "home_of_plantedsurname"
STUDY, FRAME = uid("planted study"), uid("planted frame")
DEMANDED = {
    "PatientName": "Plantedsurname^Plantedname",
    "PatientID": "PLANTED-4711",
    "PatientBirthDate": "19370413",
    "StudyDate": "20190817",
    "StudyTime": "134251",
    "StudyID": "PLANTED-S",
    "AccessionNumber": "PLANTED-A",
    "StudyInstanceUID": STUDY,
}
MORE = {
    "PatientComments": "planted remark",
    "ReferringPhysicianName": "Plantedphysician^One",
    "OperatorsName": "Plantedoperator",
    "InstitutionName": "Planted Hospital",
    "StationName": "PLANTEDSTATION",
    "PatientAddress": "Planted Street 5",
    "OtherPatientIDs": "PLANTED-0815",
    "AcquisitionDate": "20190818",
    "SeriesDescription": "planted series",
}
SERIES = uid("series", "planted")
EVERYWHERE = [FOLDER, *MORE.values(), FRAME]
SECRETS = [*EVERYWHERE, "plantedsurname", *DEMANDED.values(), SERIES]


def _contents(file: Path) -> Iterator[bytes]:
    """A file as text would be searched in it: unpacked where it is packed."""
    content = file.read_bytes()
    yield content
    if file.suffix == ".gz":
        yield gzip.decompress(content)
    if zipfile.is_zipfile(file):  # .npz, too
        with zipfile.ZipFile(file) as archive:
            yield "\n".join(archive.namelist()).encode()
            yield from (archive.read(name) for name in archive.namelist())


def _found(file: Path, root: Path, secrets: list[str]) -> list[str]:
    texts = [str(file.relative_to(root)).encode(), *_contents(file)]
    return [secret for secret in secrets if any(secret.lower().encode() in text.lower() for text in texts)]


def _plant(folder: Path) -> Path:
    """A CT of the tiny task's first test case with CTV and node as contours; everything names the patient."""
    ct = tiny_case("test_0")[0]
    tags = {**DEMANDED, **MORE, "FrameOfReferenceUID": FRAME}
    slices = make_slices(ct, spacing=SPACING, origin=GRID.origin, series="planted", **tags)
    save_all(slices, folder / "ct")

    def contours(z, y, x):
        edges = [
            tuple(GRID.origin[axis] + 2.0 * (edge - 0.5) for edge in span) for axis, span in ((1, y), (0, x))
        ]
        return [rectangle(GRID.origin[2] + 4.0 * k, *edges) for k in range(*z)]

    rois = [("CTV", contours((1, 9), (12, 30), (12, 36))), ("node", contours((4, 7), (17, 22), (20, 25)))]
    save(make_structures(rois, series="planted", **tags), folder / "rs" / "structures.dcm")
    return folder


@pytest.fixture(scope="module")
def outputs(trained, tmp_path_factory) -> Path:
    """Everything that the commands write, from the study to what is passed on."""
    pytest.importorskip("highdicom")
    root = tmp_path_factory.mktemp("identity") / FOLDER
    study = _plant(root / "pacs" / "Plantedsurname_Plantedname")
    place = trained.copy(root / "work")
    out = root / "work" / "out"
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        convert = ["convert", "dicom", str(study), "--task", "901", "--name", "New"]
        assert main([*convert, "--ctv-roi", "CTV", "--lesion-roi", "node"]) == 0
        (task,) = place.data.glob("Task901*")
        (task / "raw_splitted" / "imagesTr" / "stray.txt").write_text("a finding with a path")
        assert (
            main(["check", "901", "--full", "--num_processes", "1", "--json", str(out / "check.json")]) == 1
        )
        (task / "raw_splitted" / "imagesTr" / "stray.txt").unlink()
        raw = task / "raw_splitted"
        mask = raw / "labelsTr" / "case_0001.nii.gz"
        assert main(["measure", str(mask), "-o", str(out / "nodes"), "--dicom", str(study / "ct")]) == 0
        assert train.main(["900", "-o", "exp.fold=0", *TRAIN_OPTIONS]) == 0  # says that it is finished
        images = ["-i", str(raw / "imagesTr"), "-o", str(out / "predicted")]
        assert predict.main(["900", MODEL, *images]) == 0
        for form in ("boxes-json", "lesions-csv", "luna-csv", "coco-json", "nndet-pkl"):
            to = ["--format", form, "-o", str(out / form)]
            assert main(["submit", "-i", str(out / "predicted"), *to]) == 0
        assert main(["report", "900", MODEL, "--output", str(out / "report.html"), "--max_cases", "1"]) == 0
        assert main(["export-model", "900", MODEL, "-o", str(out / "model.zip")]) == 0
    return root / "work"


def _files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def test_no_output_names_the_patient_or_a_folder(outputs):
    files = [file for file in _files(outputs) if file.suffix != ".dcm"]
    assert {file.name for file in files} >= {
        *(
            "case_0001_0000.nii.gz",
            "dicom.json",
            "check.json",
            "case_0001_nodes.json",
            "case_0001_nodes.html",
        ),
        *(
            "case_0001_boxes.json",
            "predictions.json",
            "train.log",
            "model.zip",
            "case_0001_boxes.pkl",
            "report.html",
        ),
    }
    assert {str(file): found for file in files if (found := _found(file, outputs, SECRETS))} == {}


def test_the_dicom_report_holds_what_dicom_demands_and_no_more(outputs):
    (report,) = [file for file in _files(outputs) if file.suffix == ".dcm"]
    assert _found(report, outputs, EVERYWHERE) == []
    assert _found(report, outputs, list(DEMANDED.values())) == list(DEMANDED.values())


def test_what_is_searched_for_would_be_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", "of PLANTEDSURNAME" * 50)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"planted remark" * 50))
    (tmp_path / "c PLANTED-4711").touch()
    found = [_found(file, tmp_path, SECRETS) for file in _files(tmp_path)]
    assert found == [["plantedsurname"], ["planted remark"], ["PLANTED-4711"]]
