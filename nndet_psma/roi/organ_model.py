"""A trained segmenter of an organ or region: which folds predict which case, and masks on the image's grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nndet_psma.artifacts.model_folder import PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.boxes.labels import node_components
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.input_cases import description_from_plan
from nndet_psma.systems.nodeseg.nnunet.input_case import read_case
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.predict import on_file_grid
from nndet_psma.systems.nodeseg.nnunet.predictor import SegmentationPredictor
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

MANIFEST = "roi.json"
"""In the folder of every fold: the name of the mask, and who was trained on."""

PREFIX = "ROI_"
_SCHEMA = "nndet_psma.roi_model"


def write_manifest(folder: Path, name: str, plan: Plan, fold: int, patients: Mapping[str, str]) -> None:
    """Write what a fold segments and the cases and patients it learns from."""
    cases = plan.folds[fold].train
    content = {
        "schema": _SCHEMA,
        "version": 1,
        "name": name,
        "trained_on": sorted({*cases, *(patients[case] for case in cases)}),
    }
    write_json(folder / MANIFEST, content)


@dataclass
class OrganModel:
    """All trained folds of a segmenter.

    Attributes:
        folder: of the model.
        name: of the mask.
        plan: the same of every fold.
        seen: cases and patients that each fold learned from.
        device: where to run.
        mirrored: also look at mirror images.
    """

    folder: ModelFolder
    name: str
    plan: NodeSegPlan
    seen: dict[int, frozenset[str]]
    device: torch.device
    mirrored: bool
    _loaded: tuple[tuple[int, ...], SegmentationPredictor] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: Path, device: torch.device, *, mirrored: bool = True) -> OrganModel:
        """The folds of a model folder whose training has ended.

        Raises:
            UserError: no finished fold, no model of this kind, or folds of different plans.
        """
        folder = ModelFolder(root)
        model = SegmentationModel(folder)
        plans: dict[int, NodeSegPlan] = {}
        seen: dict[int, frozenset[str]] = {}
        names = set()
        for fold in folder.trained_folds():
            files = (folder.fold(fold) / MANIFEST, folder.fold(fold) / PLAN)
            if not all(file.is_file() for file in files):
                continue
            plan = NodeSegPlan.read(files[1])
            if not model.checkpoint(plan, fold).is_file():
                continue
            content = _manifest(files[0])
            plans[fold], seen[fold] = plan, frozenset(content["trained_on"])
            names.add(str(content["name"]))
        if not plans:
            raise UserError(
                "holds no trained fold of a mask", file=root, remedy="Train one with nndet_psma roi train"
            )
        if len({plan.content_hash() for plan in plans.values()}) > 1 or len(names) > 1:
            raise UserError(
                "the folds were trained with different plans",
                file=root,
                found=f"folds {', '.join(map(str, plans))}",
                remedy="Train all of them with the last plan: -o exp.fold=all train.mode=overwrite",
            )
        return cls(folder, names.pop(), next(iter(plans.values())), seen, device, mirrored)

    @property
    def description(self) -> DatasetDescription:
        """Modalities in the order of the network."""
        return description_from_plan(self.plan)

    def folds_for(self, known_as: Iterable[str]) -> tuple[tuple[int, ...], bool]:
        """Folds that predict a case, and whether it is held out from all of these.

        Those that learned from neither the case nor its patient; all where there is none, so that the mask of a case
        that was trained on comes from a fold that did not see it as far as such a fold is trained.

        Args:
            known_as: ids of the case and of its patient.
        """
        names = set(known_as)
        unseen = tuple(fold for fold in sorted(self.seen) if not names & self.seen[fold])
        return unseen or tuple(sorted(self.seen)), bool(unseen)

    def made_from(self, case: RawCase, folds: tuple[int, ...], largest: int | None) -> str:
        """Hash of everything that the mask of a case depends on.

        Raises:
            UserError: an image cannot be read.
        """
        try:
            images = hash_files(list(case.images))
        except OSError as error:
            raise UserError(
                "cannot be read",
                file=error.filename,
                found=str(error.strerror),
                remedy="Correct the path, or the rights of the file",
            ) from None
        return hash_json([self._predictor(folds).weights_hash, images, largest])

    def segment(self, case: RawCase, folds: tuple[int, ...], largest: int | None) -> NDArray[np.uint8]:
        """The mask (z, y, x; 0 and 1) on the grid of the first image file, in its axis order.

        Args:
            case: ``images`` in the order of :attr:`description`.
            folds: whose mean is taken.
            largest: contiguous regions (26 neighbours) to keep, the largest first; None keeps all.

        Raises:
            UserError: an image cannot be read, or images lie on different grids.
        """
        cut = read_case(case, self.description, self.plan)
        found = self._predictor(folds).predict(cut, "")
        mask = found.labels > 0
        if largest is not None:
            mask = largest_regions(mask, largest)
        return on_file_grid(mask.astype(np.uint8), cut.image)

    def _predictor(self, folds: tuple[int, ...]) -> SegmentationPredictor:
        """Networks of ``folds``; the last ones stay loaded."""
        if self._loaded is None or self._loaded[0] != folds:
            model = SegmentationModel(self.folder)
            files = [model.checkpoint(self.plan, fold) for fold in folds]
            trained = model.trained(self.plan, folds[0])
            made = SegmentationPredictor(
                self.plan, trained, files, device=self.device, mirrored=self.mirrored
            )
            self._loaded = (folds, made)
        return self._loaded[1]


def largest_regions(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """The ``count`` largest contiguous regions of a mask (z, y, x); of equally large ones those found first."""
    ids, total = node_components(mask)
    sizes = np.bincount(ids.ravel(), minlength=total + 1)[1:]
    kept = np.zeros(total + 1, dtype=bool)
    kept[np.argsort(-sizes, kind="stable")[:count] + 1] = True
    return np.asarray(kept[ids])


def _manifest(file: Path) -> dict[str, Any]:
    content = read_json(file)
    right = isinstance(content, dict) and content.get("schema") == _SCHEMA and content.get("version") == 1
    if not right or not isinstance(content.get("trained_on"), list):
        raise UserError("does not say what this model segments", file=file, remedy="Train it again")
    return dict(content)
