"""The steps of the post-processing: what each kind can do, and where they are found by name.

A step is a class without state, built without arguments and listed by name in ``PostprocSettings.steps``. Its
thresholds stand in the settings; a step from another package keeps its own in ``PostprocSettings.options`` under
``StepName.name``. It is found when it is registered in this process, offered by an entry point of the group
``nndet_psma.postproc``, or named by its dotted path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.registry import Registry
from nndet_psma.postproc.steps.settings import PostprocSettings

Spacing = tuple[float, float, float]
Candidates = Mapping[str, Sequence[Any]]
Variant = dict[str, Any]
Outvoted = Iterator[tuple[int, Detections, int, str]]


class Step(ABC):
    """Base of every step.

    Attributes:
        label: short name of what it does; :class:`nndet_psma.postproc.steps.steps.RemovedBox` carries it.
    """

    label: ClassVar[str]


class FuseStep(Step):
    """Makes one set of boxes of what the folds of one voter say."""

    @abstractmethod
    def fuse(self, parts: Sequence[Detections], settings: PostprocSettings) -> Detections:
        """Boxes of the voter, of the dimension of ``parts``, which has at least one."""


class FilterStep(Step):
    """Keeps boxes or drops them; never changes one.

    Its place decides what it judges: the boxes of every fold, of every voter, the consensus, or the 3D lesions.

    Attributes:
        fields: settings and options it reads, whose candidates the sweep tries.
        alone: it judges every box by itself, whatever other boxes are there. Only then can the joint sweep tune it.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    alone: ClassVar[bool] = True

    @abstractmethod
    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Boolean mask ``[N]`` of the boxes to keep; ``spacing`` is the voxel size in mm (z, y, x)."""

    @abstractmethod
    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """Why ``row`` is dropped: one sentence with its value and the threshold."""

    def variants(self, candidates: Candidates, base: PostprocSettings) -> list[Variant]:
        """Settings that the sweep tries, the mildest first: by default every combination in the order of the plan.

        Args:
            candidates: values to try by setting; a setting that is not named keeps that of ``base``.
            base: the settings the sweep starts from.
        """
        named = [name for name in self.fields if candidates.get(name)]
        return [
            dict(zip(named, values, strict=True)) for values in product(*(candidates[name] for name in named))
        ]


class VoteStep(Step):
    """Makes one set of boxes of what several voters say."""

    @abstractmethod
    def vote(self, voters: Sequence[Detections], settings: PostprocSettings) -> tuple[Detections, Outvoted]:
        """The consensus, and the boxes it leaves out: (index of the voter, boxes, row, reason), made when asked for."""


class LinkStep(Step):
    """Tells slice boxes and 3D lesions of what the vote leaves.

    Attributes:
        dim: 2 takes slice boxes and makes lesions of them; 3 takes lesions and makes slice boxes of them.
    """

    dim: ClassVar[int] = 2

    @abstractmethod
    def link(
        self, boxes: Detections, settings: PostprocSettings, spacing: Spacing
    ) -> tuple[Detections, Detections]:
        """The slice boxes with the column ``lesion`` (row of their lesion), and the lesions."""


STEPS: Registry[Step] = Registry("post-processing step", "nndet_psma.postproc")
