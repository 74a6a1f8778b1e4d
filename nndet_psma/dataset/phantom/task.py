"""Writing a whole raw task of synthetic cases, in nnDetection's raw format."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import read_json, remove_leftovers, write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.phantom.habitus import sample_habitus
from nndet_psma.dataset.phantom.kinds import KINDS, TaskKind, find_kind
from nndet_psma.dataset.phantom.schedule import CaseSpec, clinical_row
from nndet_psma.dataset.task.paths import TaskPaths

MARKER = "phantom.json"
"""File in the task folder that says the task is a phantom's own, and how it was made."""

MARKER_VERSION = 1
SUFFIXES = {"train": "Tr", "test": "Ts"}


def generate_task(
    destination: Path,
    *,
    kind: str,
    cases: int,
    test_cases: int,
    seed: int,
    options: Any,
    force: bool = False,
    processes: int = 1,
    on_case: Callable[[str], None] | None = None,
) -> None:
    """Write a raw task; a killed run started again writes only what is missing.

    Voxels of a case depend on kind, seed, options and the case's number, not on how many cases there are.
    ``dataset.json`` is written last: a task folder with one is complete.

    Args:
        destination: the task folder, ``TaskXXX_Name``.
        kind: key of :data:`KINDS`.
        cases: training cases.
        test_cases: test cases, with labels.
        seed: not negative.
        options: of the kind, from :func:`~nndet_psma.dataset.phantom.kinds.make_options`.
        force: replace raw data, ``dataset.json`` and ``clinical.csv`` of a folder that holds something else.
        processes: cases drawn at a time.
        on_case: called with the identifier of each case that is finished (also those found finished).

    Raises:
        UserError: unknown kind, a count out of range, the folder holds another task or one made in another way.
    """
    _check_request(kind, cases, test_cases, seed)
    paths = TaskPaths(destination)
    chosen = KINDS[kind]
    specs = [chosen.plan(seed, "train", k) for k in range(cases)]
    specs += [chosen.plan(seed, "test", k) for k in range(test_cases)]
    recipe = to_plain({"version": MARKER_VERSION, "kind": kind, "seed": seed, "options": options})
    _claim(paths, recipe, force=force)
    description = _describe(paths, chosen, test_labels=test_cases > 0)
    _discard_others(paths, specs, description, chosen.stem)
    waiting = [spec for spec in specs if not _is_finished(paths, spec, chosen)]
    done = on_case or _ignore
    for spec in specs:
        if spec not in waiting:
            done(spec.case_id)
    for case_id in _write_cases(destination, kind, waiting, options, processes):
        done(case_id)
    if chosen.patients:
        _write_clinical(paths, specs)
    write_json(destination / "dataset.json", description)


def case_files(paths: TaskPaths, spec: CaseSpec, kind: TaskKind) -> list[Path]:
    """All files of a case: one image per modality, the instance mask, and last the classes of the instances."""
    split = SUFFIXES[spec.split]
    images = [paths.images(split) / f"{spec.case_id}_{k:04d}.nii.gz" for k in range(len(kind.modalities))]
    labels = paths.labels(split)
    return [*images, labels / f"{spec.case_id}.nii.gz", labels / f"{spec.case_id}.json"]


def write_case(destination: Path, kind: str, spec: CaseSpec, options: Any) -> str:
    """Draw and write one case; returns its identifier. Runs in worker processes."""
    case = KINDS[kind].draw(spec, options)
    *volumes, instances = case_files(TaskPaths(destination), spec, KINDS[kind])
    for file, array in zip(volumes, [*case.images, case.labels], strict=True):
        write_volume(file, array, case.geometry)
    classes = {str(k): label for k, label in case.classes.items()}
    write_json(instances, {"instances": classes, **KINDS[kind].notes(case)})
    return spec.case_id


def _ignore(case_id: str) -> None:
    """Nobody wants to know."""


