import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import A1, A2, FAR, A, random_slice_boxes, same, slice_boxes

from nndet_psma.boxes.clustering import nms
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case

SPACING = (3.0, 1.0, 1.0)
SETTINGS = PostprocSettings(
    score_threshold=0.2, zone_mm=3.0, hu_threshold=100.0, hu_quantile=0.5, vote_iou=0.5, min_votes=2
)


def raw_boxes(*rows, zone=0.0, hu=50.0):
    zones = np.full(len(rows), zone)
    return slice_boxes(*rows, zone_mm=zones, hu_quantiles=np.full((len(rows), 10), hu, dtype=np.float32))


def join(*parts):
    return Detections.concatenate(parts)


def case():
    """Two voters agree on slices 4 and 5; one box falls at each step."""
    first = join(
        raw_boxes((4, A, 0.9), (5, A, 0.8)),
        raw_boxes((4, A1, 0.7)),  # suppressed by A: IoU 0.6
        raw_boxes((9, A, 0.1)),  # score
        raw_boxes((10, A, 0.6), zone=3.5),
        raw_boxes((11, A, 0.5), hu=101),
        raw_boxes((12, FAR, 0.4)),  # nobody else sees it
    )
    return {"soft": [first], "m97_310": [raw_boxes((4, A, 0.5), (5, A, 0.4))]}


