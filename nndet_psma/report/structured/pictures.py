"""Pictures of measured nodes: the slice of largest area with the outlines of the nodes, whole and close up.

Arrays are canonical (they run to the patient's left), so the patient's right is on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.report.charts.drawing import (
    View,
    close_up,
    draw_letters,
    draw_rectangle,
    draw_scale_bar,
    empty_picture,
)
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import jpeg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUSPICIOUS_COLOUR, OTHER_COLOUR = "#ff5a4d", "#3fa9ff"
_RATIO = 0.8  # height / width of a close-up


@dataclass(frozen=True)
class NodeScene:
    """What pictures are drawn from.

    Attributes:
        image: (z, y, x) canonical, any intensity.
        window: (lower, upper) shown as black and white.
        spacing: mm along (z, y, x).
        instances: (z, y, x) node ids; None of detected boxes, whose rectangles are drawn.
        nodes: all nodes.
        suspicious: ids of the suspicious ones.
    """

    image: NDArray[Any]
    window: tuple[float, float]
    spacing: tuple[float, float, float]
    instances: NDArray[Any] | None
    nodes: Sequence[NodeMeasurement]
    suspicious: Sequence[int]


def node_pictures(scene: NodeScene, node: NodeMeasurement) -> list[Picture]:
    """The whole slice with a frame round the node, and the close-up."""
    _, height, width = scene.image.shape
    _, y0, x0, _, y1, x1 = node.box
    close = close_up((y0, x0, y1, x1), scene.spacing[1:], _RATIO)
    whole = View(0, 0, height, width)
    return [_draw(scene, node, whole, close), _draw(scene, node, close, None)]


def image_window(image: NDArray[Any]) -> tuple[float, float]:
    """Black and white of an image without a scale of its own: its 1st and 99.5th percentile."""
    lower, upper = np.percentile(image, [1, 99.5])
    return float(lower), float(max(upper, lower + 1e-3))


def _draw(scene: NodeScene, node: NodeMeasurement, view: View, frame: View | None) -> Picture:
    spacing = scene.spacing[1:]
    figure, axes = empty_picture(view, spacing)
    plane = scene.image[node.slice]
    extent = (0.0, float(plane.shape[1]), float(plane.shape[0]), 0.0)
    axes.imshow(plane, cmap="gray", vmin=scene.window[0], vmax=scene.window[1], extent=extent, aspect="auto")
    _nodes_of_slice(axes, scene, node)
    if frame is not None:
        draw_rectangle(axes, frame.rectangle, "white", linewidth=0.7)
    axes.set_xlim(view.x0, view.x1)
    axes.set_ylim(view.y1, view.y0)
    draw_scale_bar(axes, view, spacing[1])
    draw_letters(axes, left="R", right="L", top="A", bottom="P")
    part = "Axial slice" if frame is not None else "Close-up of axial slice"
    return jpeg(figure, int(figure.dpi), f"{part} {node.slice + 1} with the outline of node {node.node}.")


def _nodes_of_slice(axes: Axes, scene: NodeScene, shown: NodeMeasurement) -> None:
    for node in scene.nodes:
        z0, y0, x0, z1, y1, x1 = node.box
        if not z0 <= shown.slice < z1:
            continue
        colour = SUSPICIOUS_COLOUR if node.node in scene.suspicious else OTHER_COLOUR
        width = 1.8 if node.node == shown.node else 1.0
        if scene.instances is None:
            draw_rectangle(axes, (y0, x0, y1, x1), colour, linewidth=width)
        else:
            _outline(axes, scene.instances[shown.slice] == node.node, colour, width)


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, width: float) -> None:
    """Voxel edges of the mask: what was measured, not a smoothed curve."""
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    lines = [((x - 1, y), (x, y)) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    lines += [((x, y - 1), (x, y)) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)]
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, colors=[colour], linewidths=width), autolim=False)
