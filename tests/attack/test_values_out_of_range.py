"""Plans and thresholds with values that make no sense: refused in one line, nothing left behind."""

from __future__ import annotations

import pytest
from hostile_models import forged_archive, json_member

from nndet_psma.cli import import_model


def _plan(**changes):
    return json_member("plan.json", lambda content: content.update(changes))


def _detector(**changes):
    return json_member("plan.json", lambda content: content["detector"].update(changes))


def _stage(**changes):
    return json_member("plan.json", lambda content: content["stages"][-1].update(changes))


def _window(**changes):
    return json_member("plan.json", lambda content: content["windows"][0].update(changes))


def _settings(**changes):
    return json_member("plan_inference.json", lambda content: content["settings"].update(changes))


def _raw(name, old, new):
    """Text that ``json.dumps`` would not write."""

    def changed(members):
        assert members[name].count(old) == 1
        members[name] = members[name].replace(old, new)

    return changed


def _deep(content):
    nested: list = []
    for _ in range(400):
        nested = [nested]
    content["postproc_defaults"] = {"options": nested}


CASES = {
    "wide head": (_detector(head_channels=10**7), "detector.head_channels: expected a number in [1, 8192]"),
    "wide pyramid": (_detector(fpn_channels=10**9), "detector.fpn_channels: expected a number in"),
    "negative": (_detector(fpn_channels=-256), "detector.fpn_channels: expected a number in [1, 8192]"),
    "float overflow": (_detector(scale=10**400), "detector.scale: expected a number of at most"),
    "proposals": (_detector(proposals_test=10**12), "detector.proposals_test: expected a number in"),
    "neighbours": (_plan(neighbours=10**6), "neighbours: expected a number in [0, 50], found 1000000"),
    "fine": (_plan(spacing=[1e-9, 1, 1]), "spacing[0]: expected a number in [0.01, 100]"),
    "coarse": (_plan(spacing=[3, 1, 1e9]), "spacing[2]: expected a number in [0.01, 100]"),
    "plan id": (_plan(plan_id="../../x"), "plan_id: expected a name"),
    "long id": (_plan(plan_id="x" * 300), "plan_id: expected a name"),
    "class": (_plan(classes={"0": "<script>alert(1)</script>"}), "classes.0: expected a name of 1 to 100"),
    "classes": (
        _plan(classes={str(n): f"c{n}" for n in range(2000)}),
        "classes: expected at most 1000 items",
    ),
    "window": (_window(name="a/../../b"), "windows[0].name: expected a name of 1 to 100 characters"),
    "stage": (_stage(name="a&b"), "stages[2].name: expected a name"),
    "digits": (_raw("plan.json", b'"batch_size": 2', b'"batch_size": ' + b"9" * 5000), "Exceeds the limit"),
    "not finite": (_raw("plan.json", b'"batch_size": 2', b'"batch_size": 1e999'), "batch_size: expected"),
    "deep": (json_member("plan.json", _deep), "nested too deeply"),
    "votes": (_settings(min_votes=1.5), "settings.min_votes: expected int, found 1.5"),
    "gap": (_settings(link_gap=10**9), "link_gap must be a whole number in [0, 1000], got 1000000000"),
    "steps": (_settings(steps=[1, None]), "settings.steps[0]: expected str, found 1"),
    "no such step": (_settings(steps=["Nothing"]), "unknown post-processing step 'Nothing'"),
    "zone": (_settings(zone_mm=1000.0), "zone_mm 1000 lies beyond margin_mm"),
    "threshold": (_settings(score_threshold="0.5"), "settings.score_threshold: expected float"),
}


@pytest.mark.parametrize("kind", CASES)
def test_refused_in_one_line(whole, tmp_path, capsys, kind):
    change, message = CASES[kind]
    file = forged_archive(whole, tmp_path / "bad.zip", change)
    assert import_model.main([str(file), "-o", str(tmp_path / "here" / "model")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 1500
    assert message in error
    assert not list((tmp_path / "here").rglob("*.json"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "M" * 300, "is no model name"),
        ("task", "Task900_" + "x" * 300, "is no task name"),
        ("licence", "x" * 20_000, "licence: expected at most 10000 items"),
        ("folds", [10**9], "folds[0]: expected a number in"),
        ("package_version", 7, "package_version: expected str"),
    ],
)
def test_manifests(whole, tmp_path, monkeypatch, capsys, key, value, message):
    monkeypatch.setenv("det_models", str(tmp_path))
    file = forged_archive(
        whole,
        tmp_path / "bad.zip",
        json_member("manifest.json", lambda content: content.update({key: value})),
    )
    assert import_model.main([str(file)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]
