"""One finished phantom case: images, labels and header, from its specification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.phantom.anatomy import Anatomy, sample_anatomy
from nndet_psma.dataset.phantom.ct import paint_ct
from nndet_psma.dataset.phantom.options import PROFILES, PhantomOptions
from nndet_psma.dataset.phantom.schedule import CaseSpec


@dataclass(frozen=True)
class PhantomCase:
    """A case as it is written.

    Attributes:
        spec: its place in the task.
        geometry: header of all volumes.
        images: volumes ``[z, y, x]`` in the order of the task's modalities.
        labels: ``[z, y, x]`` int16 instance ids of the labelled nodes, 1..n ordered by centroid (z, y, x).
        anatomy: what was painted, in the grid before flips.
    """

    spec: CaseSpec
    geometry: Geometry
    images: tuple[NDArray[Any], ...]
    labels: NDArray[np.int16]
    anatomy: Anatomy

    @property
    def classes(self) -> dict[int, int]:
        """Class by instance id: there is one."""
        return {int(k): 0 for k in np.unique(self.labels[self.labels > 0])}


def draw_case(spec: CaseSpec, options: PhantomOptions) -> PhantomCase:
    """Draw a case; the same specification and options give the same voxels."""
    scan = spec.chance("scan")
    anatomy = sample_anatomy(spec.chance("patient"), scan, options, diseased=spec.diseased)
    noise = PROFILES[options.difficulty].noise if options.noise is None else options.noise
    geometry, flips = sample_header(spec, options)
    ct = flipped(paint_ct(anatomy, scan, noise), flips)
    ctv = flipped(anatomy.ctv.astype(np.uint8), flips)
    labels = number_by_centroid(flipped(label_positives(anatomy), flips))
    return PhantomCase(spec, geometry, (ct, ctv), labels, anatomy)


def label_positives(anatomy: Anatomy) -> NDArray[np.int16]:
    """Instance ids of the positive nodes, ``[z, y, x]`` int16, in the order they were placed."""
    ids = np.zeros(len(anatomy.nodes) + 1, dtype=np.int16)
    positions = [k for k, node in enumerate(anatomy.nodes, start=1) if node.positive]
    ids[positions] = np.arange(1, len(positions) + 1)
    return ids[anatomy.node_index]


def number_by_centroid(labels: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same instances with ids 1..n ascending by centroid (z, then y, then x), without gaps."""
    present = np.unique(labels[labels > 0])
    centroids = [tuple(np.argwhere(labels == k).mean(axis=0)) for k in present]
    order = sorted(range(len(present)), key=lambda k: centroids[k])
    renamed = np.zeros(int(labels.max()) + 1, dtype=np.int16)
    for new, old in enumerate(order, start=1):
        renamed[present[old]] = new
    return renamed[labels]


def flipped(volume: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """A copy with array axes turned round."""
    return np.ascontiguousarray(np.flip(volume, axes))


def sample_header(spec: CaseSpec, options: PhantomOptions) -> tuple[Geometry, tuple[int, ...]]:
    """Geometry of the case and the array axes to flip; the middle of the field stays at the patient's origin."""
    rng = spec.chance("header")
    flips = tuple(axis for axis in range(3) if options.flip and rng.random() < 0.5)
    axis, angle = rng.normal(size=3), rng.uniform(0.3, 1.0) * options.oblique
    rotation = Rotation.from_rotvec(np.deg2rad(angle) * axis / np.linalg.norm(axis)).as_matrix()
    signs = np.array([-1.0 if 2 - k in flips else 1.0 for k in range(3)])  # x, y, z
    direction = rotation * signs
    plain = options.geometry
    origin = direction @ np.array(plain.origin)
    return (
        replace(
            plain,
            direction=tuple(float(v) + 0.0 for v in direction.ravel()),
            origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        ),
        flips,
    )
