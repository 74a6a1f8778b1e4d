"""``nndet_psma COMMAND``: every verb in one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from nndet_psma.core.errors import did_you_mean

COMMANDS = {  # by module
    "example": "make a phantom task",
    "convert": "make a task from DICOM or NIfTI studies",
    "roi": "a search region for tasks that lack it",
    "check": "list every fault of a task's raw data",
    "prep": "check, fingerprint, plan, preprocess",
    "plan": "show what was planned and why",
    "config": "print every key of the configuration and what it means",
    "unpack": "open every preprocessed case",
    "train": "train a fold",
    "train_all": "train every fold, here or on a cluster; state in train_all.json",
    "sweep": "tune the thresholds of a fold",
    "consolidate": "combine folds into one model",
    "predict": "find lesions",
    "eval": "score predictions",
    "score": "score tables from elsewhere",
    "score_seg": "score segmentation masks",
    "measure": "measure nodes, stage patients, write structured reports",
    "agreement": "sensitivity, kappa, Bland-Altman of readers and model",
    "report": "one HTML page of everything",
    "submit": "predictions in the form that others read",
    "export_model": "a model as one zip",
    "import_model": "a model from such a zip",
    "demo": "the whole way on a phantom task",
    "env": "versions and devices",
    "nndet_hook": "nnDetection's own commands on today's packages",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the command's own module."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from nndet_psma import __version__

        print(__version__)
        return 0
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
        if len(arguments) == 1:
            _print_help()
            return 0
    name = arguments[0].replace("-", "_")
    if name not in COMMANDS:
        sys.stderr.write(f"nndet_psma: error: unknown command '{arguments[0]}'; {_meant(arguments[0])}\n")
        return 2
    module = import_module(f"nndet_psma.cli.{name}")
    code: int = module.main(arguments[1:])
    return code


def _spelling(module: str) -> str:
    """A command as it is typed; its module has an underscore where the command has a hyphen."""
    return module.replace("_", "-")


def _meant(word: str) -> str:
    """What may have been meant, and everything there is."""
    known = [_spelling(module) for module in COMMANDS]
    remedy = did_you_mean(word, known)
    return f"one of {', '.join(known)}." + (f" {remedy}" if remedy else "")


def _print_help() -> None:
    print(
        "usage: nndet_psma COMMAND [arguments]\n\nSelf-configuring detection of PSMA-positive lymph nodes.\n"
    )
    for name, text in COMMANDS.items():
        print(f"  {_spelling(name):<12} {text}")
    print("\nnndet_psma help COMMAND tells more. Most commands also exist as nndet_COMMAND.")
