"""Entry points: exit codes, quick help, the umbrella, and commands that only print."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import pytest
from tiny_place import MODEL

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.cli import consolidate, eval, plan, predict, prep, sweep, train, umbrella, unpack
from nndet_psma.cli import env as env_command
from nndet_psma.cli.arguments import say
from nndet_psma.cli.run import run_command
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.progress import progress_bar

COMMANDS = {
    "prep": prep, "train": train, "sweep": sweep, "consolidate": consolidate, "predict": predict, "eval": eval,
    "unpack": unpack, "plan": plan, "env": env_command,
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_argument(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        COMMANDS[name].main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "usage:" in text
    for action in COMMANDS[name].build_parser()._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{name}: {action.dest} has no help"


@pytest.mark.parametrize("name", ["train", "prep", "predict", "consolidate", "eval", "sweep", "umbrella"])
def test_help_loads_nothing_heavy(name):
    code = (
        f"import sys; from nndet_psma.cli import {name} as c; "
        "c.build_parser().format_help() if hasattr(c, 'build_parser') else c.main(['--help']);"
        "heavy = {'torch', 'torchvision', 'numpy', 'SimpleITK', 'pandas', 'hydra', 'matplotlib'} & set(sys.modules);"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 5  # under 1 s on an idle machine


def _parser(prog="nndet_test"):
    return argparse.ArgumentParser(prog=prog)


def test_user_error_is_one_line_and_code_2(capsys):
    def fail(args):
        raise UserError("is\nwrong", file="a b.json", remedy="Mend  it")

    assert run_command(_parser(), fail, []) == 2
    assert capsys.readouterr().err == "nndet_test: error: a b.json: is wrong. Mend it.\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 300, "too long for the file system"), ("caf\udce9", r"caf\udce9: the name is not UTF-8")],
)
def test_names_that_no_file_has_are_one_line(capsys, tmp_path, name, message):
    def write(args):
        (tmp_path / name).is_file()
        (tmp_path / "a").write_text(name, encoding="utf-8")

    assert run_command(_parser(), write, []) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert message in err


def test_interruption_says_how_to_go_on(capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    assert run_command(_parser(), interrupt, []) == 130
    assert "start the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/m/fold0"),
            "/m/fold0: cannot be read or written; found Permission denied.",
        ),
        (MemoryError(), "memory ran out. Lower the batch size"),
    ],
)
def test_what_the_machine_refuses_is_one_line(capsys, error, said):
    def fail(args):
        raise error

    assert run_command(_parser(), fail, []) == 2
    assert capsys.readouterr().err.startswith(f"nndet_test: error: {said}")


def test_bug_keeps_its_traceback():
    def bug(args):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(_parser(), bug, [])


def test_closed_pipe_is_no_error(tmp_path):
    code = (
        "import argparse, sys; from nndet_psma.cli.run import run_command\n"
        "def run(args):\n for i in range(100000): print(i)\n return 0\n"
        "sys.exit(run_command(argparse.ArgumentParser(), run, []))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert error == b""


def test_umbrella_lists_and_refuses(capsys):
    assert umbrella.main([]) == 2
    assert umbrella.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name.replace("_", "-") in listed for name in umbrella.COMMANDS)
    assert umbrella.main(["predcit"]) == 2
    err = capsys.readouterr().err
    assert "unknown command 'predcit'; one of example, convert" in err
    assert err.endswith("Did you mean predict?\n")
    from nndet_psma import __version__

    assert umbrella.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_of_a_command_by_its_name(capsys):
    assert umbrella.main(["help"]) == 0
    assert "usage: nndet_psma COMMAND" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        umbrella.main(["help", "score-seg"])
    assert stopped.value.code == 0
    assert "usage: nndet_psma score-seg" in capsys.readouterr().out


def _speaks(args):
    say("case_1: 3 lesions")
    say("case_1: warning: no CTV")
    LOGGER.info("step 3 of 9")
    with progress_bar("predict", 1) as advance:
        advance(1)
    sys.stdout.write("| AP |\n")
    return 0


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ([], "case_1: 3 lesions\ncase_1: warning: no CTV\n| AP |\n", ""),
        (["-q"], "case_1: warning: no CTV\n| AP |\n", ""),
        (["--verbose"], "case_1: 3 lesions\ncase_1: warning: no CTV\n| AP |\n", "step 3 of 9\n"),
    ],
)
def test_quiet_and_verbose(options, out, err, capsys):
    assert run_command(_parser(), _speaks, options) == 0
    assert capsys.readouterr() == (out, err)


def test_quiet_after_the_part_of_a_command_and_not_with_verbose(capsys):
    parser = _parser()
    parser.add_subparsers(dest="part").add_parser("boxes")
    assert run_command(parser, _speaks, ["boxes", "-q"]) == 0
    assert "3 lesions" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_command(_parser(), _speaks, ["-q", "-v"])


def test_a_quiet_command_draws_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run_command(_parser(), _speaks, ["-q"]) == 0
    assert capsys.readouterr().err == ""


def test_umbrella_hands_over(in_task, capsys):
    assert umbrella.main(["plan", "show", "900"]) == 0
    text = capsys.readouterr().out
    assert "plan PSMA25D" in text
    assert "margin_mm" in text
    assert "3/3, 3/3 train/validation" in " ".join(text.split())


def test_unpack_opens_every_case(in_task, tmp_path, capsys):
    assert unpack.main([str(in_task.store), "2"]) == 0
    assert "6 cases are whole" in capsys.readouterr().out
    assert unpack.main([str(tmp_path / "nowhere")]) == 2
    assert unpack.main([str(in_task.models)]) == 2
    assert "holds no preprocessed cases" in capsys.readouterr().err


def test_env_names_versions_and_folders_but_no_user(in_task, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(in_task.data.parent))
    monkeypatch.delenv("det_models")
    assert env_command.main([]) == 0
    text = capsys.readouterr().out
    for name in ("torch ", "nnunetv2 ", "monai ", "pydicom ", "hydra-core ", "nndet "):
        assert f"\n{name}" in text
    assert "cores usable" in text
    assert f"det_data = ~/{in_task.data.name}\n" in text
    assert "det_models is not set" in text
    assert str(in_task.data) not in text
    monkeypatch.setenv("det_data", "/nowhere/at/all")
    assert env_command.main([]) == 0
    assert "det_data = /nowhere/at/all, which does not exist" in capsys.readouterr().out


def test_eval_prints_what_is_asked_for(trained, monkeypatch, capsys):
    trained.enter(monkeypatch)
    monkeypatch.setattr("nndet_psma.stages.evaluate_boxes._write", lambda evaluation: None)
    monkeypatch.setattr("nndet_psma.stages.evaluate_boxes.BOOTSTRAP_DRAWS", 3)
    printed = {}
    for options in ((), ("--boxes",), ("--case",), ("--analyze_boxes",)):
        assert eval.main(["900", MODEL, "-1", "--test", *options]) == 0
        printed[options] = capsys.readouterr().out
    assert printed[()] == printed[("--boxes",)]
    assert "AP_IoU_0.10_MaxDet_100" in printed[("--boxes",)]
    assert "auc_case: undefined" in printed[("--case",)]  # both test cases have lesions
    assert "AP_IoU_0.10" not in printed[("--case",)]
    words = " ".join(printed[("--analyze_boxes",)].split())
    assert "accepted lesions, IoU 0.1; thresholds chosen on other cases" in words
    assert "all candidates, IoU 0.1; fixed thresholds, chosen on no cases" in words
    assert "optimistic: threshold chosen on the scored cases" in words
    assert "ablation" in words


def test_commands_are_installed():
    from importlib.metadata import entry_points

    scripts = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    ours = {name: value for name, value in scripts.items() if value.startswith("nndet_psma.")}
    assert len(ours) == 9
    for value in ours.values():
        module, _, function = value.partition(":")
        assert callable(getattr(__import__(module, fromlist=["x"]), function))


def test_paths_of_environment_may_use_home(monkeypatch, in_task):
    from nndet_psma.dataset.task.paths import data_root

    monkeypatch.setenv("HOME", str(in_task.data.parent))
    monkeypatch.setenv("det_data", f"~{os.sep}{in_task.data.name}")
    assert data_root() == in_task.data


def test_preparation_and_training_end_with_the_next_command(in_task, monkeypatch, capsys):
    from tiny_place import PREP_OPTIONS

    assert prep.main(["900", "-np", "1", "-npp", "1", "-o", *PREP_OPTIONS]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Next: nndet_train 900 -o exp.fold=all (2 folds, estimated ")
    monkeypatch.setattr(
        "nndet_psma.stages.train.train_fold", lambda paths, models, *rest: _trained(models, 0)
    )
    assert train.main(["900", "-o", "exp.fold=0", "exp.tag=_x"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Next: nndet_train 900 -o exp.tag=_x exp.fold=1"
    monkeypatch.setattr(
        "nndet_psma.stages.train.train_fold", lambda paths, models, *rest: _trained(models, 1)
    )
    assert train.main(["900", "-o", "exp.fold=1", "exp.tag=_x"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: nndet_consolidate 900 {MODEL}_x --sweep_boxes"


def _trained(models, fold):
    """What a training of a fold leaves of it: its folder."""
    folder = ModelFolder(models / f"{MODEL}_x")
    folder.fold(fold).mkdir(parents=True)
    return folder
