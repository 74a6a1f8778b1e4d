"""What nnDetection imports (``additional_imports``) to know our planners, modules and loaders."""

from __future__ import annotations

from nndet_psma.hosts.nndetection import loader, module2d, module3d, planner
from nndet_psma.hosts.nndetection.nms import provide_gpu_nms

provide_gpu_nms()

PLANNERS = (planner.PSMAD2, planner.PSMAD3)
MODULES = (module2d.RetinaUNetPSMA2D, module3d.RetinaUNetPSMA3D)
LOADERS = (loader.DataLoader2DPSMA, loader.DataLoader3DPSMA)
