"""Window bagging: detectors trained on different HU windows vote (Xu 2023, "Window bagging")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nndet_psma.boxes.clustering import PartClusters, cluster_parts
from nndet_psma.boxes.detections import Detections


def window_bagging(voters: Sequence[Detections], *, vote_iou: float, min_votes: int) -> Detections:
    """Boxes on which at least ``min_votes`` voters agree.

    Per slice and label, best score first, a box is the seed of a cluster of all free boxes with IoU >= ``vote_iou`` to
    it. Each voter has one vote per cluster, its best box there; its further boxes in the cluster are dropped.
    Consensus box: mean of the voting boxes weighted by score. Consensus score: sum of the voting scores / number of
    voters present, so an absent vote counts 0. Label and further columns: those of the seed. Equal scores: the
    earlier voter goes first.

    The paper says what tau1 and tau2 mean but not how the agreeing boxes become one box with one score; the weighted
    mean is this package's choice.

    Args:
        voters: one set of 2D boxes (column ``slice``) or 3D boxes per voter. A voter without boxes still counts.
        vote_iou: tau1 in [0, 1], inclusive.
        min_votes: tau2, from 1 to the number of voters.

    Returns:
        Consensus boxes, best score first, with column ``votes``.

    Raises:
        ValueError: ``min_votes`` is out of range, no voters, or their columns differ.
    """
    check_votes(min_votes, len(voters))
    return consensus(cluster_parts(voters, vote_iou), min_votes)


def consensus(clusters: PartClusters, min_votes: int) -> Detections:
    """The second half of :func:`window_bagging`: count the votes of clusters already made."""
    fused, votes = clusters.fused()
    return fused.with_columns(votes=votes).select(votes >= min_votes).sorted_by_score()


def outvoted(clusters: PartClusters, min_votes: int) -> Iterator[tuple[int, Detections, int, str]]:
    """The boxes without a say in the :func:`consensus`: part, all boxes, row in them, reason; row by row."""
    votes = np.bincount(clusters.cluster[clusters.rank > 0])[clusters.cluster]
    for row in range(len(clusters.members)):
        if votes[row] < min_votes:
            reason = f"{votes[row]} of {clusters.num_parts} voters agree, {min_votes} needed"
        elif clusters.rank[row] == 0:
            reason = "the same voter has a better box in the same consensus"
        else:
            continue
        yield int(clusters.part[row]), clusters.members, row, reason


def check_votes(min_votes: int, num_voters: int) -> None:
    """Raise ``ValueError`` unless ``min_votes`` lies between 1 and the number of voters."""
    if not 1 <= min_votes <= num_voters:
        raise ValueError(f"min_votes must be between 1 and the {num_voters} voters present, got {min_votes}")
