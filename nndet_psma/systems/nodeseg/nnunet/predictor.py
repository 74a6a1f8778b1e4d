"""Asks nnU-Net's networks about a case: probabilities of every fold, the joint segmentation, nodes, raw predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction
from nndet_psma.boxes.box import box_centres
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.systems.nodeseg.nnunet.components import Nodes, find_nodes, to_detections
from nndet_psma.systems.nodeseg.nnunet.input_case import InputCase
from nndet_psma.systems.nodeseg.nnunet.network_files import read_network_files
from nndet_psma.systems.nodeseg.nnunet.preprocess import quiet
from nndet_psma.systems.nodeseg.nnunet.trainer import nnUNetTrainerNodeSeg
from nndet_psma.systems.nodeseg.nnunet.weights import check_fit, read_checkpoint
from nndet_psma.systems.nodeseg.plan import VOTER, NodeSegPlan
from nndet_psma.trainers.networks.weights import check_finite


@dataclass(frozen=True)
class SegmentedCase:
    """What the networks say about a case.

    Attributes:
        raw: 3D boxes, one part per fold.
        labels: class + 1 per voxel on the canonical grid, as ``nnUNetv2_predict`` writes it.
        nodes: of the folds' mean, ``ids`` on the canonical grid and boxes in its voxels.
    """

    raw: RawPrediction
    labels: NDArray[np.uint8]
    nodes: Nodes


class SegmentationPredictor:
    """Holds the networks of a model.

    Args:
        plan: of the model.
        folder: nnU-Net's folder of the trained model: ``plans.json``, ``dataset.json``, ``fold_K/``.
        files: checkpoint of every fold.
        device: where to run.
        mirrored: also look at mirror images, where training did.

    Raises:
        UserError: weights are missing, hold more than weights, or do not fit the plans; or the plans name what this
            package does not write.
    """

    def __init__(
        self, plan: NodeSegPlan, folder: Path, files: Sequence[Path], *, device: torch.device, mirrored: bool
    ) -> None:
        self.plan = plan
        self.mirrored = mirrored
        content = [_checkpoint(file, plan) for file in files]
        described = read_network_files(folder, plan)
        self.description = described.dataset
        self.manager = PlansManager(described.plans)
        self.configuration = self.manager.get_configuration(plan.configuration)
        self.weights_hash = hash_json(
            [plan.content_hash(), hash_files(list(files)), mirrored, hash_json(described.plans)]
        )
        self._weights = [found["network_weights"] for found in content]
        with quiet():
            self._predictor = nnUNetPredictor(
                use_mirroring=mirrored,
                device=device,
                perform_everything_on_device=device.type == "cuda",
                allow_tqdm=False,
            )
        self._predictor.manual_initialization(
            self._network(files),
            self.manager,
            self.configuration,
            self._weights,
            self.description,
            plan.trainer,
            content[0]["inference_allowed_mirroring_axes"],
        )

    def predict(self, case: InputCase, made_from: str) -> SegmentedCase:
        """Segment a case fold by fold.

        The mean of the folds is taken of nnU-Net's logits in its order, so that labels are those of its own command.

        Args:
            case: cut out as the plan says.
            made_from: hash to record.
        """
        with quiet():
            preprocessor = self.configuration.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case_npy(
                case.stacked(self.plan),
                None,
                {"spacing": list(case.geometry.spacing)},
                self.manager,
                self.configuration,
                self.description,
            )
            logits = self._logits(torch.from_numpy(data))
        mean = logits[0].clone()
        for other in logits[1:]:
            mean += other
        mean /= len(logits)
        labels, probabilities = self._restored(mean, properties)
        parts = [self._detections(self._restored(of_fold, properties)[1], case) for of_fold in logits[1:]]
        first = probabilities if len(logits) == 1 else self._restored(logits[0], properties)[1]
        parts.insert(0, self._detections(first, case))
        nodes = find_nodes(probabilities, self.plan.candidates)
        meta = RawMeta(
            case_id=case.case_id,
            made_from=made_from,
            region="ctv" if case.ctv is not None else "body",
            store=case.source,
            image=case.image,
            examined=case.box,
            parts={VOTER: len(parts)},
        )
        shift = np.array([*case.lower, *case.lower], dtype=np.float64)
        full = Nodes(
            case.on_source(nodes.ids), nodes.boxes + shift, nodes.scores, nodes.labels, nodes.certain
        )
        return SegmentedCase(RawPrediction(meta, {VOTER: parts}), case.on_source(labels), full)

    def _logits(self, data: torch.Tensor) -> list[torch.Tensor]:
        """Of every fold, on nnU-Net's grid."""
        found = []
        for weights in self._weights:
            self._predictor.list_of_parameters = [weights]
            found.append(self._predictor.predict_logits_from_preprocessed_data(data))
            if not bool(torch.isfinite(found[-1]).all()):
                raise UserError(
                    "the network answers with NaN or infinity",
                    remedy="Its weights are broken: train it again",
                )
        return found

    def _restored(
        self, logits: torch.Tensor, properties: dict[str, Any]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Labels and probabilities on the cut grid."""
        labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            self.manager,
            self.configuration,
            self._predictor.label_manager,
            properties,
            return_probabilities=True,
        )
        return labels, probabilities

    def _detections(self, probabilities: NDArray[np.float32], case: InputCase) -> Any:
        nodes = find_nodes(probabilities, self.plan.candidates)
        zone = case.zone_mm(box_centres(nodes.boxes), self.plan.margin_mm)
        ct = None if self.plan.ct_modality is None else case.volumes.get(self.plan.ct_modality)
        return to_detections(nodes, zone, ct, case.lower)

    def _network(self, files: Sequence[Path]) -> torch.nn.Module:
        """The network of the plans with the weights of the first fold in it."""
        with torch.device("meta"):  # takes no memory: plans of a network without end are found by the weights
            planned = build_network(self.manager, self.configuration, self.description)
        for weights, file in zip(self._weights, files, strict=True):
            check_fit(planned, weights, file)
            check_finite(weights, file)
        network = build_network(self.manager, self.configuration, self.description)
        network.load_state_dict(self._weights[0])
        return network


def build_network(
    manager: PlansManager, configuration: ConfigurationManager, description: dict[str, Any]
) -> torch.nn.Module:
    """The network of checked plans with random weights, on the default device."""
    heads = manager.get_label_manager(description).num_segmentation_heads
    channels = determine_num_input_channels(manager, configuration, description)
    network: torch.nn.Module = nnUNetTrainerNodeSeg.build_network_architecture(
        manager, configuration, channels, heads, enable_deep_supervision=False
    )
    return network


def _checkpoint(file: Path, plan: NodeSegPlan) -> dict[str, Any]:
    """A checkpoint of the plan's configuration.

    Raises:
        UserError: it is of another one, or mirrors along axes that images do not have.
    """
    content = read_checkpoint(file)
    configuration, axes = content["init_args"]["configuration"], content["inference_allowed_mirroring_axes"]
    if configuration != plan.configuration:
        raise UserError(
            "is a checkpoint of another configuration",
            file=file,
            expected=plan.configuration,
            found=str(configuration)[:100],
        )
    check_axes(axes, plan, file)
    return content


def check_axes(axes: Any, plan: NodeSegPlan, file: Path) -> None:
    """UserError unless these are axes of the patch to mirror along, or None."""
    known = range(len(plan.patch_size))
    right = isinstance(axes, list | tuple) and all(type(axis) is int and axis in known for axis in axes)
    if axes is not None and not right:
        raise UserError(
            "mirrors along axes that patches do not have",
            file=file,
            found=str(axes)[:100],
            expected="axes of the patch, 0 to 2",
        )
