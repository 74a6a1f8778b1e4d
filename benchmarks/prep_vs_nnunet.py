"""Check + fingerprint + plan + preprocess of a task, against nnU-Net v2 on the same cases.

    python benchmarks/prep_vs_nnunet.py                         # a phantom of 24 cases
    python benchmarks/prep_vs_nnunet.py --sts ../shared/data/sts_petct
    python benchmarks/prep_vs_nnunet.py --task-root ~/det_data/Task100_PSMAPhantom

Both sides get the same number of processes and one thread per process. nnU-Net gets the images as they are and the
instance masks as class masks; the CTV is left out of its channels unless ``--ctv-channel`` is given, so it reads and
writes less than we do. It runs ``nnUNetv2_plan_and_preprocess -c 2d``, once as it comes and once with
``--verify_dataset_integrity``; ours always includes ``--full_check``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from measure import ONE_THREAD, Cost, executable, measure, median_cost, table, write_result

DATASET = 777


def main() -> int:
    """Run both sides in turn and print the table."""
    args = _arguments()
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        scratch = Path(folder)
        root = _task(args, scratch)
        _export(root, scratch / "nnUNet_raw", args.ctv_channel)
        costs: dict[str, list[Cost]] = {"nndet_prep": [], "nnU-Net": [], "nnU-Net, checked": []}
        for number in range(args.runs):
            print(f"run {number + 1} of {args.runs}", file=sys.stderr)
            costs["nndet_prep"].append(_ours(root, scratch, args.processes))
            costs["nnU-Net"].append(_nnunet(scratch, args.processes, verify=False))
            costs["nnU-Net, checked"].append(_nnunet(scratch, args.processes, verify=True))
    medians = {name: median_cost(runs) for name, runs in costs.items()}
    print(_report(medians))
    content = {"task": root.name, "processes": args.processes, "ctv_channel": args.ctv_channel}
    runs = {name: [asdict(cost) for cost in series] for name, series in costs.items()}
    write_result(args.json, {**content, "runs": runs, "median": {k: asdict(v) for k, v in medians.items()}})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task-root", type=Path, help="folder of a task in the raw format; it is not changed"
    )
    parser.add_argument("--sts", type=Path, help="folder sts_petct of public cases, converted first")
    parser.add_argument("--cases", type=int, default=24, help="cases of the phantom")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ctv-channel", action="store_true", help="give nnU-Net the CTV, too")
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _task(args: argparse.Namespace, scratch: Path) -> Path:
    """The task folder, beneath ``scratch/data``, with nothing preprocessed."""
    data = scratch / "data"
    if args.task_root is not None:
        source = args.task_root.resolve()
        shutil.copytree(source, data / source.name, ignore=shutil.ignore_patterns("preprocessed"))
        return Path(data / source.name)
    if args.sts is not None:
        command = [
            executable("nndet_psma"),
            "convert",
            "nifti",
            str(args.sts),
            "--task",
            "200",
            "--name",
            "STS",
        ]
        command += ["--image", "CT=*/CT_image.nii.gz", "--image", "PET=*/PET_image.nii.gz"]
        command += ["--label", "*/CT_mask.nii.gz", "--output", str(data)]
    else:
        command = [executable("nndet_example"), "--cases", str(args.cases), "--test-cases", "0"]
        command += ["-o", str(data), "--num_processes", str(args.processes)]
    measure(command, os.environ, scratch / "make.log")
    return next(data.iterdir())


def _ours(root: Path, scratch: Path, processes: int) -> Cost:
    shutil.rmtree(root / "preprocessed", ignore_errors=True)
    environment = {
        **os.environ,
        **ONE_THREAD,
        "det_data": str(root.parent),
        "det_models": str(scratch / "models"),
    }
    command = [executable("nndet_prep"), root.name, "--full_check"]
    command += ["-np", str(processes), "-npp", str(processes)]
    return measure(command, environment, scratch / "ours.log")


def _nnunet(scratch: Path, processes: int, *, verify: bool) -> Cost:
    shutil.rmtree(scratch / "nnUNet_preprocessed", ignore_errors=True)
    folders = {name: str(scratch / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    command = [executable("nnUNetv2_plan_and_preprocess"), "-d", str(DATASET), "-c", "2d", "--no_pbar"]
    command += ["-npfp", str(processes), "-np", str(processes)]
    command += ["--verify_dataset_integrity"] if verify else []
    return measure(command, {**os.environ, **ONE_THREAD, **folders}, scratch / "nnunet.log")


def _export(root: Path, raw: Path, ctv_channel: bool) -> None:
    """The training cases as an nnU-Net data set: images linked, instance ids made classes."""
    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import TaskPaths

    paths = TaskPaths(root)
    description = read_description(root)
    folder = raw / f"Dataset{DATASET:03d}_Peer"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    channels = list(description.modalities if ctv_channel else description.image_modalities)
    cases = list_cases(paths, description)
    for case in cases:
        for channel, index in enumerate(channels):
            target = folder / "imagesTr" / f"{case.case_id}_{channel:04d}.nii.gz"
            target.symlink_to(case.images[index].resolve())
        _class_mask(case, folder / "labelsTr" / f"{case.case_id}.nii.gz")
    names = {
        str(i): "noNorm" if description.role(c).value == "CTV" else description.modalities[c]
        for i, c in enumerate(channels)
    }
    labels = {"background": 0, **{name: index + 1 for index, name in description.labels.items()}}
    content = {"channel_names": names, "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def _class_mask(case: object, target: Path) -> None:
    """The mask of a case with class + 1 for every voxel; geometry and axis order of the file are kept."""
    import numpy as np
    import SimpleITK as sitk

    from nndet_psma.dataset.task.instances import read_instances

    image = sitk.ReadImage(str(case.label))
    array = sitk.GetArrayFromImage(image)
    classes = read_instances(case.instances)
    lookup = np.zeros(int(array.max()) + 1, dtype=np.uint8)
    for instance, label in classes.items():
        lookup[instance] = label + 1
    made = sitk.GetImageFromArray(lookup[array])
    made.CopyInformation(image)
    sitk.WriteImage(made, str(target), True)


def _report(medians: dict[str, Cost]) -> str:
    ours = medians["nndet_prep"]
    rows = []
    for name, cost in medians.items():
        ratio = [
            ours.cpu_seconds / cost.cpu_seconds,
            ours.peak_gb / cost.peak_gb,
            ours.tree_gb / cost.tree_gb,
        ]
        rows.append([name, cost.cpu_seconds, cost.seconds, cost.peak_gb, cost.tree_gb, *ratio])
    header = [
        "",
        "CPU s",
        "wall s",
        "peak GB, one process",
        "peak GB, all",
        "CPU ratio",
        "peak ratio",
        "all ratio",
    ]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
