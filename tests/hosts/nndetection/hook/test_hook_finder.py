"""The import hook in processes of its own: when it repairs, and when it does nothing."""

import subprocess
import sys

import pytest

from nndet_psma.hosts.nndetection.hook.place import SOURCE, install

COMPAT = """
BEFORE_NNDET, REPAIRS = "before nndet", "all"
def apply_repairs(repairs):
    print("repaired", repairs, flush=True)
"""
SCRIPT = "__requires__ = 'nndet==0.1'\nimport sys\nfrom scripts.train import train\nsys.exit(train())\n"
TRAIN = "import __main__, nndet\ndef train():\n    print('requires', hasattr(__main__, '__requires__'))\n"
SPAWNING = """
import multiprocessing
from nndet import work
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the hook, a stand-in of nnDetection and one of our repairs; runs scripts with them."""
    site, clone, ours = tmp_path / "site", tmp_path / "clone", tmp_path / "ours"
    compat = ours / "nndet_psma" / "hosts" / "nndetection"
    for folder in (site, clone / "nndet" / "conf", clone / "scripts", compat):
        folder.mkdir(parents=True)
    (clone / "nndet" / "conf" / "config.yaml").touch()
    (clone / "nndet" / "__init__.py").write_text("def work(): print('worked')\n")
    (clone / "scripts" / "train.py").write_text(TRAIN)
    for folder in (compat, *list(compat.parents)[:2]):
        (folder / "__init__.py").touch()
    (compat / "compat.py").write_text(COMPAT)
    install(site)
    (ours / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(site)!r})\n")
    return tmp_path


def say(place, name="nndet_train", script=SCRIPT, path="clone"):
    """Lines that a script of that name prints."""
    file = place / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(script)
    paths = ":".join(str(place / folder) for folder in ("ours", path))
    done = subprocess.run(
        [sys.executable, str(file)], env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines() + done.stderr.splitlines()


def test_a_script_of_nndetection_is_repaired_before_it_imports_anything(place):
    assert say(place) == ["repaired all", "requires False"]


@pytest.mark.parametrize("name", ["train.py", "nndet_training", "pytest", "mynndet_train"])
def test_no_other_program_is(place, name):
    assert say(place, name) == ["requires True"]


def test_another_package_called_scripts_is_left_alone(place):
    other = place / "other" / "scripts"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()  # else nnDetection's own, where it is on the path, comes before
    (other / "train.py").write_text("def train(): print('other')")
    assert say(place, path="other") == ["other"]


def test_spawned_workers_are_repaired(place):
    assert say(place, "nndet_prep", SPAWNING) == ["repaired before nndet"] * 2 + ["worked"]


def test_without_our_package_it_says_so_and_steps_back(place):
    (place / "ours" / "nndet_psma" / "hosts" / "nndetection" / "compat.py").unlink()
    found = say(place)
    assert found[0] == "requires True"
    assert "nnDetection runs unrepaired. Remove this file" in found[1]


def test_start_up_imports_nothing():
    code = (
        f"import sys; a = set(sys.modules)\nexec(open({str(SOURCE)!r}).read())\nprint(set(sys.modules) - a)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_knows_every_command_of_nndetection():
    from nndet_psma.hosts.nndetection.hook.finder import COMMANDS
    from nndet_psma.hosts.nndetection.launch import ENTRY_POINTS

    assert set(ENTRY_POINTS) == COMMANDS
