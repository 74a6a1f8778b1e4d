"""The raw task as nnU-Net's data set: what is linked, what is written, labels, folds, nothing done twice."""

import gzip
import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_place import GRID, LESIONS, SHAPE, TEST, TRAINING, tiny_case, write_task

from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths, entered, environment, settings_variable
from nndet_psma.systems.nodeseg.nnunet.export import export_dataset, semantic_labels, write_splits
from nndet_psma.systems.nodeseg.nnunet.input_case import read_case
from nndet_psma.systems.nodeseg.plan import Candidates, Channel, SegmentationTraining
from nndet_psma.systems.nodeseg.planner import NetworkBudget, NodeSegChoices

RAW, RESULTS = "nnUNet_raw", "nnUNet_results"
CT, WINDOW = Channel(0, "CT", "CTNormalization"), Channel(0, "CT", "CTNormalization", -125.0, 225.0)
LINKED = NodeSegChoices(
    dataset="Dataset900_Tiny",
    ct_modality=0,
    ctv_modality=1,
    crop="image",
    margin_mm=0.0,
    context_mm=0.0,
    channels=[CT, WINDOW],
    configuration="3d_fullres",
    budget=NetworkBudget("plain", 0.3),
    spacing=None,
    patch_size=None,
    batch_size=None,
    training=SegmentationTraining(),
    candidates=Candidates(),
    postproc_defaults={},
    postproc_grid={},
    decisions={},
)
CUT = replace(LINKED, crop="ctv", margin_mm=4.0)


@pytest.fixture
def task(tmp_path):
    return write_task(tmp_path)


def export(paths, choices):
    description = read_description(paths.root)
    nnunet = NnunetPaths.of(paths, "Dataset900_Tiny")
    training, test = list_cases(paths, description), list_cases(paths, description, "Ts")
    return nnunet, export_dataset(nnunet, training, test, description, choices, extra={"seen": 1})


def test_images_that_stay_are_links_and_windows_share_one_file(task):
    nnunet, result = export(task, LINKED)
    assert (result.linked, result.written) == (2 * len(LESIONS), 0)
    assert len(result.made) == len(LESIONS)
    for channel in ("0000", "0001"):
        file = nnunet.raw / "imagesTr" / f"case_0_{channel}.nii.gz"
        assert file.is_symlink()
        assert not file.readlink().is_absolute()
        assert file.resolve() == (task.images("Tr") / "case_0_0000.nii.gz").resolve()
    assert len(list((nnunet.raw / "imagesTs").iterdir())) == 2 * len(TEST)
    description = json.loads((nnunet.raw / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT", "1": "CT"}
    assert description["labels"] == {"background": 0, "node": 1}
    assert (description["numTraining"], description["file_ending"]) == (len(TRAINING), ".nii.gz")
    assert description["nodeseg"] == {"seen": 1}


def test_a_file_that_nnunet_would_read_otherwise_is_no_link(task):
    """scl_slope 0 is no scaling, but ITK, with which nnU-Net reads, adds the intercept."""
    file = task.images("Tr") / "case_0_0000.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<2f", content, 112, 0.0, -1024.0)
    file.write_bytes(gzip.compress(content))
    nnunet, result = export(task, LINKED)
    assert result.written == 1
    exported = nnunet.raw / "imagesTr" / "case_0_0000.nii.gz"
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(exported))), tiny_case("case_0")[0]
    )


def test_labels_are_class_plus_one_on_the_grid_of_the_images(task):
    nnunet, _ = export(task, LINKED)
    label = read_volume(nnunet.raw / "labelsTr" / "case_0.nii.gz")
    np.testing.assert_array_equal(label.array, tiny_case("case_0")[2] > 0)
    assert label.geometry.same_grid(GRID)


def test_the_cut_is_the_ctv_with_its_margin(task):
    """CTV z 1..9, y 12..30, x 12..36; 4 mm are one slice or two pixels: z 0..10, y 10..32, x 10..38."""
    nnunet, result = export(task, CUT)
    assert (result.linked, result.written) == (
        len(LESIONS),
        len(LESIONS),
    )  # the second window links to the first
    cut = read_volume(nnunet.raw / "imagesTr" / "case_0_0000.nii.gz")
    np.testing.assert_array_equal(cut.array, tiny_case("case_0")[0][:, 10:32, 10:38])
    label = read_volume(nnunet.raw / "labelsTr" / "case_0.nii.gz")
    np.testing.assert_array_equal(label.array, (tiny_case("case_0")[2] > 0)[:, 10:32, 10:38])
    assert label.geometry.same_grid(cut.geometry)
    # the first voxel that is left lies 10 pixels of 2 mm further along y and x
    np.testing.assert_allclose(cut.geometry.origin, np.add(GRID.origin, (20, 20, 0)), atol=1e-4)


