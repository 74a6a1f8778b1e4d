"""``nndet_psma roi train`` and ``apply`` with genuine nnU-Net: the CTV of the tiny task learned, applied and used."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from tiny_place import MODEL, SPACING, TASK, tiny_case, write_task

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.prep import main as prep
from nndet_psma.cli.umbrella import main
from nndet_psma.dataset.images.images import original_geometry, read_volume, write_volume
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths

pytestmark = pytest.mark.slow

OPTIONS = [
    "plan_cfg.target=cpu",
    "plan_cfg.num_folds=2",
    "plan_cfg.epochs=2",
    "plan_cfg.iterations=8",
    "plan_cfg.validation_iterations=1",
    "plan_cfg.optimizer=adam",
    "plan_cfg.learning_rate=0.005",
    "plan_cfg.augmentation=none",
    "plan_cfg.mirror=false",
    "plan_cfg.batch_size=2",
    "trainer_cfg.validate=false",
]


def _write_without_ctv(root):
    """The tiny task with CT only; masks/CASE.nii.gz of all cases but case_5."""
    paths = write_task(root / "data")
    (root / "masks").mkdir()
    for split in ("Tr", "Ts"):
        for file in paths.images(split).glob("*_0001.nii.gz"):
            file.rename(root / "masks" / file.name.replace("_0001", ""))
    (root / "masks" / "case_5.nii.gz").unlink()
    content = json.loads((paths.root / "dataset.json").read_text())
    (paths.root / "dataset.json").write_text(json.dumps({**content, "modalities": {"0": "CT"}}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Fold 0, trained once for all tests."""
    root = tmp_path_factory.mktemp("roi")
    _write_without_ctv(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("det_data", str(root / "data"))
        patch.setenv("det_models", str(root / "models"))
        assert main(_train(root)) == 0
    return root


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy that may be changed."""
    root = tmp_path / "place"
    shutil.copytree(trained, root, symlinks=True, copy_function=shutil.copy2)
    monkeypatch.setenv("det_data", str(root / "data"))
    monkeypatch.setenv("det_models", str(root / "models"))
    return root


def _train(root):
    return [
        "roi",
        "train",
        "900",
        "--name",
        "ctv",
        "--masks",
        str(root / "masks"),
        "-np",
        "1",
        "-o",
        *OPTIONS,
    ]


def _paths(root):
    return TaskPaths(root / "data" / TASK)


def _fold(root):
    return root / "models" / TASK / "ROI_CTV" / "fold0"


def _checkpoint(root):
    return next((root / "models" / TASK / "ROI_CTV" / "nnunet").rglob("checkpoint_final.pth"))


def test_the_model_says_what_it_learned_from(place):
    manifest = json.loads((_fold(place) / "roi.json").read_text())
    plan = json.loads((_fold(place) / "plan.json").read_text())
    train, val = plan["folds"][0]["train"], plan["folds"][0]["val"]
    assert sorted([*train, *val]) == [f"case_{i}" for i in range(5)]  # case_5 has no mask
    patients = {"patient_a"} if "case_0" in train else set()
    assert manifest["name"] == "CTV"
    assert set(manifest["trained_on"]) == set(train) | patients
    assert plan["candidates"]["low_threshold"] == plan["candidates"]["threshold"] == 0.5
    assert plan["crop"] in ("body", "image")


def test_the_same_command_again_trains_nothing(place, capsys):
    before = _checkpoint(place).stat().st_mtime_ns
    assert main(_train(place)) == 0
    told = capsys.readouterr().out
    assert "5 cases of 4 patients have a mask CTV" in told
    assert "1 have none and are left out: case_5" in told
    assert "is trained already" in told
    assert _checkpoint(place).stat().st_mtime_ns == before


def test_prep_takes_the_mask_as_ctv(place, capsys):
    masks = ["--masks", str(place / "masks")]
    command = ["roi", "apply", "900", "--name", "CTV", "--largest", "1"]
    assert main([*command, *masks]) == 0
    assert "CTV is modality 1 of 900" in capsys.readouterr().out
    paths = _paths(place)
    for split, names in (("Tr", [f"case_{i}" for i in range(6)]), ("Ts", ["test_0", "test_1"])):
        for name in names:
            mask = read_volume(paths.images(split) / f"{name}_0001.nii.gz", canonical=False)
            assert mask.geometry == original_geometry(paths.images(split) / f"{name}_0000.nii.gz")
            assert sorted(np.unique(mask.array)) == [0, 1]
    scores = json.loads((paths.preprocessed / "roi" / "CTV" / "scores.json").read_text())
    rows = {row["case_id"]: row for row in scores["cases"]}
    assert sorted(rows) == [*(f"case_{i}" for i in range(5)), "test_0", "test_1"]
    mask = read_volume(paths.images("Ts") / "test_0_0001.nii.gz").array > 0
    drawn = tiny_case("test_0")[1] > 0
    overlap = 2 * (mask & drawn).sum() / (mask.sum() + drawn.sum())
    assert rows["test_0"]["dice"] == pytest.approx(overlap)
    held = [row["dice"] for row in rows.values() if row["held_out"]]
    trained_on = json.loads((_fold(place) / "roi.json").read_text())["trained_on"]
    assert {name for name, row in rows.items() if not row["held_out"]} == set(trained_on) - {"patient_a"}
    assert scores["mean_dice_held_out"] == pytest.approx(np.mean(held))
    assert np.mean(held) > 0.5

    assert (
        prep(["900", "-np", "1", "-o", "plan_cfg.target=cpu", "plan_cfg.num_folds=2", "prep.process=false"])
        == 0
    )
    told = capsys.readouterr().out
    assert "system psma25d: CT with a CTV" in told
    plan = json.loads(paths.plan(MODEL.split("_")[1]).read_text())
    assert plan["ctv_modality"] == 1

    assert main([*command, *masks]) == 2
    assert "the task has a modality CTV already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    told = capsys.readouterr().out
    assert told.count("finished before") == 8
    assert "Dice" not in told  # its own masks are no truth
    assert main([*command, "--check"]) == 2
    assert "no case has a mask and is held out" in capsys.readouterr().err
    assert main(["roi", "train", "900", "--name", "CTV", "-o", *OPTIONS]) == 2
    assert "no masks CTV that somebody drew" in capsys.readouterr().err


def test_a_check_changes_nothing(place, capsys):
    command = ["roi", "apply", "900", "--name", "CTV", "--check", "--masks", str(place / "masks")]
    assert main(command) == 0
    told = capsys.readouterr().out
    for name in json.loads((_fold(place) / "roi.json").read_text())["trained_on"]:
        assert f"{name}:" not in told
    assert "test_1: Dice" in told
    assert "case_5" not in told
    assert read_description(_paths(place).root).modalities == {0: "CT"}
    assert not list(_paths(place).raw_splitted.rglob("*_0001*"))


def test_a_case_that_fails_leaves_the_task_alone(place, capsys):
    file = _paths(place).images("Ts") / "test_1_0000.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:500])
    command = ["roi", "apply", "900", "--name", "CTV"]
    assert main(command) == 2
    assert "test_1_0000.nii.gz" in capsys.readouterr().err
    assert read_description(_paths(place).root).modalities == {0: "CT"}
    assert not list(_paths(place).raw_splitted.rglob("*_0001*"))
    file.write_bytes(whole)
    assert main(command) == 0
    assert capsys.readouterr().out.count("finished before") == 7


def test_a_folder_gets_the_missing_files_on_each_images_grid(place, tmp_path, capsys):
    """The same patient stored with x and z running the other way: the mask is the mirrored one, voxel by voxel."""
    ct, _, _ = tiny_case("test_0")
    folder = tmp_path / "images"
    write_volume(folder / "a_0000.nii.gz", ct, Geometry(ct.shape, SPACING))
    # first voxel of the turned file is the last of the other: (39, 47) steps of (4, 2) mm along (z, x)
    origin = (2.0 * 47, 0.0, 4.0 * 9)
    turned = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    write_volume(
        folder / "b_0000.nii.gz", ct[::-1, :, ::-1].copy(), Geometry(ct.shape, SPACING, origin, turned)
    )
    command = ["roi", "apply", str(folder), "--name", "CTV", "--model", "900"]
    assert main(command) == 0
    a, b = (read_volume(folder / f"{name}_0001.nii.gz", canonical=False) for name in "ab")
    assert a.array.any()
    assert b.geometry == original_geometry(folder / "b_0000.nii.gz")
    np.testing.assert_array_equal(b.array[::-1, :, ::-1], a.array)
    capsys.readouterr()
    assert main(command) == 0
    assert "a: has a_0001.nii.gz already" in capsys.readouterr().out
    assert main([*command, "--index", "0"]) == 2
    assert "0 is no free file number" in capsys.readouterr().err
    write_volume(folder / "c_0003.nii.gz", ct, Geometry(ct.shape, SPACING))
    assert main(command) == 2
    assert "none of the images that the network looks at" in capsys.readouterr().err


class _Foreign:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_a_foreign_checkpoint_is_not_unpickled(place, capsys):
    _checkpoint(place).write_bytes(pickle.dumps(_Foreign()))
    assert main(["roi", "apply", "900", "--name", "CTV"]) == 2
    assert "holds more than weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "900", "--name", "a/b"], "is no name of a mask"),
        (["train", "900", "--name", "CTV"], "no masks CTV that somebody drew"),
        (["train", "900", "--name", "CTV", "--masks", "elsewhere"], "no such folder of masks"),
        (["apply", "900", "--name", "BLADDER"], "unknown model 'ROI_BLADDER'"),
        (["apply", "900", "--name", "CTV", "--largest", "0"], "no region would be left"),
    ],
)
def test_roi_mistakes(place, capsys, arguments, message):
    assert main(["roi", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_another_mask_is_refused(place, capsys):
    model = str(place / "models" / TASK / "ROI_CTV")
    assert main(["roi", "apply", "900", "--name", "PROSTATE", "--model", model]) == 2
    assert "the model segments something else; expected PROSTATE; found CTV" in capsys.readouterr().err
