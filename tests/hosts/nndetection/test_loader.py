"""Training batches from files as nnDetection's preprocessing leaves them."""

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("nndetection")

SHAPE = (10, 24, 28)
EVIDENCE = 777.0


@pytest.fixture
def cases(tmp_path):
    """Two cases of 3 shown channels; channel 1 is the slice index + 1; case a has lesion 4 in slices 3 and 4."""
    from nndet.io.load import save_pickle
    from nndet.io.transforms.instances import instances_to_boxes_np

    data = {}
    for case_id, lesion in (("a", 4), ("b", None)):
        array = np.ones((5, *SHAPE), dtype=np.float32)
        array[1] = np.arange(1, 1 + SHAPE[0])[:, None, None]
        array[3:] = EVIDENCE
        seg = np.zeros((1, *SHAPE), dtype=np.int32)
        if lesion:
            seg[0, 3:5, 10:13, 6:9] = lesion
        files = {key: str(tmp_path / f"{case_id}{tail}") for key, tail in FILES.items()}
        np.save(files["data_file"], array)
        np.save(files["seg_file"], seg)
        boxes = instances_to_boxes_np(seg[0], dim=3)[0]
        found = [lesion] if lesion else []
        save_pickle({"instances": found, "boxes": boxes, "labels": [0] * len(found)}, files["boxes_file"])
        save_pickle({"instances": {str(i): 0 for i in found}}, files["properties_file"])
        data[case_id] = files
    return data


FILES = {
    "data_file": ".npy",
    "seg_file": "_seg.npy",
    "properties_file": ".pkl",
    "boxes_file": "_boxes.pkl",
}


def loader(dim, cases, share):
    from nndet.io.datamodule import DATALOADER_REGISTRY

    from nndet_psma.hosts.nndetection import loader as _registers  # noqa: F401

    cls = DATALOADER_REGISTRY.get(f"DataLoader{dim}DPSMA")
    size = {2: (16, 20), 3: (8, 16, 20)}[dim]
    return cls(
        data=cases,
        batch_size=4,
        patch_size_generator=size,
        patch_size_final=size,
        oversample_foreground_percent=share,
        num_batches_per_epoch=3,
    )


@pytest.mark.parametrize(("dim", "size"), [(2, (16, 20)), (3, (8, 16, 20))])
def test_batches_have_the_shown_channels_only(dim, size, cases):
    made = loader(dim, cases, 0.5)
    assert len(made) == 3
    for _ in range(5):
        batch = made.generate_train_batch()
        assert batch["data"].shape == (4, 3, *size)
        assert batch["seg"].shape == (4, 1, *size)
        assert len(batch["keys"]) == len(batch["instance_mapping"]) == 4
        assert not (batch["data"] == EVIDENCE).any()


def test_foreground_slices_are_those_of_the_lesion(cases):
    """Slices 3 and 4 have 4 and 5 in channel 1; both are drawn, no other."""
    np.random.seed(0)
    made = loader(2, cases, 1.0)
    seen = set()
    for _ in range(8):
        batch = made.generate_train_batch()
        assert batch["keys"] == ["a"] * 4
        assert (batch["seg"] == 4).any(axis=(1, 2, 3)).all()
        seen |= set(np.unique(batch["data"][:, 1])) - {0.0}  # 0 is padding
    assert seen == {4.0, 5.0}


def test_background_slices_are_of_any_case_and_slice(cases):
    np.random.seed(0)
    made = loader(2, cases, 0.0)
    keys, slices = set(), set()
    for _ in range(40):
        batch = made.generate_train_batch()
        keys |= set(batch["keys"])
        slices |= set(np.unique(batch["data"][:, 1])) - {0.0}
    assert keys == {"a", "b"}
    assert slices == set(range(1, 11))
