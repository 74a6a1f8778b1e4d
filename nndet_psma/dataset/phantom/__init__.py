"""Synthetic pelvic scans: one sampled anatomy per case, painted into as many modalities as a task needs."""
