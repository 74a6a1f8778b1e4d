"""nnDetection planners whose choices are those of our fingerprint and rules."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nndet.io.load import save_pickle
from nndet.planning.experiment import PLANNER_REGISTRY
from nndet.planning.experiment.v001 import D3V001
from nndet.ptmodule import MODULE_REGISTRY
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.atomic import atomic_file, read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.nndetection.architecture import BoxPSMA
from nndet_psma.hosts.nndetection.channels import Recipe
from nndet_psma.hosts.nndetection.preprocessor import PSMAPreprocessor
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.planners.folds import choose_folds
from nndet_psma.planners.machine import choose_target
from nndet_psma.planners.plane_rules import plane_sizes
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.planners.volume_rules import volume_sizes

OUR_PLANNER = "PSMA25DPlanner"
SPLITS_FILE = "splits_final.pkl"
RECIPE_FILE = "recipe.json"
_MOST_PROCESSES = 4


class PSMAPlanner(D3V001):
    """What both planners share.

    Options of our planner (:class:`nndet_psma.planners.options.DetectorOptions`) stand in ``model_cfg.plan_cfg``, as
    nnDetection hands a planner nothing else. ``channels: multiwindow`` (the default here) gives one plan that shows
    all HU windows; ``voters`` gives one plan per window, named ``<planner>_<mode>_<window>``, whose predictions vote.

    Slices are the first array axis: scans must be stored axially, as nnDetection does not turn them.
    """

    mode: ClassVar[str]

    def plan_experiment(self, model_name: str, model_cfg: dict[str, Any]) -> list[str]:
        """Make and write the plans.

        Also written: our plan (``<planner>_<mode>.json``, every choice with its reason) and, where there is none yet,
        folds that keep a patient's cases together.

        Args:
            model_name: registered nnDetection module.
            model_cfg: its configuration.

        Returns:
            Names of the plans.

        Raises:
            UserError: the options are wrong, or the data cannot be planned for.
        """
        paths = TaskPaths(self.preprocessed_output_dir.parent)
        options = self.options(model_cfg)
        fingerprint = _fingerprint(paths, options)
        plan_id = f"{type(self).__name__}_{self.mode}"
        plan = PLANNERS[OUR_PLANNER]().plan(
            fingerprint,
            options,
            plan_id=plan_id,
            trainer=model_name,
            target=choose_target(options),
            folds=choose_folds(
                fingerprint,
                paths.splits,
                num_folds=options.num_folds,
                stratify_by=options.stratify_by,
                seed=options.seed,
            ),
        )
        plan.write(paths.plan(plan_id))
        self._write_splits(plan.folds)
        recipes = [Recipe(plan, stage) for stage in plan.voters]
        return [self._plan_voter(recipe, fingerprint, model_name, model_cfg) for recipe in recipes]

    @classmethod
    def options(cls, model_cfg: dict[str, Any]) -> DetectorOptions:
        """Options of our planner as the configuration of the module gives them."""
        return DetectorOptions.parse({"channels": "multiwindow", **(model_cfg.get("plan_cfg") or {})})

    def lesion_sizes(self, fingerprint: Fingerprint, plan: DetectorPlan) -> NDArray[np.float64]:
        """Sides of what the network finds, in voxels of the target grid, ``[N, dim]``."""
        return volume_sizes(fingerprint, plan.spacing, plan.margin_mm, plan.body_margin_mm).lesions

    def _plan_voter(
        self, recipe: Recipe, fingerprint: Fingerprint, model_name: str, model_cfg: dict[str, Any]
    ) -> str:
        ours = recipe.plan
        self.recipe, self.fingerprint = recipe, fingerprint
        regions = volume_sizes(fingerprint, ours.spacing, ours.margin_mm, ours.body_margin_mm).regions
        # what is trained on is the search region, so nnDetection's rules must see its sizes
        self.data_properties = {
            **self.load_data_properties(),
            "all_sizes": list(regions),
            "all_spacings": [np.array(ours.spacing)] * len(regions),
        }
        plan = self.plan_base(mode=self.mode)
        plan["network_dim"] = int(self.mode[0])
        plan["dataloader_kwargs"] = {}
        plan["data_identifier"] = self.get_data_identifier(self.mode)
        plan["postprocessing"] = {}
        recipe.into(plan)
        plan = self.plan_base_stage(plan, model_name=model_name, model_cfg=model_cfg)
        plan["trigger_lr1"] = False
        return self.save_plan(plan, self.mode)

    def get_data_identifier(self, mode: str) -> str:
        """Folder of the preprocessed cases and name of the plan."""
        base = f"{type(self).__name__}_{mode}"
        if len(self.recipe.plan.voters) == 1:
            return base
        return f"{base}_{re.sub('[^A-Za-z0-9_-]', '_', self.recipe.stage.name)}"

    def save_plan(self, plan: dict[str, Any], mode: str) -> str:
        """Write the plan; returns its name."""
        name = self.get_data_identifier(mode)
        with atomic_file(self.preprocessed_output_dir / f"{name}.pkl") as temporary:
            save_pickle(plan, temporary)
        return name

    def create_architecture_planner(self, model_name: str, model_cfg: dict[str, Any], mode: str) -> BoxPSMA:
        """nnDetection's rules with our channels and lesions, without a GPU."""
        return BoxPSMA(
            self.preprocessed_output_dir,
            self.preprocessed_output_dir / "analysis" / self.get_data_identifier(mode),
            MODULE_REGISTRY.get(model_name),
            model_cfg,
            channels=self.recipe.channels,
            lesion_sizes=self.lesion_sizes(self.fingerprint, self.recipe.plan),
            target=self.recipe.plan.target,
        )

    @staticmethod
    def create_preprocessor(plan: dict[str, Any]) -> PSMAPreprocessor:
        """Preprocessor of a plan, for training and test cases."""
        return PSMAPreprocessor(
            Recipe.of(plan),
            norm_scheme_per_modality=plan["normalization_schemes"],
            use_mask_for_norm=plan["use_mask_for_norm"],
            transpose_forward=plan["transpose_forward"],
            intensity_properties=plan["dataset_properties"]["intensity_properties"],
            resample_anisotropy_threshold=plan["resample_anisotropy_threshold"],
        )

    def run_preprocessing(
        self, cropped_data_dir: str | PathLike[str], plan: dict[str, Any], num_processes: int
    ) -> None:
        """Preprocess the training cases that are not there yet.

        Raises:
            UserError: those that are there were made with other windows, margins or modalities.
        """
        _check_recipe(self.preprocessed_output_dir, plan)
        super().run_preprocessing(cropped_data_dir, plan, num_processes)

    @classmethod
    def run_preprocessing_test(
        cls,
        preprocessed_output_dir: str | PathLike[str],
        splitted_4d_output_dir: str | PathLike[str],
        plan: dict[str, Any],
        num_processes: int = 0,
    ) -> None:
        """Preprocess the test cases that are not there yet.

        Raises:
            UserError: as :meth:`run_preprocessing`.
        """
        _check_recipe(Path(preprocessed_output_dir), plan)
        super().run_preprocessing_test(preprocessed_output_dir, splitted_4d_output_dir, plan, num_processes)

    def determine_forward_backward_permutation(self, mode: str) -> None:
        """Slices first, as in the files."""
        self.transpose_forward = [0, 1, 2]
        self.transpose_backward = [0, 1, 2]

    def determine_target_spacing(self, mode: str) -> NDArray[np.float64]:
        """Spacing of our plan, mm (z, y, x)."""
        return np.array(self.recipe.plan.spacing)

    def determine_normalization(self) -> dict[int, str]:
        """None: the preprocessor scales every channel to [0, 1]."""
        return OrderedDict((channel, "raw") for channel in range(self.recipe.channels))

    def determine_whether_to_use_mask_for_norm(self) -> dict[int, bool]:
        """Augmentation puts 0 back outside the grown CTV, for every channel; nothing without CTV."""
        masked = self.recipe.plan.ctv_modality is not None
        return OrderedDict((channel, masked) for channel in range(self.recipe.channels))

    def _write_splits(self, folds: list[FoldPlan]) -> None:
        """Our folds in nnDetection's form, unless folds exist: those may have trained models."""
        file = self.preprocessed_output_dir / SPLITS_FILE
        if file.is_file():
            return
        splits = [
            OrderedDict(train=np.array(sorted(fold.train)), val=np.array(sorted(fold.val))) for fold in folds
        ]
        with atomic_file(file) as temporary:
            save_pickle(splits, temporary)


