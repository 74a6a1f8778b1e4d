"""Give every case of a task a nodal CTV made by rule from masks of the iliac vessels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.images.images import (
    Volume,
    original_geometry,
    read_geometry,
    resample_volume,
    write_volume,
)
from nndet_psma.dataset.task.add_modality import SPLITS, add_modality
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.dataset.task.structures import Structures, find_structures
from nndet_psma.roi.vessel_rule import (
    BLADDER,
    BONES,
    BOWEL,
    FEMURS,
    MARGIN_MM,
    MUSCLES,
    SACRUM,
    VESSELS,
    nodal_ctv,
    vessel_span,
)

FOLDER = "nodal_ctv"


@dataclass(frozen=True)
class NodalRule:
    """Choices of the rule.

    Attributes:
        vessels: patterns of the structures that are followed.
        excluded: patterns of those that are carved out.
        margin_mm: radial margin.
        whole_length: follow the vessels as far as they are segmented, instead of from L5/S1 to the femoral heads.
    """

    vessels: tuple[str, ...] = VESSELS
    excluded: tuple[str, ...] = (*BONES, *BOWEL, *BLADDER, *MUSCLES)
    margin_mm: float = MARGIN_MM
    whole_length: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin_mm < 100:
            raise UserError("no sensible margin", expected="0 to 100 mm", found=f"{self.margin_mm:g}")


def make_nodal_ctv(
    paths: TaskPaths,
    masks: Path,
    rule: NodalRule,
    *,
    labels: Mapping[str, int] | None,
    replace: bool,
    say: Callable[[str], None],
) -> int:
    """Write the modality CTV of every training and test case; returns its file number.

    Masks are made below ``preprocessed/nodal_ctv`` first; the task itself changes only when all of them exist.

    Args:
        paths: of the task.
        masks: structures of all cases, see :func:`nndet_psma.dataset.task.structures.find_structures`.
        rule: how.
        labels: numbers of the structures, where masks are numbered and their headers do not tell.
        replace: a CTV that the task has is replaced.
        say: told a line per case.

    Raises:
        UserError: a case has no structures or no vessels, or the task has a CTV already.
    """
    description = read_description(paths.root)
    if description.ctv_modality is not None and not replace:
        raise UserError(
            "the task has a CTV already", file=paths.root, remedy="Replace it with --overwrite, or keep it"
        )
    made: dict[str, dict[str, Path]] = {}
    for split in SPLITS:
        if split == "Ts" and not paths.images(split).is_dir():
            continue
        made[split] = {}
        for case in list_cases(paths, description, split):
            structures = find_structures(masks, case.case_id, labels)
            made[split][case.case_id] = _make(case, structures, rule, paths.preprocessed / FOLDER, say)
    return add_modality(paths, description, "CTV", made, replace=replace)


def _make(
    case: RawCase, structures: Structures, rule: NodalRule, folder: Path, say: Callable[[str], None]
) -> Path:
    vessels = structures.matching(rule.vessels)
    if not vessels:
        raise UserError(
            f"case {case.case_id} has no vessels among its structures",
            expected=f"one of {', '.join(rule.vessels)}",
            found=", ".join(structures.names),
            remedy="Name the vessels with --vessels",
        )
    target = folder / f"{case.case_id}_{_made_from(case, structures, rule)}.nii.gz"
    if target.is_file():
        say(f"{case.case_id}: finished before")
        return target
    grid = read_geometry(case.images[0])
    followed = structures.union(vessels, grid)
    excluded = structures.union(structures.matching(rule.excluded), grid)
    span = vessel_span(
        structures.union([] if rule.whole_length else structures.matching(SACRUM), grid),
        structures.union([] if rule.whole_length else structures.matching(FEMURS), grid),
        grid.shape[0],
    )
    ctv = nodal_ctv(followed, excluded, grid.spacing, span=span, margin_mm=rule.margin_mm)
    if not ctv.any():
        raise UserError(
            f"case {case.case_id}: no vessel between L5/S1 and the femoral heads",
            remedy="Look at the masks, or follow the vessels over their whole length with --whole-length",
        )
    volume = Volume(ctv.astype(np.uint8), grid)
    own = resample_volume(volume, original_geometry(case.images[0]), order=0, fill=0)
    write_volume(target, own.array, own.geometry)
    millilitres = float(ctv.sum() * np.prod(grid.spacing) / 1000)
    say(f"{case.case_id}: {millilitres:.0f} ml on slices {span.lower} to {span.upper}")
    return target


def _made_from(case: RawCase, structures: Structures, rule: NodalRule) -> str:
    files = [*structures.files.values(), *([structures.numbered] if structures.numbered else [])]
    wanted = {name: structures.labels[name] for name in sorted(structures.labels)}
    choices = [rule.vessels, rule.excluded, rule.margin_mm, rule.whole_length]
    return hash_json([hash_files([case.images[0], *files]), wanted, choices])[:12]
