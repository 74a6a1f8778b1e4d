"""What is missing is said, with the command that makes it; the page never fails for it."""

import json
import re
import shutil

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.report.build import build_report
from nndet_psma.stages.report import ReportJob, read_source, write_report

MODEL = "Task007_Tiny MaskRCNN25D_PSMA25D"


def page(model, paths=None, **job) -> str:
    return build_report(read_source(paths, ReportJob(model.folder, **job)), 0)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("consolidated/sweep.json", f"nndet_consolidate {MODEL} --sweep_boxes"),
        ("consolidated/plan_inference.json", f"nndet_consolidate {MODEL} --sweep_boxes"),
        ("consolidated/test_results/ablation.json", f"nndet_eval {MODEL} -1 --test"),
        ("consolidated/test_results/records.json", f"nndet_eval {MODEL} -1 --test"),
        ("fold1/hu_b/metrics.csv", "nndet_train Task007_Tiny"),
    ],
)
def test_a_missing_file_is_named_with_its_command(own_tiny, file, command):
    (own_tiny.folder.root / file).unlink()
    html = page(own_tiny)
    name = file.rpartition("/")[2]
    assert f"{name} is missing" in html
    assert f"<code>{command}</code>" in html


def test_a_damaged_file_is_told_apart_from_a_missing_one(own_tiny):
    (own_tiny.folder.root / "consolidated/sweep.json").write_text('{"rows": []}')
    assert "sweep.json cannot be read" in page(own_tiny)


def test_without_the_task_data_pictures_and_histograms_are_explained(own_tiny):
    html = page(own_tiny)
    assert "raw images and labels of the task are not on this machine" in html
    assert "Set det_data" in html
    assert "<code>nndet_prep Task007_Tiny</code>" in html
    assert "image/jpeg" not in html  # no slices


def test_without_any_training_folder(own_tiny):
    for fold in ("fold0", "fold1"):
        shutil.rmtree(own_tiny.folder.root / fold)
    html = page(own_tiny)
    assert "no fold folder is left" in html
    assert "environment.json is missing" in html


def test_an_unreadable_image_costs_only_the_pictures(own_tiny, tiny, tmp_path):
    from nndet_psma.dataset.task.paths import TaskPaths

    copy = tmp_path / "data" / "Task007_Tiny"
    shutil.copytree(tiny.paths.root, copy)
    image = copy / "raw_splitted" / "imagesTs" / "case_a_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:200])
    html = build_report(read_source(TaskPaths(copy), ReportJob(own_tiny.folder)), 2)
    assert "case_a_0000.nii.gz" in html
    assert str(tmp_path) not in html
    assert 'id="provenance"' in html


def test_a_model_that_is_not_scored_is_refused(own_tiny):
    shutil.rmtree(own_tiny.folder.root / "consolidated/test_results")
    with pytest.raises(UserError, match=f"not evaluated.*Run nndet_eval {MODEL} -1 --test"):
        write_report(own_tiny.paths, ReportJob(own_tiny.folder))
    with pytest.raises(UserError, match=rf"val_results/scores\.json.*nndet_eval {MODEL} -1\.$"):
        write_report(own_tiny.paths, ReportJob(own_tiny.folder, test=False))


def test_validation_scores_warn_of_optimism(own_tiny):
    model = own_tiny.folder.root / "consolidated"
    (model / "test_results").rename(model / "val_results")
    plan = model / "plan_inference.json"
    content = json.loads(plan.read_text())
    del content["checksum"]  # as one does who edits it
    plan.write_text(json.dumps({**content, "cases": ["case_a"]}))
    html = page(own_tiny)
    assert "validation predictions" in html
    assert "these scores are optimistic" in html


def test_the_default_place_is_the_model_folder(own_tiny):
    assert write_report(None, ReportJob(own_tiny.folder)) == own_tiny.folder.root / "report.html"
    assert not list(own_tiny.folder.root.glob(".tmp-*"))


def test_every_report_has_its_file_and_links_to_the_others(own_tiny):
    """A report of a fold replaced that of the consolidated model."""
    root = own_tiny.folder.root
    for fold, results in ((0, "val_results"), (1, "test_results")):
        shutil.copytree(own_tiny.folder.fold(-1), own_tiny.folder.fold(fold), dirs_exist_ok=True)
        if results == "val_results":
            (own_tiny.folder.fold(fold) / "test_results").rename(own_tiny.folder.fold(fold) / results)
    val = write_report(None, ReportJob(own_tiny.folder, fold=0, test=False))
    test = write_report(None, ReportJob(own_tiny.folder, fold=1, test=True))
    whole = write_report(None, ReportJob(own_tiny.folder))
    assert [file.name for file in (val, test, whole)] == [
        "report_fold0_val.html", "report_fold1_test.html", "report.html",
    ]  # fmt: skip
    links = re.findall(r'<a href="(report[^"]+)"', whole.read_text())
    assert links == ["report_fold0_val.html", "report_fold1_test.html"]
    assert (root / "report_fold0_val.html").read_text().count('href="report') == 0  # it was the first


def test_thresholds_that_make_no_sense_are_told_and_cost_no_page(own_tiny):
    plan = own_tiny.folder.root / "consolidated/plan_inference.json"
    content = json.loads(plan.read_text())
    del content["checksum"]
    plan.write_text(json.dumps({**content, "settings": {**content["settings"], "min_votes": "many"}}))
    source = read_source(own_tiny.paths, ReportJob(own_tiny.folder))
    assert "the thresholds make no sense: settings.min_votes" in source.missing["inference"].what
    assert "min_votes" in build_report(source, 0)
