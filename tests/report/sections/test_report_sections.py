"""Sections of the tiny model: strata, hit rules, operating points, comparison, nested sweep, cost, worst cases."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nndet_psma.core.atomic import write_json
from nndet_psma.evaluation.detection.compare import Comparison
from nndet_psma.evaluation.detection.scores import Optimistic, Score
from nndet_psma.evaluation.detection.strata import Stratum
from nndet_psma.report.build import build_report
from nndet_psma.report.files import read_comparisons, read_cost, read_environment, trained_precision
from nndet_psma.report.findings import find
from nndet_psma.report.notes import Commands, Notes
from nndet_psma.report.page.content import Folded, Gallery, Missing, Note, Picture, Table
from nndet_psma.report.removed import PlacedBox
from nndet_psma.report.sections.comparison import comparison_section
from nndet_psma.report.sections.cost import memory_table, training_section
from nndet_psma.report.sections.gallery import describe, picture_cases
from nndet_psma.report.sections.results import ablation_section, extremes_section, headline_section
from nndet_psma.report.sections.scores import scores_section
from nndet_psma.report.sections.strata import by_group, strata_section
from nndet_psma.report.sections.sweep import sweep_section
from nndet_psma.report.shots import worst_false_alarms, worst_misses
from nndet_psma.report.texts import criterion_name, hit_rule, score_text
from nndet_psma.report.training_cost import TrueCost
from nndet_psma.stages.report import ReportJob, read_source
from nndet_psma.trainers.watch.memory_check import MemoryCheck


@pytest.fixture(scope="module")
def source(tiny):
    return read_source(tiny.paths, ReportJob(tiny.folder))


def of_kind(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def table(section, start):
    return next(block for block in of_kind(section, Table) if block.caption.startswith(start))


def words(section) -> str:
    return " ".join(block.text for block in of_kind(section, Note))


def test_strata_tell_the_found_from_the_missed_node(source):
    # short axis: across the longest diameter, of a square its diagonal. Node 1, 4 x 4 voxels of 2 mm (8 x 1.41 = 11.3
    # mm), is hit; node 2, 3 x 3: 6 x 1.41 = 8.5 mm, is never predicted; both lie in the CTV
    section = strata_section(source)
    rows = table(section, "By short axis").rows
    assert [row[:2] for row in rows] == [["8 to 10", "1"], [">10", "1"]]
    assert [row[2].split()[0] for row in rows] == ["0.00", "1.00"]
    assert [row[5] for row in rows] == ["0 of 1", "1 of 1"]
    [inside] = table(section, "By distance outside the CTV").rows
    assert inside[:2] == ["inside", "2"]
    assert inside[2].split()[0] == "0.50"
    [chart] = of_kind(section, Picture)
    assert "Short axis: 8 to 10 (n=1)" in chart.alt


def test_unknown_groups_come_last_and_undefined_scores_are_dashes(source):
    one, nothing = Score(1.0, 1.0, 1.0), Score(None, None, None, why="no slices")
    strata = [Stratum(g, "x", 1, 1, one, one, {}, nothing) for g in ("side", "station", "class")]
    assert list(by_group(strata)) == ["Class", "Station", "side"]
    changed = replace(source, scores=replace(source.scores, strata=tuple(strata)))
    section = strata_section(changed)
    assert table(section, "By side").rows == [["x", "1", "–", "–", "1.00 (1.00 to 1.00)", "1 of 1"]]
    assert "Not known for these lesions: Short axis, mm; Distance outside the CTV, mm." in words(section)


def test_older_scores_and_no_lesions_are_told_apart(source):
    from nndet_psma.artifacts.model_folder import ModelFolder
    from nndet_psma.stages.report import _note_old_scores

    old = replace(source.scores, strata=(), other_hits={})
    none = replace(source, scores=replace(old, num_lesions=0))
    assert "no scored case holds a lesion" in strata_section(none).blocks[0].what
    notes = Notes(Commands(ModelFolder(Path("m/Task007_Tiny/M")), -1, True))
    _note_old_scores(old, notes)
    told = strata_section(replace(source, scores=old, missing=notes.missing)).blocks[0]
    assert "scores.json is of an older version" in told.what
    assert told.command == "nndet_eval Task007_Tiny M -1 --test"


def test_other_hit_rules_have_names_and_meanings(source):
    rows = table(scores_section(source), "Other meanings of a hit").rows
    assert [row[0] for row in rows] == ["Overlap of 0.10", "Centres within 5 mm", "Centre inside"]
    assert all(len(row[3]) > 20 for row in rows)
    assert hit_rule("FROC_score_new_3") == ("new 3", "")


def test_the_page_tells_how_intervals_were_made(source):
    assert "Student's quantile" in words(scores_section(source))  # two patients are few
    many = replace(source, scores=replace(source.scores, intervals="percentile"))
    assert "between percentiles of the draws" in words(scores_section(many))


def test_operating_points_show_false_alarms_per_patient(source):
    # two patients with one case each. Candidates are ranked before the vote: at score 0.05 one node of two is found
    # beside two false boxes (slice 1; the outvoted one of slice 3, 0.4 / 2 voters): 1 of 3, F1 2 / (2 + 2 + 1), 2 / 2
    points = table(scores_section(source), "Operating points")
    assert points.header[-1] == "False alarms per patient"  # per case would be the same
    assert points.rows[0][1] == "1 of 2"
    assert [cell.split()[0] for cell in points.rows[0][2:]] == ["0.50", "0.33", "0.40", "1.0"]
    # lesions and boxes are all of one patient, which says nothing about their spread over patients
    assert ["(" in cell for cell in points.rows[0][2:]] == [False, False, False, True]
    one = replace(source, scores=replace(source.scores, num_patients=1))
    assert table(scores_section(one), "Operating points").header[-2:] == (
        "False alarms per patient",
        "False alarms per case",
    )


def test_the_point_chosen_on_the_scored_cases_stands_apart(source):
    section = scores_section(source)
    assert not any("best F1" in row[0] for row in table(section, "Operating points").rows)
    [row] = table(section, "Optimistic operating point: its threshold was chosen on the very cases").rows
    assert row[0] == "0.900 (best F1)"
    assert "fixed and were chosen on no cases" in words(section)
    without = replace(source, scores=replace(source.scores, optimistic=Optimistic()))
    assert not [b for b in of_kind(scores_section(without), Table) if b.caption.startswith("Optimistic")]
    nothing = replace(without, scores=replace(without.scores, operating_points=()))
    assert any(
        "no candidate scores 0.05" in block.what for block in of_kind(scores_section(nothing), Missing)
    )


def test_accepted_lesions_come_first(source):
    """One of two nodes, one false lesion, two patients; the tiny model's plan does not record the cases."""
    first = headline_section(source, None).blocks[0]
    assert first.text.startswith("Accepted by the tuned thresholds (IoU 0.10 in 3D): 1 of 2 lesions, ")
    assert "sensitivity 0.50; " in first.text  # one patient has all nodes: no interval
    assert (
        "1 false alarm, 0.50 (0.00 to 26.90) per patient" in first.text
    )  # Student's quantile of two patients: 12.7
    assert first.text.endswith("Thresholds: chosen on cases that are not recorded.")
    section = scores_section(source)
    rows = table(section, "Accepted lesions in 3D").rows
    assert [row[0] for row in rows] == [
        "IoU of 0.10",
        "Overlap of 0.10",
        "Centres within 5 mm",
        "Centre inside",
    ]
    assert rows[0][1] == "1 of 2"
    assert [cell.split()[0] for cell in rows[0][2:]] == ["0.50"] * 5
    assert "Thresholds: chosen on cases that are not recorded (7 settings tried)." in words(section)
    here = replace(source.scores, accepted=replace(source.scores.accepted, chosen_on="the scored cases"))
    assert (
        "so these numbers are optimistic"
        in headline_section(replace(source, scores=here), None).blocks[0].text
    )


