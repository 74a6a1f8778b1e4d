"""The Python interface: every kind of input gives what the command line gives."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from places import REPOSITORY
from tiny_place import GRID, tiny_case

from nndet_psma import Predictor
from nndet_psma.artifacts.model_folder import ModelFolder, open_model
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import Volume, read_volume, write_volume
from nndet_psma.inference.volumes import as_volume, canonical
from nndet_psma.stages.export_model import ExportJob, export_model


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.from_folder(trained.model, device="cpu")


@pytest.fixture(scope="module")
def files(trained):
    return [trained.paths.images("Ts") / f"test_0_{index:04d}.nii.gz" for index in (0, 1)]


@pytest.fixture(scope="module")
def by_command(trained):
    """What nndet_predict wrote for the same case."""
    return json.loads((trained.model / "consolidated/test_predictions/test_0_boxes.json").read_text())


def _plain(lesions):
    return json.loads(json.dumps(to_plain(lesions)))


def test_files_give_what_the_command_gives(predictor, files, by_command):
    found = predictor.predict_case(*files, case_id="test_0")
    assert _plain(found.lesions) == by_command["lesions"]
    assert _plain(found.candidates) == by_command["candidates"]
    assert found.search_region == "ctv"
    assert found.candidates
    assert predictor.predict(str(files[0]), str(files[1])) == found.lesions


def test_every_kind_of_image_gives_the_same(predictor, files, by_command):
    ct, ctv, _ = tiny_case("test_0")
    itk = [sitk.ReadImage(str(file)) for file in files]
    for image, mask in (
        itk,
        ((ct, GRID), (ctv > 0, GRID)),
        (Volume(ct, GRID), Volume(ctv * 7.0, GRID)),
        ({"CT": files[0]}, files[1]),
        (itk[0], files[1]),
    ):
        assert _plain(predictor.predict_case(image, mask).candidates) == by_command["candidates"]


def test_array_with_spacing_lies_at_the_origin(predictor, by_command):
    """Without a grid voxels are the same and millimetres count from the first voxel."""
    ct, ctv, _ = tiny_case("test_0")
    found = predictor.predict_case(ct, ctv, spacing=GRID.spacing)
    for lesion, wanted in zip(found.candidates, by_command["candidates"], strict=True):
        assert list(lesion.box) == wanted["box"]
        assert np.allclose(np.add(lesion.centre_mm, GRID.origin), wanted["centre_mm"], atol=1e-3)


def test_score_threshold_ranks_candidates(predictor, files):
    everything = predictor.predict_case(*files).candidates
    limit = everything[0].score
    kept = predictor.predict(*files, score_threshold=limit)
    assert kept == [lesion for lesion in everything if lesion.score >= limit]
    assert 0 < len(kept) < len(everything)


def test_without_ctv_the_body_is_searched(predictor, files, trained, tmp_path):
    from nndet_psma.cli import predict

    found = predictor.predict_case(files[0])
    assert found.search_region == "body"
    arguments = ["900", "MaskRCNN25D_PSMA25D", "-i", str(files[0]), "--region", "body", "-d", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        trained.enter(patch)
        assert predict.main([*arguments, "-o", "inference_kwargs.device=cpu"]) == 0
    wanted = json.loads((tmp_path / "test_0_boxes.json").read_text())
    assert _plain(found.candidates) == wanted["candidates"]


def test_folds_zip_and_folder_of_a_fold(trained, files, tmp_path, predictor):
    one = Predictor.from_folder(trained.model, "cpu", folds=[1]).predict_case(*files)
    both = predictor.predict_case(*files)
    assert one.candidates != both.candidates
    export_model(ExportJob(ModelFolder(trained.model), tmp_path / "model.zip"))
    from_zip = Predictor.from_folder(str(tmp_path / "model.zip"), "cpu")
    assert from_zip.predict_case(*files).candidates == both.candidates
    assert from_zip.predict_case(files[0]).search_region == "body"  # the unpacked zip is gone by now
    of_fold = Predictor.from_folder(trained.model / "fold1", "cpu")
    assert of_fold.settings != predictor.settings or of_fold.predict_case(*files).candidates == one.candidates
    inside = Predictor.from_folder(trained.model / "consolidated", "cpu", batch_size=3)
    for found, wanted in zip(inside.predict_case(*files).candidates, both.candidates, strict=True):
        assert found.score == pytest.approx(wanted.score, abs=1e-4)  # other batches, other rounding
    with pytest.raises(UserError, match=r"the model has no fold 5; expected some of \[0, 1\]"):
        Predictor.from_folder(trained.model, "cpu", folds=[5])


def test_mirrored_views_change_the_answer(trained, files, predictor):
    mirrored = Predictor.from_folder(trained.model, "cpu", tta=True)
    assert mirrored.predict_case(*files).candidates != predictor.predict_case(*files).candidates


def test_threads_share_a_predictor(predictor, files, by_command):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: predictor.predict_case(*files), range(6)))
    assert all(_plain(each.candidates) == by_command["candidates"] for each in found)


def test_where_no_model_is(trained, tmp_path):
    with pytest.raises(UserError, match="holds no trained model; expected a model folder"):
        Predictor.from_folder(tmp_path)
    (tmp_path / "fold0").mkdir()
    with pytest.raises(UserError, match=r"is not consolidated.*Run nndet_consolidate"):
        Predictor.from_folder(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="is no zip"):
        Predictor.from_folder(tmp_path / "a.zip")
    assert open_model(trained.model / "fold0")[1] == 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (3, "is no image; expected a file, a SimpleITK image, or an array"),
        (np.zeros((4, 5)), "is no image.*2 axes"),
        (np.zeros((4, 5, 6)), r"an array needs its spacing; expected spacing=\(z, y, x\)"),
        ((np.zeros((4, 5, 6)), GRID), r"does not fit its grid; expected \(10, 40, 48\)"),
        (np.full(GRID.shape, np.nan), "needs its spacing"),
        ((np.full(GRID.shape, np.nan), GRID), "holds NaN or infinity"),
        ((np.full(GRID.shape, "a"), GRID), "does not hold numbers"),
        (sitk.Image(4, 4, sitk.sitkFloat32), "is not 3D with one value per voxel"),
        ("/nowhere/ct.nii.gz", "file does not exist"),
        ({"PET": (np.zeros(GRID.shape), GRID)}, "not those the model was trained on; expected CT; found PET"),
    ],
)
def test_images_that_are_none(predictor, image, message):
    with pytest.raises(UserError, match=message):
        predictor.predict(image)


def test_ctv_of_another_grid_or_empty(predictor):
    ct, ctv, _ = tiny_case("test_0")
    moved = Geometry(GRID.shape, GRID.spacing, (0.0, 0.0, 0.0))
    with pytest.raises(UserError, match="the CTV lies on another grid than the image"):
        predictor.predict((ct, GRID), (ctv, moved))
    with pytest.raises(UserError, match="the CTV of case case is empty"):
        predictor.predict((ct, GRID), (ctv * 0, GRID))


AXES = st.permutations(range(3))
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)


@settings(max_examples=40)
@given(AXES, SIGNS)
def test_arrays_are_turned_as_files_are(axes, signs):
    """Any order and direction of the axes: the same as writing the file and reading it canonically."""
    direction = np.eye(3)[:, list(axes)] * signs
    grid = Geometry((2, 3, 4), (3.0, 2.0, 1.0), (5.0, -6.0, 7.0), tuple(direction.ravel().tolist()))
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    turned = canonical(as_volume((array, grid)))
    place = turned.geometry.to_voxels(grid.to_patient(np.array([[0.5, 1.5, 2.5]])))[0]
    z, y, x = np.floor(place).astype(int)
    assert turned.array[z, y, x] == array[0, 1, 2]
    assert np.allclose(np.array(turned.geometry.direction), np.eye(3).ravel())


def test_oblique_arrays_are_turned_as_files_are(tmp_path):
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for axes in permutations(range(3)):
        direction = tuple((turn @ np.eye(3)[:, list(axes)] * [1, -1, 1]).ravel().tolist())
        grid = Geometry((2, 3, 4), (3.0, 2.0, 1.0), (5.0, -6.0, 7.0), direction)
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        write_volume(tmp_path / "x.nii.gz", array, grid)
        ours, theirs = canonical(as_volume((array, grid))), read_volume(tmp_path / "x.nii.gz")
        assert np.array_equal(ours.array, theirs.array)
        assert ours.geometry.same_grid(theirs.geometry, 1e-3)


def test_package_alone_imports_nothing_heavy():
    code = "import sys, nndet_psma; print([m for m in ('torch', 'numpy', 'SimpleITK') if m in sys.modules])"
    code += "; print('Predictor' in dir(nndet_psma), nndet_psma.Predictor.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True Predictor"]
    import nndet_psma

    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = nndet_psma.Predicter


def test_the_example_of_the_documentation_runs(trained, files, tmp_path, monkeypatch, capsys):
    """docs/python_api.md, block by block, in a folder where its files lie."""
    import re
    import shutil

    text = (REPOSITORY / "docs/python_api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    export_model(ExportJob(ModelFolder(trained.model), tmp_path / "model.zip"))
    shutil.copy(files[0], "ct.nii.gz")
    shutil.copy(files[1], "ctv.nii.gz")
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/python_api.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= len(names["lesions"]) > 0


def test_unusual_images_are_told_or_refused(trained, caplog):
    """Without the rescale intercept: a warning in result and log, or no result."""
    ct, ctv, _ = tiny_case("test_0")
    image, mask = (ct + 1100, GRID), (ctv, GRID)
    found = Predictor.from_folder(trained.model, device="cpu").predict_case(image, mask, case_id="p")
    assert [warning.kind for warning in found.warnings] == ["CT without intercept"]
    assert "p: CT: this CT starts at 0" in caplog.text
    strict = Predictor.from_folder(trained.model, device="cpu", strict=True)
    with pytest.raises(UserError, match="case p was refused: this CT starts at 0"):
        strict.predict_case(image, mask, case_id="p")
    assert strict.predict_case((ct, GRID), mask).warnings == []
