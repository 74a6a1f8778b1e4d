"""Presets that genuine nnDetection finds through our search path."""
