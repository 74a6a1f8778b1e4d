"""``retina3d``: a one-stage 3D detector on patches of any modalities (nnDetection's RetinaUNet in its choices)."""
