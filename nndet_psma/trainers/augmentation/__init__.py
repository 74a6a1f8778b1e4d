"""Random transforms of training images, drawn deterministically per seed, step and image."""
