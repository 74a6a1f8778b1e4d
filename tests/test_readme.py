"""What the README tells a user to type: every command line parses, every override composes."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from nndet_psma.cli.config import compose_config

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
LINES = [line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.startswith("nndet_")]
CELLS = [cell for cell in re.findall(r"\| `([^`]+)` \|", README) if "-o " in cell]


def overrides_of(text):
    words = shlex.split(text)
    return [word for word in words[words.index("-o") + 1 :] if "=" in word]


def test_the_examples_are_found():
    assert len(LINES) >= 8
    assert len(CELLS) >= 6


@pytest.mark.parametrize("line", LINES)
def test_command_line_parses(line):
    words = shlex.split(line)
    name, rest = words[0].removeprefix("nndet_"), words[1:]
    if name == "psma":
        name, rest = words[1], words[2:]
    parser = import_module(f"nndet_psma.cli.{name.replace('-', '_')}").build_parser()
    assert parser.parse_args(rest) is not None


@pytest.mark.parametrize("cell", CELLS)
def test_override_composes(cell):
    overrides = overrides_of(cell)
    assert overrides
    assert compose_config("Task100_Nodes", overrides).task == "Task100_Nodes"