def _check_request(kind: str, cases: int, test_cases: int, seed: int) -> None:
    find_kind(kind)
    if cases < 1 or test_cases < 0:
        raise UserError(
            "wrong number of cases",
            expected="1 or more for training, 0 or more for test",
            found=f"{cases} and {test_cases}",
        )
    if seed < 0:
        raise UserError("the seed is negative", found=str(seed), remedy="Give a seed from 0 on")


def _claim(paths: TaskPaths, recipe: dict[str, Any], *, force: bool) -> None:
    """Make the folder ours, or go on in it when it was made by the same recipe.

    Raises:
        UserError: the folder holds something else and ``force`` is off.
    """
    root, marker = paths.root, paths.root / MARKER
    found = read_json(marker) if marker.is_file() else None
    if found == recipe:
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if not force:
            how = (
                "a phantom task made with another kind, seed or options" if found else "files of another task"
            )
            raise UserError(
                "the task folder is taken",
                file=root,
                expected="no folder, or an interrupted run of the same command",
                found=how,
                remedy="Choose another --task or --name, or replace its raw data with --force",
            )
        _clear(paths)
    write_json(marker, recipe)


def _clear(paths: TaskPaths) -> None:
    """Delete what a phantom task consists of; everything else in the folder stays."""
    for name in ("dataset.json", "dataset.yaml", "dataset.yml", "clinical.csv", MARKER):
        (paths.root / name).unlink(missing_ok=True)
    if paths.raw_splitted.exists():
        shutil.rmtree(paths.raw_splitted)


def _discard_others(
    paths: TaskPaths, specs: Sequence[CaseSpec], description: dict[str, Any], stem: str
) -> None:
    """Remove cases beyond the wanted number and leftovers of killed runs; make the four folders."""
    file = paths.root / "dataset.json"
    stale = file.is_file() and read_json(file) != description
    for split, suffix in SUFFIXES.items():
        wanted = {spec.case_id for spec in specs if spec.split == split}
        for folder in (paths.images(suffix), paths.labels(suffix)):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            for path in folder.glob(f"{stem}_*"):
                if _case_of(path, is_image=folder == paths.images(suffix)) not in wanted:
                    file.unlink(missing_ok=True)
                    path.unlink()
    if stale:
        file.unlink(missing_ok=True)


def _case_of(path: Path, *, is_image: bool) -> str:
    stem = path.name.split(".")[0]
    return stem.rpartition("_")[0] if is_image else stem


def _is_finished(paths: TaskPaths, spec: CaseSpec, kind: TaskKind) -> bool:
    return all(file.is_file() for file in case_files(paths, spec, kind))


def _write_cases(
    destination: Path, kind: str, specs: Sequence[CaseSpec], options: Any, processes: int
) -> Iterator[str]:
    """Write cases and yield each identifier as it is finished."""
    if specs:
        (destination / "dataset.json").unlink(missing_ok=True)
    if processes <= 1 or len(specs) <= 1:
        for spec in specs:
            yield write_case(destination, kind, spec, options)
        return
    # spawn: forking a process that has started threads (SimpleITK has) can deadlock
    with ProcessPoolExecutor(min(processes, len(specs)), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(write_case, destination, kind, spec, options) for spec in specs]
        for future in as_completed(futures):
            yield future.result()


def _write_clinical(paths: TaskPaths, specs: Sequence[CaseSpec]) -> None:
    # the build is the first thing drawn from a patient's stream, so it needs no anatomy
    rows = [
        clinical_row(spec, prostatectomy=sample_habitus(spec.chance("patient")).prostatectomy)
        for spec in specs
    ]
    write_table(paths.clinical, list(rows[0]), [list(row.values()) for row in rows])


def _describe(paths: TaskPaths, kind: TaskKind, *, test_labels: bool) -> dict[str, Any]:
    content = {
        "task": paths.name,
        "name": paths.name.partition("_")[2] or paths.name,
        "dim": 3,
        "target_class": kind.target_class,
        "test_labels": test_labels,
        "labels": {str(k): name for k, name in enumerate(kind.labels)},
        "modalities": {str(k): name for k, name in enumerate(kind.modalities)},
    }
    return {**content, "psma": dict(kind.psma)} if kind.psma else content
