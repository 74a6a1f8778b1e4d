"""``psma25d``: CT + CTV, a two-stage detector on slices, one voter per HU window (Xu et al. 2023)."""
