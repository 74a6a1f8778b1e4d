"""Predict cases with a segmentation model: boxes in our form, the segmentation, and the nodes as instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nndet_psma.artifacts.model_folder import CONSOLIDATED, PLAN, RAW, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.artifacts.results import Result
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json
from nndet_psma.dataset.images.images import Volume, canonical_geometry, resample_volume, write_volume
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor, Masks
from nndet_psma.inference.postprocessing import make_prediction, tuned_settings
from nndet_psma.inference.predictor import choose_device
from nndet_psma.inference.volumes import canonical
from nndet_psma.systems.nodeseg.nnunet.input_case import cut_case, read_case, require
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.network_files import check_names
from nndet_psma.systems.nodeseg.nnunet.predictor import SegmentationPredictor, SegmentedCase
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.system import OpenOptions

_MASKS = ("_seg.nii.gz", "_instances.nii.gz")


class NodeSegPredictor(CasePredictor):
    """The networks of a model, what they leave on disk, and the thresholds.

    Leaves for each case ``raw/CASE.npz``, ``CASE_seg.nii.gz`` (class + 1, as ``nnUNetv2_predict`` writes it),
    ``CASE_instances.nii.gz`` (a number per node, best first) and ``CASE_instances.json`` (class and score of each
    number), all on the grid of the image file. The batch size of ``options`` has no meaning here.
    """

    result_type: type[Result] = Prediction

    def __init__(self, model: ModelFolder, fold: int, options: OpenOptions) -> None:
        inference = model.inference_plan(fold)
        folds = list(inference.folds if options.folds is None else options.folds)
        device = choose_device(options.device)
        self.networks = open_networks(model, fold, folds, device, mirrored=options.tta)
        self.plan: NodeSegPlan = self.networks.plan
        self.settings = tuned_settings(self.plan, inference)
        self.weights_hash = self.networks.weights_hash

    def predict(self, job: CaseJob) -> Prediction:
        """Masks and raw boxes to disk, then the thresholds."""
        found = self.networks.predict(read_case(job.case, job.description, self.plan), job.made_from)
        write_masks(job.folder, found)
        write_raw(_raw_file(job), found.raw)  # last: it says that the case is finished
        return self._judged(job)

    def kept(self, job: CaseJob) -> Prediction | None:
        """The thresholds on the raw boxes of an earlier run, where its masks are there, too."""
        written = [job.folder / f"{job.case_id}{ending}" for ending in _MASKS]
        current = is_current(_raw_file(job), job.made_from) and all(file.is_file() for file in written)
        return self._judged(job) if current else None

    def predict_volumes(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> Prediction:
        """Lesions in images in memory; ``made_from`` covers the model only."""
        return self._lesions(self._segmented(case_id, volumes, ctv))

    def predict_masks(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> Masks:
        """What :meth:`predict` writes as ``_seg.nii.gz`` and ``_instances.nii.gz``, and the lesions."""
        found = self._segmented(case_id, volumes, ctv)
        labels, instances = file_masks(found)
        return Masks(labels, instances, self._lesions(found))

    def _segmented(self, case_id: str, volumes: Mapping[str, Volume], ctv: Volume | None) -> SegmentedCase:
        names = {int(index): name for index, name in self.plan.modalities.items()}
        given = {index: volumes[name] for index, name in names.items() if name in volumes}
        if ctv is not None and self.plan.ctv_modality is not None:
            given[self.plan.ctv_modality] = ctv
        require(case_id, {channel.modality for channel in self.plan.channels}, given, names)
        turned = {index: canonical(volume) for index, volume in given.items()}
        mask = None if ctv is None else canonical(ctv).array > 0
        image = next(iter(volumes.values())).geometry
        return self.networks.predict(cut_case(case_id, turned, mask, image, self.plan), self.weights_hash)

    def _lesions(self, found: SegmentedCase) -> Prediction:
        return make_prediction(found.raw, self.settings, self.plan.classes)

    def _judged(self, job: CaseJob) -> Prediction:
        # read back, so that a case predicted now and one kept give the same bytes
        return make_prediction(read_raw(_raw_file(job)), self.settings, self.plan.classes)


def _raw_file(job: CaseJob) -> Path:
    return job.folder / RAW / f"{job.case_id}.npz"


def open_networks(
    model: ModelFolder, fold: int, folds: Sequence[int], device: torch.device, *, mirrored: bool
) -> SegmentationPredictor:
    """The networks of a fold or of ``folds`` of the consolidated model.

    Raises:
        UserError: the model is missing or damaged.
    """
    segmentation = SegmentationModel(model)
    plan = model.plan(fold, NodeSegPlan)
    check_names(plan, model.fold(fold) / PLAN)
    sources = folds if fold == CONSOLIDATED else [fold]
    files = [segmentation.checkpoint(plan, fold, source) for source in sources]
    trained = segmentation.trained(plan, fold)
    return SegmentationPredictor(plan, trained, files, device=device, mirrored=mirrored)


def write_masks(target: Path, found: SegmentedCase) -> None:
    """Segmentation, its nodes as instances, and class and score of each number, on the grid of the image file."""
    meta, nodes = found.raw.meta, found.nodes
    labels, instances = file_masks(found)
    write_volume(target / f"{meta.case_id}_seg.nii.gz", labels, meta.image)
    write_volume(target / f"{meta.case_id}_instances.nii.gz", instances, meta.image)
    count = int(nodes.certain.sum())
    content = {
        "instances": {str(i): int(label) for i, label in enumerate(nodes.labels[:count], start=1)},
        "scores": {str(i): round(float(score), 6) for i, score in enumerate(nodes.scores[:count], start=1)},
    }
    write_json(target / f"{meta.case_id}_instances.json", content)


def file_masks(found: SegmentedCase) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Class + 1, and a number per node (best first), of every voxel on the grid of the image; 0 outside.

    Weak candidates are boxes only: they rank behind the nodes, and a mask of them would be measured as nodes.
    """
    nodes, image = found.nodes, found.raw.meta.image
    count = int(nodes.certain.sum())
    accepted = np.where(nodes.ids <= count, nodes.ids, 0).astype(np.min_scalar_type(max(1, count)))
    return on_file_grid(found.labels, image), on_file_grid(accepted, image)


def on_file_grid(array: NDArray[Any], image: Geometry) -> NDArray[Any]:
    """An array on the canonical grid with the axes of the file again; no voxel is interpolated."""
    canonical = canonical_geometry(image)
    if canonical.same_grid(image) and canonical.direction == image.direction:
        return array
    return resample_volume(Volume(array, canonical), image, order=0, fill=0.0).array
