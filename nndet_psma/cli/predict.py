"""``nndet_predict``: find lesions in the test cases of a task, in any folder of images, or in one image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_overwrites, add_task, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.model_folder import ModelFolder
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.cli.config import AnyConfig
    from nndet_psma.stages.predict import PredictJob, PredictResult


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command that apply here, and ``-i``/``--output`` for any folder."""
    parser = argparse.ArgumentParser(
        prog="nndet_predict",
        description="Predict raw_splitted/imagesTs of a task, or with -i any folder without a task tree.",
    )
    add_task(parser)
    add_model(parser)
    parser.add_argument(
        "-f", "--fold", type=int, default=-1, help="fold; -1 is the consolidated model (default)"
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        help="folder of images CASE_0000.nii.gz, CASE_0001.nii.gz ..., or one of the files of one case",
    )
    parser.add_argument("--ctv", type=Path, help="CTV mask of the one case given with -i")
    parser.add_argument(
        "--objects",
        type=Path,
        help="folder of masks CASE.nii.gz of the numbered objects to judge (default: labelsTs of the task)",
    )
    parser.add_argument(
        "--status",
        type=Path,
        metavar="MODEL",
        help="second stage: folder (or zip) of a classifier that judges every lesion that was found",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also write where the model looks (models that judge given objects)",
    )
    parser.add_argument("-d", "--output", type=Path, help="folder of the results (default with -i: required)")
    add_overwrites(parser)
    parser.add_argument(
        "-ntta",
        "--num_tta",
        type=int,
        help="1: look at mirror images, too (default 0 for detectors, 1 for nnU-Net's segmentation)",
    )
    parser.add_argument(
        "--region",
        choices=("ctv", "body"),
        default="ctv",
        help="body: images have no CTV file; the whole-slice detector searches the whole body",
    )
    parser.add_argument(
        "--num_parts",
        "-num_parts",
        type=int,
        default=1,
        help="share the cases between this many jobs, e.g. one per GPU (default %(default)s)",
    )
    parser.add_argument(
        "--part_id", "-part_id", type=int, default=0, help="which of these jobs this is, from 0 (default 0)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse cases whose images have warnings (default: say them)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="predict again what is finished (default: go on)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict and print one line per case; 1 when a case could not be predicted."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.cli.config import config_for_model
    from nndet_psma.stages.predict import predict_job, write_index
    from nndet_psma.systems.system import model_system

    args.overwrites, args.output = _split_output(args.overwrites, args.output)
    folder = find_model(args.task, args.model)
    system, plan = model_system(folder, args.fold)
    config = config_for_model(args.task, plan, args.overwrites)
    if args.num_tta is None:
        args.num_tta = int(system.tta)  # as its thresholds were tuned
    inference = folder.inference_plan(args.fold)
    job = _job(args, config, folder, plan)
    if args.region == "body":
        say(f"no CTV: {system.searched_without_ctv}; thresholds were tuned for the CTV region")
    judge = None if args.status is None else _second_stage(args.status, config.inference_kwargs.device)
    done = predict_job(job, say)
    write_index(job, done, inference, {"region": args.region, "num_tta": args.num_tta})
    if judge is not None:
        judge(job, done)
    say(f"{len(done.results)} cases in {job.target}")
    if not done.failed:
        return 0
    sys.stderr.write(f"nndet_predict: {len(done.failed)} cases could not be predicted\n")
    for case_id, error in done.failed.items():
        sys.stderr.write(f"  {case_id}: {' '.join(str(error).split())}\n")
    return 1


def _second_stage(model: Path, device: str) -> Callable[[PredictJob, PredictResult], object]:
    """Opened before anything is predicted, so that a wrong model costs nothing."""
    from nndet_psma.stages.second_stage import judge_found
    from nndet_psma.systems.api import Predictor

    classifier = Predictor.from_folder(model, device)
    return lambda job, done: judge_found(job, done, classifier, say)


def _split_output(overwrites: list[str], output: Path | None) -> tuple[list[str], Path | None]:
    """``-o FOLDER`` names the output when it is no override: users of nnU-Net write it so."""
    from nndet_psma.core.errors import UserError

    folders = [text for text in overwrites if "=" not in text and not text.startswith("~")]
    if len(folders) + (output is not None) > 1:
        named = [*folders, *([] if output is None else [str(output)])]
        raise UserError(
            "several folders for the results", found=", ".join(named), remedy="Name one with -o FOLDER"
        )
    rest = [text for text in overwrites if text not in folders]
    return rest, Path(folders[0]) if folders else output


def _job(args: argparse.Namespace, config: AnyConfig, folder: ModelFolder, plan: Plan) -> PredictJob:
    from nndet_psma.artifacts.model_folder import TEST_PREDICTIONS
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.inference.input_cases import description_from_plan, input_cases, without_ctv_modality
    from nndet_psma.stages.predict import PredictJob, explainable, with_objects
    from nndet_psma.systems.system import OpenOptions, model_system

    if args.num_tta not in (0, 1):
        raise UserError(f"-ntta {args.num_tta}", expected="0 or 1")
    known = description_from_plan(plan)
    body = args.region == "body"
    description = without_ctv_modality(known) if body else known
    if args.input is not None:
        if args.output is None:
            raise UserError("-i needs a folder for the results", remedy="Add -o FOLDER")
        cases, target = input_cases(args.input, known, without_ctv=body, ctv=args.ctv), args.output
    elif args.ctv is not None:
        raise UserError("--ctv names the CTV of one case", remedy="Add -i IMAGE")
    else:
        paths = find_task(args.task)
        cases = list_cases(paths, read_description(paths.root), "Ts")
        # predictions without CTV stay beside those with it
        name = TEST_PREDICTIONS + ("_body" if body else "")
        target = args.output or folder.fold(args.fold) / name
        if not cases:
            raise UserError(
                "holds no test images", file=paths.images("Ts"), remedy="Put images there, or give -i"
            )
    if args.objects is not None:
        cases = with_objects(cases, args.objects, model_system(folder, args.fold)[0])
    inference = config.inference_kwargs
    if args.explain:
        explainable(model_system(folder, args.fold)[0])
    return PredictJob(
        folder=folder,
        fold=args.fold,
        cases=cases,
        description=description,
        target=target,
        options=OpenOptions(
            inference.device, inference.batch_size, args.num_tta == 1, body, explain=args.explain
        ),
        num_parts=args.num_parts,
        part_id=args.part_id,
        overwrite=args.overwrite,
        strict=args.strict,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