def test_both_slice_aucs_have_names(source):
    rows = {row[0]: row[1] for row in table(scores_section(source), "Scores over all classes").rows}
    assert (rows["Slice AUC"], rows["Slice AUC, accepted boxes"]) == ("0.778", "0.630")  # 21 / 27, 17 / 27
    header = table(ablation_section(source), "Ablation").header
    assert header[-2:] == ("Slice AUC", "Slice AUC, accepted boxes")


def older(content):
    """Scores by key as an older version wrote them: one slice AUC, of the accepted boxes."""
    kept = {key: value for key, value in content.items() if not key.startswith(("paper_auc", "accepted_"))}
    return {**kept, "paper_auc": content["paper_auc_accepted"]}


def test_files_of_an_older_version_are_read_and_told(own_tiny):
    results = own_tiny.folder.fold(-1) / "test_results"
    scores = json.loads((results / "scores.json").read_text())
    best = scores.pop("optimistic")["best_f1"]
    for row in (best, *scores["operating_points"]):
        del row["chosen_on"]
    del scores["accepted"]
    scores |= {"schema_version": 1, "best_f1": best, "scores": older(scores["scores"])}
    write_json(results / "scores.json", scores)
    for name in ("ablation.json", "comparison_Other_Model.json"):
        content = json.loads((results / name).read_text())
        for each in content if isinstance(content, list) else [content]:
            each["scores"] = older(each["scores"])
        write_json(results / name, content)
    records = json.loads((results / "records.json").read_text())
    for record in records:
        del record["accepted"], record["slices"]["image_scores"]
    write_json(results / "records.json", records)

    source = read_source(own_tiny.paths, ReportJob(own_tiny.folder))
    headline = headline_section(source, None)
    assert "run nndet_eval again" in headline.blocks[0].what
    assert "its slice AUC is that of the accepted boxes alone and is named so" in words(headline)
    section = scores_section(source)
    rows = {row[0]: row[1] for row in table(section, "Scores over all classes").rows}
    assert rows["Slice AUC, accepted boxes"] == "0.630"
    assert "Slice AUC" not in rows
    assert table(section, "Optimistic operating point").rows[0][0] == "0.900 (best F1)"
    ablation = ablation_section(source)
    assert table(ablation, "Ablation").header[-1] == "Slice AUC, accepted boxes"
    assert "ablation.json is of an older version" in words(ablation)
    [other] = [block for block in comparison_section(source).blocks if isinstance(block, Folded)]
    assert "Slice AUC, accepted boxes" in [row[0] for row in other.blocks[0].rows]
    assert source.records[0].accepted is None
    assert "Scores" in build_report(source, 0)


