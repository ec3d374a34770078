"""A probability for each class as horizontal bars, on a linear or a logarithmic scale, changed in place.

A softmax at T = 1 puts nearly everything on one class. On a linear scale the others look like nothing;
on a logarithmic one they can be compared. The widgets draw both, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.transforms import ScaledTranslation

from course_lib.plots import COLORS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SMALLEST = 1e-8  # where the logarithmic axis begins; what is smaller is a number without a bar


class ClassBars:
    """A bar and a number for each class on ``axes`` (changed in place), the first class on top.

    ``update`` sets lengths, words and colours; the longest bar gets another colour than the rest.
    A triangle marks 1/C, where all classes are alike.
    """

    def __init__(self, axes: Axes, class_names: Sequence[str], *, logarithmic: bool) -> None:
        classes = len(class_names)
        self.start = SMALLEST if logarithmic else 0.0  # a bar on a logarithmic axis cannot begin at 0
        self.words = power_of_ten if logarithmic else percent
        self.bars = list(axes.barh(np.arange(classes), np.zeros(classes), left=self.start, height=0.72))
        self.numbers = _numbers_beside(axes, classes, self.start)
        axes.set_yticks(np.arange(classes), class_names)
        axes.set_ylim(classes - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(False)  # the numbers stand beside the bars, and no line should cross them
        axes.tick_params(axis="x", labelsize=9.5)
        _logarithmic_scale(axes) if logarithmic else _linear_scale(axes)
        # A mark on the upper edge, not a line through the numbers.
        upper_edge = axes.get_xaxis_transform()
        axes.plot([1 / classes], [1.025], marker="v", markersize=5, color="0.3", transform=upper_edge, clip_on=False)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [*self.bars, *self.numbers]

    def update(self, probabilities: Sequence[float]) -> None:
        """Show other ``probabilities``, one for each class, from 0 to 1."""
        likeliest = max(range(len(probabilities)), key=probabilities.__getitem__)
        for i, probability in enumerate(probabilities):
            self.bars[i].set_width(max(0.0, probability - self.start))
            self.bars[i].set_facecolor(COLORS["vermillion" if i == likeliest else "blue"])
            self.numbers[i].set_x(max(self.start, probability))
            self.numbers[i].set_text(self.words(probability))


def percent(probability: float) -> str:
    """``0.1234`` -> ``12.34 %``; never ``0.00 %`` or ``100.00 %`` for what is not."""
    if 0 < probability < 5e-5:
        return "<0.01 %"
    if 1 - 5e-5 < probability < 1:
        return ">99.99 %"
    return f"{100 * probability:.2f} %"


def power_of_ten(probability: float) -> str:
    """``1.2e-05`` -> ``1.2·10⁻⁵``; from a thousandth on as a decimal, ``0.012``."""
    if probability >= 1e-3 or probability == 0:
        return f"{probability:.3f}" if probability else "0"
    digits, exponent = f"{probability:.1e}".split("e")
    return f"{digits}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _numbers_beside(axes: Axes, classes: int, start: float) -> list[Artist]:
    """A text for each bar, 4 points to the right of its end."""
    beside = axes.transData + ScaledTranslation(4 / 72, 0, axes.get_figure(root=True).dpi_scale_trans)
    return [axes.text(start, place, "", transform=beside, va="center", fontsize=9) for place in range(classes)]


def _linear_scale(axes: Axes) -> None:
    axes.set_xlim(0, 1.26)  # room for the number beside a bar of length 1
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


def _logarithmic_scale(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(SMALLEST, 60)
    axes.set_xticks([1e-8, 1e-6, 1e-4, 1e-2, 1], ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "1"])
    axes.xaxis.minorticks_off()
