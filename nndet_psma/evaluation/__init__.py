"""Scores of results against labels: pure functions, no files of models."""
