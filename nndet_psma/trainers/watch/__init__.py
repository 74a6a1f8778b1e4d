"""Who watches a training: console, figures, pictures, GPU memory, trackers."""
