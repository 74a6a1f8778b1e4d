"""``nndet_example``: arguments, destination, defaults."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from nndet_psma.cli import example
from nndet_psma.cli.example import build_parser, main, run
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom import task as task_module
from nndet_psma.dataset.phantom.options import Difficulty, PhantomOptions
from nndet_psma.dataset.phantom.squares import SquaresOptions

SMALL = ["--size", "12 54 74", "--spacing", "12 5 5", "--cases", "1", "--test-cases", "0"]


@pytest.fixture
def request_made(monkeypatch) -> list[tuple[Path, dict]]:
    """What ``generate_task`` was asked for, without drawing anything."""
    made: list[tuple[Path, dict]] = []
    monkeypatch.setattr(task_module, "generate_task", lambda folder, **rest: made.append((folder, rest)))
    return made


def test_defaults_of_the_command_are_those_of_the_generator(request_made, tmp_path):
    assert run(build_parser().parse_args(["-o", str(tmp_path)])) == 0
    [(folder, rest)] = request_made
    assert folder == tmp_path / "Task100_PSMAPhantom"
    assert rest["options"] == PhantomOptions()
    assert (rest["kind"], rest["cases"], rest["test_cases"], rest["seed"]) == ("psma", 24, 8, 0)
    assert (rest["force"], rest["processes"]) == (False, 1)


def test_every_option_arrives(request_made, tmp_path):
    argv = ["--seed", "7", "--task", "5", "--name", "Mine", "--difficulty", "hard", "--positives", "2.5"]
    argv += ["--noise", "3", "--oblique", "6", "--flip", "--no-table", "--force", "--num_processes", "2"]
    argv += ["--cases", "3", "--test-cases", "2"]
    argv += ["--size", "18 72 96", "--spacing", "8 4 4", "-o", str(tmp_path)]
    run(build_parser().parse_args(argv))
    [(folder, rest)] = request_made
    assert folder.name == "Task005_Mine"
    assert rest["options"] == PhantomOptions(
        (18, 72, 96), (8.0, 4.0, 4.0), "hard", 2.5, 3.0, 6.0, True, False
    )
    assert (rest["cases"], rest["test_cases"], rest["seed"], rest["force"], rest["processes"]) == (
        3,
        2,
        7,
        True,
        2,
    )


@pytest.mark.parametrize(
    ("argv", "counts"), [(["--full"], (100, 30)), (["--full", "--cases", "50"], (50, 30)), ([], (24, 8))]
)
def test_full_is_a_default_that_counts_override(request_made, tmp_path, argv, counts):
    run(build_parser().parse_args([*argv, "-o", str(tmp_path)]))
    assert (request_made[0][1]["cases"], request_made[0][1]["test_cases"]) == counts


def test_names_kept_for_a_quick_help_match_the_generator():
    assert tuple(task_module.KINDS) == example.KIND_NAMES
    assert get_args(Difficulty) == example.DIFFICULTIES
    options = [kind.options() for kind in task_module.KINDS.values()]
    assert {f.name for o in options for f in dataclasses.fields(o)} == set(example.OPTION_NAMES)
    text = build_parser().format_help()
    for kind in ("psma", "dwi"):
        grid = task_module.KINDS[kind].options()
        for values in (grid.size, grid.spacing):
            assert f"{kind} '{' '.join(map(str, values))}'" in " ".join(text.split())
    assert f"default '{' '.join(map(str, SquaresOptions().image_size))}'" in " ".join(text.split())
    assert "force" in inspect.signature(task_module.generate_task).parameters


@pytest.mark.parametrize(
    ("kind", "folder", "counts"),
    [("dwi", "Task101_DWIPhantom", (24, 8)), ("squares", "Task000_Example", (10, 10))],
)
def test_every_kind_has_its_own_defaults(request_made, tmp_path, kind, folder, counts):
    assert run(build_parser().parse_args(["--kind", kind, "-o", str(tmp_path)])) == 0
    [(destination, rest)] = request_made
    assert destination.name == folder
    assert rest["options"] == task_module.KINDS[kind].options()
    assert (rest["cases"], rest["test_cases"]) == counts


def test_option_of_another_kind_is_refused(request_made, tmp_path):
    argv = ["--kind", "squares", "--noise", "3", "-o", str(tmp_path)]
    with pytest.raises(
        UserError, match="'squares' has no such option; expected one of image_size; found noise"
    ):
        run(build_parser().parse_args(argv))
    assert not request_made


def test_image_size_of_squares(request_made, tmp_path):
    argv = ["--kind", "squares", "--image_size", "32 48 64", "-o", str(tmp_path)]
    run(build_parser().parse_args(argv))
    assert request_made[0][1]["options"] == SquaresOptions((32, 48, 64))


def test_unknown_kind_lists_those_there_are(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--kind", "mouse"])
    error = capsys.readouterr().err
    assert all(name in error for name in ("psma", "dwi", "squares"))


def test_writes_to_det_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("det_data", str(tmp_path))
    assert run(build_parser().parse_args(SMALL)) == 0
    assert (tmp_path / "Task100_PSMAPhantom/dataset.json").is_file()
    assert "1 training and 0 test cases" in capsys.readouterr().out


def test_no_destination(monkeypatch):
    monkeypatch.delenv("det_data", raising=False)
    with pytest.raises(UserError, match="det_data"):
        run(build_parser().parse_args(SMALL))


def test_number_of_another_task_is_refused(tmp_path):
    (tmp_path / "Task100_Patients").mkdir()
    with pytest.raises(UserError, match=r"Task100_Patients: number 100 belongs to another task.*--task"):
        run(build_parser().parse_args([*SMALL, "-o", str(tmp_path)]))


@pytest.mark.parametrize(
    ("argv", "message"), [(["--name", "a.b"], "name is not usable"), (["--task", "1000"], "0 to 999")]
)
def test_unusable_names(tmp_path, argv, message):
    with pytest.raises(UserError, match=message):
        run(build_parser().parse_args([*SMALL, *argv, "-o", str(tmp_path)]))


def test_user_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["--size", "4 4 4", "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "does not cover a pelvis" in error


@pytest.mark.parametrize("text", ["1 2", "a b c"])
def test_three_numbers_are_wanted(text, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--size", text])
    assert "--size" in capsys.readouterr().err


def test_help_needs_no_heavy_imports():
    code = (
        "import sys; from nndet_psma.cli.example import build_parser; build_parser().format_help();"
        "sys.exit(sorted({'numpy', 'scipy', 'SimpleITK', 'torch', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
