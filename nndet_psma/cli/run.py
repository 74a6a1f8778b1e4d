"""What every command does round its work: parse, run, turn user errors into one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nndet_psma.core.terminal import printable, shown_safely, verbosity

if TYPE_CHECKING:
    from nndet_psma.core.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_ALSO_OF_NNDETECTION = (
    "nndet_prep",
    "nndet_unpack",
    "nndet_train",
    "nndet_sweep",
    "nndet_consolidate",
    "nndet_predict",
    "nndet_eval",
    "nndet_example",
)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse ``argv`` and call ``run``; returns the exit code.

    A command that genuine nnDetection has, too, is handed over to it when the user asks for that host. A
    :class:`UserError` is printed as one line on standard error, and so is what the machine refuses (no permission, full
    disk, too little memory); any other exception is a bug and keeps its traceback.
    """
    from nndet_psma.cli.arguments import add_verbosity
    from nndet_psma.core.errors import UserError, name_error
    from nndet_psma.core.registry import trusted_code
    from nndet_psma.core.shortages import shortage

    add_verbosity(parser)
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _handed_over(parser, given)  # with the bars of nnDetection, which move the cursor
        if code is not None:
            return code
        with shown_safely():
            args = parser.parse_args(given)
            with (
                trusted_code(getattr(args, "trust_code", False)),
                verbosity(quiet=args.quiet, verbose=args.verbose),
            ):
                return run(args)
    except UserError as error:
        return _told(parser, error)
    except KeyboardInterrupt as error:
        sys.stderr.write(
            f"{parser.prog}: {str(error) or 'interrupted; start the same command again to go on'}\n"
        )
        return int(getattr(error, "exit_code", EXIT_INTERRUPTED))
    except BrokenPipeError:
        # the reader of our output went away (for example "| head"); nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, UnicodeEncodeError, MemoryError, RuntimeError, ImportError) as error:
        told = name_error(error) or shortage(error)
        if told is None:
            raise
        return _told(parser, told)


def _told(parser: argparse.ArgumentParser, error: UserError) -> int:
    sys.stderr.write(f"{parser.prog}: error: {printable(' '.join(str(error).split()))}\n")
    return EXIT_USER_ERROR


def _handed_over(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int | None:
    """Exit code of nnDetection's own command; None where the embedded engine is meant."""
    if parser.prog not in _ALSO_OF_NNDETECTION:
        return None
    from nndet_psma.hosts.nndetection.handover import HOSTS, handed_over, names_host

    parser.add_argument(
        "--host",
        choices=HOSTS,
        default=HOSTS[0],
        help="nndet: run genuine nnDetection's command, with our plugin loaded (as -o host=nndet)",
    )
    code = handed_over(parser.prog, argv)
    if code is None and not names_host(argv):
        _say_engine(parser.prog)
    return code


def _say_engine(command: str) -> None:
    """Where both engines could be meant and none was named, which one runs."""
    from nndet_psma.hosts.nndetection.hook.scripts import nndetection_beside_us

    if nndetection_beside_us():
        sys.stderr.write(f"{command}: the embedded engine of nndet_psma (nnDetection's: --host nndet)\n")
