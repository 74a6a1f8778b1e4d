"""Every kind of fault a check can find, once: its name, how grave it is, and what it takes to see it.

Names are part of the JSON report: never rename one, scripts filter by them. ``docs/checks.md`` shows this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Literal

from nndet_psma.core.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        name: stable name, to count and filter by.
        group: where it lies: description, names, files, headers, voxels, masks, lesions, data set, tables or folds.
        severity: an error stops the preparation; a warning is for the user to judge.
        full: seen only when all voxels are read.
        meaning: one line.
    """

    name: str
    group: str
    severity: Severity
    full: bool
    meaning: str


class Fault(UserError):
    """A :class:`UserError` that knows its kind."""

    def __init__(
        self,
        kind: str,
        what: str,
        *,
        file: str | PathLike[str] | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"'{kind}' is no kind of the catalogue")
        self.kind = kind
        super().__init__(what, file=file, expected=expected, found=found, remedy=remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.kind, self.what, self.file, self.expected, self.found, self.remedy)


def first_error(faults: list[Fault]) -> Fault | None:
    """The first fault that is an error, not a warning."""
    return next((fault for fault in faults if KINDS[fault.kind].severity == "error"), None)


def kinds_table() -> str:
    """The catalogue as a Markdown table, the one in ``docs/checks.md``."""
    lines = ["| kind | where | severity | needs | meaning |", "|---|---|---|---|---|"]
    for kind in KINDS.values():
        needs = "all voxels" if kind.full else "names, headers, tables"
        lines.append(f"| `{kind.name}` | {kind.group} | {kind.severity} | {needs} | {kind.meaning} |")
    return "\n".join(lines) + "\n"


def _rebuild(
    kind: str, what: str, file: str | None, expected: str | None, found: str | None, remedy: str | None
) -> Fault:
    return Fault(kind, what, file=file, expected=expected, found=found, remedy=remedy)


