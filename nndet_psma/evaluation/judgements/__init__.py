"""Judgements against the truth: AUC, decisions with exact intervals, Brier score, comparison of two models."""
