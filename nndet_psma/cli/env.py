"""``nndet_psma env``: versions and devices for a bug report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nndet_psma.cli.arguments import say


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

    from nndet_psma.stages.train import package_versions

    say(f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    for name, version in package_versions().items():
        say(f"{name} {version}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        say(f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.1f} GB")
    if not torch.cuda.is_available():
        say("no GPU visible")
    for variable in ("det_data", "det_models"):
        say(f"{variable} {'is set' if os.environ.get(variable) else 'is not set'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
