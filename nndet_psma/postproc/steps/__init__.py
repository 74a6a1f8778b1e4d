"""The steps, their settings and their order."""
