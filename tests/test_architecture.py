"""The structure the documentation promises: imports go one way, commands start fast, nothing unsafe is called."""

import ast
import json
import re
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
    if len(parts) < 2 or parts[1] == "__init__":
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


SYSTEMS = sorted(path.name for path in (ROOT / "systems").iterdir() if path.is_dir() and path.name[0] != "_")
NAMES = re.compile(r"nodeseg|NodeSeg|psma25d|retina3d|detector3d")
# where a system may be named: its own folder, its hosts, the segmenter of regions, the demonstration and its phantoms
MAY_NAME = ("systems/", "hosts/nndetection/", "roi/", "cli/demo.py", "dataset/phantom/")


def relative(file):
    return file.relative_to(ROOT).as_posix()


def code_without_documentation(file):
    """Names and strings of a file that are no docstring: what the program itself says."""
    tree = TREES[file]
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    }
    attribute_texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documentation | attribute_texts:
                yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
    yield from imported_modules(tree)


@pytest.mark.parametrize("file", [f for f in FILES if not relative(f).startswith(MAY_NAME)], ids=relative)
def test_no_system_is_named_outside_its_folder(file):
    assert [text for text in code_without_documentation(file) if NAMES.search(text)] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_system_imports_another(system):
    others = tuple(f"nndet_psma.systems.{other}" for other in SYSTEMS if other != system)
    own = ROOT / "systems" / system
    wrong = {
        f"{relative(file)}: {name}"
        for file in FILES
        if own in file.parents
        for name in imported_modules(TREES[file])
        if name.startswith(others)
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("package", "homes"),
    [("nndet", ("hosts/nndetection/",)), ("nnunetv2", ("systems/nodeseg/nnunet/", "roi/"))],
)
def test_hosts_are_imported_at_their_border_only(package, homes):
    wrong = {
        relative(file)
        for file in FILES
        for name in imported_modules(TREES[file])
        if name.split(".")[0] == package and not relative(file).startswith(homes)
    }
    assert wrong == set()


def test_folders_stay_small_and_say_what_they_hold():
    """About twenty modules; the command line has one per command."""
    for folder in sorted({file.parent for file in FILES}):
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= (40 if folder.name == "cli" else 24), folder
        if folder.name != "ext":  # nnU-Net imports every module there
            assert ast.get_docstring(TREES[folder / "__init__.py"]), folder


def test_the_order_names_every_folder():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(LEVEL)


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


def _user_errors(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
            yield node


def test_every_refusal_says_what_would_be_right_or_what_to_do():
    """What is wrong and where is not enough: a user has to know what is expected, or how to go on."""
    silent = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file, tree in TREES.items()
        for call in _user_errors(tree)
        if not {word.arg for word in call.keywords} & {"expected", "remedy", None}
    ]
    assert silent == []


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


def test_names_of_test_modules_differ():
    """Pytest imports them by their names; a second one of a name is an error, but only where both are collected."""
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
