"""The 3D module."""

from __future__ import annotations

from nndet.ptmodule import MODULE_REGISTRY

from nndet_psma.hosts.nndetection.module import PSMAModule


@MODULE_REGISTRY.register
class RetinaUNetPSMA3D(PSMAModule):
    """RetinaUNet on 3D patches of the search region; for plans of ``PSMAD3``."""
