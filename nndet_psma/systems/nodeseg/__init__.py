"""``nodeseg``: nodes segmented by nnU-Net v2, measured and staged."""
