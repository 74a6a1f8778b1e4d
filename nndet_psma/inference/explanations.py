"""``CASE_explain/``: for every judged object a picture, maps as NIfTI (occlusion, Grad-CAM), and shares in a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nndet_psma.artifacts.classified import Classified
from nndet_psma.core.atomic import atomic_file, atomic_folder
from nndet_psma.core.csv_table import write_table
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.inference.classifying import CropEnsemble
from nndet_psma.inference.grad_cam import grad_cam
from nndet_psma.inference.occlusion import Importance, occlusion
from nndet_psma.preprocess.crops import INSIDE, ObjectCrops

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARES = "shares.csv"
_COLUMNS = ("object_id", "share_inside", "share_ring", "share_outside", "peak_inside")
_GREY = (-160.0, 240.0)  # HU, soft tissue


def explanation_folder(folder: Path, case_id: str) -> Path:
    """Where the explanations of a case lie in a folder of predictions."""
    return folder / f"{case_id}_explain"


def explain(target: Path, result: Classified, cut: ObjectCrops, ensemble: CropEnsemble) -> None:
    """Write the explanations of a case; the folder ``target`` appears whole or not at all."""
    with atomic_folder(target) as folder:
        rows = []
        for index, judged in enumerate(result.objects):
            found = occlusion(ensemble, cut.ct[index], cut.codes[index])
            cam = grad_cam(ensemble, cut.ct[index], cut.codes[index])
            write_volume(folder / f"{judged.object_id}.nii.gz", found.drop, cut.geometry(index))
            write_volume(folder / f"{judged.object_id}_grad_cam.nii.gz", cam, cut.geometry(index))
            title = ", ".join(f"{name} {value:.2f}" for name, value in judged.probabilities.items())
            _draw(folder / f"{judged.object_id}.png", cut.ct[index], cut.codes[index], found, cam, title)
            shares = (f"{share:.4f}" for share in (found.inside, found.ring, found.outside))
            rows.append((judged.object_id, *shares, int(found.peak_inside)))
        write_table(folder / SHARES, _COLUMNS, rows)


def _draw(
    file: Path,
    ct: NDArray[np.int16],
    codes: NDArray[np.uint8],
    found: Importance,
    cam: NDArray[np.float32],
    title: str,
) -> None:
    """The central axial slice: CT with the outline of the object, and each map over it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    middle = ct.shape[0] // 2
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    shown = {"CT": None, "occlusion": found.drop, "Grad-CAM": cam}
    for axes, (name, values) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.imshow(ct[middle], cmap="gray", vmin=_GREY[0], vmax=_GREY[1])
        axes.contour((codes[middle] & INSIDE) > 0, levels=[0.5], colors="yellow", linewidths=1)
        if values is not None:
            limit = float(np.abs(values).max()) or 1.0
            axes.imshow(values[middle], cmap="coolwarm", vmin=-limit, vmax=limit, alpha=0.5)
        axes.set_title(name)
        axes.set_axis_off()
    figure.suptitle(f"{title}; {found.inside:.0%} of the importance inside")
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
