"""The candidates of a case: everything that passes the filters, ranked by score."""

from __future__ import annotations

from dataclasses import replace

from nndet_psma.postproc.steps.settings import PostprocSettings

MAX_CANDIDATES = 100
"""Ranked candidates kept per case, as nnDetection keeps 100 boxes."""

RANKING_VOTE_IOU = 0.3  # slightly displaced boxes of one small node still meet; not tuned


def ranking_settings(settings: PostprocSettings) -> PostprocSettings:
    """The same filters without score threshold and vote count, so that every candidate gets its rank.

    The consensus score divides by all voters, so a box that few voters see ranks low by itself. Votes meet at a
    moderate overlap at most: where the tuned vote count is 1, a high ``vote_iou`` merely keeps every voter's box, and
    as a ranking it would split one lesion into as many candidates.
    """
    vote_iou = min(settings.vote_iou, RANKING_VOTE_IOU)
    return replace(settings, score_threshold=0.0, min_votes=1, vote_iou=vote_iou)
