"""Sections of the page of a model."""
