"""Masks against masks: overlap, surface distances, nodes found."""