@PLANNER_REGISTRY.register
class PSMAD3(PSMAPlanner):
    """3D patches of the search region; HU windows as channels."""

    mode = "3d"

    @classmethod
    def options(cls, model_cfg: dict[str, Any]) -> DetectorOptions:
        """As given, without neighbours: a volume has its own."""
        return replace(super().options(model_cfg), neighbours=0)


@PLANNER_REGISTRY.register
class PSMAD2(PSMAPlanner):
    """Axial slices of the search region; HU windows times neighbouring slices as channels (2.5D)."""

    mode = "2d"

    def lesion_sizes(self, fingerprint: Fingerprint, plan: DetectorPlan) -> NDArray[np.float64]:
        """Height and width of every lesion in every slice it touches."""
        plane = plane_sizes(fingerprint, plan.spacing, plan.margin_mm, plan.body_margin_mm)
        return np.column_stack([plane.heights, plane.widths])


def _check_recipe(preprocessed: Path, plan: dict[str, Any]) -> None:
    """nnDetection keeps the cases it finds, whatever plan they were made for: their recipe is kept beside them."""
    folder = preprocessed / plan["data_identifier"]
    content, file = Recipe.of(plan).content(), folder / RECIPE_FILE
    if file.is_file() and read_json(file) != content:
        raise UserError(
            "the preprocessed cases were made for another plan of this name",
            file=folder,
            remedy="Delete that folder, and run nndet_prep and nndet_unpack again",
        )
    write_json(file, content)


def _fingerprint(paths: TaskPaths, options: DetectorOptions) -> Fingerprint:
    """Measured; cases that our own engine or an earlier run measured are not looked at again."""
    description = read_description(paths.root)
    fingerprint = measure_fingerprint(
        list_cases(paths, description),
        description,
        read_clinical(paths),
        stratify_by=options.stratify_by,
        cache=paths.preprocessed / "fingerprints",
        processes=min(_MOST_PROCESSES, os.cpu_count() or 1),
    )
    fingerprint.write(paths.fingerprint)
    return fingerprint
