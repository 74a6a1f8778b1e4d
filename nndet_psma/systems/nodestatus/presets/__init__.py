"""Presets of ``nodestatus``."""
