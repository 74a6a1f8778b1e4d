"""Two ways of measuring side by side: correlation plot and Bland-Altman plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from nndet_psma.evaluation.statistics.bland_altman import LimitsOfAgreement, bland_altman
from nndet_psma.evaluation.statistics.pearson import Correlation, paired, pearson
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import BLUE, GREY, ORANGE, finish, legend, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def agreement_chart(
    automated: ArrayLike, manual: ArrayLike, quantity: str, unit: str, *, level: float = 0.95
) -> Picture | None:
    """Correlation and Bland-Altman plot of paired measurements; None without any pair.

    Args:
        automated: ``[N]``.
        manual: ``[N]``, the same nodes.
        quantity: what was measured, for example "Short diameter".
        unit: for example "mm".
        level: of the intervals.

    Raises:
        ValueError: the lengths differ or a value is not finite.
    """
    ours, theirs = paired(automated, manual)
    if len(ours) == 0:
        return None
    correlation = pearson(ours, theirs, level=level)
    limits = bland_altman(ours, theirs, level=level)
    figure, (left, right) = new_figure(3.0, columns=2)
    left.scatter(theirs, ours, s=14, color=BLUE, alpha=0.7, linewidths=0)
    top = float(max(ours.max(), theirs.max(), 1e-9)) * 1.05
    left.plot([0, top], [0, top], color=GREY, linewidth=1)
    finish(left, f"manual, {unit}", f"automated, {unit}", _r_text(correlation))
    middle, difference = (ours + theirs) / 2, ours - theirs
    right.scatter(middle, difference, s=14, color=BLUE, alpha=0.7, linewidths=0)
    _limit_lines(right, limits)
    finish(right, f"mean, {unit}", f"automated - manual, {unit}", "Bland-Altman")
    return png(figure, _alt(quantity, unit, correlation, limits), f"{quantity}, {limits.pairs} pairs.")


def _limit_lines(axes: Axes, limits: LimitsOfAgreement) -> None:
    if limits.bias is None:
        return
    axes.axhline(limits.bias, color=ORANGE, linewidth=1.4, label=f"bias {limits.bias:.2f}")
    if limits.lower is not None and limits.upper is not None:
        text = f"{limits.lower:.2f} to {limits.upper:.2f}"
        axes.axhline(limits.lower, color=ORANGE, linewidth=1, linestyle="--", label=text)
        axes.axhline(limits.upper, color=ORANGE, linewidth=1, linestyle="--")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    legend(axes, "upper left")


def _r_text(found: Correlation) -> str:
    return "r undefined" if found.r is None else f"r = {found.r:.2f}"


def _alt(quantity: str, unit: str, found: Correlation, limits: LimitsOfAgreement) -> str:
    spread = ""
    if limits.lower is not None and limits.upper is not None:
        spread = f", limits of agreement {limits.lower:.2f} to {limits.upper:.2f} {unit}"
    bias = 0.0 if limits.bias is None else limits.bias
    return f"{quantity} automated against manual: {_r_text(found)}; bias {bias:.2f} {unit}{spread}."
