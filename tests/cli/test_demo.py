"""The demonstration runs what a user types: its command lines must parse, and cover every stage."""

from importlib import import_module

import pytest

from nndet_psma.cli import demo
from nndet_psma.cli.umbrella import COMMANDS
from nndet_psma.pipeline import STAGES

LINES = demo.commands(demo.build_parser().parse_args([]))


def parser_of(line):
    name, rest = line[0].removeprefix("nndet_"), line[1:]
    if name == "psma":
        name, rest = line[1], line[2:]
    return import_module(f"nndet_psma.cli.{name}").build_parser(), rest


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line[:2]))
def test_every_line_parses(line):
    parser, rest = parser_of(line)
    assert parser.parse_args(rest) is not None


def test_every_stage_is_run():
    typed = {" ".join(line[:2]) if line[0] == "nndet_psma" else line[0] for line in LINES}
    # the check runs inside prep, the sweep inside train; nobody waits for a submission
    assert {stage.command for stage in STAGES} - typed == {
        "nndet_psma check",
        "nndet_sweep",
        "nndet_psma submit",
    }


def test_untrained_model_differs_by_its_tag_and_iterations_only():
    untrained = next(line for line in LINES if f"exp.tag={demo.UNTRAINED}" in line)
    assert untrained[:4] == ["nndet_train", demo.TASK, "-o", "exp.fold=0"]
    assert set(untrained[4:]) == {f"exp.tag={demo.UNTRAINED}", "trainer_cfg.iterations=0"}


def test_a_failing_command_stops_the_demonstration(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(demo, "commands", lambda args: [["nndet_prep", "999"], ["nndet_never_reached"]])
    assert demo.run(demo.build_parser().parse_args(["--folder", str(tmp_path)])) == 2
    output = capfd.readouterr()
    assert "999" in output.err
    assert "nndet_never_reached" not in output.out


def test_the_umbrella_knows_every_command():
    for name in COMMANDS:
        module = import_module(f"nndet_psma.cli.{name}")
        assert callable(module.main)
        assert callable(module.build_parser)
