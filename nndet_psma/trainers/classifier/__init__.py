"""Training of networks that classify crops, and the simple models they are compared with."""
