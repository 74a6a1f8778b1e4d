"""Plans on 3D patches where several parts of the package meet: check, jobs on a GPU, the command that shows plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_place import Workplace

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.cli import plan as plan_command
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import read_description
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.stages.prep import check_plan_file
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.systems.retina3d.planner import Retina3DPlanner
from nndet_psma.systems.retina3d.system import Retina3D
from nndet_psma.trainers.settings import TrainerSettings


@pytest.fixture
def place(tiny_task: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    own = tiny_task.copy(tmp_path)
    own.enter(monkeypatch)
    return own


@pytest.fixture
def plan(place: Workplace) -> PSMA25DPlan:
    """A plan of the tiny task, written."""
    found = Fingerprint.read(place.paths.fingerprint)
    names = [case.case_id for case in found.cases]
    folds = FoldChoice([FoldPlan(names[2:], names[:2])], "by hand", "two cases")
    made = Retina3DPlanner().plan(
        found, DetectorOptions(), plan_id="RETINA3D", trainer="RetinaNet3D", target=Target("cpu", 0.0), folds=folds
    )  # fmt: skip
    made.write(place.paths.plan("RETINA3D"))
    return made


def check(place: Workplace, plan: Retina3DPlan) -> PSMA25DPlan:
    file = place.paths.plan("RETINA3D")
    plan.write(file)
    return check_plan_file(place.paths, file, read_description(place.paths.root))


def test_the_plan_holds_together(place: Workplace, plan: Retina3DPlan) -> None:
    assert check(place, plan) == plan


def test_planner_and_trainer_must_fit(place: Workplace, plan: Retina3DPlan) -> None:
    with pytest.raises(
        UserError, match=r"trainer 'MaskRCNN25D' cannot train .*a plan of psma25d; found one of retina3d"
    ):
        check(place, replace(plan, trainer="MaskRCNN25D"))
    slices = PSMA25DPlan.read(place.paths.plan("PSMA25D"))
    with pytest.raises(UserError, match=r"trainer 'RetinaNet3D' cannot train .*a plan of retina3d; found"):
        check(place, replace(slices, trainer="RetinaNet3D"))


def test_steps_must_take_boxes_of_the_detector(place: Workplace, plan: Retina3DPlan) -> None:
    steps = ["SliceLinking" if step == "BoxSlicing" else step for step in plan.postproc_defaults["steps"]]
    wrong = replace(plan, postproc_defaults={**plan.postproc_defaults, "steps": steps})
    with pytest.raises(UserError, match=r"postproc_defaults: .*SliceLinking does not fit the detector"):
        check(place, wrong)


def test_show_takes_the_only_plan_there_is(
    place: Workplace, plan: Retina3DPlan, capsys: pytest.CaptureFixture
) -> None:
    number = place.paths.name[4:7]
    assert plan_command.main(["show", number]) == 0
    assert "plan PSMA25D" in capsys.readouterr().out  # two plans: the central system's
    place.paths.plan("PSMA25D").unlink()
    assert plan_command.main(["show", number]) == 0
    shown = capsys.readouterr().out
    assert "plan RETINA3D" in shown
    assert "cost.retina3d" in shown


def test_a_miss_lists_plans_only(place: Workplace, plan: Retina3DPlan, capsys: pytest.CaptureFixture) -> None:
    assert plan_command.main(["show", place.paths.name[4:7], "NOBODY"]) == 2
    error = capsys.readouterr().err
    assert "found PSMA25D, RETINA3D" in error
    assert "check" not in error


def test_jobs_side_by_side_on_a_gpu(plan: Retina3DPlan) -> None:
    """The CPU's network is small: a job needs CUDA's context (0.6 GB), the workspace (1 GB) and little more."""
    settings = TrainerSettings()
    # 0.92 * 16 = 14.72 GB hold nine jobs of 1.6 GB; of jobs below 1.84 GB at least eight
    assert 8 <= Retina3D().jobs_per_gpu(plan, settings, 16.0) <= 9
    assert Retina3D().jobs_per_gpu(plan, settings, 1.0) == 1
    assert Retina3D().jobs_per_gpu(plan, replace(settings, batch_size=200), 16.0) < 8
