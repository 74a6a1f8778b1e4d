"""Networks of crops, their loss, and batches for them."""

import numpy as np
import pytest
import torch
from crop_plan import CROP, crop_plan, flat, stage

from nndet_psma.artifacts.candidate_table import Candidate
from nndet_psma.artifacts.classifier_plan import ClassifierNetwork
from nndet_psma.preprocess.crop_store import StoredCrops
from nndet_psma.trainers.classifier.batches import CropBatches
from nndet_psma.trainers.classifier.network import CropClassifier, ask, cross_entropy
from nndet_psma.trainers.classifier.stage import class_weights, stacked


@pytest.mark.parametrize("dimension", ["2.5d", "3d"])
@pytest.mark.parametrize(("kind", "widths"), [("resnet", [2, 2, 4, 4]), ("vgg16conv", [2, 2, 2, 4, 4])])
def test_two_logits_and_the_size_of_the_batch_does_not_matter(dimension, kind, widths):
    plan = flat(crop_plan(network=ClassifierNetwork(kind, widths, 0.2, 0.0)), dimension=dimension)
    torch.manual_seed(0)
    model = CropClassifier(plan, stage()).eval()
    images = np.random.default_rng(0).random((5, plan.channels(stage()), *plan.crop.image_size), np.float32)
    whole = ask(model, images, torch.device("cpu"), 8)
    assert whole.shape == (5,)
    assert ask(model, images, torch.device("cpu"), 2) == pytest.approx(whole, abs=1e-5)
    assert ask(model, images[:0], torch.device("cpu"), 2).shape == (0,)
    kinds = torch.nn.Conv3d if dimension == "3d" else torch.nn.Conv2d
    if kind == "vgg16conv":
        assert sum(isinstance(module, kinds) for module in model.modules()) == 16
        assert sum(isinstance(module, torch.nn.Linear) for module in model.modules()) == 3


def test_unknown_labels_do_not_count():
    """Both logits 0: each known object costs its weight times log 2; (0.5 + 2) / 2 known ones."""
    logits, labels = torch.zeros(3, 2), torch.tensor([0, 1, -1])
    loss = cross_entropy(logits, labels, torch.tensor([0.5, 2.0]), 0.0)
    assert float(loss) == pytest.approx(2.5 * np.log(2) / 2)
    assert float(cross_entropy(logits, torch.tensor([-1, -1, -1]), torch.ones(2), 0.0)) == 0


def test_weights_make_classes_alike_where_draws_do_not():
    assert class_weights(crop_plan(sampling="natural")) == pytest.approx((2 / 3, 2.0))  # prevalence 1/4
    assert class_weights(crop_plan(sampling="status")) == (1.0, 1.0)


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    for case, labels in (("a", [0, 1, None]), ("b", [1, 0])):
        folder = tmp_path / case
        folder.mkdir()
        shape = (len(labels), *CROP.stored)
        np.save(folder / "ct.npy", rng.integers(-90, 90, shape).astype(np.int16))
        np.save(folder / "codes.npy", rng.integers(0, 4, shape).astype(np.uint8))
        rows = [
            Candidate(case, case, k, (0, 0, 0), (0,) * 6, "iliac", label, "annotated", "", {})
            for k, label in enumerate(labels, start=1)
        ]
        StoredCrops(case, "", rows).write(folder / "crops.json")
    return tmp_path


def test_a_batch_depends_on_its_number_alone(store):
    plan = crop_plan(sampling="location")
    batches = CropBatches(store, plan, stage(), ["a", "b"], 5, 1)
    batch = batches[2]
    assert batch["images"].shape == (5, 6, 8, 8)
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0]
    assert "a:3" not in batch["slices"]  # its class is not known
    assert 0 <= float(batch["images"].min()) <= float(batch["images"].max()) <= 1
    again = CropBatches(store, plan, stage(), ["a", "b"], 5, 1)[2]
    assert torch.equal(batch["images"], again["images"])
    part = batches.part(2, 1, 2)
    assert part["slots"] == [1, 3]
    assert torch.equal(part["images"], batch["images"][[1, 3]])
    assert part["slices"] == [batch["slices"][1], batch["slices"][3]]
    assert not torch.equal(batch["images"], batches[3]["images"])


def test_still_images_are_not_augmented(store):
    case = CropBatches(store, crop_plan(), stage(), ["a"], 2, 1).cases[0]
    images = stacked(case.ct, case.codes, crop_plan(), stage())
    assert images.shape == (3, 6, 8, 8)
    assert np.array_equal(images, stacked(case.ct, case.codes, crop_plan(), stage()))
