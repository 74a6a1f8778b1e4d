"""``nndet_psma nndet-hook``: nnDetection's own commands on today's packages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nndet_psma.cli.arguments import say

ACTIONS = ("install", "remove", "status")


def build_parser() -> argparse.ArgumentParser:
    """What to do with the hook."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma nndet-hook",
        description="An import hook in this environment that makes nnDetection's own nndet_* scripts run on today's "
        "packages, with this package as their plugin. It acts in those scripts and what they spawn only.",
    )
    parser.add_argument("action", choices=ACTIONS)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it and say what is there now."""
    from nndet_psma.hosts.nndetection.hook import place

    folder = place.site_folder()
    if args.action == "install":
        place.install(folder)
    elif args.action == "remove":
        place.remove(folder)
    say(f"{folder / place.MODULE}.py: {place.state(folder)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
