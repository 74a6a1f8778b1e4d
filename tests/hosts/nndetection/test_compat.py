import enum
import os
import pathlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

from nndet_psma.hosts.nndetection import compat
from nndet_psma.hosts.nndetection.compat import REPAIRS, Repair, apply_repairs, reading_objects_for

NAMED = {repair.name: repair for repair in REPAIRS}


def caller(package, load):
    """A function of ``package`` that calls ``load``."""
    space = {"__name__": package, "load": load}
    exec("def call(*args, **kwargs):\n    return load(*args, **kwargs)", space)
    return space["call"]


def test_only_what_is_needed_is_applied_and_only_once():
    state = {"broken": True, "applied": 0}

    def mend():
        state["broken"] = False
        state["applied"] += 1

    broken = Repair("broken", "here", "x 2", lambda: state["broken"], mend)
    whole = Repair("whole", "there", "y 2", lambda: False, lambda: pytest.fail("is not needed"))
    assert apply_repairs([whole, broken]) == ["broken"]
    assert apply_repairs([whole, broken]) == []
    assert state["applied"] == 1


def test_every_repair_tells_place_and_release():
    assert len(NAMED) == len(REPAIRS) == 7
    for repair in REPAIRS:
        assert ".py" in repair.place
        assert repair.broken_by


def test_a_picture_of_no_box_is_left_out(monkeypatch):
    analysis = ModuleType("nndet.utils.analysis")
    analysis.plot_joint_iou_score = lambda ious, scores: np.concatenate(ious).max()
    monkeypatch.setattr(compat, "import_module", lambda name: analysis)
    monkeypatch.setattr(compat, "find_spec", lambda name: object())
    repair = NAMED["empty analysis plot"]
    assert repair.needed()
    repair.apply()
    assert not repair.needed()
    empty = np.zeros(0)
    assert analysis.plot_joint_iou_score([empty, empty], [empty, empty]) is None
    assert analysis.plot_joint_iou_score([empty, np.array([0.25])], [empty, np.array([0.5])]) == 0.25
    monkeypatch.setattr(compat, "find_spec", lambda name: None)
    assert not repair.needed()


def test_torch_six_comes_back():
    repair = NAMED["torch._six"]
    saved = sys.modules.pop("torch._six", None)
    try:
        assert repair.needed()
        repair.apply()
        from torch._six import container_abcs, inf, int_classes, string_classes

        assert isinstance("text", string_classes)
        assert isinstance(b"bytes", string_classes)
        assert not isinstance(["text"], string_classes)
        assert isinstance(1, int_classes)
        assert isinstance({}, container_abcs.Mapping)
        assert inf == float("inf")
        assert not repair.needed()
    finally:
        sys.modules.pop("torch._six", None)
        if saved is not None:
            sys.modules["torch._six"] = saved


def test_seaborn_styles_are_aliases_of_the_renamed_ones(monkeypatch):
    from matplotlib import style

    repair = NAMED["seaborn styles"]
    modern = {name: value for name, value in style.library.items() if not name.startswith("seaborn-")}
    modern["seaborn-v0_8-deep"] = {"lines.linewidth": 7.0}
    monkeypatch.setattr(style, "library", modern)
    assert repair.needed()
    repair.apply()
    assert modern["seaborn-deep"] == {"lines.linewidth": 7.0}
    assert not repair.needed()


def test_an_old_matplotlib_keeps_its_own_style(monkeypatch):
    from matplotlib import style

    old = {"seaborn-deep": {"lines.linewidth": 1.0}, "seaborn-v0_8-deep": {"lines.linewidth": 2.0}}
    monkeypatch.setattr(style, "library", old)
    assert not NAMED["seaborn styles"].needed()
    NAMED["seaborn styles"].apply()
    assert old["seaborn-deep"] == {"lines.linewidth": 1.0}


def test_numpy_inf_comes_back(monkeypatch):
    monkeypatch.setattr(np, "Inf", 0, raising=False)  # put back as it was, or removed, at the end
    del np.Inf
    assert NAMED["numpy.Inf"].needed()
    NAMED["numpy.Inf"].apply()
    assert np.Inf == float("inf")
    assert not NAMED["numpy.Inf"].needed()


