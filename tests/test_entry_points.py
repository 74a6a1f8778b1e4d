"""What pyproject.toml promises exists, starts light, and stays inside its layer."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nndet_psma

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(nndet_psma.__file__).parent
PYPROJECT = ROOT.parent / "pyproject.toml"
if not PYPROJECT.is_file():
    pytest.skip("installed without its source tree", allow_module_level=True)
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
PLUGINS = [value for group in PROJECT["entry-points"].values() for value in group.items()]
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize(("name", "target"), PROJECT["scripts"].items())
def test_console_scripts(name, target):
    module_name, _, function = target.partition(":")
    module = import_module(module_name)
    assert callable(getattr(module, function))
    if name != "nndet_psma":
        assert module.build_parser().prog == name


@pytest.mark.parametrize(("name", "target"), PLUGINS)
def test_plugins_carry_their_own_name(name, target):
    module_name, _, class_name = target.partition(":")
    found = getattr(import_module(module_name), class_name)
    assert getattr(found, "name", found.__name__) == name


def test_help_of_every_script_answers_without_heavy_imports():
    """All in one fresh process, as typed: ``--help`` exits with 0 before anything slow is imported."""
    code = """
import contextlib, importlib, io, sys
for target in sys.argv[1:]:
    module, _, function = target.partition(":")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            code = getattr(importlib.import_module(module), function)(["--help"])
    except SystemExit as stop:
        code = stop.code
    assert code in (0, None), (target, code)
    assert "usage: " in out.getvalue(), target
heavy = ("torch", "torchvision", "SimpleITK", "pandas", "matplotlib", "scipy", "numpy", "hydra", "jinja2")
print(*[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *PROJECT["scripts"].values()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_layers_are_imported_by_their_full_name():
    """``from nndet_psma import cli`` and ``from .. import cli`` would slip past the test of the layers."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: relative import"
                if node.module == "nndet_psma":
                    names = {alias.name for alias in node.names}
                    assert names <= {"__version__"}, f"{file}:{node.lineno}"


def test_yaml_is_loaded_safely():
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                unsafe = {("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system")}
                assert (node.value.id, node.attr) not in unsafe, f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, f"{file}:{node.lineno}"


def test_core_imports_nothing_of_the_package_and_nothing_heavy_when_loaded():
    for file, tree in TREES.items():
        if file.parent.name != "core":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nndet_psma"):
                assert node.module.startswith("nndet_psma.core"), f"{file}:{node.lineno}"
        loaded = {
            alias.name.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {(node.module or "").split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not loaded & {"torch", "SimpleITK", "pandas", "matplotlib"}, file
