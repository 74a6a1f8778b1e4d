"""A segmentation in one zip: what travels, what stays, that the copy predicts the same, and what is refused."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_models import forged_archive
from hostile_networks import HOSTILE, changed
from safetensors.torch import load, save
from segmentation_model import write_segmentation_model
from tiny_place import LESIONS, TASK, TEST

from nndet_psma import Predictor
from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.cli import export_model as export_command
from nndet_psma.cli import import_model as import_command
from nndet_psma.cli import predict
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.stages.export_model import ExportJob, export_model
from nndet_psma.stages.import_model import ImportJob, import_model
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint

MODEL = "nnUNetTrainerNodeSeg_NodeSeg"
WEIGHTS = "fold{}/nnunet/model.safetensors"


@pytest.fixture(scope="module")
def place(raw_place, tmp_path_factory):
    """The raw task with a model of random weights; read only."""
    place = raw_place.copy(tmp_path_factory.mktemp("passing_on"))
    write_segmentation_model(place.models / TASK / MODEL)
    return place


@pytest.fixture(scope="module")
def folder(place):
    return ModelFolder(place.models / TASK / MODEL)


@pytest.fixture(scope="module")
def archive(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("archive") / "model.zip"
    export_model(ExportJob(folder, file, licence="CC BY 4.0"))
    assert [path.name for path in file.parent.iterdir()] == ["model.zip"]
    return file


def _members(file):
    with zipfile.ZipFile(file) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def _refused(file, tmp_path, *expected):
    target = tmp_path / "here"
    with pytest.raises(UserError) as caught:
        import_model(ImportJob(file, target=target))
    text = str(caught.value)
    assert "\n" not in text
    for part in expected:
        assert part in text
    assert not target.exists() or list(target.iterdir()) == []


def test_only_weights_and_json_travel(archive):
    assert set(_members(archive)) == {
        *("manifest.json", "plan.json", "plan_inference.json", "plans.json", "dataset.json"),
        *("checkpoint.json", WEIGHTS.format(0), WEIGHTS.format(1)),
    }


def test_no_case_and_no_path_is_named(archive, place):
    for name, content in _members(archive).items():
        for text in [*LESIONS, "patient_a", str(place.data), "/tmp/", "/home/"]:
            assert text.encode() not in content, (text, name)


def test_what_only_planning_needs_stays(archive):
    members = _members(archive)
    assert list(json.loads(members["plans.json"])["configurations"]) == ["3d_fullres"]
    assert "nodeseg" not in json.loads(members["dataset.json"])
    note = json.loads(members["checkpoint.json"])
    assert (note["trainer_name"], note["configuration"]) == ("nnUNetTrainerNodeSeg", "3d_fullres")
    assert note["mirrored_axes"] == [0, 1, 2]


def test_layers_of_several_names_travel_once(archive, folder):
    """nnU-Net's encoder stands in a checkpoint under four names."""
    file = next((folder.root / "consolidated").rglob("fold_0/*.pth"))
    weights = read_checkpoint(file)["network_weights"]
    exported = load(_members(archive)[WEIGHTS.format(0)])
    assert set(exported) < set(weights)
    assert all(torch.equal(weights[name], tensor) for name, tensor in exported.items())
    unique = {tensor.data_ptr(): tensor.numel() for tensor in weights.values()}
    assert sum(tensor.numel() for tensor in exported.values()) == sum(unique.values())


