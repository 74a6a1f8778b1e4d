"""All files of a case must lie on one grid before their voxels are compared."""

from __future__ import annotations

from collections.abc import Mapping

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription


def check_grids(
    case: RawCase, description: DatasetDescription, volumes: Mapping[str, Volume], labels: Volume | None
) -> None:
    """Compare every volume with the first one.

    Args:
        case: names the files in the error.
        description: names of the modalities.
        volumes: by modality name, the CTV included, in canonical axes.
        labels: instance mask, or None.

    Raises:
        UserError: one lies on another grid; names its file.
    """
    files = {name: case.images[i] for i, name in description.modalities.items() if i < len(case.images)}
    reference = next(iter(volumes.values())).geometry
    found = [(name, volume, files[name]) for name, volume in volumes.items()]
    if labels is not None:
        found.append(("label", labels, case.label or case.images[0]))
    for name, volume, file in found:
        if not volume.geometry.same_grid(reference):
            raise UserError(
                f"{name} of case {case.case_id} lies on another grid than the first image",
                file=file,
                expected=f"{reference.shape} voxels of {reference.spacing} mm (z, y, x)",
                found=f"{volume.geometry.shape} voxels of {volume.geometry.spacing} mm",
                remedy="Resample it onto the first image",
            )