def test_comparison_with_a_model_that_accepts_nothing(source):
    section = comparison_section(source)
    rows = {row[0]: row[1:] for row in table(section, "MaskRCNN25D_PSMA25D minus Other_Model").rows}
    assert rows["Lesion sensitivity"][:3] == ["0.500", "0.000", "+0.500"]
    assert rows["Slice precision"][2] == "–"  # the other model's is undefined
    assert len(of_kind(section, Picture)) == 1
    assert len(of_kind(section, Folded)) == 1
    # both are right about one patient only: this model calls case_a rightly, and both call the other patient rightly
    assert "by both 1, only by MaskRCNN25D_PSMA25D 1, only by Other_Model 0, by neither 0" in words(section)


def test_without_comparison_the_command_is_named(own_tiny):
    file = own_tiny.folder.fold(-1) / "test_results" / "comparison_Other_Model.json"
    file.write_text('{"first": 1}')
    assert "comparison_Other_Model.json cannot be read" in read_comparisons(file.parent, Comparison)[1]
    file.unlink()
    [missing] = comparison_section(read_source(None, ReportJob(own_tiny.folder))).blocks
    assert "none was made" in missing.what
    assert missing.command.endswith("-1 --test --compare OTHER_MODEL")


def test_nested_beside_plain(source):
    section = sweep_section(source)
    plain, nested = table(section, "Plain: tuned").rows
    assert plain[1:] == ["0.700", "1.000", "0.500", "0.600", "1.000"]  # the last row of the tiny sweep
    assert nested[1:] == ["0.600", "0.500", "0.750", "0.600", "0.500"]
    assert "The plain value is optimistic by 0.100." in words(section)
    [folded] = [b for b in of_kind(section, Folded) if "held out" in b.summary]
    [chosen] = folded.blocks
    assert chosen.header == ("Tuned on", "Votes needed")  # the only threshold that differs
    assert [row[1] for row in chosen.rows] == ["2", "2", "1"]


def test_chance_may_favour_the_nested_value(source):
    nested = {**source.sweep["nested"], "optimism": -0.05, "settings": []}
    section = sweep_section(replace(source, sweep={**source.sweep, "nested": nested}))
    assert "even better, by 0.050; that is chance" in words(section)
    assert not [b for b in of_kind(section, Folded) if "held out" in b.summary]


@pytest.mark.parametrize(("nested", "told"), [("absent", "made without it"), (None, "could not be parted")])
def test_a_missing_nested_value_is_said(source, nested, told):
    sweep = {key: value for key, value in source.sweep.items() if key != "nested"}
    if nested is None:
        sweep["nested"] = None
    [missing] = of_kind(sweep_section(replace(source, sweep=sweep)), Missing)
    assert told in missing.what


def test_measured_cost_stands_beside_the_estimate(source):
    # 20 steps of 3.6 s are 1.2 min; two folds of two stages are 4.8 min
    section = training_section(source)
    rows = {row[0]: row for row in table(section, "Cost of the training").rows}
    assert rows["stage hu_a"][2] == "1.2 min per fold for 20 steps, 3.6 s per step"
    assert rows["whole task"][2] == "4.8 min, 4 of 4 stages finished"
    assert rows["memory"][2] == "not known"
    assert "no memory.json" in words(section)
    loss, validation = of_kind(section, Picture)
    assert "hu_a 0.75, hu_b 0.75" in loss.alt
    assert "hu_a fold 0 0.25" in validation.alt


