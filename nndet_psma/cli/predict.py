"""``nndet_predict``: find lesions in the test cases of a task, or in any folder of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_overwrites, add_task, say

if TYPE_CHECKING:
    from nndet_psma.stages.predict import PredictJob


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
        "-i", "--input", type=Path, help="folder of images CASE_0000.nii.gz, CASE_0001.nii.gz ..."
    )
    parser.add_argument("-d", "--output", type=Path, help="folder of the results (default with -i: required)")
    add_overwrites(parser)
    parser.add_argument(
        "-ntta", "--num_tta", type=int, default=0, help="0 (default) or 1 for the mirror image, too"
    )
    parser.add_argument(
        "--region",
        choices=("ctv", "body"),
        default="ctv",
        help="body: images have no CTV file; the whole-slice detector searches the whole body",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict and print one line per case."""
    from nndet_psma.cli.config import compose_config
    from nndet_psma.stages.predict import predict_cases, read_inference_plan, write_index

    args.overwrites, args.output = _split_output(args.overwrites, args.output)
    config = compose_config(args.task, args.overwrites)
    job = _job(args, config)
    if args.region == "body":
        say(
            "no CTV: the whole-slice detector searches whole slices; its thresholds were tuned for the CTV region"
        )
    predictions = predict_cases(job, say)
    inference = read_inference_plan(job.folder, job.fold)
    write_index(job.target, predictions, inference, {"region": args.region, "num_tta": args.num_tta})
    say(f"{len(predictions)} cases in {job.target}")
    return 0


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


def _job(args: argparse.Namespace, config: object) -> PredictJob:
    from typing import Any, cast

    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.cases import list_cases
    from nndet_psma.dataset.description import read_description
    from nndet_psma.dataset.paths import find_task
    from nndet_psma.inference.model_folder import find_model
    from nndet_psma.stages.evaluate import TEST_PREDICTIONS
    from nndet_psma.stages.predict import (
        PredictJob,
        description_from_plan,
        folder_cases,
        without_ctv_modality,
    )

    if args.num_tta not in (0, 1):
        raise UserError(f"-ntta {args.num_tta}", expected="0 or 1")
    folder = find_model(args.task, args.model)
    plan = folder.plan(args.fold)
    description = description_from_plan(plan)
    if args.region == "body":
        description = without_ctv_modality(description)
    if args.input is not None:
        if args.output is None:
            raise UserError("-i needs a folder for the results", remedy="Add -o FOLDER")
        cases, target = folder_cases(args.input, plan, without_ctv=args.region == "body"), args.output
    else:
        paths = find_task(args.task)
        cases = list_cases(paths, read_description(paths.root), "Ts")
        # predictions without CTV stay beside those with it
        name = TEST_PREDICTIONS + ("_body" if args.region == "body" else "")
        target = args.output or folder.fold(args.fold) / name
        if not cases:
            raise UserError(
                "holds no test images", file=paths.images("Ts"), remedy="Put images there, or give -i"
            )
    inference = cast(Any, config).inference_kwargs
    return PredictJob(
        folder=folder,
        fold=args.fold,
        cases=cases,
        description=description,
        target=target,
        whole_slices=args.region == "body" and plan.ctv_modality is not None,
        tta=args.num_tta == 1,
        device=inference.device,
        batch_size=inference.batch_size,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
