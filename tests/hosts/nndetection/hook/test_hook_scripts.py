from types import SimpleNamespace

from nndet_psma.hosts.nndetection.hook import scripts as module
from nndet_psma.hosts.nndetection.hook.scripts import lost_scripts, script_owners


def test_whose_scripts_are_told_by_what_they_import(tmp_path):
    """As pip and older setuptools write them."""
    scripts = {
        "nndet_prep": "from nndet_psma.cli.prep import main",
        "nndet_train": "from scripts.train import train",
        "nndet_eval": "__requires__ = 'nndet'\nload_entry_point('nndet', 'console_scripts', 'nndet_eval')",
        "nndet_env": "__requires__ = 'nndet==0.1'",
        "nndet_other": "print(1)",
    }
    for name, content in scripts.items():
        (tmp_path / name).write_text(content)
    assert script_owners([*scripts, "nndet_sweep"], tmp_path) == {
        "nndet_prep": "nndet_psma",
        "nndet_train": "nnDetection",
        "nndet_eval": "nnDetection",
        "nndet_env": "nnDetection",
        "nndet_other": "another package",
    }


def test_what_another_package_took_or_removed_is_lost(tmp_path, monkeypatch):
    entries = [
        SimpleNamespace(name=f"nndet_{name}", group="console_scripts") for name in ("prep", "train", "eval")
    ]
    monkeypatch.setattr(module, "distribution", lambda name: SimpleNamespace(entry_points=entries))
    (tmp_path / "nndet_prep").write_text("from nndet_psma.cli.prep import main")
    (tmp_path / "nndet_train").write_text("from scripts.train import train")
    assert lost_scripts(tmp_path) == ["nndet_train", "nndet_eval"]


def test_the_engine_is_told_where_both_could_be_meant(monkeypatch, capsys, tmp_path):
    """Neither where nnDetection is not installed, nor where the user named the engine."""
    from nndet_psma.cli.unpack import main

    (tmp_path / "x").mkdir()
    said = []
    for beside, argv in ((True, []), (True, ["--host", "embedded"]), (False, [])):
        monkeypatch.setattr(module, "nndetection_beside_us", lambda beside=beside: beside)
        assert main([str(tmp_path / "x"), *argv]) == 2
        said.append("the embedded engine of nndet_psma" in capsys.readouterr().err)
    assert said == [True, False, False]


def test_host_nndet_works_whoever_has_the_scripts(monkeypatch):
    """``nndet_psma train`` is no name of nnDetection's."""
    from nndet_psma.cli.umbrella import main
    from nndet_psma.hosts.nndetection import launch

    given = []
    monkeypatch.setattr(launch, "launch", lambda command, argv: given.append((command, argv)) or 0)
    assert main(["train", "100", "-o", "host=nndet", "train=v001"]) == 0
    assert given == [("nndet_train", ["100", "-o", "train=v001"])]
