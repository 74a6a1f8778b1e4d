"""Presets of this system beside its defaults: ``-o train=NAME``."""
