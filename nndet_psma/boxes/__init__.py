"""Boxes and detections: voxel edges, lower corner then upper corner, z y x; overlaps, clustering, geometry."""
