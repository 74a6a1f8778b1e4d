"""A third party's system goes the whole way through the command lines; nothing in the package names it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_task import (
    CASE_BLOCK,
    ENTRY_POINTS,
    FOLDS,
    OBJECT_BLOCK,
    TASK,
    TEST,
    TRAINING,
    install,
    write_toy_task,
)

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.cli.umbrella import main
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.systems.api import Predictor


@dataclass(frozen=True)
class Kind:
    """One of the two systems."""

    name: str
    block: dict[str, object]
    model: str
    result: type[Result]
    unit: str


KINDS = [
    Kind("toy", OBJECT_BLOCK, "ToyTrainer_TOY", Judged, "object"),
    Kind("toycall", CASE_BLOCK, "ToyCallTrainer_TOYCALL", Call, "case"),
]


@dataclass(frozen=True)
class Place:
    """Where a system has gone the whole way."""

    root: Path
    kind: Kind

    @property
    def model(self) -> Path:
        return self.root / "models" / TASK / self.kind.model

    @property
    def consolidated(self) -> Path:
        return self.model / "consolidated"

    @property
    def test_predictions(self) -> Path:
        return self.consolidated / "test_predictions"

    def result(self, case: str) -> Result:
        return self.kind.result.read(self.kind.result.file(self.test_predictions, case))


def _enter(place: Place, patch: pytest.MonkeyPatch) -> None:
    install(place.root / "site-packages", patch, ENTRY_POINTS)
    patch.setenv("det_data", str(place.root / "data"))
    patch.setenv("det_models", str(place.root / "models"))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def place(request, tmp_path_factory) -> Iterator[Place]:
    """After prep, train, sweep, consolidate, predict, eval, report; entry points are there while tests run."""
    place = Place(tmp_path_factory.mktemp(request.param.name), request.param)
    write_toy_task(place.root / "data", place.kind.block)
    model = place.kind.model
    with pytest.MonkeyPatch.context() as patch:
        _enter(place, patch)
        assert main(["prep", "910", "-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu"]) == 0
        assert main(["train", "910", "-o", "exp.fold=all"]) == 0
        assert main(["sweep", "910", model, "0"]) == 0
        assert main(["consolidate", "910", model, "--sweep_boxes"]) == 0
        assert main(["predict", "910", model]) == 0
        assert main(["eval", "910", model, "-1"]) == 0
        assert main(["eval", "910", model, "-1", "--test"]) == 0
        yield place


@pytest.fixture
def model(place) -> str:
    return place.kind.model


def test_the_data_set_names_its_system(place, capsys):
    assert main(["plan", "show", "910"]) == 0
    assert "objects_modality" in capsys.readouterr().out
    assert main(["plan", "check", "910"]) == 0
    assert f"plan {place.model.name.partition('_')[2]} holds together" in capsys.readouterr().out


def test_files_of_the_model(place):
    for fold in (0, 1):
        folder = place.model / f"fold{fold}"
        assert (folder / place.kind.name / "model.safetensors").is_file()
        names = {file.name for file in (folder / "val_predictions").iterdir()}
        assert names == {f"{case}{place.kind.result.suffix}" for case in FOLDS[fold]}
    names = {file.name for file in (place.consolidated / "val_predictions").iterdir()}
    assert names == {f"{case}{place.kind.result.suffix}" for case in TRAINING}
    environment = read_json(place.model / "fold0/environment.json")
    assert environment["packages"]["toy_system"] == "0.1"


def test_the_decision_is_tuned_and_taken(place):
    inference = InferencePlan.read(place.consolidated / "plan_inference.json")
    assert inference.criterion == "Youden's index"
    assert sorted(inference.cases) == TRAINING
    assert inference.settings["positive"] == "malignant"
    threshold = inference.settings["threshold"]
    for case in TEST:
        result = place.result(case)
        for each in result.objects if isinstance(result, Judged) else [result]:
            assert (each.decision == "malignant") == (each.probabilities["malignant"] >= threshold)


def test_scores(place):
    scores = read_json(place.consolidated / "test_results/scores.json")
    assert scores["unit"] == place.kind.unit
    assert scores["num_objects"] == (6 if place.kind.unit == "object" else 3)
    assert scores["classes"] == ["benign", "malignant"]
    # by mean HU: of the 9 pairs of objects, 60 lies below 65 and 90, and of those of the cases none is wrong
    auc = scores["by_class"]["malignant"]["auc"]["value"]
    assert auc == pytest.approx(7 / 9 if place.kind.unit == "object" else 1.0)
    lines = (place.consolidated / "test_results/objects.csv").read_text().splitlines()
    assert len(lines) == 1 + scores["num_objects"]
    validation = read_json(place.consolidated / "val_results/scores.json")
    assert (validation["num_cases"], validation["num_patients"]) == (8, 7)


def test_what_is_printed(place, model, capsys):
    assert main(["eval", "910", model, "-1", "--test"]) == 0
    out = capsys.readouterr().out
    assert f"{place.kind.unit}s of 3 cases, 3 patients" in out
    assert "balanced accuracy" in out
    assert "would be right in" in out
    refused = ["--boxes", "--analyze_boxes"] + (["--case"] if place.kind.unit == "object" else [])
    for flag in refused:
        assert main(["eval", "910", model, "-1", "--test", flag]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{flag} has nothing to print: this model judges {place.kind.unit}s" in error


def test_a_second_run_keeps_finished_cases(place, model, capsys):
    """One case was never finished, as after a kill; the others stay untouched, even their times."""
    files = {case: place.kind.result.file(place.test_predictions, case) for case in TEST}
    before = {case: (file.read_bytes(), file.stat().st_mtime_ns) for case, file in files.items()}
    files["test_1"].unlink()
    (place.test_predictions / ".tmp-0123abcd-test_1_judged.json").write_text("{")
    assert main(["predict", "910", model]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before") == 2
    assert {case: file.read_bytes() for case, file in files.items()} == {c: b for c, (b, _) in before.items()}
    assert files["test_0"].stat().st_mtime_ns == before["test_0"][1]
    assert not list(place.test_predictions.glob(".tmp-*"))


def test_another_cut_off_decides_kept_cases_again(place, model, capsys):
    file = place.consolidated / "plan_inference.json"
    tuned, content = file.read_bytes(), read_json(file)
    try:
        content["settings"]["threshold"] = 1.0
        content.pop("checksum")
        file.write_text(json.dumps(content))
        html = place.root / "stale.html"
        assert main(["report", "910", model, "--test", "--output", str(html)]) == 0
        assert "taken with other settings than the model has now" in html.read_text()
        assert main(["predict", "910", model]) == 0
        assert capsys.readouterr().out.count("finished before") == 3
        result = place.result("test_0")
        objects = result.objects if isinstance(result, Judged) else [result]
        assert {each.decision for each in objects} == {"benign"}
    finally:
        file.write_bytes(tuned)
        assert main(["predict", "910", model]) == 0


def test_training_goes_on_and_refuses_another_plan(place, model, capsys):
    weights = place.model / "fold0" / place.kind.name / "model.safetensors"
    time = weights.stat().st_mtime_ns
    assert main(["train", "910", "-o", "exp.fold=0"]) == 0
    assert weights.stat().st_mtime_ns == time
    assert main(["train", "910", "-o", "exp.fold=0", "+plan_overwrites.batch_size=2"]) == 2
    assert "was trained with another plan" in capsys.readouterr().err


def test_train_all_and_comparison(place, model, capsys):
    options = ["--executor", "debug", "--poll", "0.05", "--sweep", "--consolidate", "-o", "exp.tag=_all"]
    assert main(["train-all", "910", *options, "trainer_cfg.least_spread=30.0"]) == 0
    assert "5 done" in capsys.readouterr().out
    other = f"{model}_all"
    assert main(["train-all", "910", *options, "trainer_cfg.least_spread=30.0"]) == 0
    assert "running" not in capsys.readouterr().out  # all is done
    assert main(["predict", "910", other]) == 0
    assert main(["eval", "910", model, "-1", "--test", "--compare", other]) == 0
    out = capsys.readouterr().out
    assert f"{model} minus {other}, 3 patients" in out
    assert "McNemar p" in out
    comparison = read_json(place.consolidated / f"test_results/comparison_{other}.json")
    assert comparison["auc"]["malignant"]["difference"] == pytest.approx(0)  # a spread changes no order
    html = place.root / "compared.html"
    assert main(["report", "910", model, "--output", str(html)]) == 0
    assert f"{model} minus {other}" in html.read_text()


def test_report(place, model):
    html = place.root / "report.html"
    assert main(["report", "910", model, "--output", str(html)]) == 0
    text = html.read_text()
    for words in (
        "AUC of malignant", "Accuracy", "Baseline: whoever always says", "ROC curve", "Decision threshold",
        "objects_modality", "This system keeps no training curves", "splits.json", "toy_system",
        f"{place.kind.unit.capitalize()} by {place.kind.unit}",
    ):  # fmt: skip
        assert words in text, words
    assert text.count("data:image/png") == 5  # data, ROC, histogram, reliability, decision curve
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert main(["report", "910", model, "--val", "--output", str(html)]) == 0
    assert "decision was tuned on cases that are scored here" in html.read_text()


def test_submission(place, model, tmp_path, capsys):
    for form, file in (("judgements-csv", "judgements.csv"), ("judgements-json", "judgements.json")):
        out = tmp_path / form
        assert main(["submit", "910", model, "--format", form, "-o", str(out)]) == 0
        assert "judgements of 3 cases" in capsys.readouterr().out
        assert {each.name for each in out.iterdir()} == {file, "submission.json"}
        again = tmp_path / f"{form}-again"
        arguments = ["submit", "-i", str(place.test_predictions), "-o", str(again), "--format", form]
        assert main(arguments) == 0
        assert (again / file).read_bytes() == (out / file).read_bytes()
    capsys.readouterr()
    assert main(["submit", "910", model, "--format", "luna-csv", "-o", str(tmp_path / "luna")]) == 2
    error = capsys.readouterr().err
    assert "format 'luna-csv' cannot hold results of the type" in error
    assert "judgements-csv, judgements-json" in error
    arguments = ["submit", "910", model, "--format", "judgements-csv", "--boxes", "lesions"]
    assert main(arguments) == 2
    assert "judgements are all handed over" in capsys.readouterr().err


def test_export_and_import(place, model, tmp_path, capsys):
    """What was imported predicts the same; no case is named in the archive."""
    archive, folder = tmp_path / "model.zip", tmp_path / "models" / TASK / "Imported"
    assert main(["export-model", "910", model, "-o", str(archive)]) == 0
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
        assert all(b"case_0" not in content.read(name) for name in names)
    weights = {f"fold{fold}/{place.kind.name}/model.safetensors" for fold in (0, 1)}
    assert names == weights | {"manifest.json", "plan.json", "plan_inference.json"}
    assert main(["import-model", str(archive), "-o", str(folder)]) == 0
    assert "Predictor" not in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("det_models", str(tmp_path / "models"))
        patch.delenv("det_data")
        images = place.root / "data" / TASK / "raw_splitted/imagesTs"
        out = tmp_path / "out"
        assert main(["predict", TASK, "Imported", "-i", str(images), "-d", str(out)]) == 0
    for case in TEST:
        ours, theirs = place.result(case), place.kind.result.read(place.kind.result.file(out, case))
        assert theirs.summary() == ours.summary()
    predictor = Predictor.from_folder(folder, "cpu")
    given = {name: images / f"test_0_000{index}.nii.gz" for index, name in predictor.plan.modalities.items()}
    with pytest.raises(UserError, match="models of this kind cannot be asked from Python"):
        predictor.predict_result(given)


def test_weights_that_do_not_fit_are_not_imported(place, model, tmp_path, capsys):
    import torch

    from nndet_psma.trainers.networks.weights import write_state

    archive = tmp_path / "model.zip"
    file = place.consolidated / f"fold0/{place.kind.name}/model.safetensors"
    weights = file.read_bytes()
    try:
        write_state({"means": torch.zeros(3), "spread": torch.ones(1)}, file)
        assert main(["export-model", "910", model, "-o", str(archive)]) == 0
    finally:
        file.write_bytes(weights)
    assert main(["import-model", str(archive), "-o", str(tmp_path / "imported")]) == 2
    assert "weights do not fit the plan" in capsys.readouterr().err
    assert not (tmp_path / "imported/consolidated").exists()


def test_another_criterion_is_refused(place, model, capsys):
    assert main(["sweep", "910", model, "0", "-o", "sweep.criterion=froc"]) == 2
    assert (
        "decisions cannot be tuned for froc; expected sweep.criterion=auto, youden" in capsys.readouterr().err
    )


def test_a_model_that_judges_otherwise_is_not_compared(place, model, tmp_path, capsys):
    """The other kind of system under the same task: its results are of another type."""
    other = next(kind for kind in KINDS if kind is not place.kind)
    options = ["-o", f"train={other.name}"]
    description = place.root / "data" / TASK / "dataset.json"
    content = description.read_bytes()
    try:
        description.write_text(json.dumps({**json.loads(content), "psma": other.block}))
        assert main(["prep", "910", "-np", "1", *options, "plan_cfg.target=cpu"]) == 0
        assert main(["train", "910", *options, "exp.fold=all"]) == 0
        assert main(["consolidate", "910", other.model, "--sweep_boxes"]) == 0
    finally:
        description.write_bytes(content)
    capsys.readouterr()
    assert main(["eval", "910", model, "-1", "--compare", other.model]) == 2
    assert "the two models do not judge the same" in capsys.readouterr().err
    assert sorted(ModelFolder(place.model).trained_folds()) == [0, 1]
