"""Boxes against lesions: matching, average precision, FROC, the paper's protocol, strata."""
