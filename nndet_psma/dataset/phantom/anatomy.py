"""Sampling the anatomy of one case: everything a painter of any modality needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.phantom.canvas import Canvas, Mask
from nndet_psma.dataset.phantom.ctv import distance_outside, nodal_ctv, spared
from nndet_psma.dataset.phantom.habitus import Habitus, sample_habitus
from nndet_psma.dataset.phantom.nodes import Node, sample_node
from nndet_psma.dataset.phantom.options import PROFILES, DifficultyProfile, PhantomOptions
from nndet_psma.dataset.phantom.organs import draw_bowel, draw_pelvic_organs
from nndet_psma.dataset.phantom.placement import (
    CLEAR_OF_CTV_MM,
    INSIDE,
    OVERHANG_MM,
    OVERHANG_SHARE,
    SHARES,
    NodeField,
    Station,
    find_stations,
)
from nndet_psma.dataset.phantom.skeleton import draw_body
from nndet_psma.dataset.phantom.vessels import Vessel, draw_mimics, draw_vessels, sample_vessels

SPECKLED = 3
"""Every third node of a case, positive or not, holds a bright speck: it makes the upper tail of Xu et al.'s table 2."""


@dataclass(frozen=True)
class Anatomy:
    """One case before any imaging.

    Attributes:
        canvas: grid, positions of the voxel centres, and the tissue volume.
        habitus: build of the patient.
        vessels: iliac arteries and veins.
        nodes: all lymph nodes and node-like mimics.
        node_index: ``[z, y, x]`` int16, 0 or 1 + position in ``nodes``: the contours, somewhat wider than the nodes.
        ctv: ``[z, y, x]`` the nodal search region.
        outside_mm: ``[z, y, x]`` distance to the search region, mm; 0 inside, infinite far away.
    """

    canvas: Canvas
    habitus: Habitus
    vessels: list[Vessel]
    nodes: list[Node]
    node_index: NDArray[np.int16]
    ctv: Mask
    outside_mm: NDArray[np.float64]

    @property
    def geometry(self) -> Geometry:
        """Grid of all volumes."""
        return self.canvas.geometry

    @property
    def tissue(self) -> NDArray[np.uint8]:
        """``[z, y, x]`` values of :class:`~nndet_psma.dataset.phantom.tissue.Tissue`."""
        return self.canvas.tissue

    def positives(self) -> list[Node]:
        """The nodes that are labelled."""
        return [node for node in self.nodes if node.positive]


def sample_anatomy(
    patient: np.random.Generator,
    scan: np.random.Generator,
    options: PhantomOptions,
    *,
    diseased: bool = True,
    profile: DifficultyProfile | None = None,
) -> Anatomy:
    """Draw the anatomy of one scan.

    Args:
        patient: chance that a second scan of the patient shares: build, bones, vessels, most of each node.
        scan: chance of this scan: filling of bladder and bowel, small changes of the nodes.
        options: grid and difficulty.
        diseased: False gives a case without positive nodes.
        profile: looks of the nodes; None takes those of the difficulty.
    """
    canvas = Canvas(options.geometry)
    habitus = sample_habitus(patient)
    vessels = sample_vessels(habitus, patient)
    # separate streams: rejection sampling draws a number of values that depends on the filling of the organs
    bodies, organs, nodes = patient.spawn(3)
    draw_body(canvas, habitus, bodies, table=options.table)
    draw_pelvic_organs(canvas, habitus, organs, scan)
    draw_vessels(canvas, vessels)
    draw_mimics(canvas, habitus, organs)
    region = nodal_ctv(canvas, habitus, vessels)
    outside = distance_outside(region, canvas.geometry.spacing)
    field = NodeField(canvas, outside, growth=float(scan.uniform(0.92, 1.02)))
    looks = PROFILES[options.difficulty] if profile is None else profile
    mean_positives = options.positives if diseased else 0.0
    _place_nodes(field, habitus, vessels, looks, nodes, mean_positives)
    draw_bowel(canvas, _keep_clear(field, region), scan)
    ctv = region & ~(spared(canvas) & (field.index == 0))
    outside = distance_outside(ctv, canvas.geometry.spacing)
    return Anatomy(canvas, habitus, vessels, field.nodes, field.index, ctv, outside)


def _keep_clear(field: NodeField, region: Mask) -> Mask:
    """Where bowel may not go: round every node, and the inside of the CTV but for its border."""
    plane = ndimage.generate_binary_structure(2, 1)[None]
    nodes = ndimage.binary_dilation(field.index > 0, plane, iterations=2)
    clear: Mask = nodes | ndimage.binary_erosion(region, plane)
    return clear


def _place_nodes(
    field: NodeField,
    habitus: Habitus,
    vessels: list[Vessel],
    profile: DifficultyProfile,
    rng: np.random.Generator,
    mean_positives: float,
) -> None:
    """Positive nodes first: they are large and need the space; then mimics, then benign nodes."""
    stations = find_stations(habitus, vessels)
    regions, shares = list(SHARES), np.array(list(SHARES.values()))
    count = 1 + int(rng.poisson(mean_positives - 1)) if mean_positives > 0 else 0
    first = int(rng.integers(SPECKLED))
    for k in range(count):
        _place_positive(field, stations, profile, rng, calcified=(k + first) % SPECKLED == 0)
    for _ in range(rng.integers(1, 4)):
        node = sample_node("mimic", profile.positive, rng)
        field.place(node, stations["outside"], (CLEAR_OF_CTV_MM, np.inf), rng)
    for k in range(rng.integers(8, 13)):
        region = stations[regions[rng.choice(len(regions), p=shares)]]
        limits = (0.0, OVERHANG_MM[1]) if rng.random() < 0.2 else INSIDE
        node = sample_node("benign", profile.benign, rng, calcified=k % SPECKLED == 0)
        field.place(node, region, limits, rng)
    for _ in range(rng.integers(2, 6)):
        node = sample_node("benign", profile.benign, rng)
        field.place(node, stations["outside"], (CLEAR_OF_CTV_MM, np.inf), rng)


def _place_positive(
    field: NodeField,
    stations: dict[str, list[Station]],
    profile: DifficultyProfile,
    rng: np.random.Generator,
    *,
    calcified: bool,
) -> None:
    """Inside the CTV, a few over its border; where a region is full, in another one, wherever fat is left."""
    regions, shares = list(SHARES), np.array(list(SHARES.values()))
    first = regions[rng.choice(len(regions), p=shares)]
    over_border = rng.random() < OVERHANG_SHARE
    choices = [(first, OVERHANG_MM)] if over_border else []
    choices += [(first, INSIDE)] + [(other, INSIDE) for other in regions if other != first]
    choices += [(region, (0.0, OVERHANG_MM[1])) for region in regions]
    node = sample_node("positive", profile.positive, rng, calcified=calcified)
    for shrink in (1.0, 0.7):  # a node too large for this pelvis is made smaller rather than left out
        smaller = node.scaled(shrink)
        if any(field.place(smaller, stations[region], limits, rng) for region, limits in choices):
            return
