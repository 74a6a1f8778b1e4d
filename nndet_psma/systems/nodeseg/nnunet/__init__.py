"""nnU-Net v2 as host: the raw task as its data set, its training with our choices, its probabilities as our lesions.

Importing this package imports nothing of nnU-Net; the modules below it do.
"""

import os

# nnU-Net reads this once, when it is imported, and would start eight processes on a machine of any size
os.environ.setdefault("nnUNet_def_n_proc", str(min(8, os.cpu_count() or 1)))
