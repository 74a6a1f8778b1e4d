"""The check of a raw task."""
