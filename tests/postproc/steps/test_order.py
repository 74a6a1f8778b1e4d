"""Steps by name, in the order of the plan, also from elsewhere."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from postproc_cases import A1, FAR, A
from sweep_cases import BASE, SPACING, raw_boxes, sweep_case, truth_at

from nndet_psma.core import registry
from nndet_psma.core.errors import UserError
from nndet_psma.core.registry import trusted_code
from nndet_psma.postproc.steps.order import step_order, without_filters
from nndet_psma.postproc.steps.settings import DEFAULT_STEPS, PostprocSettings
from nndet_psma.postproc.steps.step import STEPS, FilterStep, Step
from nndet_psma.postproc.steps.steps import postprocess_case
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.sweep import sweep


class SliceFilter(FilterStep):
    """A third party's step: boxes on low slices are dropped."""

    label = "slice"
    fields = ("SliceFilter.first",)

    def keep(self, boxes, settings, spacing):
        first = settings.value("SliceFilter.first")
        return boxes.columns["slice"] >= (0 if first is None else first)

    def reason(self, boxes, row, settings, spacing):
        return f"slice {boxes.columns['slice'][row]} lies low"


class Nothing(Step):
    label = "nothing"


@pytest.fixture
def installed(monkeypatch):
    """SliceFilter as an installed package offers it; forgotten afterwards."""
    entry = EntryPoint("SliceFilter", f"{__name__}:SliceFilter", "nndet_psma.postproc")

    def offered(group):
        return [entry] if group == "nndet_psma.postproc" else []

    monkeypatch.setattr(registry, "entry_points", offered)
    monkeypatch.setattr(STEPS, "_classes", dict(STEPS._classes))


WITH_SLICES = (*DEFAULT_STEPS[:3], "SliceFilter", *DEFAULT_STEPS[3:])


def test_default_order():
    order = step_order(DEFAULT_STEPS)
    assert [step.label for step in order.on_voters] == ["nms", "score", "zone", "hu", "size"]
    assert order.on_folds == order.on_consensus == order.on_lesions == []
    assert set(DEFAULT_STEPS) <= set(STEPS)


def test_step_of_another_package(installed):
    settings = PostprocSettings(steps=WITH_SLICES, options={"SliceFilter.first": 3})
    raw = {"a": [raw_boxes((2, A, 0.9), (3, A, 0.8))]}
    result = postprocess_case(raw, settings, spacing=SPACING, record_removed=True)
    assert result.slices.scores.tolist() == [0.8]
    assert [(box.step, box.reason) for box in result.removed] == [("slice", "slice 2 lies low")]


@pytest.mark.parametrize("search", ["joint", "two_phase", "coarse"])
def test_step_of_another_package_is_tuned(installed, search):
    # false boxes on slices 0 and 1, the lesion on 2: only the slice tells them apart
    raw = {"a": [raw_boxes((0, A, 0.5), (1, A, 0.5), (2, A, 0.5))]}
    grid = SweepGrid((), (), (), (0.5,), (), others={"SliceFilter.first": (None, 1, 2, 3)})
    base = PostprocSettings(steps=WITH_SLICES)
    result = sweep([sweep_case(raw, truth_at(2))], grid, criterion="f1", base=base, search=search)
    assert result.settings.options == {"SliceFilter.first": 2}
    assert result.best.f1 == 1
    assert result.best.options == {"SliceFilter.first": 2}


def test_order_matters():
    """The worse box alone lies inside: the filter saves it before suppression, and comes too late behind it."""
    boxes = raw_boxes((0, A, 0.9), (0, A1, 0.8)).with_columns(zone_mm=np.array([5.0, 0.0]))
    settings = PostprocSettings(zone_mm=1.0)
    assert len(postprocess_case({"a": [boxes]}, settings, spacing=SPACING).slices) == 0
    earlier = settings.but({"steps": ("ZoneFilter", *(s for s in DEFAULT_STEPS if s != "ZoneFilter"))})
    assert postprocess_case({"a": [boxes]}, earlier, spacing=SPACING).slices.scores.tolist() == [0.8]


def test_filter_behind_the_vote_judges_the_consensus():
    # 0.5 alone passes 0.4; as a consensus with a blind voter it has 0.25
    moved = [s for s in DEFAULT_STEPS if s != "ScoreThreshold"]
    moved.insert(moved.index("WindowBagging") + 1, "ScoreThreshold")
    raw = {"a": [raw_boxes((0, A, 0.5))], "b": [raw_boxes((1, FAR, 0.9))]}
    settings = PostprocSettings(score_threshold=0.4)
    assert len(postprocess_case(raw, settings, spacing=SPACING).slices) == 2
    later = postprocess_case(raw, settings.but({"steps": moved}), spacing=SPACING, record_removed=True)
    assert later.slices.scores.tolist() == [0.45]
    assert [(box.voter, box.step, box.score) for box in later.removed] == [("consensus", "score", 0.25)]


def test_joint_sweep_refuses_what_masks_cannot_do():
    moved = tuple(s for s in DEFAULT_STEPS if s != "ZoneFilter")
    for steps in (("ZoneFilter", *moved), (*moved, "ZoneFilter"), (*moved[:1], "ZoneFilter", *moved[1:])):
        raw = {"a": [raw_boxes((0, A, 0.5))]}
        case, base = sweep_case(raw, truth_at(0)), BASE.but({"steps": steps})
        grid = SweepGrid((1.0,), (), (), (0.5,), ())
        with pytest.raises(UserError, match=r"ZoneFilter cannot be tuned as masks .*sweep.search=coarse"):
            sweep([case], grid, criterion="f1", base=base)
        if steps[-1] == "ZoneFilter":
            continue  # lesions know no distance to the CTV
        assert sweep([case], grid, criterion="f1", base=base, search="coarse").best.f1 == 1


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (("NMS",), "needs exactly one FuseStep; found 0 in NMS"),
        ((*DEFAULT_STEPS, "SliceLinking"), "needs exactly one LinkStep; found 2"),
        (("WindowBagging", "WeightedBoxClustering", "SliceLinking"), "impossible order"),
        (
            (*DEFAULT_STEPS, "SoftNMS"),
            "unknown post-processing step 'SoftNMS'; expected one of BoxSlicing, HUFilter, NMS",
        ),
        ((*DEFAULT_STEPS, f"{__name__}.Nothing"), "is of no known kind"),
    ],
)
def test_impossible_orders(steps, message):
    with trusted_code(), pytest.raises(UserError, match=message):
        step_order(steps)


def test_detector_alone_keeps_suppression_and_threshold():
    assert without_filters(DEFAULT_STEPS) == (*DEFAULT_STEPS[:3], "WindowBagging", "SliceLinking")
