"""Hook of nndet_psma: lets nnDetection's own console scripts run on today's packages.

``nndet_psma nndet-hook install`` copies this file into the environment as ``nndet_psma_hook.py``, with a ``.pth`` file
that imports it when Python starts. So it imports nothing that Python has not, and waits: only where one of
nnDetection's commands (or a process it spawned) first imports nnDetection's ``scripts`` or ``nndet``, the repairs are
made.
"""

import sys

COMMANDS = frozenset(
    {
        "nndet_boxes2nii",
        "nndet_cls2fg",
        "nndet_consolidate",
        "nndet_env",
        "nndet_eval",
        "nndet_example",
        "nndet_predict",
        "nndet_prep",
        "nndet_searchpath",
        "nndet_seg2det",
        "nndet_seg2nii",
        "nndet_sweep",
        "nndet_train",
        "nndet_unpack",
    }
)
_ENDINGS = (".exe", "-script.py", "-script.pyw", ".py")
_MARKS = ("nndet/conf/config.yaml", "scripts/train.py")  # "scripts" is a common name


class RepairingFinder:
    """Finds nothing itself; it learns from Python's import system what is about to be imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See ``importlib.abc.MetaPathFinder``; always None."""
        if name in ("nndet", "scripts") and _command() in COMMANDS:
            sys.meta_path.remove(self)  # what follows imports nndet
            if _is_nndetection(name):
                _repair(name)
            else:
                sys.meta_path.insert(0, self)


def _command() -> str:
    """What this process was started as; spawned workers have the arguments of their parent by now."""
    argv = getattr(sys, "argv", None) or [""]
    command = str(argv[0]).replace("\\", "/").rpartition("/")[2]
    for ending in _ENDINGS:
        command = command.removesuffix(ending)
    return command


def _is_nndetection(name: str) -> bool:
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(name)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    roots = [Path(folder).parent for folder in folders]
    return any(all((root / mark).is_file() for mark in _MARKS) for root in roots)


def _repair(name: str) -> None:
    try:
        from nndet_psma.hosts.nndetection.compat import BEFORE_NNDET, REPAIRS, apply_repairs
    except ImportError as error:
        sys.stderr.write(f"{__file__}: {error}; nnDetection runs unrepaired. Remove this file and its .pth\n")
        return
    # scripts of older setuptools ask for the exact versions that nnDetection was written for
    vars(sys.modules["__main__"]).pop("__requires__", None)
    apply_repairs(REPAIRS if name == "scripts" else BEFORE_NNDET)


if not any(type(finder).__name__ == RepairingFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, RepairingFinder())
