"""Stage score: tables and COCO files from elsewhere, so that published results can be recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.csv_table import CsvTable, read_names, read_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.evaluation.statistics.kappa import WEIGHTINGS, kappa_of_table
from nndet_psma.evaluation.statistics.printed_counts import counts_from_percentages, mcnemar_bounds
from nndet_psma.evaluation.statistics.proportion import Proportion
from nndet_psma.evaluation.statistics.reader_study import study_scores
from nndet_psma.evaluation.statistics.roc_study import RocQuestions, roc_answers
from nndet_psma.evaluation.tables.coco import coco_scores, precision_averages
from nndet_psma.evaluation.tables.coco_file import read_coco
from nndet_psma.evaluation.tables.identifiers import Identifier, Named, Spelling, check_meeting
from nndet_psma.evaluation.tables.luna import Marks, luna_ranking, luna_scores
from nndet_psma.evaluation.tables.points import PointSet, score_points

_ONLY_CASE = ""
_AS_WRITTEN = Spelling()


def score_froc(
    truth: Path,
    predictions: Path,
    *,
    cases: Path | None = None,
    excluded: Path | None = None,
    radius_mm: float | None = None,
    max_per_case: int | None = None,
    spelling: Spelling = _AS_WRITTEN,
) -> dict[str, object]:
    """FROC of tables in LUNA16's form; rules in :mod:`nndet_psma.evaluation.tables.luna`.

    Args:
        truth: columns seriesuid, coordX, coordY, coordZ, and diameter_mm unless a radius is given.
        predictions: seriesuid, coordX, coordY, coordZ, probability.
        cases: all scans that count (column seriesuid, or a plain list); None takes those of the other tables.
        excluded: findings that count neither way, columns as ``truth``.
        radius_mm: radius of a hit; None takes half of each diameter.
        max_per_case: only so many best candidates of a scan.
        spelling: how seriesuid is compared.

    Raises:
        UserError: a table is malformed, or names no scan of the truth (of ``cases`` where given).
    """
    found = _candidates(predictions, spelling)
    _tell_scale(predictions, found.values)
    there, left_out = (_findings(file, radius_mm, spelling) for file in (truth, excluded))
    if cases is None:
        check_meeting(Named(truth, there.cases), Named(predictions, found.cases), "scans")
        listed = [*there.cases, *left_out.cases, *found.cases]
    else:
        listed = _texts(spelling.keys(read_names(cases, "seriesuid"), cases))
        for file, marks in ((truth, there), (predictions, found)):
            check_meeting(Named(cases, listed), Named(file, marks.cases), "scans", all_known=False)
    if excluded is not None:
        all_scans = Named(cases or truth, [*there.cases, *found.cases] if cases is None else listed)
        check_meeting(all_scans, Named(excluded, left_out.cases), "scans", all_known=False)
    ranked = luna_ranking(
        there,
        found,
        list(dict.fromkeys(listed)),
        excluded=left_out,
        radius_mm=radius_mm,
        max_per_case=max_per_case,
    )
    return luna_scores(ranked)


def score_roc(
    table: Path,
    label: str,
    score: str,
    other: str | None = None,
    *,
    patient: str | None = None,
    strata: str | None = None,
    compare: Sequence[str] = (),
    stratified_replicates: int = 0,
    at_sensitivity: float | None = None,
    probabilities: Sequence[Literal["calibration", "decision_curve"]] = (),
) -> dict[str, object]:
    """Scores of a yes-or-no question; see :func:`nndet_psma.evaluation.statistics.reader_study.study_scores`.

    Args:
        table: one row per patient, or whatever is judged.
        label: column of the truth, 0 and 1.
        score: column of the score, or of the decision (0 and 1).
        other: second score column, compared with the first.
        patient: column of the patients, who are drawn for intervals.
        strata: column of the strata.
        compare: further score columns; every pair is compared.
        stratified_replicates: draws for an interval of the area.
        at_sensitivity: rates at this sensitivity.
        probabilities: what to tell of scores that are probabilities.

    Raises:
        UserError: the table is malformed, or the scores are no probabilities and what only those have is asked.
    """
    content = read_table(table)
    truth, scores = content.truths(label), _scores(content, score)
    if probabilities and ((scores < 0) | (scores > 1)).any():
        raise UserError(
            f"column '{score}' holds no probabilities",
            file=table,
            expected="0 to 1",
            found=f"{scores.min():g} to {scores.max():g}",
        )
    columns = [score, *compare]
    if len(set(columns)) < len(columns):
        raise UserError(
            "a score is to be compared with itself",
            file=table,
            found=", ".join(columns),
            remedy="Name two columns",
        )
    asked = RocQuestions(
        patients=content.texts(patient) if patient else None,
        strata=content.texts(strata) if strata else None,
        others={name: _scores(content, name) for name in compare},
        stratified_replicates=stratified_replicates,
        at_sensitivity=at_sensitivity,
        calibration="calibration" in probabilities,
        decision_curve="decision_curve" in probabilities,
    )
    second = None if other is None else _scores(content, other)
    if truth.all() or not truth.any():
        LOGGER.warning(
            "%s: column '%s' has %s only: what needs both kinds is undefined (null)",
            table,
            label,
            f"{len(truth)} rows of the label {int(truth.any())}" if len(truth) else "no rows",
        )
    return study_scores(truth, scores, second) | roc_answers(truth, scores, asked, score)


def score_confusion(
    table: Path,
    first: str,
    second: str,
    *,
    count: str | None = None,
    collapse: Sequence[str] = (),
    order: Sequence[str] = (),
) -> dict[str, object]:
    """Agreement of two columns of categories: counts, plain agreement, and kappa plain and weighted.

    Args:
        table: one row per object; or, with ``count``, per cell of a printed table.
        first: column of one reader.
        second: column of the other.
        count: column that says how many objects a row stands for.
        collapse: ``"a,b=c"`` makes one category of several.
        order: categories from low to high, for the weights; none takes the order of the alphabet.

    Raises:
        UserError: the table is malformed, or a category that is named does not occur.
    """
    content = read_table(table)
    columns = [content.texts(first), content.texts(second)]
    parts = [part for text in collapse for part in _collapsed(text, set(columns[0] + columns[1]), table)]
    merged = dict(parts)
    if len(merged) < len(parts):
        raise UserError(
            "--collapse gives a category two names",
            file=table,
            found=" ".join(collapse),
            remedy="Name it once",
        )
    columns = [[merged.get(cell, cell) for cell in column] for column in columns]
    found = sorted({*columns[0], *columns[1]})
    if found and not set(columns[0]) & set(columns[1]):
        raise UserError(
            f"columns '{first}' and '{second}' have no category in common",
            file=table,
            expected="the same categories in both",
            found=", ".join(found),
            remedy="Name them alike, or join them with --collapse",
        )
    if order and sorted(order) != found:
        raise UserError(
            "the order must name every category once",
            file=table,
            expected=", ".join(found),
            found=", ".join(order),
        )
    categories = list(order) or found
    times = [1.0] * len(content) if count is None else content.numbers(count).tolist()
    if any(number < 0 or number != int(number) for number in times):
        raise UserError(f"column '{count}' holds no counts", file=table, expected="whole numbers from 0")
    counts = np.zeros((len(categories), len(categories)), dtype=np.int64)
    for one, two, number in zip(*columns, times, strict=True):
        counts[categories.index(one), categories.index(two)] += int(number)
    kappas = {weighting: kappa_of_table(counts, weighting=weighting) for weighting in WEIGHTINGS}
    return {
        "categories": categories,
        "counts": counts.tolist(),
        "agreement": asdict(Proportion.of(int(np.trace(counts)), int(counts.sum()))),
        "kappa": {
            name: {
                "value": kappa.value,
                "ci95": None if kappa.ci_low is None else [kappa.ci_low, kappa.ci_high],
            }
            for name, kappa in kappas.items()
        },
    }


def _collapsed(text: str, known: set[str], table: Path) -> list[tuple[str, str]]:
    """(category, new name) of ``"a,b=c"``."""
    names, sign, target = text.rpartition("=")
    parts = [name.strip() for name in names.split(",")]
    unknown = [name for name in parts if name not in known]
    if not sign or not target.strip() or unknown:
        raise UserError(
            f"--collapse '{text}'",
            file=table,
            expected=f'"a,b=c" with categories of {", ".join(sorted(known))}',
            found=", ".join(unknown) or None,
        )
    return [(name, target.strip()) for name in parts]


def score_printed(
    positives: int, negatives: int, printed: Sequence[tuple[str, float]], decimals: int = 0
) -> dict[str, object]:
    """Counts behind printed percentages; see :mod:`nndet_psma.evaluation.statistics.printed_counts`.

    Raises:
        UserError: an unknown name, one given twice, no percentage, or too many rows.
    """
    if len(dict(printed)) < len(printed):
        raise UserError(
            "a percentage is given twice", found=", ".join(name for name, _ in printed), remedy="Name it once"
        )
    try:
        found = counts_from_percentages(positives, negatives, dict(printed), decimals=decimals)
    except ValueError as error:
        raise UserError(str(error), remedy="Correct --positives, --negatives or a percentage") from None
    return {"matches": [asdict(each) for each in found]}


def score_margins(first_errors: int, second_errors: int, total: int) -> dict[str, object]:
    """McNemar's p for every number of errors that both raters may share.

    Raises:
        UserError: more errors than rows.
    """
    try:
        bounds = mcnemar_bounds(first_errors, second_errors, total)
    except ValueError as error:
        raise UserError(str(error), expected="at most as many errors as rows") from None
    return asdict(bounds)


def score_point_tables(
    truth: Path, predictions: Path, radius: float, spelling: Spelling = _AS_WRITTEN
) -> dict[str, int]:
    """Counts of points within a radius: columns x, y, optional z, case and (predictions) score.

    Raises:
        UserError: a table is malformed, only one of the two has a column z or case, or they have no case in common.
    """
    tables = [read_table(truth), read_table(predictions)]
    axes = ["x", "y"] + [name for name in ("z",) if _in_both(tables, name)]
    by_case = _in_both(tables, "case")
    cases = [_cases(table, "case", spelling) if by_case else [_ONLY_CASE] * len(table) for table in tables]
    check_meeting(Named(truth, cases[0]), Named(predictions, cases[1]), "cases")
    places = [table.numbers(*axes) for table in tables]
    scores = tables[1].numbers("score") if tables[1].has("score") else None
    return score_points(PointSet(cases[0], places[0]), PointSet(cases[1], places[1], scores), radius)


def score_coco(
    truth: Path, predictions: Path, *, ious: Sequence[float] = (), spelling: Spelling = _AS_WRITTEN
) -> dict[str, object]:
    """Average precision and recall of COCO files: ground truth, and a list of results.

    Args:
        truth: images, categories, annotations.
        predictions: list of results.
        ious: thresholds, each in (0, 1], at which also ``at_iou`` tells the average precision of each class.
        spelling: how ids of images and categories are compared.

    Raises:
        UserError: a file is malformed, has a box of no size or outside its image, a result is of an image that the
            truth does not have, or no result of a category that it has.
    """
    classes, names = read_coco(truth, predictions, spelling)
    scored = [image.scores for images in classes.values() for image in images]
    _tell_scale(predictions, np.concatenate([np.zeros(0), *scored]))
    scores: dict[str, object] = dict(coco_scores(classes))
    if ious:
        scores["at_iou"] = {f"{iou:g}": precision_averages(classes, iou, names) for iou in ious}
    return scores


def _cases(table: CsvTable, column: str, spelling: Spelling) -> list[str]:
    return _texts(spelling.keys(table.texts(column), table.file))


def _texts(names: Sequence[Identifier]) -> list[str]:
    return [str(name) for name in names]


def _findings(file: Path | None, radius_mm: float | None, spelling: Spelling) -> Marks:
    if file is None:
        return Marks.none()
    table = read_table(file)
    diameters = np.zeros(len(table)) if radius_mm is not None else table.numbers("diameter_mm")
    return Marks(_cases(table, "seriesuid", spelling), table.numbers("coordX", "coordY", "coordZ"), diameters)


def _candidates(file: Path, spelling: Spelling) -> Marks:
    table = read_table(file)
    places, scores = table.numbers("coordX", "coordY", "coordZ"), table.numbers("probability")
    return Marks(_cases(table, "seriesuid", spelling), places, scores)


def _tell_scale(file: Path, scores: NDArray[np.float64]) -> None:
    """Any finite scores rank candidates; those of a file that mixes two scales would rank them wrongly."""
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        LOGGER.warning(
            "%s: scores from %g to %g lie outside 0 to 1; they are used to rank, so all must be on one scale",
            file,
            scores.min(),
            scores.max(),
        )


def _scores(table: CsvTable, column: str) -> NDArray[np.float64]:
    try:
        return table.numbers(column)
    except UserError:
        with suppress(UserError):  # neither: what was said of the numbers stands
            return table.truths(column).astype(np.float64)  # true and false
        raise


def _in_both(tables: Sequence[CsvTable], column: str) -> bool:
    have = [table.has(column) for table in tables]
    if any(have) and not all(have):
        with_it, without = tables[have.index(True)], tables[have.index(False)]
        raise UserError(
            f"line 1: no column '{column}', which {with_it.file.name} has",
            file=without.file,
            expected=f"a column '{column}' in both tables or in none",
            found=", ".join(without.header),
        )
    return all(have)
