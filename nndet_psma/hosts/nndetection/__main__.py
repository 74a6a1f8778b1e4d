"""``python -m nndet_psma.hosts.nndetection nndet_train 100 -o train=psma25d_nndet``: nnDetection's own commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nndet_psma.core.errors import UserError
from nndet_psma.core.terminal import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run nnDetection's command named by the first argument; its arguments are passed on unchanged."""
    from nndet_psma.hosts.nndetection.launch import ENTRY_POINTS, launch

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(
            "usage: python -m nndet_psma.hosts.nndetection COMMAND [arguments]\n\nRuns a command of the installed "
            f"nnDetection with this package as its plugin.\nCOMMAND: {', '.join(ENTRY_POINTS)}\n"
        )
        return 0 if arguments else 2
    try:
        return launch(arguments[0], arguments[1:])
    except UserError as error:
        sys.stderr.write(f"nndet_psma.hosts.nndetection: error: {printable(str(error))}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
