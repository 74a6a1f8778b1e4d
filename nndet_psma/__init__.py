"""nndet_psma: self-configuring detection of PSMA-positive lymph nodes."""

from __future__ import annotations

__version__ = "0.1.0"
