"""Where the repository and the public data sets lie."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("NNDET_PSMA_DATA", REPOSITORY.parent / "shared" / "data"))
