"""The joint sweep of boxes on slices that vote."""
