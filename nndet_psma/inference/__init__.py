"""From images to results: input cases, raw boxes, post-processing, thresholds from validation cases."""
