"""The joint sweep of boxes in 3D."""