def test_nothing_is_done_twice_and_a_changed_case_is_done_again(task):
    nnunet, _ = export(task, CUT)
    assert export(task, CUT)[1].made == []
    written = nnunet.raw / "imagesTr" / "case_1_0000.nii.gz"
    before = written.stat().st_mtime_ns
    ct = tiny_case("case_0")[0] + 1
    write_volume(task.images("Tr") / "case_0_0000.nii.gz", ct, GRID)
    assert export(task, CUT)[1].made == ["case_0"]
    assert written.stat().st_mtime_ns == before
    assert read_volume(nnunet.raw / "imagesTr" / "case_0_0000.nii.gz").array[0, 0, 0] == ct[0, 10, 10]
    written.unlink()
    assert export(task, CUT)[1].made == ["case_1"]


def test_writing_never_goes_through_a_link(task):
    export(task, LINKED)
    raw = (task.images("Tr") / "case_0_0000.nii.gz").read_bytes()
    nnunet, _ = export(task, CUT)
    assert not (nnunet.raw / "imagesTr" / "case_0_0000.nii.gz").is_symlink()
    assert (task.images("Tr") / "case_0_0000.nii.gz").read_bytes() == raw


def test_files_of_channels_and_cases_that_are_gone_are_removed(task):
    export(task, LINKED)
    (task.images("Ts") / "test_1_0000.nii.gz").unlink()
    (task.images("Ts") / "test_1_0001.nii.gz").unlink()
    for file in task.labels("Ts").glob("test_1.*"):
        file.unlink()
    nnunet, _ = export(task, replace(LINKED, channels=[CT]))
    assert [file.name for file in (nnunet.raw / "imagesTs").iterdir()] == ["test_0_0000.nii.gz"]


def test_other_axes_are_turned_once(task):
    """The same voxels stored from right to left: the export has them as if they had not been."""
    ct, _, instances = tiny_case("case_0")
    ctv = tiny_case("case_0")[1]
    flipped = Geometry(
        SHAPE, GRID.spacing, (GRID.origin[0] + 2.0 * 47, *GRID.origin[1:]), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    for name, array in (("case_0_0000", ct), ("case_0_0001", ctv)):
        write_volume(task.images("Tr") / f"{name}.nii.gz", array[:, :, ::-1], flipped)
    write_volume(task.labels("Tr") / "case_0.nii.gz", instances[:, :, ::-1], flipped)
    nnunet, result = export(task, LINKED)
    assert result.written == 1
    turned = read_volume(nnunet.raw / "imagesTr" / "case_0_0000.nii.gz", canonical=False)
    np.testing.assert_array_equal(turned.array, ct)
    np.testing.assert_array_equal(read_volume(nnunet.raw / "labelsTr" / "case_0.nii.gz").array, instances > 0)


def test_semantic_labels_of_two_classes():
    ids = np.array([[[0, 1, 2, 3]]])
    assert semantic_labels(ids, {1: 0, 2: 1, 3: 0}).tolist() == [[[0, 1, 2, 1]]]
    assert semantic_labels(np.zeros((1, 1, 2), np.uint8), {}).tolist() == [[[0, 0]]]


def test_zone_is_the_distance_to_the_ctv(task):
    """Box centres are in voxels: on the CTV's last column 0, the next two columns of 2 mm beyond it 2 and 4 mm."""
    description = read_description(task.root)
    case = read_case(list_cases(task, description)[0], description, CUT)
    assert case.box == (0.0, 10.0, 10.0, 10.0, 32.0, 38.0)
    points = np.array(
        [[4.5, 8.5, x] for x in (25.5, 26.5, 27.5)]
    )  # on the cut grid: column 35, 36, 37 of the file
    np.testing.assert_allclose(case.zone_mm(points, 6.48), [0, 2, 4], atol=0.01)


def test_splits_are_ours(task):
    nnunet = NnunetPaths.of(task, "Dataset900_Tiny")
    file = write_splits(nnunet, [FoldPlan(["a", "b"], ["c"])])
    assert json.loads(file.read_text()) == [{"train": ["a", "b"], "val": ["c"]}]
    assert file == task.preprocessed / "nnunet" / "preprocessed" / "Dataset900_Tiny" / "splits_final.json"


def test_the_environment_is_put_back(task, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "before")
    monkeypatch.setenv("nnUNet_extTrainer", "/other")
    monkeypatch.delenv("nnUNet_results", raising=False)
    found = environment(NnunetPaths.of(task, "Dataset900_Tiny"), task.root / "results")
    assert found["nnUNet_extTrainer"].split(os.pathsep)[1:] == ["/other"]
    with entered({**found, **settings_variable({"epochs": 2})}):
        assert os.environ[RESULTS].endswith("results")
        assert json.loads(os.environ["NNDET_PSMA_NODESEG"]) == {"epochs": 2}
    assert os.environ[RAW] == "before"
    assert RESULTS not in os.environ
    assert settings_variable({}) == {}
