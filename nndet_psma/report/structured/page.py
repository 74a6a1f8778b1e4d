"""A structured report as one HTML page: result, node table, pictures, and how it was measured."""

from __future__ import annotations

from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.report.page.content import (
    Block,
    Gallery,
    Missing,
    Note,
    Page,
    Section,
    Shown,
    Table,
    Tile,
    Tiles,
)
from nndet_psma.report.page.figures import own_style
from nndet_psma.report.page.page import render
from nndet_psma.report.structured.artifact import STRUCTURED_DISCLAIMER, StructuredReport
from nndet_psma.report.structured.pictures import NodeScene, node_pictures
from nndet_psma.report.texts import count

MAX_PICTURES = 12
_DIAMETER = {
    "box": "shortest side of the minimum-volume bounding box",
    "in_plane": "short axis on the axial slice of largest area",
}
_SHORT_MEANING = {
    "box": "Shortest side of its minimum-volume bounding box",
    "in_plane": "In-plane short axis",
}
_ZONE = (
    "where the short diameter of a convex node may lie that is drawn on such voxels; borderline: the zone reaches to "
    "both sides of the threshold. The verdict follows from the size, not from the zone"
)
_NO_ZONE = "none: it is the detector, not the voxels, that makes the size of a detected box uncertain"
_ORIGIN = {
    "components": "connected components of a mask",
    "instances": "instances given in a mask",
    "boxes": "detected boxes (sizes are those of the boxes, volumes those of the ellipsoids in them)",
}


@own_style()
def structured_page(
    report: StructuredReport, scene: NodeScene | None = None, *, max_pictures: int = MAX_PICTURES
) -> str:
    """The page as HTML: nothing loaded from elsewhere, no patient named.

    Args:
        report: what was measured.
        scene: image and mask for pictures; None leaves them out and says so.
        max_pictures: nodes shown, suspicious and large ones first.
    """
    sections = [
        Section("result", "Result", _result(report)),
        Section("nodes", "Nodes", _nodes(report)),
        Section("pictures", "Pictures", _pictures(report, scene, max_pictures)),
        Section("method", "How it was measured", _method(report)),
    ]
    subtitle = f"{count(len(report.nodes), 'node')}: {_ORIGIN[report.origin]}."
    return render(Page(f"Node report: case {report.case_id}", subtitle, STRUCTURED_DISCLAIMER, sections))


def _result(report: StructuredReport) -> list[Block]:
    result, rule = report.result, report.rule
    limit = f"{rule.threshold_mm:g} mm"
    meaning = f"N1: at least one node with a short diameter above {limit}; N0: none. By size alone."
    tiles = [
        Tile("N stage by size", result.stage, "", meaning),
        Tile("Suspicious nodes", str(len(result.suspicious)), f"of {count(len(report.nodes), 'node')}",
             f"Short diameter above {limit}."),
    ]  # fmt: skip
    if result.largest is not None:
        largest = report.node(result.largest)
        meaning = f"{_SHORT_MEANING[rule.diameter]}; node {largest.node}."
        tiles += [
            Tile("Largest node, short diameter", f"{rule.short_mm(largest):.1f} mm", "", meaning),
            Tile("Largest node, volume", _volume(largest), "", f"Node {largest.node}."),
        ]
    blocks: list[Block] = [Tiles(tiles)]
    if result.hinges_on:
        blocks.append(Note(_hinges(report), warning=True))
    cut = [str(node.node) for node in report.nodes if node.cut_off]
    if cut:
        text = f"Touching the border of the image, so perhaps larger than measured: {', '.join(cut)}."
        blocks.append(Note(text, warning=True))
    return blocks


def _hinges(report: StructuredReport) -> str:
    """That the stage could be the other one, and by which nodes."""
    ids = ", ".join(map(str, report.result.hinges_on))
    limit = f"{report.rule.threshold_mm:g} mm"
    if report.result.stage == "N1":
        return (
            f"N1 hinges on borderline nodes only ({ids}): as far as voxels go, each may measure {limit} or less, and "
            "without them the stage is N0."
        )
    return (
        f"N0 hinges on borderline nodes only ({ids}): as far as voxels go, each may measure above {limit}, and one is "
        "enough for N1."
    )


