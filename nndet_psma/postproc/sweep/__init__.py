"""Search for thresholds: criterion, candidates, exhaustive and sampled searches."""
