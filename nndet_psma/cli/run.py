"""What every command does round its work: parse, run, turn user errors into one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse ``argv`` and call ``run``; returns the exit code.

    A :class:`UserError` is printed as one line on standard error; any other exception is a bug and keeps its
    traceback.
    """
    from nndet_psma.core.errors import UserError

    args = parser.parse_args(argv)
    try:
        return run(args)
    except UserError as error:
        sys.stderr.write(f"{parser.prog}: error: {' '.join(str(error).split())}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        sys.stderr.write(
            f"{parser.prog}: {str(error) or 'interrupted; start the same command again to go on'}\n"
        )
        return int(getattr(error, "exit_code", EXIT_INTERRUPTED))
    except BrokenPipeError:
        # the reader of our output went away (for example "| head"); nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
