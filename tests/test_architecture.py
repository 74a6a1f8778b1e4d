"""The structure the documentation promises: imports go one way, commands start fast, nothing unsafe is called."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nndet_psma
from nndet_psma.cli.umbrella import COMMANDS
from nndet_psma.pipeline import STAGES

ROOT = Path(nndet_psma.__file__).parent
LAYERS = [
    ["core"],
    ["boxes"],
    ["dataset"],
    ["artifacts"],
    ["preprocess", "planners"],
    ["evaluation", "nodes"],
    ["postproc"],
    ["trainers"],
    ["inference", "jobs"],
    ["systems"],
    ["submission", "roi", "report", "hosts"],
    ["stages"],
    ["cli"],
]
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
HEAVY = ("torch", "torchvision", "SimpleITK", "pandas", "matplotlib", "scipy", "numpy", "hydra")


def layer_of(module):
    parts = module.split(".")
    if len(parts) < 2 or parts[1] in ("__init__", "conf"):
        return "core"
    return "stages" if parts[1] == "pipeline" else parts[1]


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def module_name(file):
    return ".".join(("nndet_psma", *file.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    own = LEVEL[layer_of(module_name(file))]
    wrong = [
        name
        for name in imported_modules(TREES[file])
        if name.startswith("nndet_psma.") and LEVEL[layer_of(name)] > own
    ]
    assert not wrong


def test_the_order_names_every_folder():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders - {"conf"} <= set(LEVEL)


def test_files_and_functions_stay_short():
    long_files = [str(file) for file in FILES if len(file.read_text(encoding="utf-8").splitlines()) > 500]
    long_functions = [
        f"{file.name}:{node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 80
    ]
    assert long_files == []
    assert long_functions == []


def test_nothing_unsafe_is_called():
    forbidden = {"allow_pickle": True, "weights_only": False}
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.keyword)
                and node.arg in forbidden
                and isinstance(node.value, ast.Constant)
            ):
                assert node.value.value is not forbidden[node.arg], file
            if isinstance(node, ast.Assert):
                pytest.fail(f"{file}:{node.lineno}: assert vanishes under -O")
        if file.name != "weights.py":
            assert "pickle" not in set(imported_modules(tree)), file


def test_print_only_on_the_command_line():
    for file, tree in TREES.items():
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert "print" not in {call.func.id for call in calls} or file.parent.name == "cli", file


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_map_names_functions_that_exist(stage):
    module, _, function = stage.function.rpartition(".")
    assert callable(getattr(import_module(module), function))


def test_help_needs_nothing_heavy():
    """All commands in one fresh process: parsers are built and help is formatted without slow imports."""
    code = (
        "import json, sys\n"
        "from importlib import import_module\n"
        f"for name in {sorted(COMMANDS)!r}:\n"
        "    module = import_module('nndet_psma.cli.' + name)\n"
        "    assert module.build_parser().format_help()\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
