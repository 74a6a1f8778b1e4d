"""The hash that a stage's weights are kept under."""

from __future__ import annotations

from typing import Any

from nndet_psma.trainers.identity import identity_hash, stage_identity


def stage_hash(*arguments: Any) -> str:
    """Of what :func:`stage_identity` is given."""
    return identity_hash(stage_identity(*arguments))
