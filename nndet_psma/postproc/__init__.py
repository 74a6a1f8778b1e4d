"""From raw boxes to lesions: steps by name, and the sweep that tunes them on validation cases."""
