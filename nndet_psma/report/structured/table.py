"""Measured nodes and stages of many patients as rows for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nndet_psma.report.structured.artifact import StructuredReport

NODE_COLUMNS = (
    *("case_id", "node", "suspicious", "largest", "volume_mm3"),
    *("box_long_mm", "box_middle_mm", "box_short_mm", "in_plane_long_mm", "in_plane_short_mm"),
    *("centre_x_mm", "centre_y_mm", "centre_z_mm", "slice", "slices", "cut_off", "score"),
    *("short_low_mm", "short_high_mm", "borderline"),
)
PATIENT_COLUMNS = (
    *("case_id", "stage", "nodes", "suspicious", "largest", "largest_short_mm", "largest_volume_mm3"),
    *("longest_short_mm", "total_volume_mm3", "threshold_mm", "diameter"),
    *("borderline", "hinges_on_borderline"),
)


def node_rows(reports: Sequence[StructuredReport]) -> Iterator[list[object]]:
    """One row per node in the order of :data:`NODE_COLUMNS`; truth values as 1 and 0, unknown ones as empty cells."""
    for report in reports:
        suspicious = set(report.result.suspicious)
        for node in report.nodes:
            zone = report.rule.zone_mm(node)
            yield [
                report.case_id,
                node.node,
                int(node.node in suspicious),
                int(node.node == report.result.largest),
                _mm(node.volume_mm3),
                *map(_mm, node.box_sides_mm),
                _mm(node.in_plane_long_mm),
                _mm(node.in_plane_short_mm),
                *map(_mm, node.centre_mm),
                node.slice,
                node.slices,
                int(node.cut_off),
                "" if node.score is None else f"{node.score:.4f}",
                *(["", ""] if zone is None else map(_mm, zone)),
                int(node.node in report.result.borderline),
            ]


def patient_rows(reports: Sequence[StructuredReport]) -> Iterator[list[object]]:
    """One row per patient in the order of :data:`PATIENT_COLUMNS`; empty cells without nodes."""
    for report in reports:
        result, rule = report.result, report.rule
        largest = None if result.largest is None else report.node(result.largest)
        yield [
            report.case_id,
            result.stage,
            len(report.nodes),
            len(result.suspicious),
            "" if largest is None else largest.node,
            "" if largest is None else _mm(rule.short_mm(largest)),
            "" if largest is None else _mm(largest.volume_mm3),
            _mm(result.short_mm),
            _mm(sum(node.volume_mm3 for node in report.nodes)),
            f"{rule.threshold_mm:g}",
            rule.diameter,
            len(result.borderline),
            int(bool(result.hinges_on)),
        ]


def _mm(value: float) -> str:
    return f"{value:.3f}"
