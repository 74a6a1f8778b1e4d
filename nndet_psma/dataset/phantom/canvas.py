"""Drawing solids given in millimetres into a labelled volume, touching only the voxels around each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.phantom.tissue import Tissue

Window = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

NOMINAL_HEIGHT_MM = 144.0
"""Height of the drawn pelvis: 0 is the middle of the pubic symphysis, 144 the lower edge of L4."""

BODY_SHIFT_MM = 6.0
"""The buttocks reach further back than the belly forward: the field's centre lies this far behind the origin."""


class Canvas:
    """A labelled volume in the phantom's own frame.

    Frame, mm: z up from the middle of the symphysis (the nominal pelvis is centred in the field), y to the back,
    x to the patient's left; x = 0 is the midline. Points and radii are (z, y, x).

    Attributes:
        geometry: grid of the volume.
        tissue: ``[z, y, x]`` uint8, values of :class:`Tissue`.
        axes: positions of the voxel centres along z, y, x.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.tissue = np.zeros(geometry.shape, dtype=np.uint8)
        offsets = (NOMINAL_HEIGHT_MM / 2, BODY_SHIFT_MM, 0.0)
        self.axes = [
            (np.arange(n) - (n - 1) / 2) * step + offset
            for n, step, offset in zip(geometry.shape, geometry.spacing, offsets, strict=True)
        ]

    def window(self, lower: Iterable[float], upper: Iterable[float]) -> Window:
        """Voxels whose centres lie in the box between two points (mm); empty slices when there are none."""
        starts = [int(np.searchsorted(a, v, "left")) for a, v in zip(self.axes, lower, strict=True)]
        stops = [int(np.searchsorted(a, v, "right")) for a, v in zip(self.axes, upper, strict=True)]
        return (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))

    def grids(self, window: Window) -> tuple[Array, Array, Array]:
        """Broadcastable positions (mm) of the voxel centres of a window."""
        z, y, x = (np.asarray(axis[part], float) for axis, part in zip(self.axes, window, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def fill(self, window: Window, mask: Mask, tissue: Tissue, over: Sequence[Tissue] | None = None) -> None:
        """Set the voxels of ``mask`` (shape of ``window``); with ``over``, only where one of these tissues is."""
        view = self.tissue[window]
        if over is not None:
            mask = mask & np.isin(view, over)
        view[mask] = tissue

    def ellipsoid(
        self,
        centre: Sequence[float] | Array,
        radii: Sequence[float] | Array,
        tissue: Tissue,
        over: Sequence[Tissue] | None = None,
    ) -> None:
        """Draw an axis-parallel ellipsoid."""
        window = self.window(np.subtract(centre, radii), np.add(centre, radii))
        terms = [((g - c) / r) ** 2 for g, c, r in zip(self.grids(window), centre, radii, strict=True)]
        self.fill(window, terms[0] + terms[1] + terms[2] <= 1, tissue, over)

    def column(self, rows: Array, tissue: Tissue, over: Sequence[Tissue] | None = None) -> None:
        """Draw a solid whose axial cut is an ellipse that changes with height.

        Args:
            rows: ``[N, 5]`` ascending in z: z, centre y, centre x, radius y, radius x (mm), interpolated linearly.
            tissue: value to draw.
            over: draw only over these.
        """
        reach = rows[:, 3:5]
        lower = (rows[0, 0], *(rows[:, 1:3] - reach).min(axis=0))
        upper = (rows[-1, 0], *(rows[:, 1:3] + reach).max(axis=0))
        window = self.window(lower, upper)
        z, y, x = self.grids(window)
        cy, cx, ry, rx = (np.interp(z, rows[:, 0], rows[:, k]) for k in range(1, 5))
        self.fill(window, ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1, tissue, over)

    def plate(self, rows: Array, tissue: Tissue, over: Sequence[Tissue] | None = None) -> None:
        """Draw a plate whose axial cut is a thick, bent line that changes with height.

        Args:
            rows: ``[N, 7]`` ascending in z: z, first end y, x, second end y, x, half thickness, bend (mm): how far
                the middle lies off the straight line, positive away from x = 0.
            tissue: value to draw.
            over: draw only over these.
        """
        ys, xs, reach = rows[:, [1, 3]], rows[:, [2, 4]], rows[:, 5].max() + np.abs(rows[:, 6]).max()
        window = self.window(
            (rows[0, 0], ys.min() - reach, xs.min() - reach),
            (rows[-1, 0], ys.max() + reach, xs.max() + reach),
        )
        z, y, x = self.grids(window)
        y0, x0, y1, x1, half, bend = (np.interp(z, rows[:, 0], rows[:, k]) for k in range(1, 7))
        dy, dx = y1 - y0, x1 - x0
        length = np.hypot(dy, dx)
        position = ((y - y0) * dy + (x - x0) * dx) / length**2
        along = np.clip(position, 0, 1)
        # perpendicular to the chord; turned so that "off" grows away from the midline on either side
        outward = np.sign(rows[:, [2, 4]].sum()) * np.sign(-dy)
        off = ((x - x0) * -dy + (y - y0) * dx) / length * outward - bend * 4 * along * (1 - along)
        self.fill(window, off**2 + ((position - along) * length) ** 2 <= half**2, tissue, over)

    def tube(self, points: Array, radii: Array, tissue: Tissue, over: Sequence[Tissue] | None = None) -> None:
        """Draw a round tube along a polyline.

        Args:
            points: ``[N, 3]`` mm.
            radii: ``[N]`` mm, interpolated linearly between points.
            tissue: value to draw.
            over: draw only over these.
        """
        for window, mask in self.tube_masks(points, radii):
            self.fill(window, mask, tissue, over)

    def tube_masks(self, points: Array, radii: Array) -> Iterable[tuple[Window, Mask]]:
        """The pieces of :meth:`tube`, one per segment of the polyline."""
        for start, end, r0, r1 in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            reach = max(r0, r1)
            window = self.window(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
            z, y, x = self.grids(window)
            step = end - start
            length = max(float(step @ step), 1e-9)
            relative = (z - start[0], y - start[1], x - start[2])
            dot = relative[0] * step[0] + relative[1] * step[1] + relative[2] * step[2]
            along = np.clip(dot / length, 0, 1)
            distance = sum((r - along * s) ** 2 for r, s in zip(relative, step, strict=True))
            yield window, np.asarray(distance <= (r0 + along * (r1 - r0)) ** 2)


def smooth_line(points: Array, step_mm: float = 6.0) -> Array:
    """Resample a polyline of at least two points (mm) by a natural-looking curve, about ``step_mm`` apart."""
    from scipy.interpolate import PchipInterpolator

    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    position = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(2, round(float(position[-1]) / step_mm) + 1)
    curve: Array = PchipInterpolator(position, points)(np.linspace(0, position[-1], count))
    return curve
