"""Does the user ask for genuine nnDetection? Then the command is handed over; light, every command asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile

from nndet_psma.core.errors import UserError

EMBEDDED, NNDET = "embedded", "nndet"
HOSTS = (EMBEDDED, NNDET)
VARIABLE = "NNDET_PSMA_HOST"
FLAG = "--host"

CENTRAL = "psma25d"
"""What is meant where no task tells: asked for help, for instance."""

PRESETS = {"psma25d": "psma25d_nndet", "retina3d": "psma3d_nndet"}
"""``train=`` of this package and what does the same inside nnDetection."""

COMPOSING = ("nndet_prep", "nndet_train")
"""Commands that compose a configuration; the others read the one that training saved."""

_OVERRIDES = ("-o", "--overwrites")
_ATTACHED = ("--overwrites=", "-o")
_KEY = "host="


def handed_over(command: str, argv: Sequence[str]) -> int | None:
    """Run nnDetection's ``command`` where the user asks for that host; None where the embedded engine is meant.

    Raises:
        UserError: an unknown host is asked for by the environment, or nnDetection is not installed.
    """
    if wanted_host(argv) != NNDET:
        return None
    from nndet_psma.hosts.nndetection.launch import launch

    return launch(command, translate(command, argv, default=_default_system(command, argv)))


def wanted_host(argv: Sequence[str]) -> str:
    """The host asked for: ``-o ... host=NAME``, else ``--host NAME``, else the variable NNDET_PSMA_HOST, else embedded.

    A name that is unknown on the command line is returned as it is: the command's own parser tells the user.

    Raises:
        UserError: the variable names an unknown host.
    """
    if named := _hosts_named(argv):
        return named[-1]
    default = os.environ.get(VARIABLE) or EMBEDDED
    if default not in HOSTS:
        raise UserError(f"{VARIABLE} names an unknown host", expected=" or ".join(HOSTS), found=default)
    return default


def names_host(argv: Sequence[str]) -> bool:
    """Whether the command line or the variable says which host is meant."""
    return bool(_hosts_named(argv) or os.environ.get(VARIABLE))


def _hosts_named(argv: Sequence[str]) -> list[str]:
    overrides, _ = split_overrides(argv)
    named = [text.removeprefix(_KEY) for text in overrides if text.startswith(_KEY)]
    return named or _flag_values(argv)


def translate(command: str, argv: Sequence[str], default: str = CENTRAL) -> list[str]:
    """Arguments as nnDetection's command takes them.

    Our choice of the host is taken out, repeated ``-o`` become one (nnDetection heeds only the last), names of our
    presets become those for nnDetection, and without any ``train=`` that of ``default``, one of our systems, is chosen.

    Raises:
        UserError: ``default`` has no form inside nnDetection.
    """
    overrides, rest = split_overrides(argv)
    kept = [text for text in overrides if not text.startswith(_KEY)]
    if command in COMPOSING:
        kept = [_translated(text) for text in kept]
        if not _named(kept):
            if default not in PRESETS:
                raise UserError(
                    f"this data set is one for {default}, which does not run inside nnDetection",
                    expected=", ".join(PRESETS),
                    remedy="Leave out host=nndet, or name another system with -o train=NAME",
                )
            kept.insert(0, f"train={PRESETS[default]}")
    return [*_without_flag(rest), *(["-o", *kept] if kept else [])]


def _named(overrides: Sequence[str]) -> bool:
    return any(text.startswith("train=") for text in overrides)


def _default_system(command: str, argv: Sequence[str]) -> str:
    """The system of the data, as the embedded engine chooses it, where the user names none.

    Raises:
        UserError: a task is not found, none or several systems suit it, or several tasks are for different ones.
    """
    overrides, rest = split_overrides(argv)
    tasks = _tasks(command, _without_flag(rest))
    if command not in COMPOSING or _named(overrides) or not tasks:
        return CENTRAL
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.systems.choice import default_system

    chosen = {task: default_system(read_description(find_task(task).root)).name for task in tasks}
    if len(set(chosen.values())) > 1:
        raise UserError(
            "these tasks are for different systems",
            found=", ".join(f"{task}: {name}" for task, name in chosen.items()),
            remedy="Prepare them one by one, or name a system with -o train=NAME",
        )
    return chosen[tasks[0]]


def _tasks(command: str, arguments: Sequence[str]) -> list[str]:
    """What nnDetection's parser takes as tasks; none where it is to print its help, or will complain itself."""
    if {"-h", "--help"} & set(arguments):
        return []
    leading = list(takewhile(lambda text: not text.startswith("-"), arguments))
    return leading if command == "nndet_prep" else leading[:1]


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """All values of all ``-o``, and the other arguments; as argparse does it, ``-o`` reaches to the next option."""
    overrides: list[str] = []
    rest: list[str] = []
    inside = False
    for text in argv:
        if text in _OVERRIDES:
            inside = True
        elif text.startswith(_ATTACHED):
            overrides.append(text.removeprefix(_ATTACHED[0]).removeprefix(_ATTACHED[1]))
            inside = False
        elif inside and not text.startswith("-"):
            overrides.append(text)
        else:
            inside = False
            rest.append(text)
    return overrides, rest


def _translated(override: str) -> str:
    key, _, value = override.partition("=")
    return f"train={PRESETS[value]}" if key == "train" and value in PRESETS else override


def _flag_values(argv: Sequence[str]) -> list[str]:
    values = [text.removeprefix(f"{FLAG}=") for text in argv if text.startswith(f"{FLAG}=")]
    pairs = zip(argv, list(argv)[1:], strict=False)
    return values + [value for name, value in pairs if name == FLAG]


def _without_flag(argv: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for text in argv:
        if not skip and text != FLAG and not text.startswith(f"{FLAG}="):
            kept.append(text)
        skip = text == FLAG
    return kept
