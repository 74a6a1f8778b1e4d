import os
import subprocess
import sys
from pathlib import Path

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection import __main__ as module_main
from nndet_psma.hosts.nndetection import launch as launch_module
from nndet_psma.hosts.nndetection.launch import ENTRY_POINTS, PLUGIN, launch

# what a command of the stand-in saw, told through its own module
TRAIN = """
import os, sys
seen = {}
def train():
    seen.update(argv=list(sys.argv), folder=os.getcwd(), plugin="the_plugin" in sys.modules)
    seen.update(omp=os.environ["OMP_NUM_THREADS"])
    os.chdir(sys.argv[1])
def sweep():
    sys.exit(3)
def evaluate():
    sys.exit("wrong model")
"""


@pytest.fixture
def stand_in(without_nndetection, tmp_path):
    """A folder like nnDetection's, first on the path; repairs and plugin are stand-ins, too."""
    root = tmp_path / "clone"
    (root / "nndet" / "conf").mkdir(parents=True)
    (root / "nndet" / "__init__.py").touch()
    (root / "nndet" / "conf" / "config.yaml").touch()
    (root / "scripts").mkdir()
    (root / "scripts" / "train.py").write_text(TRAIN)
    (root / "scripts" / "utils.py").write_text("import needed_package_of_nndetection")
    (root / "the_plugin.py").write_text("from scripts import train")
    monkeypatch = without_nndetection
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(launch_module, "PLUGIN", "the_plugin")
    monkeypatch.setattr(launch_module, "apply_repairs", list)
    monkeypatch.setenv("det_data", str(tmp_path))
    monkeypatch.setenv("det_models", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield monkeypatch
    sys.modules.pop("the_plugin", None)


def test_a_command_runs_as_if_typed_and_leaves_no_trace(stand_in, tmp_path):
    before = (list(sys.argv), Path.cwd(), list(sys.path))
    target = tmp_path / "model"
    target.mkdir()
    assert launch("nndet_train", [str(target), "-o", "exp.fold=0"]) == 0
    seen = sys.modules["scripts.train"].seen
    assert seen["argv"] == ["nndet_train", str(target), "-o", "exp.fold=0"]
    assert seen["plugin"]
    assert seen["omp"] == "1"
    assert (list(sys.argv), Path.cwd(), list(sys.path)) == before


def test_threads_of_the_user_are_kept(stand_in, tmp_path):
    stand_in.setenv("OMP_NUM_THREADS", "4")
    launch("nndet_train", [str(tmp_path)])
    assert sys.modules["scripts.train"].seen["omp"] == "4"


@pytest.mark.parametrize(("command", "code"), [("nndet_sweep", 3), ("nndet_eval", 1)])
def test_exit_codes_are_returned(stand_in, command, code):
    assert launch(command, ["x"]) == code


def test_another_package_called_scripts_does_not_hide_theirs(stand_in, tmp_path):
    other = tmp_path / "other"
    (other / "scripts").mkdir(parents=True)
    (other / "scripts" / "__init__.py").touch()
    (other / "scripts" / "train.py").write_text("def train(): raise RuntimeError('not nnDetection')")
    stand_in.syspath_prepend(other)
    import scripts

    assert Path(scripts.__file__).parent.parent == other
    assert launch("nndet_train", [str(tmp_path)]) == 0


def test_an_unknown_command_lists_the_known(stand_in):
    with pytest.raises(UserError, match=r"no command 'nndet_fly'.*nndet_example, nndet_prep"):
        launch("nndet_fly", [])


def test_a_missing_package_is_named(stand_in):
    with pytest.raises(
        UserError,
        match=r"needs the module 'needed_package_of_nndetection', which is not installed\. docs/nndetection",
    ):
        launch("nndet_unpack", ["folder", "1"])


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("deprecate", "pip install 'pyDeprecate==0.3.1'"),
        ("google.protobuf", "pip install 'protobuf'"),
        ("absl", "pip install 'absl-py'"),
        ("skimage.morphology", "pip install 'scikit-image'"),
    ],
)
def test_a_missing_module_is_told_by_what_pip_calls_it(module, command):
    told = launch_module._missing_package(ModuleNotFoundError(name=module))
    assert f"needs the module '{module}'" in str(told)
    assert command in str(told)


def test_a_fault_inside_nndetection_keeps_its_traceback(stand_in):
    with pytest.raises(ModuleNotFoundError, match=r"scripts\.preprocess"):
        launch("nndet_prep", ["100"])


@pytest.mark.parametrize("name", ["det_data", "det_models"])
def test_folders_must_be_told(stand_in, name):
    stand_in.delenv(name)
    with pytest.raises(UserError, match=f"{name} is not set.*export {name}="):
        launch("nndet_train", ["100"])


def test_even_help_needs_the_folders(stand_in):
    """nnDetection's commands look for them before they look at their arguments."""
    stand_in.delenv("det_data")
    with pytest.raises(UserError, match="det_data"):
        launch("nndet_train", ["--help"])


def test_without_nndetection_the_user_is_told(without_nndetection):
    with pytest.raises(UserError, match="embedded engine is the default"):
        launch("nndet_train", ["100"])


def test_the_module_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(launch_module, "launch", lambda command, argv: 5 if argv == ["--fast"] else 6)
    assert module_main.main(["nndet_prep", "--fast"]) == 5
    assert module_main.main([]) == 2
    assert module_main.main(["-h"]) == 0
    assert "nndet_consolidate" in capsys.readouterr().out


def test_the_module_prints_a_users_mistake_in_one_line(monkeypatch, capsys):
    assert module_main.main(["nndet_fly"]) == 2
    assert "error: nnDetection has no command 'nndet_fly'" in capsys.readouterr().err


def test_entry_points_are_those_of_the_genuine_setup(nndetection):
    text = (nndetection / "setup.py").read_text()
    for command, place in ENTRY_POINTS.items():
        assert f"'{command} = {place}'" in text, command


@pytest.mark.slow
def test_genuine_help_through_the_module(nndetection, tmp_path):
    """In a fresh process: repairs before the import, their parser's own words, exit code 0."""
    folders = {"det_data": str(tmp_path), "det_models": str(tmp_path)}
    environment = {**os.environ, **folders, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", "nndet_psma.hosts.nndetection", "nndet_train", "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage: nndet_train" in done.stdout
    assert "empirical parameter optimization" in done.stdout


@pytest.mark.slow
def test_genuine_prep_through_our_command(nndetection, box_task, monkeypatch):
    """Cropping and analysis by nnDetection's own code; it counts the lesions of TRUTH: one of each class."""
    from nndet.io.load import load_pickle

    from nndet_psma.cli.prep import main

    overrides = ["host=nndet", "train=v001", "prep.plan=False", "prep.process=False"]
    assert main(["901", "-np", "0", "-npp", "0", "-o", *overrides]) == 0
    properties = load_pickle(box_task.paths.preprocessed / "properties" / "dataset_properties.pkl")
    assert properties["num_instances"] == {0: 1, 1: 1}
    assert [tuple(size) for size in properties["all_sizes"]] == [(12, 20, 24)] * 3


def test_the_plugin_is_ours():
    assert PLUGIN.startswith("nndet_psma.")