class TestSteps:
    def test_result(self):
        result = postprocess_case(case(), SETTINGS, spacing=SPACING)
        # scores (0.9 + 0.5) / 2 and (0.8 + 0.4) / 2
        np.testing.assert_allclose(result.slices.scores, [0.7, 0.6])
        assert result.slices.columns["slice"].tolist() == [4, 5]
        assert result.slices.columns["votes"].tolist() == [2, 2]
        assert result.slices.columns["lesion"].tolist() == [0, 0]
        assert result.lesions.boxes.tolist() == [[4, 0, 0, 6, 4, 4]]
        assert result.removed == []

    def test_every_removed_box_has_step_and_reason(self):
        removed = postprocess_case(case(), SETTINGS, spacing=SPACING, record_removed=True).removed
        assert [(box.step, box.slice, box.score) for box in removed] == [
            ("nms", 4, 0.7),
            ("score", 9, 0.1),
            ("zone", 10, 0.6),
            ("hu", 11, 0.5),
            ("bagging", 12, 0.4),
        ]
        assert {box.voter for box in removed} == {"soft"}
        assert [box.reason for box in removed] == [
            "overlaps a better box with IoU above 0.5",
            "score 0.1 below 0.2",
            "centre 3.5 mm outside the CTV, at most 3.0 mm kept",
            "101 HU at quantile 0.5, at most 100 HU kept",
            "1 of 2 voters agree, 2 needed",
        ]
        assert removed[-1].box == (50, 50, 54, 54)

    def test_recording_changes_nothing(self):
        plain = postprocess_case(case(), SETTINGS, spacing=SPACING)
        logged = postprocess_case(case(), SETTINGS, spacing=SPACING, record_removed=True)
        assert same(plain.slices, logged.slices)
        assert same(plain.lesions, logged.lesions)

    def test_second_box_of_a_voter_in_a_consensus_is_recorded(self):
        settings = PostprocSettings(vote_iou=0.3, min_votes=2)
        raw = {"a": [raw_boxes((0, A, 0.9))], "b": [raw_boxes((0, A, 0.5), (0, A2, 0.4))]}
        removed = postprocess_case(raw, settings, spacing=SPACING, record_removed=True).removed
        assert [(box.voter, box.score) for box in removed] == [("b", 0.4)]
        assert "better box in the same consensus" in removed[0].reason

    def test_folds_are_fused_before_the_score_threshold(self):
        # (0.3 + 0.0) / 2 = 0.15 falls, (0.3 + 0.3) / 2 stays
        raw = {"soft": [raw_boxes((0, A, 0.3), (0, FAR, 0.3)), raw_boxes((0, A, 0.3))]}
        settings = PostprocSettings(score_threshold=0.2)
        assert postprocess_case(raw, settings, spacing=SPACING).slices.boxes.tolist() == [list(A)]

    def test_voters_without_boxes_count(self):
        raw = {"a": [raw_boxes((0, A, 0.9))], "b": [Detections.empty(2)], "c": [raw_boxes()]}
        result = postprocess_case(raw, PostprocSettings(), spacing=SPACING)
        np.testing.assert_allclose(result.slices.scores, [0.3])
        settings = PostprocSettings(min_votes=2)
        assert len(postprocess_case(raw, settings, spacing=SPACING).slices) == 0

    @pytest.mark.parametrize("empty", [Detections.empty(2), Detections.build([], [])])
    @pytest.mark.parametrize("num_voters", [1, 3])
    def test_nothing_at_all(self, empty, num_voters):
        raw = {str(i): [empty, empty] for i in range(num_voters)}
        result = postprocess_case(raw, SETTINGS if num_voters > 1 else PostprocSettings(), spacing=SPACING)
        assert len(result.slices) == len(result.lesions) == 0
        assert result.slices.dim == 2
        assert result.lesions.dim == 3

    def test_single_voter_needs_no_vote_iou(self):
        # boxes with IoU 1/3 stay apart although vote_iou is lower
        raw = {"soft": [raw_boxes((0, A, 0.9), (0, A2, 0.8))]}
        result = postprocess_case(raw, PostprocSettings(vote_iou=0.1), spacing=SPACING)
        assert result.slices.scores.tolist() == [0.9, 0.8]
        assert result.slices.columns["votes"].tolist() == [1, 1]

    def test_votes_end_at_the_voters_that_were_asked(self):
        # two votes needed, one voter asked: its word is enough
        found = postprocess_case({"soft": [raw_boxes((0, A, 0.9))]}, SETTINGS, spacing=SPACING).slices
        assert found.columns["votes"].tolist() == [1]

    def test_a_voter_that_was_not_asked_does_not_lower_the_score(self):
        # (0.9 + 0.5) / 2 present voters; with a third that sees nothing: / 3
        asked = {"a": [raw_boxes((0, A, 0.9))], "b": [raw_boxes((0, A, 0.5))]}
        settings = PostprocSettings(min_votes=2)
        for missing in (asked, {**asked, "c": []}):
            found = postprocess_case(missing, settings, spacing=SPACING).slices
            np.testing.assert_allclose(found.scores, [0.7])
        blind = {**asked, "c": [raw_boxes()]}
        np.testing.assert_allclose(
            postprocess_case(blind, settings, spacing=SPACING).slices.scores, [1.4 / 3]
        )

    @pytest.mark.parametrize("raw", [{}, {"soft": []}])
    def test_no_voters(self, raw):
        with pytest.raises(ValueError, match="no voter was asked"):
            postprocess_case(raw, PostprocSettings(), spacing=SPACING)

    def test_folds_that_miss_a_box(self):
        # seen by one of three folds at 0.6: 0.2 when all count, 0.6 when only those that see it do
        raw = {"soft": [raw_boxes((0, A, 0.6)), raw_boxes(), Detections.empty(2)]}
        for fold_score, score in (("all", 0.2), ("present", 0.6)):
            settings = PostprocSettings(fold_score=fold_score)
            found = postprocess_case(raw, settings, spacing=SPACING).slices
            np.testing.assert_allclose(found.scores, [score])


@given(random_slice_boxes())
def test_detector_only_of_one_voter_is_suppression(d):
    settings = PostprocSettings.detector_only()
    result = postprocess_case({"soft": [d]}, settings, spacing=SPACING)
    kept = nms(d, settings.nms_iou)
    assert result.slices.boxes.tolist() == kept.boxes.tolist()
    assert result.slices.scores.tolist() == kept.scores.tolist()


@given(st.lists(random_slice_boxes(max_size=6), min_size=1, max_size=3))
def test_every_box_is_kept_merged_or_recorded(voters):
    raw = {f"w{i}": [d] for i, d in enumerate(voters)}
    settings = PostprocSettings(
        score_threshold=0.3, zone_mm=4.0, hu_threshold=60.0, vote_iou=0.3, min_votes=len(voters)
    )
    result = postprocess_case(raw, settings, spacing=SPACING, record_removed=True)
    assert len(result.removed) + int(result.slices.columns["votes"].sum()) == sum(map(len, voters))
