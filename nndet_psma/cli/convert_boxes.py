"""``nndet_psma convert nndet-boxes``: predictions of nnDetection as predictions of this package."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_boxes_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.description = (
        "Read nnDetection's *_boxes.pkl without running them and write *_boxes.json. Several folders vote, as HU "
        "windows do: one folder per model."
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="of *_boxes.pkl, one per model"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--images", type=Path, help="folder of the images, to check the grids or to learn them"
    )
    parser.add_argument(
        "--classes", nargs="+", default=["lesion"], metavar="NAME", help="names of the classes from 0 on"
    )
    parser.add_argument(
        "--score_threshold", type=float, default=0.5, help="of accepted lesions (default %(default)s)"
    )
    parser.add_argument(
        "--vote_iou", type=float, default=0.5, help="IoU from which on models agree (default %(default)s)"
    )
    parser.add_argument(
        "--min_votes", type=int, default=1, help="models that must agree on a lesion (default %(default)s)"
    )
    parser.add_argument(
        "--order",
        metavar="z0,y0,z1,y1,x0,x1",
        help="columns of the boxes where they have another order than this one of nnDetection "
        "(0 lower, 1 upper corner)",
    )

    parser.add_argument(
        "--predicted_at",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="target_spacing of the models' plan in mm, where they resampled the images: nnDetection's boxes are "
        "longer than the object by one voxel of that grid (default: one of the image)",
    )


def convert_boxes(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.hosts.boxes_pkl.files import CORNERS
    from nndet_psma.stages.submit import convert_nndetection

    if not (0 <= args.score_threshold <= 1 and 0 < args.vote_iou <= 1):
        raise UserError(
            "thresholds lie between 0 and 1",
            found=f"{args.score_threshold} and {args.vote_iou}",
            remedy="Correct --score_threshold or --vote_iou",
        )
    if args.predicted_at is not None and not all(0 < step < float("inf") for step in args.predicted_at):
        raise UserError(
            "a spacing is a positive number of millimetres",
            found=str(args.predicted_at),
            remedy="Correct --predicted_at",
        )
    predictions = convert_nndetection(
        args.folders,
        images=args.images,
        classes=dict(enumerate(args.classes)),
        score_threshold=args.score_threshold,
        vote_iou=args.vote_iou,
        min_votes=args.min_votes,
        order=CORNERS if args.order is None else args.order.split(","),
        predicted_at=args.predicted_at,
    )
    for prediction in predictions:
        prediction.write(args.output / f"{prediction.case_id}_boxes.json")
    accepted = sum(len(prediction.lesions) for prediction in predictions)
    total = sum(len(prediction.candidates) for prediction in predictions)
    print(f"{args.output}: {len(predictions)} cases, {accepted} lesions, {total} candidates")
    return 0
