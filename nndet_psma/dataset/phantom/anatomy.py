"""Sampling the anatomy of one case: everything a painter of any modality needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.phantom.canvas import Canvas, Mask
from nndet_psma.dataset.phantom.ctv import distance_outside, nodal_ctv, spared
from nndet_psma.dataset.phantom.habitus import Habitus, sample_habitus
from nndet_psma.dataset.phantom.nodes import Node
from nndet_psma.dataset.phantom.options import PROFILES, PhantomOptions
from nndet_psma.dataset.phantom.organs import draw_bowel, draw_pelvic_organs
from nndet_psma.dataset.phantom.placement import (
    CLEAR_OF_CTV_MM,
    OVERHANG_MM,
    OVERHANG_SHARE,
    SHARES,
    NodeField,
    find_stations,
)
from nndet_psma.dataset.phantom.skeleton import draw_body
from nndet_psma.dataset.phantom.vessels import Vessel, draw_mimics, draw_vessels, sample_vessels


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
        outside_mm: ``[z, y, x]`` distance to the search region before bowel is taken out of it, mm.
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
) -> Anatomy:
    """Draw the anatomy of one scan.

    Args:
        patient: chance that a second scan of the patient shares: build, bones, vessels, most of each node.
        scan: chance of this scan: filling of bladder and bowel, small changes of the nodes.
        options: grid and difficulty.
        diseased: False gives a case without positive nodes.
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
    field = NodeField(canvas, outside)
    _place_nodes(field, habitus, vessels, options, nodes, diseased=diseased)
    draw_bowel(canvas, _keep_clear(field, region), scan)
    placed = [_age(node, scan) for node in field.nodes]
    ctv = region & ~(spared(canvas) & (field.index == 0))
    return Anatomy(canvas, habitus, vessels, placed, field.index, ctv, outside)


def _place_nodes(
    field: NodeField,
    habitus: Habitus,
    vessels: list[Vessel],
    options: PhantomOptions,
    rng: np.random.Generator,
    *,
    diseased: bool,
) -> None:
    """Positive nodes first: they are large and need the space; then mimics, then benign nodes."""
    profile = PROFILES[options.difficulty]
    stations = find_stations(habitus, vessels)
    regions, shares = list(SHARES), np.array(list(SHARES.values()))
    count = 1 + int(rng.poisson(options.positives - 1)) if diseased else 0
    for _ in range(count):
        over_border = rng.random() < OVERHANG_SHARE
        region = stations[regions[rng.choice(len(regions), p=shares)]]
        for limits in (OVERHANG_MM, (0.0, 0.0)) if over_border else ((0.0, 0.0), OVERHANG_MM):
            if field.place("positive", profile.positive, region, limits, rng):
                break
    if diseased and not field.nodes:
        _force_one(field, stations, profile, rng)
    for _ in range(rng.integers(1, 4)):
        field.place("mimic", profile.positive, stations["outside"], (CLEAR_OF_CTV_MM, np.inf), rng)
    for _ in range(rng.integers(9, 15)):
        region = stations[regions[rng.choice(len(regions), p=shares)]]
        field.place("benign", profile.benign, region, (0.0, 5.0 if rng.random() < 0.2 else 0.0), rng)
    for _ in range(rng.integers(2, 6)):
        field.place("benign", profile.benign, stations["outside"], (CLEAR_OF_CTV_MM, np.inf), rng)
