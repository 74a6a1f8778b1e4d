"""What nnU-Net finds through ``nnUNet_extTrainer``: the installed class itself, so that no second copy exists."""

from nndet_psma.systems.nodeseg.nnunet.trainer import nnUNetTrainerNodeSeg

__all__ = ["nnUNetTrainerNodeSeg"]
