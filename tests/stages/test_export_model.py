"""Export and import of a model: what travels, what stays, and that the copy predicts the same."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
from killed_writer import killed_writer
from safetensors.torch import load_file, save_file
from tiny_place import LESIONS, MODEL, TASK, snapshot

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Decision
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.stages.export_model import ExportJob, anonymous_plan, export_model
from nndet_psma.stages.import_model import ImportJob, import_model
from nndet_psma.systems.system import system_of


@pytest.fixture(scope="module")
def archive(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("export") / "model.zip"
    export_model(ExportJob(ModelFolder(trained.model), file, licence="CC BY 4.0"))
    return file


def _contents(file):
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_only_weights_and_json_travel(archive, trained):
    names = set(_contents(archive))
    stages = [stage.name for stage in trained.plan.stages]
    assert names == {
        *("manifest.json", "plan.json", "plan_inference.json"),
        *(f"fold{fold}/{stage}/model.safetensors" for fold in (0, 1) for stage in stages),
    }


def test_no_case_and_no_path_is_named(archive, trained):
    """Neither in a name nor in a file, weights included."""
    for name, content in _contents(archive).items():
        for case_id in [*LESIONS, "patient_a", str(trained.data), "/tmp/", "/home/"]:
            assert case_id.encode() not in content, (case_id, name)
    manifest = json.loads(_contents(archive)["manifest.json"])
    assert manifest["training_cases"] == [[3, 3], [3, 3]]
    assert manifest["licence"] == "CC BY 4.0"


def test_decisions_that_name_a_case_or_a_path_are_left_out(trained):
    told = {
        "a": Decision("fixed", "thinnest lesion in case_3"),
        "b": Decision("from /home/somebody/x.json", "3 mm"),
        "c": Decision("fixed", "case_30 is no case, and 1/2 no path"),
        "d": Decision("fixed", "of extra_1, a case of the sweep"),
        "e": Decision("weights of the user", "own/weights.pt"),
    }
    plan = replace(
        trained.plan, decisions=told, detector=replace(trained.plan.detector, weights="own/weights.pt")
    )
    kept = anonymous_plan(system_of(plan), plan, ["extra_1"])
    assert kept.decisions["c"] == told["c"]
    for key, text in (("a", "evidence"), ("b", "rule"), ("d", "evidence"), ("e", "evidence")):
        assert getattr(kept.decisions[key], text).startswith("left out of the export")
    assert kept.decisions["b"].evidence == "3 mm"
    assert (kept.folds, kept.detector.weights) == ([], "none")


def test_equal_models_give_equal_bytes(archive, trained, tmp_path):
    export_model(ExportJob(ModelFolder(trained.model), tmp_path / "again.zip", licence="CC BY 4.0"))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_text_that_a_tool_wrote_into_the_weights_stays(own_copy, tmp_path):
    file = own_copy.model / "consolidated/fold0/wsi/model.safetensors"
    save_file(load_file(file), file, metadata={"trained_on": "case_0 at /data/hospital"})
    export_model(ExportJob(ModelFolder(own_copy.model), tmp_path / "model.zip"))
    content = _contents(tmp_path / "model.zip")["fold0/wsi/model.safetensors"]
    assert b"hospital" in file.read_bytes()
    assert b"hospital" not in content
    (tmp_path / "copy.safetensors").write_bytes(content)
    ours = load_file(tmp_path / "copy.safetensors")
    assert all((ours[key] == tensor).all() for key, tensor in load_file(file).items())


def test_some_folds(trained, tmp_path):
    folder = ModelFolder(trained.model)
    manifest = export_model(ExportJob(folder, tmp_path / "one.zip", folds=[1]))
    assert manifest.folds == [1]
    settings = json.loads(_contents(tmp_path / "one.zip")["plan_inference.json"])["settings"]
    assert settings == folder.inference_plan(1).settings  # its own thresholds, not those of the ensemble
    with pytest.raises(
        UserError, match=r"fold 7 is not in the consolidated model; expected some of \[0, 1\]"
    ):
        export_model(ExportJob(folder, tmp_path / "no.zip", folds=[0, 7]))
    with pytest.raises(UserError, match="no folds, or one twice"):
        export_model(ExportJob(folder, tmp_path / "no.zip", folds=[0, 0]))


def test_imported_model_predicts_the_same(archive, trained, tmp_path, monkeypatch):
    from nndet_psma.cli import predict

    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    monkeypatch.delenv("det_data", raising=False)
    folder, manifest = import_model(ImportJob(archive))
    assert folder.root == tmp_path / "models" / TASK / MODEL
    assert manifest.task == TASK
    assert folder.plan(-1).training_images == trained.plan.training_images is not None
    images = trained.paths.images("Ts")
    arguments = ["900", MODEL, "-i", str(images), "-o", str(tmp_path / "out"), "inference_kwargs.device=cpu"]
    assert predict.main(arguments) == 0
    for file in (trained.model / "consolidated/test_predictions").glob("*_boxes.json"):
        ours, theirs = (json.loads(f.read_text()) for f in (tmp_path / "out" / file.name, file))
        for key in ("made_from", "checksum"):
            assert ours.pop(key) != theirs.pop(key)  # plan without cases is another file
        assert ours == theirs


def test_where_it_goes(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    monkeypatch.setenv("det_data", str(tmp_path))
    folder, _ = import_model(ImportJob(archive, task="Task123_Other"))
    assert folder.root == tmp_path / "models/Task123_Other" / MODEL
    assert import_model(ImportJob(archive, task="123", force=True))[0].root == folder.root
    with pytest.raises(
        UserError, match="no task '77'; expected one that exists, or a new folder name such as"
    ):
        import_model(ImportJob(archive, task="77"))
    own, _ = import_model(ImportJob(archive, target=tmp_path / "here"))
    assert read_plan(tmp_path / "here/consolidated/plan.json").folds == []
    assert own.inference_plan(-1).folds == [0, 1]


def test_two_that_make_a_consolidated_model_are_refused(archive, own_copy):
    before = snapshot(own_copy.model / "consolidated")
    with (
        FolderLock(own_copy.model),
        pytest.raises(UserError, match="another process makes a consolidated model here; found process"),
    ):
        import_model(ImportJob(archive, target=own_copy.model, force=True))
    assert snapshot(own_copy.model / "consolidated") == before


def test_what_is_there_is_not_replaced_unasked(archive, own_copy):
    before = (own_copy.model / "consolidated/plan.json").read_bytes()
    with pytest.raises(UserError, match=r"consolidated: a model is there already.*--force"):
        import_model(ImportJob(archive))
    assert (own_copy.model / "consolidated/plan.json").read_bytes() == before
    import_model(ImportJob(archive, force=True))
    assert (own_copy.model / "consolidated/plan.json").read_bytes() != before
    assert (own_copy.model / "fold0/plan.json").is_file()  # own folds stay
    names = {path.name for path in own_copy.model.iterdir()}
    assert not [name for name in names if name.startswith((".tmp", ".old"))]


def test_weights_that_do_not_load_are_not_imported(own_copy, tmp_path):
    """Valid archive, but the tensors belong to another network."""
    folder = ModelFolder(own_copy.model)
    file = folder.weights(-1, "wsi", 0)
    state = load_file(file)
    save_file({name: tensor for name, tensor in list(state.items())[1:]}, file)
    export_model(ExportJob(folder, tmp_path / "model.zip"))
    with pytest.raises(UserError, match="weights lack the layer"):
        import_model(ImportJob(tmp_path / "model.zip", target=tmp_path / "here"))
    assert not (tmp_path / "here/consolidated").exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_not_consolidated(own_copy, tmp_path):
    import shutil

    shutil.rmtree(own_copy.model / "consolidated")
    with pytest.raises(UserError, match=r"is not consolidated.*Run nndet_consolidate first"):
        export_model(ExportJob(ModelFolder(own_copy.model), tmp_path / "model.zip"))
    assert export_model(ExportJob(ModelFolder(own_copy.model), tmp_path / "model.zip", folds=[0])).folds == [
        0
    ]


def test_what_a_killed_run_left_goes_with_the_next_start(archive, tmp_path):
    """The temporary files and folders of both commands; not those of others, nor of other files."""
    model = tmp_path / "model"
    dead = killed_writer()
    left = [tmp_path / f".tmp-{dead}-model.zip", model / f".tmp-{dead}-consolidated"]
    others = [tmp_path / ".tmp-of-another-program", tmp_path / f".tmp-{dead}-other.zip"]
    for path in (left[0], *others):
        path.write_bytes(b"half")
    (left[1] / "consolidated").mkdir(parents=True)
    folder, _ = import_model(ImportJob(archive, target=model))
    export_model(ExportJob(folder, tmp_path / "model.zip"))
    assert not left[0].exists()
    assert sorted(path.name for path in model.iterdir()) == ["consolidated"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["model", "model.zip", *(path.name for path in others)]
    )
