"""Segmentations asked from Python: every kind of input gives what the command line writes, masks included."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from places import REPOSITORY
from segmentation_model import write_segmentation_model
from tiny_place import GRID, SPACING, TASK, tiny_case

from nndet_psma import Predictor
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Call
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import predict
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import Volume, read_volume, write_volume
from nndet_psma.inference.case_predictor import CasePredictor
from nndet_psma.stages.export_model import ExportJob, export_model

MODEL = "nnUNetTrainerNodeSeg_NodeSeg"


@pytest.fixture(scope="module")
def place(raw_place, tmp_path_factory):
    """The raw task, a model of random weights and what nndet_predict wrote with it; read only."""
    place = raw_place.copy(tmp_path_factory.mktemp("nodeseg_python"))
    write_segmentation_model(place.models / TASK / MODEL)
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        assert predict.main(["900", MODEL]) == 0
    return place


@pytest.fixture(scope="module")
def predictor(place):
    return Predictor.from_folder(place.models / TASK / MODEL, device="cpu")


@pytest.fixture(scope="module")
def files(place):
    return [place.paths.images("Ts") / f"test_0_{index:04d}.nii.gz" for index in (0, 1)]


@pytest.fixture(scope="module")
def written(place):
    return place.models / TASK / MODEL / "consolidated/test_predictions"


@pytest.fixture(scope="module")
def by_command(written):
    return json.loads((written / "test_0_boxes.json").read_text())


def _plain(lesions):
    return json.loads(json.dumps(to_plain(lesions)))


def test_files_give_what_the_command_gives(predictor, files, by_command, written):
    """Mirror images are looked at as the command does: thresholds were tuned with them."""
    found = predictor.predict_case(*files, case_id="test_0")
    assert _plain(found.lesions) == by_command["lesions"]
    assert _plain(found.candidates) == by_command["candidates"]
    assert found.search_region == "ctv"
    assert found.lesions
    masks = predictor.predict_masks(*files)
    assert masks.result.candidates == found.candidates
    for ending, array in (("seg", masks.labels), ("instances", masks.instances)):
        file = read_volume(written / f"test_0_{ending}.nii.gz", canonical=False)
        np.testing.assert_array_equal(array, file.array)
        assert array.dtype == file.array.dtype
        assert array.any()


def test_every_kind_of_image_gives_the_same(predictor, files, by_command):
    ct, ctv, _ = tiny_case("test_0")
    itk = [sitk.ReadImage(str(file)) for file in files]
    for image, mask in (
        itk,
        ((ct, GRID), (ctv > 0, GRID)),
        (Volume(ct, GRID), Volume(ctv * 7.0, GRID)),
        ({"CT": files[0]}, files[1]),
    ):
        assert _plain(predictor.predict_case(image, mask).candidates) == by_command["candidates"]
    bare = predictor.predict(ct, ctv, spacing=SPACING, score_threshold=0.0)
    assert [list(lesion.box) for lesion in bare] == [row["box"] for row in by_command["candidates"]]


def test_masks_lie_on_the_grid_as_it_was_given(predictor, files):
    """The same patient with x and z running the other way: masks are turned, voxel by voxel."""
    ct, ctv, _ = tiny_case("test_0")
    turn = (slice(None, None, -1), slice(None), slice(None, None, -1))
    origin = (-47.0 + 2.0 * 47, -39.0, 300.0 + 4.0 * 9)
    grid = Geometry(ct.shape, SPACING, origin, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    turned = predictor.predict_masks((ct[turn], grid), (ctv[turn], grid))
    straight = predictor.predict_masks(*files)
    np.testing.assert_array_equal(turned.labels[turn], straight.labels)
    np.testing.assert_array_equal(turned.instances[turn], straight.instances)


def test_numbers_rank_the_nodes(predictor, files, written):
    """1 is the best; every number lies within the segmentation."""
    masks = predictor.predict_masks(*files)
    scores = json.loads((written / "test_0_instances.json").read_text())["scores"]
    assert sorted(map(int, scores)) == np.unique(masks.instances[masks.instances > 0]).tolist()
    ranked = [scores[number] for number in sorted(scores, key=int)]
    assert ranked == sorted(ranked, reverse=True)


def test_without_ctv_the_body_is_searched(predictor, place, files, tmp_path, monkeypatch):
    place.enter(monkeypatch)
    found = predictor.predict_case(files[0])
    assert found.search_region == "body"
    assert predict.main(["900", MODEL, "-i", str(files[0]), "--region", "body", "-d", str(tmp_path)]) == 0
    wanted = json.loads((tmp_path / "test_0_boxes.json").read_text())
    assert _plain(found.candidates) == wanted["candidates"]


def test_views_and_folds_can_be_chosen(place, files, tmp_path, monkeypatch, predictor):
    place.enter(monkeypatch)
    folder = place.models / TASK / MODEL
    plain = Predictor.from_folder(folder, "cpu", tta=False).predict_case(*files)
    assert plain.candidates != predictor.predict_case(*files).candidates
    argv = ["900", MODEL, "-ntta", "0", "-i", str(place.paths.images("Ts")), "-d", str(tmp_path)]
    assert predict.main(argv) == 0
    wanted = json.loads((tmp_path / "test_0_boxes.json").read_text())
    assert _plain(plain.candidates) == wanted["candidates"]
    with pytest.raises(UserError, match="the model has no fold 7"):
        Predictor.from_folder(folder, "cpu", folds=[7])


def test_images_that_are_refused(predictor):
    ct, ctv, _ = tiny_case("test_0")
    with pytest.raises(UserError, match="the CTV of case case is empty"):
        predictor.predict((ct, GRID), (ctv * 0, GRID))
    with pytest.raises(UserError, match="not those the model was trained on; expected CT; found PET"):
        predictor.predict_masks({"PET": (ct, GRID)})


def test_a_network_that_sees_the_ctv_gets_it(place, tmp_path, monkeypatch, capsys):
    """As a channel beside the CT; without it such a network is not asked."""
    from nndet_psma.systems.nodeseg.plan import Channel

    channels = [Channel(0, "CT", "CTNormalization"), Channel(1, "noNorm", "NoNormalization")]
    folder = write_segmentation_model(tmp_path / "models" / TASK / MODEL, folds=[0], channels=channels)
    place.enter(monkeypatch)
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    assert predict.main(["900", MODEL]) == 0
    wanted = json.loads((folder.root / "consolidated/test_predictions/test_0_boxes.json").read_text())
    files = [place.paths.images("Ts") / f"test_0_{index:04d}.nii.gz" for index in (0, 1)]
    predictor = Predictor.from_folder(folder.root, "cpu")
    assert _plain(predictor.predict_case(*files).candidates) == wanted["candidates"]
    with pytest.raises(UserError, match="case case has no CTV"):
        predictor.predict(files[0])


def test_a_detector_draws_no_masks(trained):
    ct, ctv, _ = tiny_case("test_0")
    detector = Predictor.from_folder(trained.model, "cpu")
    with pytest.raises(UserError, match="the model draws no masks"):
        detector.predict_masks((ct, GRID), (ctv, GRID))


class _OnFilesOnly(CasePredictor):
    def predict(self, job):
        raise NotImplementedError


class _Caller(_OnFilesOnly):
    def predict_volumes(self, case_id, volumes, ctv):
        return Call(case_id, "0", {"yes": 1.0}, "yes")


def test_models_of_other_systems(predictor, monkeypatch, tmp_path):
    """What a system leaves out is said in one line; what is no prediction of lesions has its own question."""
    ct, _, _ = tiny_case("test_0")
    write_volume(tmp_path / "ct.nii.gz", ct, GRID)
    monkeypatch.setattr(predictor, "_predictor", _OnFilesOnly())
    for ask in (predictor.predict, predictor.predict_case, predictor.predict_result):
        with pytest.raises(
            UserError, match=r"models of this kind cannot be asked from Python\. Use nndet_predict"
        ):
            ask(tmp_path / "ct.nii.gz")
    monkeypatch.setattr(predictor, "_predictor", _Caller())
    assert predictor.predict_result(tmp_path / "ct.nii.gz").decision == "yes"
    with pytest.raises(UserError, match="the model finds no lesions"):
        predictor.predict(tmp_path / "ct.nii.gz")


def test_the_result_can_be_written(predictor, files, tmp_path):
    found = predictor.predict_case(*files, case_id="p")
    found.write(tmp_path / "p_boxes.json")
    assert Prediction.read(tmp_path / "p_boxes.json") == found


def test_the_example_of_the_documentation_runs(place, files, tmp_path, monkeypatch, capsys):
    """docs/nnunet.md, in a folder where its files lie."""
    text = (REPOSITORY / "docs/nnunet.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    export_model(ExportJob(ModelFolder(place.models / TASK / MODEL), tmp_path / "model.zip"))
    shutil.copy(files[0], "ct.nii.gz")
    shutil.copy(files[1], "ctv.nii.gz")
    names: dict = {}
    exec(compile(block, "docs/nnunet.md", "exec"), names)
    assert names["masks"].instances.any()
    assert capsys.readouterr().out.startswith("(10, 40, 48) ")
