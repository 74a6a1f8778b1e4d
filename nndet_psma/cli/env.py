"""``nndet_psma env``: versions and devices for a bug report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import say

_MORE_PACKAGES = ("monai", "pydicom", "highdicom", "hydra-core", "scikit-learn", "nndet")


def build_parser() -> argparse.ArgumentParser:
    """No arguments."""
    return argparse.ArgumentParser(
        prog="nndet_psma env", description="Versions and devices, for a bug report."
    )


def run(args: argparse.Namespace) -> int:
    """Print them."""
    import os
    import platform

    import torch

    from nndet_psma.core.workers import usable_cores
    from nndet_psma.stages.train import package_versions

    cores = f"{usable_cores()} of {os.cpu_count()} cores usable"
    say(f"python {platform.python_version()} on {platform.platform()}, {cores}")
    for name, version in package_versions(*_MORE_PACKAGES).items():
        say(f"{name} {version}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        say(f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.1f} GB")
    if not torch.cuda.is_available():
        say("no GPU visible")
    for variable in ("det_data", "det_models"):
        say(f"{variable} {_folder(os.environ.get(variable))}")
    _say_scripts()
    return 0


def _folder(value: str | None) -> str:
    """A folder, without the name of the user, for what is printed here is sent around."""
    if not value:
        return "is not set"
    shown = value.replace(str(Path.home()), "~", 1)
    return f"= {shown}" if Path(value).is_dir() else f"= {shown}, which does not exist"


def _say_scripts() -> None:
    """Whose the nndet_* commands are: of two packages with the same ones the last installed has them."""
    from nndet_psma.hosts.nndetection.hook.scripts import lost_scripts, script_owners
    from nndet_psma.hosts.nndetection.launch import ENTRY_POINTS

    owners = script_owners(ENTRY_POINTS)
    for owner in sorted(set(owners.values())):
        say(f"scripts of {owner}: {', '.join(name for name in owners if owners[name] == owner)}")
    if lost := lost_scripts():
        say(
            f"not ours any more: {', '.join(lost)} (back with pip install --force-reinstall --no-deps nndet_psma)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
