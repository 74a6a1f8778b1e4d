"""nnU-Net's fingerprint and preprocessing of the exported data set by its own classes; finished cases are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nndet_psma.core.atomic import read_json, remove_leftovers, write_json
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.workers import map_cases
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths
from nndet_psma.systems.nodeseg.nnunet.export import EXPORTED, link

FINGERPRINT = "dataset_fingerprint.json"

_FOREGROUND_VOXELS = (
    10_000_000  # of the data set that nnU-Net's statistics look at, at most; it takes ten times as many
)
_FEWEST_VOXELS = 1000
_SUFFIXES = (".b2nd", "_seg.b2nd", ".pkl")


@contextmanager
def quiet() -> Iterator[StringIO]:
    """nnU-Net talks on standard output; what it says is kept aside."""
    heard = StringIO()
    with redirect_stdout(heard):
        yield heard


def extract_fingerprint(nnunet: NnunetPaths, processes: int) -> dict[str, Any]:
    """nnU-Net's ``dataset_fingerprint.json`` of the exported data set; kept while the exported files are the same.

    Sampling of foreground voxels is nnU-Net's; fewer are drawn than it would, for quantiles do not need them.
    """
    file = nnunet.preprocessed / FINGERPRINT
    made_from = hash_json(read_json(nnunet.raw / EXPORTED))
    if file.is_file():
        there: dict[str, Any] = read_json(file)
        if there.get("made_from") == made_from:
            return there
    files = training_files(nnunet)
    samples = max(_FEWEST_VOXELS, _FOREGROUND_VOXELS // max(1, len(files)))
    jobs = [([str(f) for f in images], str(label), samples) for images, label in files.values()]
    cases = map_cases(_analyse, jobs, processes, title="analyse")
    content = {**_pooled(cases), "made_from": made_from}
    write_json(file, content)
    return content


def _analyse(job: tuple[list[str], str, int]) -> Any:
    images, label, samples = job
    return DatasetFingerprintExtractor.analyze_case(images, label, SimpleITKIO, samples)


def _pooled(cases: list[Any]) -> dict[str, Any]:
    """The keys of nnU-Net's fingerprint from what it measures of each case."""
    channels = len(cases[0][2])
    intensities = {}
    for index in range(channels):
        values = np.concatenate([np.asarray(case[2][index], dtype=np.float64) for case in cases])
        low, median, high = np.percentile(values, [0.5, 50, 99.5])
        intensities[str(index)] = {
            "mean": float(values.mean()),
            "median": float(median),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
            "percentile_99_5": float(high),
            "percentile_00_5": float(low),
        }
    return {
        "spacings": [[float(v) for v in case[1]] for case in cases],
        "shapes_after_crop": [[int(v) for v in case[0]] for case in cases],
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": float(np.median([case[4] for case in cases])),
    }


def training_files(nnunet: NnunetPaths) -> dict[str, tuple[list[Path], Path]]:
    """Channels and label of every exported training case."""
    description = read_json(nnunet.raw / "dataset.json")
    ending = description["file_ending"]
    labels = sorted((nnunet.raw / "labelsTr").glob(f"*{ending}"))
    names = [file.name.removesuffix(ending) for file in labels]
    channels = range(len(description["channel_names"]))
    folder = nnunet.raw / "imagesTr"
    return {
        name: ([folder / f"{name}_{i:04d}{ending}" for i in channels], label)
        for name, label in zip(names, labels, strict=True)
    }


@dataclass(frozen=True)
class _Job:
    name: str
    images: list[str]
    label: str
    target: str
    plans: dict[str, Any]
    configuration: str
    description: dict[str, Any]


def preprocess_cases(nnunet: NnunetPaths, plan_id: str, configuration: str, processes: int) -> list[str]:
    """Preprocess with the class that nnU-Net's plans name; the ids of the cases that were made now.

    The same files as ``nnUNetv2_preprocess`` writes, but cases that are current are kept.
    """
    plans = read_json(nnunet.plans(plan_id))
    description = read_json(nnunet.preprocessed / "dataset.json")
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    folder = nnunet.preprocessed / chosen.data_identifier
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    exported = read_json(nnunet.raw / EXPORTED)
    how = hash_json(
        [manager.foreground_intensity_properties_per_channel, _that_matters(chosen.configuration)]
    )
    files = training_files(nnunet)
    wanted = {name: hash_json([how, exported[f"Tr/{name}"]]) for name in files}
    marker = nnunet.preprocessed / f"prepared_{chosen.data_identifier}.json"
    known = read_json(marker) if marker.is_file() else {}
    todo = [name for name in files if known.get(name) != wanted[name] or not _whole(folder, name)]
    write_json(marker, {name: value for name, value in wanted.items() if name not in todo})
    kept = {f"{name}{suffix}" for name in files if name not in todo for suffix in _SUFFIXES}
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()  # nnU-Net takes every case it finds, and does not write over one
    jobs = [
        _Job(
            name,
            [str(file) for file in files[name][0]],
            str(files[name][1]),
            str(folder / name),
            plans,
            configuration,
            description,
        )
        for name in todo
    ]
    map_cases(_preprocess, jobs, processes, title="preprocess")
    for _, label in files.values():
        link(label, nnunet.preprocessed / "gt_segmentations" / label.name)
    write_json(marker, wanted)
    return todo


def _preprocess(job: _Job) -> None:
    manager = PlansManager(job.plans)
    configuration = manager.get_configuration(job.configuration)
    with quiet():
        preprocessor = configuration.preprocessor_class(verbose=False)
        preprocessor.run_case_save(job.target, job.images, job.label, manager, configuration, job.description)


def _that_matters(configuration: dict[str, Any]) -> dict[str, Any]:
    """Keys that change the arrays: not the network's."""
    left_out = ("architecture", "batch_size", "batch_dice", "data_identifier", "median_image_size_in_voxels")
    return {key: value for key, value in configuration.items() if key not in left_out}


def _whole(folder: Path, name: str) -> bool:
    return all((folder / f"{name}{suffix}").is_file() for suffix in _SUFFIXES)