def test_equal_models_give_equal_bytes(archive, folder, tmp_path):
    export_model(ExportJob(folder, tmp_path / "again.zip", licence="CC BY 4.0"))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_the_copy_is_a_consolidated_model_that_predicts_the_same(
    archive, place, folder, tmp_path, monkeypatch
):
    """By our command, from Python with the folder and the zip, and exported once more."""
    place.enter(monkeypatch)
    assert predict.main(["900", MODEL, "-d", str(tmp_path / "theirs")]) == 0
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    monkeypatch.delenv("det_data")
    assert import_command.main([str(archive)]) == 0
    copy = ModelFolder(tmp_path / "models" / TASK / MODEL)
    images = str(place.paths.images("Ts"))
    assert predict.main(["900", MODEL, "-i", images, "-o", str(tmp_path / "ours")]) == 0
    for name in TEST:
        for ending in ("_seg.nii.gz", "_instances.nii.gz"):
            ours, theirs = (read_volume(tmp_path / w / f"{name}{ending}").array for w in ("ours", "theirs"))
            np.testing.assert_array_equal(ours, theirs)
            assert ours.any()
        ours, theirs = (
            json.loads((tmp_path / w / f"{name}_boxes.json").read_text()) for w in ("ours", "theirs")
        )
        for key in ("made_from", "checksum"):
            assert ours.pop(key) != theirs.pop(key)  # plan without cases is another file
        assert ours == theirs
    files = [place.paths.images("Ts") / f"test_0_{index:04d}.nii.gz" for index in (0, 1)]
    lesions = [
        Predictor.from_folder(path, "cpu").predict_case(*files).candidates
        for path in (copy.root, archive, folder.root)
    ]
    assert lesions[0] == lesions[1] == lesions[2]
    assert lesions[0]
    export_model(ExportJob(copy, tmp_path / "again.zip"))
    again, first = _members(tmp_path / "again.zip"), _members(archive)
    for name in first:
        assert name == "manifest.json" or again[name] == first[name]


def test_nothing_of_the_archive_is_left_but_its_manifest(archive, tmp_path):
    folder, _ = import_model(ImportJob(archive, target=tmp_path / "here"))
    consolidated = folder.fold(CONSOLIDATED)
    names = {path.name for path in consolidated.iterdir()}
    assert names == {"manifest.json", "plan.json", "plan_inference.json", "nnunet"}
    for file in consolidated.rglob("*.pth"):
        content = torch.load(file, weights_only=True)
        assert set(content) == {
            *("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"),
        }
    found = {path.parent.name for path in consolidated.rglob("*.pth")}
    assert found == {"fold_0", "fold_1"}


def test_some_folds(folder, place, tmp_path):
    manifest = export_model(ExportJob(folder, tmp_path / "one.zip", folds=[1]))
    assert manifest.folds == [1]
    assert WEIGHTS.format(0) not in _members(tmp_path / "one.zip")
    files = [place.paths.images("Ts") / f"test_0_{index:04d}.nii.gz" for index in (0, 1)]
    of_zip = Predictor.from_folder(tmp_path / "one.zip", "cpu").predict_case(*files)
    assert of_zip.candidates == Predictor.from_folder(folder.root, "cpu", [1]).predict_case(*files).candidates


