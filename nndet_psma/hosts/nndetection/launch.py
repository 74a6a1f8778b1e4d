"""Run nnDetection's own commands in this process, with the repairs made and the plugin loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection.availability import HOME, require_nndetection
from nndet_psma.hosts.nndetection.compat import apply_repairs

PLUGIN = "nndet_psma.hosts.nndetection.plugin"

ENTRY_POINTS = {
    "nndet_example": "scripts.generate_example:main",
    "nndet_prep": "scripts.preprocess:main",
    "nndet_unpack": "scripts.utils:unpack",
    "nndet_train": "scripts.train:train",
    "nndet_sweep": "scripts.train:sweep",
    "nndet_consolidate": "scripts.consolidate:main",
    "nndet_predict": "scripts.predict:main",
    "nndet_eval": "scripts.train:evaluate",
    "nndet_boxes2nii": "scripts.utils:boxes2nii",
    "nndet_cls2fg": "scripts.convert_cls2fg:main",
    "nndet_seg2det": "scripts.convert_seg2det:main",
    "nndet_seg2nii": "scripts.utils:seg2nii",
    "nndet_env": "scripts.utils:env",
    "nndet_searchpath": "scripts.utils:hydra_searchpath",
}
"""nnDetection's commands and their functions, as its setup.py names them."""

_WITHOUT_PLUGIN = {
    f"nndet_{name}" for name in ("example", "unpack", "boxes2nii", "cls2fg", "seg2det", "seg2nii", "env")
}
_WITHOUT_FOLDERS = ("nndet_unpack", "nndet_env")
_DISTRIBUTIONS = {
    "SimpleITK": "SimpleITK",
    "absl": "absl-py",
    "batchgenerators": "batchgenerators",
    "deprecate": "pyDeprecate==0.3.1",
    "git": "GitPython",
    "google": "protobuf",
    "hydra": "hydra-core",
    "loguru": "loguru",
    "medpy": "MedPy",
    "mlflow": "mlflow",
    "nevergrad": "nevergrad",
    "nnunet": "nnunet==1.7.1",
    "omegaconf": "omegaconf",
    "pkg_resources": "setuptools<80",
    "pytorch_lightning": "pytorch_lightning==1.4.2",
    "seaborn": "seaborn",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "torchmetrics": "torchmetrics==0.7.3",
}
"""What pip calls the package of a module that nnDetection, or what it stands on, imports. Of a module without a line
the name is not guessed: "deprecate" and "absl" are other people's packages, too."""

_DEFAULT_THREADS = {"OMP_NUM_THREADS": "1"}  # nnDetection refuses to start without; 1 is what it advises


def launch(command: str, argv: Sequence[str]) -> int:
    """Run nnDetection's own ``command`` with its arguments ``argv`` and return its exit code.

    Working folder, ``sys.argv`` and Hydra's global state are put back afterwards; the repairs remain.

    Raises:
        UserError: nnDetection is not (wholly) installed, lacks a package, or has no such command; ``det_data`` or
            ``det_models`` is not set.
    """
    if command not in ENTRY_POINTS:
        raise UserError(f"nnDetection has no command '{command}'", expected=", ".join(ENTRY_POINTS))
    root = require_nndetection()
    for name, value in _DEFAULT_THREADS.items():
        os.environ.setdefault(name, value)
    function = _load(command, root)
    _require_folders(command)  # nnDetection asks for them even where it is to print its help
    with _as_command(command, argv):
        return _exit_code(function)


def _load(command: str, root: Path) -> Callable[[], object]:
    """The command's function, imported after the repairs, and the plugin."""
    module, _, function = ENTRY_POINTS[command].partition(":")
    _make_scripts_theirs(root)
    try:
        apply_repairs()
        loaded = import_module(module)
        if command not in _WITHOUT_PLUGIN:
            import_module(PLUGIN)
    except ModuleNotFoundError as error:
        raise _missing_package(error) from error
    found: Callable[[], object] = getattr(loaded, function)
    return found


def _missing_package(error: ModuleNotFoundError) -> Exception:
    module = error.name or ""
    package = module.partition(".")[0]
    if package in ("", "nndet", "nndet_psma", "scripts"):
        return error
    known = next((name for name in (module, package) if name in _DISTRIBUTIONS), None)
    remedy = f"pip install '{_DISTRIBUTIONS[known]}'. " if known else ""
    return UserError(
        f"nnDetection needs the module '{module}', which is not installed",
        remedy=f"{remedy}docs/nndetection.md lists all that nnDetection needs; so does its requirements.txt ({HOME})",
    )


def _require_folders(command: str) -> None:
    needed = [] if command in _WITHOUT_FOLDERS else ["det_data", "det_models"]
    for name in needed:
        if not os.environ.get(name):
            raise UserError(
                f"environment variable {name} is not set",
                remedy=f"export {name}=FOLDER, for nnDetection as for this package",
            )


def _make_scripts_theirs(root: Path) -> None:
    """``scripts`` is a common name, and theirs gives way to any other on the path: have it mean nnDetection's."""
    folder = str(root / "scripts")
    present = sys.modules.get("scripts")
    if present is not None and list(getattr(present, "__path__", [])) == [folder]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]
    spec = ModuleSpec("scripts", None, is_package=True)
    spec.submodule_search_locations = [folder]
    sys.modules["scripts"] = module_from_spec(spec)


@contextmanager
def _as_command(command: str, argv: Sequence[str]) -> Iterator[None]:
    """What the command's process would look like; put back afterwards."""
    from hydra.core.global_hydra import GlobalHydra

    arguments, folder, hydra = sys.argv, Path.cwd(), GlobalHydra.instance().hydra
    sys.argv = [command, *argv]
    try:
        yield
    finally:
        sys.argv = arguments
        os.chdir(folder)
        GlobalHydra.instance().hydra = hydra


def _exit_code(function: Callable[[], object]) -> int:
    try:
        function()
    except SystemExit as stop:  # its argparse ends the process
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
