import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection import handover, launch
from nndet_psma.hosts.nndetection.handover import (
    VARIABLE,
    handed_over,
    split_overrides,
    translate,
    wanted_host,
)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("argv", "host"),
    [
        (["100"], "embedded"),
        (["100", "-o", "exp.fold=0"], "embedded"),
        (["100", "-o", "exp.fold=0", "host=nndet"], "nndet"),
        (["100", "-o", "exp.fold=0", "-o", "host=nndet", "--sweep"], "nndet"),
        (["100", "--overwrites", "host=nndet"], "nndet"),
        (["100", "--overwrites=host=nndet"], "nndet"),
        (["100", "-ohost=nndet"], "nndet"),
        (["100", "-o", "host=nndet", "host=embedded"], "embedded"),  # the last counts, as in Hydra
        (["100", "host=nndet"], "embedded"),  # no override
        (["100", "-o", "a=1", "--sweep", "host=nndet"], "embedded"),  # behind another option
        (["100", "-o", "host.parent_data=x"], "embedded"),
        (["100", "model", "0", "--host", "nndet"], "nndet"),
        (["100", "model", "0", "--host=nndet"], "nndet"),
        (["100", "--host", "nndet", "-o", "host=embedded"], "embedded"),
        (["100", "-o", "host=moon"], "moon"),
        (["100", "--host"], "embedded"),  # argparse complains
    ],
)
def test_which_host_is_meant(argv, host):
    assert wanted_host(argv) == host


def test_the_variable_asks_too_and_the_command_line_wins(monkeypatch):
    monkeypatch.setenv(VARIABLE, "nndet")
    assert wanted_host(["100"]) == "nndet"
    assert wanted_host(["100", "-o", "host=embedded"]) == "embedded"
    monkeypatch.setenv(VARIABLE, "")
    assert wanted_host(["100"]) == "embedded"
    monkeypatch.setenv(VARIABLE, "nnunet")
    with pytest.raises(UserError, match=r"NNDET_PSMA_HOST.*embedded or nndet.*nnunet"):
        wanted_host(["100"])


@pytest.mark.parametrize(
    ("command", "argv", "given"),
    [
        # without train= our default system is meant, in its form for nnDetection
        ("nndet_prep", ["100", "-o", "host=nndet"], ["100", "-o", "train=psma25d_nndet"]),
        ("nndet_prep", ["100", "--host", "nndet"], ["100", "-o", "train=psma25d_nndet"]),
        (
            "nndet_train",
            ["100", "-o", "host=nndet", "train=retina3d", "--sweep"],
            ["100", "--sweep", "-o", "train=psma3d_nndet"],
        ),
        (
            "nndet_train",
            ["100", "-o", "train=v001", "-o", "exp.fold=1", "host=nndet"],
            ["100", "-o", "train=v001", "exp.fold=1"],
        ),
        # these commands read the configuration that training saved
        ("nndet_eval", ["100", "M", "0", "--host", "nndet", "--boxes"], ["100", "M", "0", "--boxes"]),
        ("nndet_sweep", ["100", "M", "0", "--host=nndet"], ["100", "M", "0"]),
        ("nndet_predict", ["100", "M", "-f", "-1", "-o", "host=nndet"], ["100", "M", "-f", "-1"]),
        (
            "nndet_predict",
            ["100", "M", "-o", "host=nndet", "+inference_kwargs.device=cpu", "-ntta", "0"],
            ["100", "M", "-ntta", "0", "-o", "+inference_kwargs.device=cpu"],
        ),
    ],
)
def test_arguments_are_translated(command, argv, given):
    assert translate(command, argv) == given


words = st.sampled_from(
    ["100", "M", "-1", "--sweep", "-o", "a=1", "host=nndet", "--host", "--host=x", "train=v001"]
)


@given(st.lists(words, max_size=8))
def test_splitting_loses_and_invents_nothing(argv):
    overrides, rest = split_overrides(argv)
    assert sorted([*overrides, *rest]) == sorted(text for text in argv if text != "-o")


@given(st.lists(words, max_size=8))
def test_translated_arguments_ask_for_no_host(argv):
    translated = translate("nndet_train", argv)
    assert handover.split_overrides(translated)[0].count("host=nndet") == 0
    assert not [text for text in translated if text.startswith("--host")]
    assert translated.count("-o") <= 1
    assert translate("nndet_train", translated) == translated


def test_handing_over_launches_with_the_rest(monkeypatch):
    launched = []
    monkeypatch.setattr(launch, "launch", lambda command, argv: launched.append((command, argv)) or 7)
    assert handed_over("nndet_eval", ["100", "M", "0", "--test"]) is None
    assert launched == []
    assert handed_over("nndet_eval", ["100", "M", "0", "--test", "--host", "nndet"]) == 7
    assert launched == [("nndet_eval", ["100", "M", "0", "--test"])]


CT, CTV = {"0": "CT"}, {"0": "CT", "1": "CTV"}


def _describe(root, number, modalities, **more):
    folder = root / f"Task{number}_T"
    folder.mkdir()
    content = {"task": folder.name, "name": "t", "dim": 3, "labels": {"0": "node"}, "modalities": modalities}
    (folder / "dataset.json").write_text(json.dumps({**content, **more}))


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """A volume without CTV (100), CT with CTV (101), a task for nodestatus (102); and what is launched."""
    _describe(tmp_path, 100, CT)
    _describe(tmp_path, 101, CTV)
    _describe(tmp_path, 102, CT, psma={"target": "node_status"})
    monkeypatch.setenv("det_data", str(tmp_path))
    given = []
    monkeypatch.setattr(launch, "launch", lambda command, argv: given.append(argv) or 0)
    return given


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["100"], ["100", "-o", "train=psma3d_nndet"]),
        (["101"], ["101", "-o", "train=psma25d_nndet"]),
        (["100", "-np", "2"], ["100", "-np", "2", "-o", "train=psma3d_nndet"]),
        (["100", "-o", "train=psma25d"], ["100", "-o", "train=psma25d_nndet"]),
        (["102", "-o", "train=v001"], ["102", "-o", "train=v001"]),
        (["--help"], ["--help", "-o", "train=psma25d_nndet"]),
    ],
)
def test_without_a_name_the_data_decide_as_in_the_embedded_engine(launched, argv, expected):
    assert handed_over("nndet_prep", ["--host=nndet", *argv]) == 0
    assert launched == [expected]


def test_what_nndetection_cannot_do_is_told(launched):
    with pytest.raises(UserError, match=r"one for nodestatus, which does not run inside nnDetection"):
        handed_over("nndet_train", ["102", "--host", "nndet"])
    with pytest.raises(UserError, match="different systems; found 100: retina3d, 101: psma25d"):
        handed_over("nndet_prep", ["100", "101", "--host", "nndet"])
    assert launched == []


def test_asking_costs_no_heavy_import():
    code = (
        "import sys\nfrom nndet_psma.hosts.nndetection.handover import handed_over\n"
        "print(handed_over('nndet_train', ['100', '-o', 'exp.fold=0']))\n"
        "print([m for m in ('torch', 'numpy', 'hydra', 'nndet', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["None", "[]"]
