"""The mark that a process leaves in the names of its temporary files, of one that is dead."""

import subprocess
import sys

CODE = (
    "from pathlib import Path; from nndet_psma.core.atomic import temporary_beside; "
    "print(temporary_beside(Path('x')).name.removeprefix('.tmp-').removesuffix('-x'))"
)


def killed_writer() -> str:
    return subprocess.run(
        [sys.executable, "-c", CODE], check=True, capture_output=True, text=True
    ).stdout.strip()
