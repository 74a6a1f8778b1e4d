"""The 2.5D module."""

from __future__ import annotations

from nndet.ptmodule import MODULE_REGISTRY

from nndet_psma.hosts.nndetection.module import PSMAModule


@MODULE_REGISTRY.register
class RetinaUNetPSMA2D(PSMAModule):
    """RetinaUNet on axial slices with their neighbours as channels; for plans of ``PSMAD2``.

    Slice boxes are linked into 3D boxes, so whatever nnDetection does with predictions works as for a 3D network.
    """