def test_without_metrics_the_estimate_still_stands(source):
    section = training_section(replace(source, cost=TrueCost(())))
    assert table(section, "Cost of the training").rows[0][2] == "not known"
    assert "measured cost" in of_kind(section, Missing)[0].what


def test_memory_of_a_gpu():
    check = MemoryCheck("wsi", "GPU", "resnet18", 4, (160, 184), "bf16", 2.0, 1.5, 1.25, 0.75)
    assert memory_table([("fold0", check)]).rows == [
        ["fold0, wsi", "2.00", "1.50", "0.75", "4 slices of 160 × 184, GPU"]
    ]


def test_damaged_files_of_a_fold_cost_only_themselves(tmp_path):
    (tmp_path / "wsi").mkdir()
    (tmp_path / "environment.json").write_text("[1]")
    (tmp_path / "wsi" / "memory.json").write_text("{}")
    (tmp_path / "wsi" / "metrics.csv").write_text("step,loss\n1,2\n")
    assert read_environment(tmp_path) is None
    assert read_cost([tmp_path]) == TrueCost(())
    (tmp_path / "config.yaml").write_text("trainer_cfg:\n  precision: bf16   # fast\n")
    assert trained_precision(tmp_path / "config.yaml") == "bf16"


def lines_of(source, shots, removed):
    found = find(source.predictions["case_a"], source.raw.labels("case_a"), 0.1)
    [shot] = shots([found], 1)
    return describe(shot, source.raw.images(shot.case_id), found, removed)


def placed(slice_index, box, score, step):
    return PlacedBox((slice_index,), box, score, step, f"reason of {step}", "hu_a")


def test_a_miss_names_the_best_removed_proposal(source):
    # node 2: slice 4, y 30..33, x 36..39; the third box lies on another slice, the fourth beside the node
    removed = [
        placed(4, (29, 35, 34, 40), 0.8, "nms"),
        placed(4, (31, 37, 35, 41), 0.4, "hu"),
        placed(3, (30, 36, 33, 39), 0.9, "zone"),
        placed(4, (33, 39, 36, 42), 0.9, "zone"),
    ]
    text = " ".join(lines_of(source, worst_misses, removed))
    assert "2 proposals on its slices met it and went (1 by duplicates, 1 by HU filter)" in text
    assert "the best, with score 0.40: reason of hu." in text
    assert "no removed proposal meets this lesion" in " ".join(lines_of(source, worst_misses, []))


def test_a_false_alarm_has_a_size_and_steps_from_elsewhere_are_named(source):
    # the false box: slice 1, 4 x 4 voxels of 2 mm; no node on that slice
    lines = lines_of(source, worst_false_alarms, [placed(1, (0, 0, 4, 4), 0.3, "my_step")])
    assert "The false box: 8 × 8 mm; there is no true lesion on this slice." in lines
    assert "Proposals removed on this slice, over all windows: 1 by my_step." in lines
    assert "Removed on this slice by my_step (score 0.30): reason of my_step." in lines


def test_as_many_worst_cases_as_asked_for(source):
    pictures = picture_cases(source, source.raw, 0, worst=1)
    section = extremes_section(source, pictures)
    headings = [gallery.heading for gallery in of_kind(section, Gallery)]
    assert headings[0].startswith("1 of 1 lesions that were missed")
    assert headings[1].startswith("1 of 1 false alarms")
    without = extremes_section(source, picture_cases(source, source.raw, 0, worst=0))
    assert "None of 1 lesions that were missed" in words(without)


def test_predictions_of_older_thresholds_are_told(own_tiny, source):
    assert source.stale is False
    assert "other thresholds" not in words(headline_section(source, None))
    plan = own_tiny.folder.fold(-1) / "plan_inference.json"
    content = json.loads(plan.read_text())
    del content["checksum"]  # as one does who edits it
    content["settings"]["min_votes"] = 1
    plan.write_text(json.dumps(content))
    changed = read_source(None, ReportJob(own_tiny.folder))
    assert changed.stale is True
    assert "made with other thresholds" in words(headline_section(changed, None))


@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        ("sensitivity@precision=0.9", "sensitivity at precision 0.9"),
        ("sensitivity@fp=1", "sensitivity at false alarms per case 1"),
        ("own", "own"),
    ],
)
def test_criteria_in_words(criterion, name):
    assert criterion_name(criterion) == name


def test_score_texts():
    assert score_text(Score(0.5, 0.25, 1.0)) == "0.50 (0.25 to 1.00)"
    assert score_text(Score(0.5, None, None)) == "0.50"
    assert score_text(None) == "–"
