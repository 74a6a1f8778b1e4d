"""Models whose weights are no numbers, of another type, damaged, or beyond all measure: "no lesion" would be a lie."""

from __future__ import annotations

import shutil

import pytest
import torch
from hostile_models import copied_model, forged_archive
from safetensors.torch import load, load_file, save, save_file
from tiny_place import MODEL, TASK

from nndet_psma import Predictor
from nndet_psma.cli import import_model, predict
from nndet_psma.core.errors import UserError

WEIGHTS = "fold1/wsi/model.safetensors"
LAYER = "rpn.head.cls_logits.weight"


def _broken(kind, tensors):
    tensor = tensors[LAYER]
    if kind == "nan":
        tensor[0, 0] = torch.nan
    if kind == "inf":
        tensor[0, 0] = -torch.inf
    if kind == "int8":
        tensors[LAYER] = torch.zeros_like(tensor, dtype=torch.int8)
    if kind == "half":
        tensors[LAYER] = tensor.half()
    return tensors


CASES = {
    "nan": "the weights hold NaN or infinity; found rpn.head.cls_logits.weight",
    "inf": "the weights hold NaN or infinity",
    "int8": "weights do not fit at rpn.head.cls_logits.weight",
    "half": "weights do not fit at rpn.head.cls_logits.weight",
}


@pytest.fixture
def model(trained, tmp_path, monkeypatch):
    """A copy that may be written to, where nndet_predict finds it."""
    trained.enter(monkeypatch)
    monkeypatch.setenv("det_models", str(tmp_path))
    return copied_model(trained.model, tmp_path / TASK / MODEL)


@pytest.mark.parametrize("kind", CASES)
def test_imported(whole, tmp_path, capsys, kind):
    def change(members):
        members[WEIGHTS] = save(_broken(kind, load(members[WEIGHTS])))

    file = forged_archive(whole, tmp_path / "bad.zip", change)
    assert import_model.main([str(file), "-o", str(tmp_path / "here")]) == 2
    assert CASES[kind] in capsys.readouterr().err
    assert not (tmp_path / "here" / "consolidated").exists()


@pytest.mark.parametrize("kind", CASES)
def test_opened(model, kind):
    file = model / "consolidated" / WEIGHTS
    save_file(_broken(kind, load_file(file)), file)
    with pytest.raises(UserError, match=CASES[kind]):
        Predictor.from_folder(model, "cpu")


def test_weights_that_overflow(model, tmp_path, capsys):
    """Every weight is a number; what the layers make of them is none."""
    file = next(path for path in model.rglob("fold1/*/*.safetensors") if path.parent.name != "wsi")  # a voter
    tensors = load_file(file)
    tensors[LAYER] = torch.full_like(tensors[LAYER], 3e38)
    save_file(tensors, file)
    assert predict.main(["900", MODEL, "-o", str(tmp_path / "out")]) != 0
    error = capsys.readouterr().err
    assert "the network answers with NaN or infinity" in error
    assert str(file) in error
    assert not list((tmp_path / "out").glob("*_boxes.json"))


def test_a_flipped_bit_is_noticed_after_import(whole, tmp_path):
    """The checksum travels with the weights: a damaged disk is told apart from a model that finds nothing."""
    assert import_model.main([str(whole), "-o", str(tmp_path / "here")]) == 0
    file = tmp_path / "here" / "consolidated" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(UserError, match="are not those that were written: the file is damaged"):
        Predictor.from_folder(tmp_path / "here", "cpu")
    shutil.rmtree(tmp_path / "here")
