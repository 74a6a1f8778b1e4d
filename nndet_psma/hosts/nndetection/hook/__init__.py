"""nnDetection's own console scripts: whose they are, and a hook with the repairs, put in and taken out by the user."""
