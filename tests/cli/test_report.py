"""``nndet_psma report``: arguments, what the stage is asked for, errors."""

import subprocess
import sys

import pytest
from places import REPOSITORY

from nndet_psma.cli.report import build_parser, main
from nndet_psma.stages import report as stage


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[tuple]:
    """What the stage was asked for; it writes a stub."""
    model = tmp_path / "models" / "Task007_Tiny" / "M"
    model.mkdir(parents=True)
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    monkeypatch.setenv("det_data", str(tmp_path / "nowhere"))
    calls = []

    def stub(paths, job):
        calls.append((paths, job))
        file = job.output or model / "report.html"
        file.write_text("x" * 1000)
        return file

    monkeypatch.setattr(stage, "write_report", stub)
    return calls


def test_defaults(asked, capsys):
    assert main(["7", "M"]) == 0
    [(paths, job)] = asked
    assert paths is None  # the data are not there; the page then says so
    assert (job.fold, job.test, job.output, job.max_cases) == (-1, None, None, 12)
    assert job.folder.root.name == "M"
    assert "report.html (0.0 MB)" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "test"), [("--test", True), ("--val", False)])
def test_options(asked, tmp_path, monkeypatch, option, test):
    (tmp_path / "data" / "Task007_Tiny").mkdir(parents=True)
    monkeypatch.setenv("det_data", str(tmp_path / "data"))
    output = tmp_path / "page.html"
    assert main(["7", "M", option, "--fold", "2", "--output", str(output), "--max_cases", "3"]) == 0
    [(paths, job)] = asked
    assert paths.name == "Task007_Tiny"
    assert (job.fold, job.test, job.output, job.max_cases) == (2, test, output, 3)


@pytest.mark.parametrize("argv", [["7", "M", "--test", "--val"], ["7", "M", "--max_cases", "-1"], ["7"]])
def test_wrong_arguments(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(argv)
    assert stopped.value.code == 2
    assert "usage: nndet_psma report" in capsys.readouterr().err


def test_a_model_that_is_not_scored_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "Task007_Tiny" / "M" / "consolidated").mkdir(parents=True)
    monkeypatch.setenv("det_models", str(tmp_path))
    assert main(["7", "M"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not consolidated. Run nndet_consolidate first" in error


def test_help_needs_no_heavy_imports():
    heavy = "('torch', 'matplotlib', 'SimpleITK', 'scipy', 'jinja2')"
    code = f"import sys, nndet_psma.cli.report as r; r.build_parser(); sys.exit(any(m in sys.modules for m in {heavy}))"
    root = REPOSITORY
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
