"""Weights on disk: round trip, what does not fit, what is damaged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.networks.weights import read_model, read_state, write_model


def _model(out: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, out, 3), nn.BatchNorm2d(out))


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(1)
    write_model(_model(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_round_trip(file):
    model = _model()
    read_model(model, file)
    written = load_file(file)
    assert set(written) == set(model.state_dict())
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]  # no temporary file left


def test_missing_layer_is_named(file):
    state = load_file(file)
    del state["1.running_var"]
    save_file(state, file)
    with pytest.raises(UserError, match=r"model\.safetensors: weights lack the layer 1\.running_var"):
        read_model(_model(), file)


def test_unknown_layer_is_named(file):
    save_file({**load_file(file), "2.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"unknown layer 2\.weight"):
        read_model(_model(), file)


def test_layer_of_another_shape_is_named(file):
    with pytest.raises(
        UserError, match=r"do not fit at 0\.weight; expected \[4, 2, 3, 3\] float32; found \[3, 2, 3, 3\] "
    ):
        read_model(_model(4), file)


def test_layer_of_another_type_is_named(file):
    state = load_file(file)
    save_file({**state, "0.weight": torch.zeros(3, 2, 3, 3, dtype=torch.int8)}, file)
    with pytest.raises(UserError, match=r"at 0\.weight; expected .* float32; found .* int8"):
        read_model(_model(), file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(file, value):
    state = load_file(file)
    state["0.bias"][1] = value
    save_file(state, file)
    with pytest.raises(UserError, match=r"the weights hold NaN or infinity; found 0\.bias"):
        read_model(_model(), file)


def test_every_flipped_bit_is_noticed(file):
    """In values as in the header, whose names, types and places decide what the values mean."""
    content, length = file.read_bytes(), 8 + int.from_bytes(file.read_bytes()[:8], "little")
    state = load_file(file)
    for place in [*range(8, length, 7), *range(length, len(content), 20)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        try:
            found = read_state(file)
        except UserError:
            continue
        # the word "checksum" itself, or white space: the very same weights
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.safetensors: weights file does not exist"):
        read_state(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
@pytest.mark.parametrize("keep", [0, 5, 200])
def test_damaged_file(tmp_path, file, name, keep):
    damaged = tmp_path / name
    if name.endswith(".pth"):
        torch.save(load_file(file), damaged)
        content = damaged.read_bytes()
    else:
        content = file.read_bytes()
    damaged.write_bytes(content[:keep])
    with pytest.raises(UserError, match=rf"{name}: weights cannot be read"):
        read_state(damaged)


def test_no_state_dictionary(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"holds no state dictionary.*found list"):
        read_state(tmp_path / "list.pth")
