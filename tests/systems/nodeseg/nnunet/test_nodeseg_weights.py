"""Checkpoints are read without running what a pickle says; the schedule and the warp of the trainer."""

import numpy as np
import pytest
import torch

from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodeseg.nnunet.trainer import is_over
from nndet_psma.systems.nodeseg.nnunet.transforms import SmallAffineTransform, affine_matrix, warp
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint, write_lean

PLAIN = {
    "network_weights": {"a": torch.arange(3.0)},
    "trainer_name": "nnUNetTrainerNodeSeg",
    "init_args": {"configuration": "3d_fullres", "plans": {"x": 1}, "device": torch.device("cpu")},
    "inference_allowed_mirroring_axes": (0, 1, 2),
    "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.25)], "n": np.int64(2)},
    "_best_ema": np.float64(0.1),
    "optimizer_state": {"state": {0: {"momentum": torch.ones(1000)}}},
}


class Bomb:
    def __reduce__(self):
        return (open, ("spilt", "w"))


def test_numbers_of_numpy_are_allowed(tmp_path):
    torch.save(PLAIN, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert found["logging"]["mean_fg_dice"] == [0.5, 0.25]
    assert found["network_weights"]["a"].tolist() == [0, 1, 2]


def test_anything_else_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**PLAIN, "logging": Bomb()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds more than weights"):
        read_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "spilt").exists()


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path):
    torch.save(PLAIN, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    place = content.index(np.arange(3, dtype="<f4").tobytes())  # network_weights.a
    (tmp_path / "a.pth").write_bytes(content[: place + 6] + b"\x81" + content[place + 7 :])
    with pytest.raises(UserError, match=r"damaged.*differs from its checksum"):
        read_checkpoint(tmp_path / "a.pth")


def test_damage_is_named(tmp_path):
    with pytest.raises(UserError, match="weights are missing"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "a.pth").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"network_weights": {}}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="no checkpoint of nnU-Net"):
        read_checkpoint(tmp_path / "b.pth")


def test_the_lean_copy_holds_what_prediction_needs(tmp_path):
    torch.save(PLAIN, tmp_path / "a.pth")
    write_lean(tmp_path / "a.pth", tmp_path / "b" / "a.pth")
    found = torch.load(tmp_path / "b" / "a.pth", weights_only=True)
    assert set(found) == {
        "network_weights",
        "trainer_name",
        "init_args",
        "inference_allowed_mirroring_axes",
    }
    assert found["init_args"] == {"configuration": "3d_fullres"}
    assert (tmp_path / "b" / "a.pth").stat().st_size < (tmp_path / "a.pth").stat().st_size


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ([3, 2, 1], 1, False),
        ([3, 2, 2], 1, True),  # equal is not lower
        ([1, 2, 3], 3, False),  # not three epochs after the best yet
        ([1, 2, 3, 4], 3, True),
        ([1, 2, 0.5, 4], 3, False),
        ([1, 2, 3, 4], None, False),
    ],
)
def test_patience(losses, patience, over):
    assert is_over(losses, patience) is over


def test_a_shift_moves_whole_pixels():
    """A tenth of 10 columns is one: the spot goes from column 4 to 5, its row and slice stay."""
    image = torch.zeros(1, 3, 8, 10)
    image[0, 1, 2, 4] = 1
    moved = warp(image, affine_matrix((3, 8, 10), 0.0, 0.0, (0.0, 0.1)), "nearest", 0.0)
    assert torch.argwhere(moved[0]).tolist() == [[1, 2, 5]]


def test_a_quarter_turn_in_the_plane_keeps_slices():
    """About the centre (3.5, 3.5) of 8 x 8; a rectangle of pixels needs no scaling. Applied twice it is a half turn."""
    image = torch.zeros(1, 2, 8, 8)
    image[0, 1, 1, 6] = 1
    matrix = affine_matrix((2, 8, 8), np.pi / 2, 0.0, (0.0, 0.0))
    twice = warp(warp(image, matrix, "nearest", 0.0), matrix, "nearest", 0.0)
    assert torch.argwhere(twice[0]).tolist() == [[1, 6, 1]]


def test_a_shear_moves_rows_against_each_other():
    """45 degrees: row y is read at x + (y - 3.5), so a vertical line at x = 4 becomes a diagonal."""
    image = torch.zeros(1, 8, 8)
    image[0, :, 4] = 1
    moved = warp(image, affine_matrix((8, 8), 0.0, np.pi / 4, (0.0, 0.0)), "bilinear", 0.0)
    top, bottom = (float((moved[0, y] * torch.arange(8)).sum() / moved[0, y].sum()) for y in (1, 6))
    assert top - bottom == pytest.approx(5.0, abs=1e-4)


def test_image_and_labels_move_together():
    np.random.seed(3)
    image = torch.zeros(1, 4, 32, 32)
    image[0, 1:3, 10:20, 12:22] = 1
    found = SmallAffineTransform(5, 5, 0.1)(image=image, segmentation=image.to(torch.int16).clone())
    inside = found["segmentation"][0] == 1
    assert found["segmentation"].dtype == torch.int16
    assert float(found["image"][0][inside].mean()) > 0.9
    assert float(found["image"][0][~inside].mean()) < 0.05
    assert (found["segmentation"] == -1).any()  # what came in from outside
