"""Status of nodes from Python: an image and a mask of its nodes in, probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from nndet_psma.core.errors import UserError
from nndet_psma.systems.api import Predictor
from nndet_psma.systems.nodestatus.plan import NodeStatusPlan, NodeStatusResult


class NodeStatus:
    """A trained model in memory; make it with :meth:`from_folder`.

    Attributes:
        plan: what the model was trained with.
        settings: threshold, temperature and prevalence that were tuned.
    """

    def __init__(self, predictor: Predictor) -> None:
        if not isinstance(predictor.plan, NodeStatusPlan):
            raise UserError(
                "the model does not tell the status of nodes",
                found=type(predictor.plan).__name__,
                expected="a model of nodestatus",
            )
        self._predictor = predictor
        self.plan, self.settings = predictor.plan, predictor.settings

    @classmethod
    def from_folder(
        cls, path: str | PathLike[str], device: str = "auto", folds: Sequence[int] | None = None
    ) -> NodeStatus:
        """Load a model; see :meth:`nndet_psma.systems.api.Predictor.from_folder`.

        Raises:
            UserError: no model there, it is damaged, or it is of another kind.
        """
        return cls(Predictor.from_folder(path, device, folds))

    def predict(
        self,
        image: Any,
        nodes: Any,
        ctv: Any = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        stations: Mapping[int, str] | None = None,
        case_id: str = "case",
    ) -> NodeStatusResult:
        """Status of every node of a mask; boxes in voxels of the image as it was given.

        Args:
            image: CT in HU: file, SimpleITK image, ``(array, Geometry)``, or array (z, y, x) with ``spacing``.
            nodes: mask of numbered nodes on the same grid, in any of these forms.
            ctv: search region on the same grid; only the distance to it is measured.
            spacing: mm along (z, y, x), for arrays without a grid.
            stations: where nodes lie, by number; told again in the result, not looked at by the network.
            case_id: name for the result.

        Raises:
            UserError: not an image, or grids differ.
        """
        result = self._predictor.predict_objects(
            image, nodes, ctv, spacing=spacing, stations=stations, case_id=case_id
        )
        if not isinstance(result, NodeStatusResult):
            raise UserError(
                "the model does not tell the status of nodes",
                found=type(result).__name__,
                expected="a model of nodestatus",
            )
        return result
