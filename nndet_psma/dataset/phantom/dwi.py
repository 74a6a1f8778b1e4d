"""One diffusion-weighted MR of the phantom pelvis: every lymph node labelled, b800 and ADC on one grid.

After the setting of the DWI paper (node segmentation, 2022): small and large pelvic nodes, of which those with a short
axis above 8 mm are suspicious; b800 with bright bowel and nerves beside them, and the ADC map of the scanner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.dataset.phantom.anatomy import Anatomy, sample_anatomy
from nndet_psma.dataset.phantom.canvas import smooth_line
from nndet_psma.dataset.phantom.case import PhantomCase, flipped, number_by_centroid, sample_header
from nndet_psma.dataset.phantom.dwi_signal import DWI_NOISE, Signal, measure_adc, paint_signals, to_signal
from nndet_psma.dataset.phantom.nodes import Node
from nndet_psma.dataset.phantom.options import PROFILES, DifficultyProfile, PhantomOptions
from nndet_psma.dataset.phantom.schedule import CaseSpec, Split, plan_case

B_VALUE = 800
SUSPICIOUS_MM = 8.0
NODE_KINDS = ("positive", "benign")
"""Both are lymph nodes and labelled; "mimic" nodes are painted as cysts: bright on b800 by their T2 alone."""

SHORT_AXIS_MM = {"positive": (5.0, 15.0), "benign": (3.0, 10.0)}
DEFAULT_SIZE = (40, 160, 208)
DEFAULT_SPACING = (3.5, 1.8, 1.8)

# template millimetres (z, y, x lateral), both sides
LUMBOSACRAL_TRUNK = np.array([[150, 40, 34], [118, 44, 42], [92, 52, 44], [74, 58, 50]], float)
SACRAL_ROOTS = np.array([[112, 46, 20], [94, 56, 32], [74, 60, 48]], float)
SCIATIC_NERVE = np.array([[74, 58, 50], [56, 60, 64], [30, 58, 74], [-40, 52, 76]], float)
FEMORAL_NERVE = np.array([[150, 2, 66], [104, -14, 78], [60, -38, 74], [10, -62, 66]], float)
NERVES = ((LUMBOSACRAL_TRUNK, 3.2), (SACRAL_ROOTS, 2.8), (SCIATIC_NERVE, 4.5), (FEMORAL_NERVE, 2.2))


@dataclass(frozen=True)
class _Look:
    """Signal without diffusion weighting and diffusion coefficient of a kind of node, with their spread."""

    signal: tuple[float, float]
    adc: tuple[float, float]


_LOOKS = {
    "positive": _Look((640.0, 70.0), (880.0, 90.0)),
    "benign": _Look((590.0, 70.0), (1080.0, 110.0)),
    "mimic": _Look((1250.0, 150.0), (2100.0, 150.0)),
}


def dwi_options(**given: Any) -> PhantomOptions:
    """Options of the phantom with the grid of a pelvic DWI where none is given."""
    return PhantomOptions(**{"size": DEFAULT_SIZE, "spacing": DEFAULT_SPACING, **given})


def plan_dwi(seed: int, split: Split, index: int) -> CaseSpec:
    """The specification of one case; the same patients as those of the CT task of the same seed."""
    return plan_case(seed, split, index, stem="dwi")


def draw_dwi_case(spec: CaseSpec, options: PhantomOptions) -> PhantomCase:
    """Draw a case: b800 and ADC (1e-6 mm²/s), both int16; the same specification gives the same voxels."""
    scan = spec.chance("scan")
    patient = spec.chance("patient")
    profile = node_sizes(PROFILES[options.difficulty])
    anatomy = sample_anatomy(patient, scan, options, diseased=spec.diseased, profile=profile)
    geometry, flips = sample_header(spec, options)
    noise = DWI_NOISE[options.difficulty] if options.noise is None else options.noise
    signal = paint_signals(anatomy.tissue, anatomy.geometry.spacing, scan)
    _paint_nerves(signal, anatomy, scan)
    for node in anatomy.nodes:
        _paint_node(signal, anatomy, node, scan)
    low, high = to_signal(signal, B_VALUE, noise, anatomy.geometry.spacing, scan)
    adc = measure_adc(low, high, B_VALUE, noise)
    images = tuple(flipped(np.rint(image).astype(np.int16), flips) for image in (high, adc))
    labels = number_by_centroid(flipped(label_nodes(anatomy), flips))
    return PhantomCase(spec, geometry, images, labels, anatomy)


def node_sizes(profile: DifficultyProfile) -> DifficultyProfile:
    """The profile with nodes from 3 to 15 mm."""
    return replace(
        profile,
        positive=replace(profile.positive, limits=SHORT_AXIS_MM["positive"]),
        benign=replace(profile.benign, limits=SHORT_AXIS_MM["benign"]),
    )


def label_nodes(anatomy: Anatomy) -> NDArray[np.int16]:
    """Instance ids of all lymph nodes, ``[z, y, x]`` int16; labels end at the surface, so that they can be measured."""
    labels = np.zeros(anatomy.tissue.shape, dtype=np.int16)
    for index, node in enumerate(anatomy.nodes, start=1):
        if node.kind in NODE_KINDS:
            window, solid = node.contour(anatomy.canvas, 0.0)
            own = anatomy.node_index[window] == index
            inside = solid & own
            if inside.any():
                labels[window][inside] = index
            else:  # its one voxel belongs to a vessel: the contour that was kept for it
                labels[anatomy.node_index == index] = index
    return labels


def _paint_nerves(signal: Signal, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Plexus, sciatic and femoral nerves: round and bright in a slice, long across slices."""
    canvas, scale = anatomy.canvas, np.array(anatomy.habitus.scale)
    for side in (1, -1):
        for template, radius in NERVES:
            points = (template * scale + rng.normal(0, 1.2, 3)) * np.array([1, 1, side])
            line = smooth_line(points)
            bright, adc = rng.normal(620, 40), rng.normal(1150, 60)
            for window, mask in canvas.tube_masks(line, np.full(len(line), radius * rng.uniform(0.85, 1.15))):
                signal.set(window, mask & signal.soft[window], bright, adc)


def _paint_node(signal: Signal, anatomy: Anatomy, node: Node, rng: np.random.Generator) -> None:
    look = _LOOKS[node.kind]
    bright, adc = rng.normal(*look.signal), rng.normal(*look.adc)
    window = node.window(anatomy.canvas, max(anatomy.geometry.spacing))
    share = node.share(anatomy.canvas, window)
    signal.blend(window, share * ~signal.vessels[window], bright, adc)
