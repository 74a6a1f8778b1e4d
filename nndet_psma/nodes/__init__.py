"""Lymph nodes as measured objects: axes, bounding box, N stage."""