def test_the_command(place, tmp_path, monkeypatch, capsys):
    place.enter(monkeypatch)
    assert export_command.main(["900", MODEL, "-o", str(tmp_path / "a.zip")]) == 0
    assert "folds [0, 1], 7 files" in capsys.readouterr().out


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(archive, folder, tmp_path, monkeypatch, name):
    """Before anything in them is imported, and before a file stands where the model was to go."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (where, changes), message = HOSTILE[name]
    plans, dataset = changed(folder.plan(CONSOLIDATED), where, changes)
    del dataset["nodeseg"]

    def forge(members):
        members["plans.json"] = json.dumps(plans).encode()
        members["dataset.json"] = json.dumps(dataset).encode()

    file = "dataset.json" if where == "dataset" else "plans.json"
    _refused(
        forged_archive(archive, tmp_path / "bad.zip", forge),
        tmp_path,
        f"bad.zip: has an invalid {file}",
        message,
        "nothing was imported",
    )
    assert "evil_module" not in sys.modules


def _json(name, **changes):
    def change(members):
        members[name] = json.dumps({**json.loads(members[name]), **changes}).encode()

    return change


def _tensors(change):
    """Weights of fold 0 changed by ``change(tensors)``."""

    def forge(members):
        tensors = load(members[WEIGHTS.format(0)])
        change(tensors)
        members[WEIGHTS.format(0)] = save(tensors)

    return forge


def _first(tensors):
    return next(iter(tensors))


def _grown(tensors):
    tensors[_first(tensors)] = torch.zeros(3, 3)


def _nan(tensors):
    tensors[_first(tensors)] = torch.full_like(tensors[_first(tensors)], float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _json("plan.json", dataset="../../../evil"),
            "has an invalid plan.json; found the plan's dataset is no name",
        ),
        (
            _json("plan.json", trainer="a/../../b"),
            "has an invalid plan; found invalid nndet_psma.nodeseg_plan: trainer",
        ),
        (_json("checkpoint.json", trainer_name="Evil"), "another trainer or configuration"),
        (_json("checkpoint.json", configuration="2d"), "another trainer or configuration"),
        (_json("checkpoint.json", mirrored_axes=[7]), "mirrors along axes that patches do not have"),
        (_json("checkpoint.json", mirrored_axes="012"), "mirrored_axes: expected a list"),
        (_json("checkpoint.json", code="print(1)"), "code: unknown key"),
        (lambda members: members.pop("plans.json"), "do not fit its plan; found plans.json"),
        (lambda members: members.pop(WEIGHTS.format(1)), "do not fit its plan; found fold1"),
        (lambda members: members.update({"fingerprint.json": b"{}"}), "holds a file that no model has"),
        (lambda members: members.update({"plans.json": b"[" * 200_000}), "nested too deeply"),
        (lambda members: members.update({"fold0/nnunet/model.pth": b"x"}), "holds a file that no model has"),
        (_tensors(_grown), "the weights do not fit the plans"),
        (_tensors(lambda tensors: tensors.pop(_first(tensors))), "the weights do not fit the plans"),
        (_tensors(lambda tensors: tensors.update(evil=torch.zeros(1))), "the weights do not fit the plans"),
        (_tensors(lambda t: t.update({_first(t): t[_first(t)].half()})), "float16"),
        (_tensors(_nan), "the weights hold NaN or infinity"),
        (lambda members: members.update({WEIGHTS.format(0): b"nothing at all"}), "is no safetensors file"),
    ],
)
def test_forged_with_valid_hashes(archive, tmp_path, change, message):
    _refused(forged_archive(archive, tmp_path / "bad.zip", change), tmp_path, message)
    assert not (tmp_path.parent / "evil").exists()


def test_a_huge_network_takes_no_memory(archive, folder, tmp_path):
    """Within every bound, and 50 GB large: the weights tell before it is built."""
    plan = folder.plan(CONSOLIDATED)
    members = _members(archive)
    plans, stored = json.loads(members["plans.json"]), json.loads(members["plan.json"])
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network.update(features_per_stage=[1024, 1024], kernel_sizes=[[7, 7, 7]] * 2, n_conv_per_stage=[16, 16])
    stored["features"] = [1024, 1024]
    assert plan.features == [4, 8]

    def forge(members):
        members["plans.json"] = json.dumps(plans).encode()
        members["plan.json"] = json.dumps(stored).encode()

    _refused(
        forged_archive(archive, tmp_path / "bad.zip", forge), tmp_path, "the weights do not fit the plans"
    )


def test_folds_that_were_mirrored_differently(place, tmp_path):
    folder = write_segmentation_model(tmp_path / TASK / MODEL)
    file = next(folder.root.rglob("fold_1/*.pth"))
    content = torch.load(file, weights_only=True)
    torch.save({**content, "inference_allowed_mirroring_axes": None}, file)
    with pytest.raises(UserError, match="the folds were trained differently"):
        export_model(ExportJob(folder, tmp_path / "model.zip"))
    export_model(ExportJob(folder, tmp_path / "one.zip", folds=[1]))
    assert json.loads(_members(tmp_path / "one.zip")["checkpoint.json"])["mirrored_axes"] is None
    assert {path.name for path in Path(tmp_path).glob("*.zip")} == {"one.zip"}


def test_weights_of_another_configuration(place, tmp_path):
    folder = write_segmentation_model(tmp_path / TASK / MODEL, folds=[0])
    file = next(folder.root.rglob("*.pth"))
    content = torch.load(file, weights_only=True)
    torch.save({**content, "init_args": {"configuration": "2d"}}, file)
    with pytest.raises(UserError, match="checkpoint of another configuration; expected 3d_fullres; found 2d"):
        Predictor.from_folder(folder.root, "cpu")
    torch.save({**content, "inference_allowed_mirroring_axes": (0, 9)}, file)
    with pytest.raises(UserError, match="mirrors along axes that patches do not have"):
        Predictor.from_folder(folder.root, "cpu")
