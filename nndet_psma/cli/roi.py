"""``nndet_psma roi``: a search region or an organ mask for tasks that lack it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import add_task, say


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, one sub-command per way."""
    parser = argparse.ArgumentParser(prog="nndet_psma roi", description=__doc__)
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    _add_vessels(ways.add_parser("vessels", help="a nodal CTV by rule from masks of the iliac vessels"))
    _add_train(ways.add_parser("train", help="train a segmenter of a CTV or an organ with nnU-Net"))
    _add_apply(
        ways.add_parser("apply", help="give the cases of a task or folder the mask of such a segmenter")
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the masks, or train what makes them."""
    ways = {"vessels": _vessels, "train": _train, "apply": _apply}
    return ways[args.way](args)


def _vessels(args: argparse.Namespace) -> int:
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.dataset.task.structures import read_label_names
    from nndet_psma.roi.nodal_ctv import NodalRule, make_nodal_ctv

    rule = NodalRule(margin_mm=args.margin, whole_length=args.whole_length)
    if args.vessels:
        rule = NodalRule(tuple(args.vessels), rule.excluded, args.margin, args.whole_length)
    if args.exclude:
        rule = NodalRule(rule.vessels, tuple(args.exclude), args.margin, args.whole_length)
    paths = find_task(args.task)
    labels = None if args.labels is None else read_label_names(args.labels)
    index = make_nodal_ctv(paths, args.masks, rule, labels=labels, replace=args.overwrite, say=say)
    say(f"CTV is modality {index} of {paths.name}. Look at it before you train; then: nndet_prep {args.task}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from nndet_psma.cli.config import compose_config
    from nndet_psma.dataset.task.paths import find_task, models_root
    from nndet_psma.dataset.task.structures import read_label_names
    from nndet_psma.roi.organ_masks import SEGMENTER, check_name
    from nndet_psma.stages.roi_train import RoiTraining, train_roi

    name = check_name(args.name)
    paths = find_task(args.task)
    # weak candidates are for nodes only
    own = [f"exp.id=ROI_{name}${{exp.tag}}", "plan_cfg.low_threshold=0.5"]
    config = compose_config(paths.name, [*own, *args.overwrites], SEGMENTER)
    labels = None if args.labels is None else read_label_names(args.labels)
    job = RoiTraining(name, args.masks, labels, args.images, args.num_processes)
    folder = train_roi(paths, models_root(), config, job, say)
    say(f"weights in {folder.root}; then: nndet_psma roi apply TASK --name {name} --model {folder.root}")
    return 0


def _apply(args: argparse.Namespace) -> int:
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.dataset.task.structures import read_label_names
    from nndet_psma.inference.predictor import choose_device
    from nndet_psma.roi.apply import RoiApplication, apply_to_folder, apply_to_task
    from nndet_psma.roi.organ_masks import check_name
    from nndet_psma.roi.organ_model import OrganModel

    name = check_name(args.name)
    labels = None if args.labels is None else read_label_names(args.labels)
    how = RoiApplication(args.largest, args.masks, labels, args.check, args.overwrite)
    folder = _images_folder(args.task)
    model = OrganModel.open(
        _model_folder(args, name), choose_device(args.device), mirrored=not args.no_mirror
    )
    _check_is(model.name, name, model.folder.root)
    if folder is not None:
        result = apply_to_folder(folder, model, how, args.index, say)
    else:
        result = apply_to_task(find_task(args.task), model, how, say)
    if result.dice is not None:
        count = sum(bool(row["held_out"]) for row in result.scores)
        say(f"mean Dice of {count} held-out cases: {result.dice:.3f}")
    if result.index is not None:
        say(f"{name} is modality {result.index} of {args.task}. Look at it before you use it")
    return 0


def _images_folder(given: str) -> Path | None:
    """A folder of images, where a task is not meant: a name of a task goes before a folder of the same name."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import find_task

    folder = Path(given).expanduser()
    try:
        find_task(given)
    except UserError:
        return folder if folder.is_dir() else None
    return None


def _model_folder(args: argparse.Namespace, name: str) -> Path:
    from nndet_psma.artifacts.model_folder import find_model

    if args.model is not None and Path(args.model).expanduser().is_dir():
        return Path(args.model).expanduser()
    return find_model(args.model or args.task, f"ROI_{name}").root


def _check_is(found: str, name: str, folder: Path) -> None:
    from nndet_psma.core.errors import UserError

    if found != name:
        raise UserError("the model segments something else", file=folder, expected=name, found=found)


def _add_train(parser: argparse.ArgumentParser) -> None:
    from nndet_psma.cli.arguments import add_overwrites

    parser.description = (
        "Learn a CTV, bladder, prostate, vessels ... from the cases of a task that have the mask. The model is "
        "det_models/TASK/ROI_NAME; starting the same command again goes on where it stopped."
    )
    add_task(parser)
    _add_name(parser)
    _add_masks(parser, "masks to learn from; without it the task's modality of that name")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="MODALITY",
        help="modalities to look at; without it all but mask and CTV",
    )
    add_overwrites(parser)
    parser.add_argument("-np", "--num_processes", type=int, default=2, help="processes of the preparation")


def _add_apply(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Segment every case. Of a task the mask becomes a modality, once all cases have it; in a folder of images "
        "the missing files CASE_000N.nii.gz are written."
    )
    parser.add_argument("task", help="task, or a folder of images")
    _add_name(parser)
    parser.add_argument(
        "--model", metavar="DIR|TASK", help="model folder, or the task whose ROI_NAME is taken"
    )
    _add_masks(parser, "masks to compare with; without it the task's modality of that name")
    parser.add_argument("--largest", type=int, metavar="N", help="keep the N largest contiguous regions only")
    parser.add_argument(
        "--check", action="store_true", help="only compare cases that were not trained on; change nothing"
    )
    parser.add_argument("--index", type=int, metavar="N", help="file number in a folder of images")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    parser.add_argument("--no-mirror", action="store_true", help="do not look at mirror images: faster")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="of the mask: CTV, BLADDER, PROSTATE ...")


def _add_masks(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--masks", type=Path, metavar="DIR", help=f"CASE.nii.gz or CASE/NAME.nii.gz: {what}")
    parser.add_argument(
        "--labels", type=Path, metavar="JSON", help="numbers of the structures in CASE.nii.gz"
    )


def _add_vessels(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Iliac vessels with a margin of 7 mm, from L5/S1 to the femoral heads, without bone, bowel, bladder and "
        "muscle (RTOG consensus). Masks are those of TotalSegmentator, or any of the same names."
    )
    add_task(parser)
    parser.add_argument(
        "--masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="CASE/STRUCTURE.nii.gz, or CASE.nii.gz with numbers",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="JSON", help="numbers of the structures, where headers do not tell"
    )
    parser.add_argument(
        "--margin", type=float, default=7.0, help="mm round the vessels (default %(default)s)"
    )
    parser.add_argument(
        "--vessels", nargs="+", metavar="PATTERN", help="structures to follow instead of iliac_*"
    )
    parser.add_argument(
        "--exclude", nargs="+", metavar="PATTERN", help="structures to carve out instead of the usual ones"
    )
    parser.add_argument(
        "--whole-length", action="store_true", help="do not end at L5/S1 and the femoral heads"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the CTV of the task")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