def _nodes(report: StructuredReport) -> list[Block]:
    if not report.nodes:
        return [Note("No node was found.")]
    header = ["Node", "Verdict", "Short diameter (zone), mm", "Volume", "Box, long × middle × short mm",
              "In plane, long × short mm", "Slice (z)", "Centre LPS, mm"]  # fmt: skip
    scored = any(node.score is not None for node in report.nodes)
    rows = []
    for node in _ranked(report):
        sides = " × ".join(f"{side:.1f}" for side in node.box_sides_mm)
        plane = f"{node.in_plane_long_mm:.1f} × {node.in_plane_short_mm:.1f}"
        centre = ", ".join(f"{value:.0f}" for value in node.centre_mm)
        row = [
            str(node.node),
            _verdict(report, node),
            _short(report, node),
            _volume(node),
            sides,
            plane,
            str(node.slice),
            centre,
        ]
        rows.append([*row, f"{node.score:.2f}"] if scored and node.score is not None else row)
    header = [*header, "Score"] if scored else header
    strong = [i for i, node in enumerate(_ranked(report)) if node.node in report.result.suspicious]
    caption = "All nodes, suspicious and large ones first. Slices count from 0 in the image turned to LPS."
    return [Table(caption, header, rows, strong)]


def _pictures(report: StructuredReport, scene: NodeScene | None, most: int) -> list[Block]:
    if not report.nodes:
        return [Note("Nothing to show.")]
    if scene is None:
        return [
            Missing("pictures of the nodes: no image was given.", "nndet_psma measure ... --images FOLDER")
        ]
    shown = [_shown(report, scene, node) for node in _ranked(report)[:most]]
    blocks: list[Block] = [
        Note(
            "Red: suspicious node, blue: other node. Outlines follow the voxel edges that were measured. "
            "The patient's right is on the left."
        ),
        Gallery("", shown),
    ]
    if len(report.nodes) > most:
        blocks.append(Note(f"{count(len(report.nodes) - most, 'node')} more not shown in pictures."))
    return blocks


def _shown(report: StructuredReport, scene: NodeScene, node: NodeMeasurement) -> Shown:
    suspicious = node.node in report.result.suspicious
    lines = [
        f"Short diameter {_short(report, node)} mm",
        f"Volume {_volume(node)}, {count(node.slices, 'axial slice')}",
        f"Box {' × '.join(f'{side:.1f}' for side in node.box_sides_mm)} mm, "
        f"in plane {node.in_plane_long_mm:.1f} × {node.in_plane_short_mm:.1f} mm",
    ]
    badge = _verdict(report, node)
    return Shown(
        f"Node {node.node}", "miss" if suspicious else "none", badge, node_pictures(scene, node), lines
    )


def _method(report: StructuredReport) -> list[Block]:
    rule, grid = report.rule, report.grid
    spacing = " × ".join(f"{value:g}" for value in grid.spacing)
    rows = [
        ["Nodes", _ORIGIN[report.origin] + _connected(report)],
        ["Suspicious", f"{_DIAMETER[rule.diameter]} above {rule.threshold_mm:g} mm"],
        ["Source of the threshold", rule.source],
        ["Largest node", "by short diameter" if rule.largest_by == "diameter" else "by volume"],
        ["N stage", "N1 with at least one suspicious node, else N0 (dwi2022)"],
        ["Bounding box", "smallest of all orientations in three dimensions, to voxel edges"],
        ["In plane", "on the axial slice of largest area: longest distance of two voxel corners, and the longest "
                     "section at right angles to it"],
        ["Voxels", f"{spacing} mm (z, y, x); a length may be one voxel diagonal too large"],
        ["Zone", _NO_ZONE if report.origin == "boxes" else _ZONE],
        ["Made by", f"nndet_psma {report.package_version}, from content {report.made_from}"],
    ]  # fmt: skip
    return [Table("Definitions and thresholds", ["What", "How"], rows)]


def _connected(report: StructuredReport) -> str:
    return "" if report.connectivity is None else f", {report.connectivity} neighbours"


def _ranked(report: StructuredReport) -> list[NodeMeasurement]:
    suspicious = set(report.result.suspicious)
    by_size = sorted(report.nodes, key=report.rule.size, reverse=True)
    return sorted(by_size, key=lambda node: node.node not in suspicious)


def _verdict(report: StructuredReport, node: NodeMeasurement) -> str:
    verdict = "suspicious" if node.node in report.result.suspicious else "not suspicious"
    if node.node in report.result.borderline:
        verdict = f"{verdict}, borderline"
    return f"{verdict}, largest" if node.node == report.result.largest else verdict


def _short(report: StructuredReport, node: NodeMeasurement) -> str:
    """The diameter that decides, with its zone."""
    zone = report.rule.zone_mm(node)
    spread = "" if zone is None else f" ({zone[0]:.1f} to {zone[1]:.1f})"
    return f"{report.rule.short_mm(node):.1f}{spread}"


def _volume(node: NodeMeasurement) -> str:
    return f"{node.volume_ml:.2f} ml"
