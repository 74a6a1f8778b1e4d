import json

import pytest

from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.postproc.steps.settings import PostprocSettings


def test_json_round_trip():
    settings = PostprocSettings(zone_mm=3.24, hu_threshold=140.0, hu_quantile=0.3, min_votes=4)
    assert from_plain(PostprocSettings, json.loads(json.dumps(to_plain(settings)))) == settings
    assert from_plain(PostprocSettings, to_plain(PostprocSettings())).zone_mm is None


def test_detector_only_switches_everything_off():
    settings = PostprocSettings.detector_only()
    assert (settings.zone_mm, settings.hu_threshold, settings.min_votes) == (None, None, 1)
    assert settings.score_threshold == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("fold_iou", "vote_iou", "nms_iou", "link_iou", "hit_iou")
            for value in (0, 1.1)
        ),
        ("score_threshold", -0.1),
        ("score_threshold", float("nan")),
        ("zone_mm", -1.0),
        ("zone_mm", float("inf")),
        ("hu_threshold", float("nan")),
        ("hu_quantile", 0.45),
        ("min_votes", 0),
        ("link_gap", -1),
    ],
)
def test_out_of_range_names_the_field(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        PostprocSettings(**{name: value})