class _Base(str, enum.Enum):
    def __format__(self, spec):  # what Python 3.11 does for such a class
        return str.__format__(f"{type(self).__name__}.{self.name}", spec)


class _Child(_Base):
    FITTING = "fit"


def _lightning(monkeypatch, base):
    for name in ("", ".trainer", ".trainer.states", ".utilities", ".utilities.enums"):
        module = ModuleType(f"pytorch_lightning{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules["pytorch_lightning.utilities.enums"].LightningEnum = base


def test_enums_are_formatted_by_value(monkeypatch):
    _lightning(monkeypatch, _Base)
    repair = NAMED["LightningEnum format"]
    assert f"_has_setup_{_Child.FITTING}" == "_has_setup__Child.FITTING"
    assert repair.needed()
    repair.apply()
    assert f"_has_setup_{_Child.FITTING}" == "_has_setup_fit"
    assert f"{_Child.FITTING:>5}" == "  fit"
    assert not repair.needed()


def test_nothing_is_needed_of_packages_that_are_not_there(monkeypatch):
    monkeypatch.setattr(compat, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torch._six", raising=False)
    for name in ("torch._six", "seaborn styles", "LightningEnum format"):
        assert not NAMED[name].needed(), name


@pytest.mark.parametrize(("release", "needed"), [("3.1.0", True), ("2.22.1", False), ("unknown", False)])
def test_mlflow_file_store(monkeypatch, release, needed):
    monkeypatch.delenv(compat.MLFLOW_VARIABLE, raising=False)
    monkeypatch.setattr(compat, "version", lambda name: release)
    assert NAMED["mlflow file store"].needed() is needed
    monkeypatch.setenv(compat.MLFLOW_VARIABLE, "false")  # the user's word counts
    assert not NAMED["mlflow file store"].needed()


def test_mlflow_variable_is_set(monkeypatch):
    monkeypatch.setenv(compat.MLFLOW_VARIABLE, "x")
    NAMED["mlflow file store"].apply()
    assert os.environ[compat.MLFLOW_VARIABLE] == "true"


@pytest.mark.parametrize(
    ("package", "given", "passed"),
    [
        ("nndet.inference.loading", {}, False),
        ("scripts.predict", {"weights_only": None}, False),
        ("pytorch_lightning", {}, False),
        ("nndet.inference.loading", {"weights_only": True}, True),
        ("nndetx.loading", {}, "absent"),
        ("torch.hub", {}, "absent"),
        ("nndet_psma.trainers.loading", {}, "absent"),
    ],
)
def test_objects_are_read_for_nndetection_only(package, given, passed):
    def load(file, weights_only="absent"):
        return file, weights_only

    wrapped = reading_objects_for(("nndet", "scripts", "pytorch_lightning"), load)
    assert caller(package, wrapped)("file", **given) == ("file", passed)


def test_torch_load_reads_a_sweep_state_for_nndetection(monkeypatch, tmp_path):
    import torch

    plain = torch.load
    monkeypatch.setattr(torch, "load", getattr(plain, "__wrapped__", plain))
    file = tmp_path / "case_boxes.pt"
    torch.save({"state": pathlib.PurePosixPath("weights"), "boxes": torch.ones(2, 6)}, file)
    assert NAMED["torch.load"].needed()
    NAMED["torch.load"].apply()
    assert not NAMED["torch.load"].needed()
    loaded = caller("nndet.inference.ensembler.base", torch.load)(file)
    assert loaded["state"] == pathlib.PurePosixPath("weights")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        caller("somebody.else", torch.load)(file)


def test_all_repairs_together_import_the_genuine_package(nndetection):
    """Every module that a repair names can be imported, and nothing is left to repair."""
    import nndet.inference.loading
    import nndet.utils.analysis
    import nndet.utils.tensor
    from pytorch_lightning.trainer.states import TrainerFn

    assert f"{TrainerFn.FITTING}" == "fit"
    assert nndet.utils.tensor.to_tensor([np.zeros(2)])[0].shape == (2,)
    assert apply_repairs() == []
