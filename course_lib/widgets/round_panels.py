"""The panels of the rounds widget, changed in place: weights left per pixel, density per layer, lines over rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from course_lib.plots import COLORS
from course_lib.widgets.mask_pictures import short_name

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from torch import Tensor

DASHES = (("blue", "-", "o"), ("vermillion", "--", "s"), ("green", "-.", "^"), ("purple", ":", "D"))
MOST_TICKS = 5  # densities under the lines


class PixelCounts:
    """A picture of how many weights each pixel has left, and its scale (changed in place).

    White is none, dark blue is the most of any pixel in this round.
    """

    def __init__(self, axes: Axes, scale: Axes, shape: tuple[int, int]) -> None:
        # Darker is more; both ends and all between differ in brightness, for every eye.
        colors = matplotlib.colormaps["cividis_r"].with_extremes(bad="white")
        self.picture = axes.imshow(np.zeros(shape), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title("Weights per pixel", fontsize=11)
        steps = np.linspace(0, 1, 64)
        scale.imshow(np.ma.masked_less(steps[None], 0.05), cmap=colors, vmin=0, vmax=1, aspect="auto")
        scale.set(xticks=[], yticks=[])
        for each in (axes, scale):
            each.grid(False)
            each.spines[:].set(visible=True, color="0.6", linewidth=0.8)
        scale.text(0, -0.5, "0", transform=scale.transAxes, va="top", fontsize=9)
        self.most = scale.text(1, -0.5, "", transform=scale.transAxes, va="top", ha="right", fontsize=9)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [self.picture, self.most]

    def update(self, counts: Tensor) -> None:
        """Show other ``counts`` (H, W), whole numbers from 0."""
        most = max(int(counts.max()), 1)
        self.picture.set_data(np.ma.masked_equal(counts.numpy() / most, 0))
        self.most.set_text(f"{most:,}")


class DensityBars:
    """For each layer the share of its weights that is left: a bar, its name, a number (changed in place)."""

    def __init__(self, axes: Axes, layers: Mapping[str, int]) -> None:
        rows = range(len(layers))
        axes.barh(rows, [1.0] * len(layers), height=0.36, color="0.92")
        self.bars = dict(zip(layers, axes.barh(rows, [0.0] * len(layers), height=0.36), strict=True))
        self.numbers = {}
        for row, name in enumerate(layers):
            axes.text(0, row - 0.26, short_name(name), fontsize=8.5, fontweight="bold", va="bottom")
            self.numbers[name] = axes.text(1, row - 0.26, "", fontsize=8.5, va="bottom", ha="right")
            self.bars[name].set_facecolor(COLORS["blue"])
        axes.set(xlim=(0, 1), ylim=(len(layers) - 0.75, -0.75))
        axes.set_axis_off()
        axes.set_title("Share left per layer", fontsize=11)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [*self.bars.values(), *self.numbers.values()]

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Show other ``masks``, bool tensors, true where kept."""
        for name, bar in self.bars.items():
            share = int(masks[name].sum()) / masks[name].numel()
            bar.set_width(share)
            self.numbers[name].set_text(f"{100 * share:.1f} %")


class RoundLines:
    """Lines over the rounds, drawn as far as the present one (changed in place).

    ``lines`` has a number for each round by name, nan for none: ``shares``, or plain numbers. ``densities`` are written
    under the rounds. The names stand ``named_at`` a corner, if at all.
    """

    def __init__(
        self,
        axes: Axes,
        lines: Mapping[str, Sequence[float]],
        densities: Sequence[float],
        title: str,
        *,
        shares: bool,
        named_at: str | None,
    ) -> None:
        self.values = {name: np.asarray(line, dtype=float) for name, line in lines.items()}
        self.lines = {}
        for name, (color, dashes, marker) in zip(lines, DASHES, strict=False):
            look = {"color": COLORS[color], "linestyle": dashes, "marker": marker, "markersize": 4}
            (self.lines[name],) = axes.plot([], [], label=name, **look)
        finite = np.concatenate([line[np.isfinite(line)] for line in self.values.values()])
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        room = (high - low or abs(high) or 1.0) / 8
        axes.set(xlim=(-0.3, len(densities) - 0.7), ylim=(low - room, high + room))
        axes.set_title(title, fontsize=11)
        step = math.ceil(len(densities) / MOST_TICKS)
        ticks = range(0, len(densities), step)
        axes.set_xticks(ticks, [short_percent(densities[tick]) for tick in ticks], fontsize=9)
        axes.set_xlabel("weights left, in %", fontsize=9)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if shares:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.tick_params(axis="y", labelsize=9)
        if named_at is not None:
            axes.legend(loc=named_at, fontsize=8.5, handlelength=2.4, borderpad=0.2, labelspacing=0.3)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return list(self.lines.values())

    def update(self, number: int) -> None:
        """Show the rounds up to ``number``."""
        for name, line in self.lines.items():
            values = self.values[name][: number + 1]
            rounds = np.flatnonzero(np.isfinite(values))  # a round without a number is bridged
            line.set_data(rounds, values[rounds])


def short_percent(share: float) -> str:
    """``0.512`` -> ``51``, ``0.0688`` -> ``6.9``, ``0.00482`` -> ``0.48``: short enough for a tick."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 9.95 else f"{percent:.1f}" if percent >= 0.995 else f"{percent:.2g}"