# E error, W warning; a star: all voxels must be read
_CATALOGUE: dict[str, tuple[tuple[str, str, str], ...]] = {
    "description": (
        ("no description", "E", "there is no dataset.json or dataset.yaml"),
        ("several descriptions", "E", "dataset.json and dataset.yaml lie side by side"),
        ("description not readable", "E", "the description is no JSON or YAML, or no mapping"),
        ("description of nnU-Net", "E", "the description has nnU-Net's keys, not nnDetection's"),
        ("description key missing", "E", "task, dim, labels or modalities is missing"),
        ("description key of wrong type", "E", "a key of the description holds the wrong type"),
        ("wrong dim", "E", "dim is neither 2 nor 3"),
        ("labels not from 0", "E", "the class numbers are not 0, 1, 2, ..."),
        ("modalities not from 0", "E", "the modality numbers are not 0, 1, 2, ..."),
        ("background class", "E", "a class is called background; lesion classes count from 0 without it"),
        ("duplicate class", "W", "two classes have the same name"),
        ("duplicate modality", "E", "two modalities have the same name"),
        ("no image modality", "E", "the CTV is the only modality"),
        ("unknown target class", "E", "target_class is no class of the description"),
        ("task name mismatch", "W", "the task in the description is not the name of its folder"),
    ),
    "names": (
        ("missing folder", "E", "imagesTr does not exist"),
        ("missing labels", "E", "labelsTr, or labelsTs with test_labels, does not exist"),
        ("unreadable folder", "E", "a folder cannot be listed"),
        ("no cases", "E", "a folder of images is empty"),
        ("no test images", "W", "test_labels is set, but there are no test images"),
        ("stray file", "E", "a file or folder that is no image and no label"),
        ("misnamed file", "E", "an image without modality number"),
        ("extra modality", "E", "an image of a modality that the description does not have"),
        ("missing modality", "E", "a case lacks an image"),
        ("duplicate file", "E", "the same image or label in two formats"),
        ("dot in case name", "E", "a dot in the name of a case"),
        ("unsafe case name", "W", "spaces or characters in the name of a case that commands stumble over"),
        ("names differ in case only", "W", "two case names are one on Windows and macOS"),
        ("mixed suffixes", "W", "images of several file formats in one folder"),
        ("unlabelled case", "E", "a training case without mask and JSON"),
        ("missing label", "E", "a JSON without its mask"),
        ("missing instances", "E", "a mask without its JSON"),
        ("label without images", "E", "a label of a case that has no images"),
    ),
    "files": (
        ("broken link", "E", "a symbolic link to a file that does not exist"),
        ("link loop", "E", "a symbolic link that leads back to itself"),
        ("folder instead of file", "E", "a folder with the name of an image or label"),
        ("empty file", "E", "a file of zero bytes"),
        ("no permission", "E", "a file that may not be read"),
        ("not gzip", "E", "a .nii.gz that is not compressed with gzip and no NIfTI either"),
        ("plain under .nii.gz", "W", "an uncompressed NIfTI named .nii.gz"),
        ("compressed under .nii", "E", "a compressed NIfTI named .nii"),
        ("not an image", "E", "a file that no image reader knows"),
        ("truncated file", "E", "fewer bytes than the header promises, or a gzip stream that breaks off"),
        ("damaged file", "E*", "compressed data that cannot be unpacked or fail their checksum"),
        ("unreadable image", "E", "an image that cannot be read for another reason"),
        ("worker died", "E", "the process that checked the case was killed, as when memory runs out"),
        ("check failed", "E", "the check of the case met an error it does not know"),
    ),
    "headers": (
        ("not 3D", "E", "an image with more than three axes"),
        ("several values per voxel", "E", "colours or vectors instead of single numbers"),
        ("complex voxels", "E", "complex numbers instead of real ones"),
        ("spacing not positive", "E", "a spacing of zero, below zero or no number"),
        ("spacing in metres", "E", "every spacing below 0.02 mm: most likely metres"),
        ("spacing too large", "E", "a spacing above 50 mm: most likely micrometres or a wrong header"),
        (
            "sheared axes",
            "E",
            "axes more than 0.1 degrees off right angles; smaller errors are rounding and made good",
        ),
        ("rounded axes", "W", "axes up to 0.1 degrees off right angles: the nearest right angles are taken"),
        ("no orientation", "W", "a NIfTI with neither qform nor sform: position and orientation are guessed"),
        ("qform and sform differ", "W", "two orientations in one NIfTI; programs choose differently"),
        ("wrong dimension", "E", "several slices in a 2D data set"),
        ("few slices", "W", "fewer than five slices in a 3D data set"),
        ("thick slices", "W", "slices more than 8 mm apart"),
        ("shape mismatch", "E", "files of one case with different numbers of voxels"),
        ("spacing mismatch", "E", "files of one case with different spacing"),
        ("origin mismatch", "E", "files of one case shifted against each other"),
        ("direction mismatch", "E", "files of one case rotated against each other"),
    ),
    "voxels": (
        ("NaN voxels", "E*", "voxels that are no numbers"),
        ("infinite voxels", "E*", "voxels that are infinite"),
        ("constant image", "E*", "every voxel has the same value"),
        ("CT as grey values", "W*", "a CT scaled to 0..1 or 0..255"),
        ("CT without intercept", "W*", "a CT from 0 upwards: the rescale intercept was not applied"),
        ("CT wrapped around", "W*", "a CT whose negative HU were read as large positive numbers"),
        ("CT not in HU", "W*", "a CT that holds no air"),
        ("CT padding", "W*", "a CT with values far below air, used as padding"),
        ("CT with fractions", "W*", "a CT with fractions of HU"),
        ("PET not SUV", "W*", "a PET with values as large as Bq/ml"),
        ("PET normalised", "W*", "a PET scaled to 0..1"),
        ("negative PET", "W*", "a PET with negative uptake"),
        ("ADC units", "W*", "an ADC map that is not in 1e-6 mm2/s"),
        ("negative MR", "W*", "a DWI or T2 with negative values"),
    ),
    "masks": (
        ("mask not binary", "E*", "a CTV, bladder or prostate mask with values besides 0 and 1"),
        ("mask of 0 and 255", "E*", "a CTV, bladder or prostate mask with 255 for 1"),
        ("empty CTV", "E*", "a CTV without voxel"),
        ("CTV fills the image", "W*", "a CTV that covers more than 90 % of the image"),
        ("CTV in one slice", "W*", "a CTV drawn in a single slice"),
        ("CTV outside the body", "W*", "more than half of the CTV lies in the air round the patient"),
        ("CTV equals lesions", "W*", "a CTV that is the lesion mask: it gives the answer away"),
    ),
    "lesions": (
        ("bad instances", "E", "a JSON of classes that cannot be read or has the wrong form"),
        ("class out of range", "E", "a lesion of a class that the description does not have"),
        ("ids not consecutive", "E", "instance ids that are not 1, 2, 3, ..."),
        ("mask of floats", "W*", "instance ids stored as floating-point numbers"),
        ("fractional ids", "E*", "instance ids with fractions, as interpolation leaves them"),
        ("negative ids", "E*", "instance ids below zero"),
        ("empty mask", "E*", "an all-zero mask whose JSON lists instances"),
        ("mask and JSON disagree", "E*", "different instance ids in mask and JSON"),
        ("lesion in pieces", "W*", "parts of one instance more than 10 mm apart"),
        ("lesion of one voxel", "W*", "an instance of a single voxel"),
        ("lesion at the image border", "W*", "an instance that the edge of the image cuts off"),
        ("huge lesion", "W*", "an instance larger than a fifth of the body"),
        ("lesions touch", "W*", "two instances with a broad common face: one lesion under two numbers?"),
        ("lesion outside the body", "W*", "an instance in the air round the patient"),
        ("lesion outside CTV", "W*", "an instance with no voxel in the CTV"),
        ("lesion partly outside CTV", "W*", "an instance that reaches more than 10 mm out of the CTV"),
    ),
    "data set": (
        ("duplicate images", "E*", "two cases with the same voxels"),
        ("duplicate masks", "W*", "two cases with the same lesion mask on different images"),
        ("case twice", "E", "one case id in training and test"),
        ("patient in training and test", "W", "a patient with cases in training and in test"),
        ("mixed spacings", "W", "spacings that differ more than fourfold between cases"),
        ("mixed voxel types", "W", "images of one modality stored in types of different range"),
        ("no lesions", "W", "no training case has a lesion"),
        ("class without lesions", "W", "a class that no training lesion has"),
        ("one training case", "W", "nothing is left to validate on"),
    ),
    "tables": (
        ("table not readable", "E", "clinical.csv is no UTF-8 text"),
        ("no case_id column", "E", "clinical.csv has no column case_id"),
        ("column twice", "E", "two columns of clinical.csv have the same name"),
        ("row of wrong length", "E", "a line of clinical.csv with too many or too few cells"),
        ("row without case_id", "E", "a line of clinical.csv without case"),
        ("case twice in table", "E", "two lines of clinical.csv for one case"),
        ("unknown case in table", "W", "a line of clinical.csv for a case that does not exist"),
        ("case missing in table", "W", "a case without line in clinical.csv"),
        ("missing patient_id", "W", "a case whose patient_id is empty"),
    ),
    "folds": (
        ("folds not readable", "E", "splits.json is no JSON or no list of folds"),
        ("fold malformed", "E", "a fold without its lists train and val"),
        ("fold with unknown case", "E", "a fold names a case that does not exist"),
        ("case on both sides of a fold", "E", "a fold trains and validates on the same case"),
        ("patient on both sides of a fold", "E", "a fold trains and validates on the same patient"),
        ("case validated twice", "E", "a case is validated in several folds"),
        ("case never validated", "W", "a training case is validated in no fold"),
        ("fold without lesions", "E", "no training case of a fold has a lesion"),
    ),
}


def _kind(group: str, name: str, mark: str, meaning: str) -> FaultKind:
    return FaultKind(name, group, "error" if mark[0] == "E" else "warning", mark.endswith("*"), meaning)


KINDS: dict[str, FaultKind] = {
    row[0]: _kind(group, *row) for group, rows in _CATALOGUE.items() for row in rows
}
