"""Prepared cases: crop, resample, windows, the store."""
