"""Rounds: what iterative pruning leaves, round by round, and which inputs the network still looks at.

Frankle and Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv 1803.03635), section 2: train, prune a share of the
weights that are left, put the others back to where they began, and so on. The masks of such a run (``pruning.lottery``)
are drawn here, whatever made them.

In the layer that reads the picture, the weights that are left are counted for each pixel: so many units still look
there. Nobody told the network which pixels are empty in all pictures.

``rounds_figure`` is the drawing, and needs no kernel and no widget. ``rounds_widget`` is a thin shell over it: a slider
over the rounds, an image, and a sentence that says the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np

from course_lib.plots import draw_picture, style
from course_lib.pruning.masks import Masks, check_masks, sparsity_of
from course_lib.widgets.figure import LiveFigure, figure_image, new_figure, show
from course_lib.widgets.mask_pictures import MOST_LAYERS
from course_lib.widgets.round_panels import DASHES, DensityBars, PixelCounts, RoundLines

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from torch import Tensor

WIDTH, HEAD, FOOT = 8.6, 0.76, 0.62  # inches: the figure, and what is over and under its panels
LEFT, PICTURE, BARS = 0.1, 1.6, 1.75  # inches: where the first picture begins, and the widths of the first panels
GAPS = 0.2, 0.4, 0.72  # inches: between the pictures, before the bars, before the lines
BETWEEN, TALLEST = 0.85, 2.4  # inches: between two panels of lines, one over the other, and the height of one


@dataclass(frozen=True)
class MaskRounds:
    """The masks of all rounds and what was measured in each, checked.

    Args:
        masks: an entry for each round, the dense network first: parameter name -> bool tensor, true is kept.
        picture_shape: (H, W) or (C, H, W), what the first layer reads.
        layer: the name of the mask (units, C · H · W) that reads it; the first one, if none is named.
        accuracies: a share for each round by name, such as "ticket", "re-initialised", "random mask"; nan where nothing
            was measured. Up to four names.
        steps: the same for the step of the early stop.
        picture: (H, W), (1, H, W) or (3, H, W) from 0 to 1, drawn beside the counts: the mean of the pictures, say.
        caption: the title of that picture.

    Raises:
        TypeError: a mask is not of bools.
        ValueError: these do not fit together.
    """

    masks: Sequence[Masks]
    picture_shape: Sequence[int]
    layer: str | None = None
    accuracies: Mapping[str, Sequence[float]] = field(default_factory=dict)
    steps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    picture: Tensor | None = None
    caption: str = "Mean picture"

    def __post_init__(self) -> None:
        _check_rounds(self.masks)
        if self.layer is not None and self.layer not in self.masks[0]:
            raise ValueError(f"layer is {self.layer!r}; expected one of {list(self.masks[0])}")
        if len(self.picture_shape) not in (2, 3):
            raise ValueError(f"picture_shape is {tuple(self.picture_shape)}; expected (H, W) or (C, H, W)")
        shape, inputs = tuple(self.masks[0][self.first].shape), math.prod(self.picture_shape)
        if len(shape) != 2 or shape[1] != inputs:
            raise ValueError(f"the mask of {self.first} has shape {shape}; expected (units, {inputs}), one per pixel")
        _check_lines("accuracies", self.accuracies, len(self.masks), most=1.0)
        _check_lines("steps", self.steps, len(self.masks), most=math.inf)

    @property
    def first(self) -> str:
        """The name of the mask of the layer that reads the picture."""
        return next(iter(self.masks[0])) if self.layer is None else self.layer

    @property
    def densities(self) -> list[float]:
        """The share of all weights that is left, for each round."""
        return [1 - sparsity_of(masks) for masks in self.masks]

    @property
    def measured(self) -> list[tuple[str, Mapping[str, Sequence[float]]]]:
        """A title and lines for each panel of lines that there is."""
        both = (("Accuracy, in %", self.accuracies), ("Early stop, step", self.steps))
        return [(title, lines) for title, lines in both if lines]

    def pixel_counts(self, number: int) -> Tensor:
        """How many weights each pixel has left in a round: (H, W)."""
        self.check(number)
        counts = self.masks[number][self.first].cpu().sum(dim=0)  # (units, C · H · W) -> (C · H · W,)
        return counts.view(-1, *self.picture_shape[-2:]).sum(dim=0)  # (C, H, W) -> (H, W)

    def check(self, number: int) -> None:
        """Raise ValueError if there is no round of that number."""
        if number not in range(len(self.masks)):
            raise ValueError(f"round is {number!r}; expected 0 to {len(self.masks) - 1}")


def describe(rounds: MaskRounds, number: int) -> str:
    """A few sentences on one round: the weights and the pixels that are left, and what was measured."""
    masks, counts = rounds.masks[number], rounds.pixel_counts(number)
    count = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    sentences = [
        f"Round {number}: {kept:,} of {count:,} weights are left, {_percent(kept / count)}.",
        f"{int((counts == 0).sum())} of {counts.numel()} pixels have none.",
    ]
    for title, lines, words in (
        ("Accuracy", rounds.accuracies, _percent),
        ("Early stop at step", rounds.steps, "{:,.0f}".format),
    ):
        values = [f"{name} {words(line[number])}" for name, line in lines.items() if not math.isnan(line[number])]
        sentences += [f"{title}: {', '.join(values)}."] if values else []
    return " ".join(sentences)


class RoundsArtists:
    """The artists of one drawing, and the way to change them in place. Made by ``draw_rounds``."""

    def __init__(self, figure: Figure | SubFigure, rounds: MaskRounds) -> None:
        self.rounds = rounds
        width, height = figure_size(rounds)
        body, left = height - HEAD - FOOT, LEFT

        def axes_at(left: float, wide: float, tall: float, down: float = 0.0) -> Axes:
            place = (left / width, (FOOT + body - down - tall) / height, wide / width, tall / height)
            return figure.add_axes(place)

        scale = axes_at(left, PICTURE, 0.09, PICTURE + 0.12)
        self.counts = PixelCounts(axes_at(left, PICTURE, PICTURE), scale, tuple(rounds.picture_shape[-2:]))
        left += PICTURE + GAPS[0]
        if rounds.picture is not None:
            axes = axes_at(left, PICTURE, PICTURE)
            draw_picture(axes, rounds.picture)
            axes.set_title(rounds.caption, fontsize=11, fontweight="bold", loc="left")
            left += PICTURE + GAPS[0]
        left += GAPS[1] - GAPS[0]
        layers = {name: mask.numel() for name, mask in rounds.masks[0].items()}
        self.densities = DensityBars(axes_at(left, BARS, _bars_height(len(layers))), layers)
        left += BARS + GAPS[2]
        self.lines = []
        tall = min(TALLEST, (body + BETWEEN) / max(1, len(rounds.measured)) - BETWEEN)
        for index, (title, lines) in enumerate(rounds.measured):
            axes = axes_at(left, width - left - 0.12, tall, index * (tall + BETWEEN))
            shares = lines is rounds.accuracies
            corner = "lower left" if shares else "upper left"  # accuracies fall, steps rise
            look = {"shares": shares, "named_at": None if index else corner}
            self.lines.append(RoundLines(axes, lines, rounds.densities, title, **look))
        self.heading = figure.text(LEFT / width, 1 - 0.25 / height, "", fontsize=14, fontweight="bold", va="center")
        self.finding = figure.text(0.17, 1 - 0.25 / height, "", fontsize=12, va="center")

    @property
    def moving(self) -> list[Artist]:
        """All that ``update`` changes, in the order in which it is drawn."""
        lines = [artist for panel in self.lines for artist in panel.moving]
        return [*self.counts.moving, *self.densities.moving, *lines, self.heading, self.finding]

    def update(self, number: int) -> None:
        """Show another round: same artists, new colours, lengths, points and words."""
        counts = self.rounds.pixel_counts(number)
        self.counts.update(counts)
        self.densities.update(self.rounds.masks[number])
        for panel in self.lines:
            panel.update(number)
        density, empty = _percent(self.rounds.densities[number]), int((counts == 0).sum())
        self.heading.set_text(f"Round {number}")
        self.finding.set_text(f"{density} of the weights are left; {empty} of {counts.numel()} pixels have none")


def draw_rounds(figure: Figure | SubFigure, rounds: MaskRounds, number: int) -> RoundsArtists:
    """Draw round ``number`` on ``figure``, which has ``figure_size``; returns its artists.

    Raises ValueError if there is no such round.
    """
    rounds.check(number)
    with style():
        artists = RoundsArtists(figure, rounds)
    artists.update(number)
    return artists


def rounds_figure(rounds: MaskRounds, numbers: int | Sequence[int]) -> LiveFigure:
    """A figure of some of the rounds, one row for each of ``numbers``.

    Several, such as ``(0, 5, 10)``, say what the widget says where no kernel runs. As the last value of a cell it is
    displayed. Raises ValueError if there is no such round, or no number at all.
    """
    rows = [int(number) for number in np.atleast_1d(numbers)]
    if not rows:
        raise ValueError("numbers is empty; expected the number of at least one round, such as (0, 5, 10)")
    width, height = figure_size(rounds)
    figure = new_figure(width, height * len(rows))
    panels = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    moving = [
        artist for panel, row in zip(panels, rows, strict=True) for artist in draw_rounds(panel, rounds, row).moving
    ]
    return LiveFigure(figure, moving, " ".join(describe(rounds, row) for row in rows))


def rounds_widget(rounds: MaskRounds, *, number: int = 0) -> ipywidgets.VBox:
    """A slider over the rounds, starting at ``number``, and the drawing of ``draw_rounds``, redrawn at every move.

    The children of the box are the slider, the image and the sentence. Raises ValueError if there is no such round.
    """
    figure = new_figure(*figure_size(rounds))
    artists = draw_rounds(figure, rounds, number)
    live = LiveFigure(figure, artists.moving, describe(rounds, number))
    options = [(f"{i} of {len(rounds.masks) - 1}", i) for i in range(len(rounds.masks))]
    slider = ipywidgets.SelectionSlider(
        options=options,
        value=number,
        description="round",
        layout=ipywidgets.Layout(width="100%", max_width="560px"),
        style={"description_width": "110px"},
    )
    image, sentence = figure_image(live), ipywidgets.HTML(value=escape(live.description))

    def redraw(_: dict) -> None:
        artists.update(slider.value)
        live.description = describe(rounds, slider.value)
        show(live, image)
        sentence.value = escape(live.description)

    slider.observe(redraw, names="value")
    return ipywidgets.VBox([slider, image, sentence])


def figure_size(rounds: MaskRounds) -> tuple[float, float]:
    """Width and height in inches of one drawing."""
    lines = len(rounds.measured) * (1.15 + BETWEEN) - BETWEEN if rounds.measured else 0.0
    return WIDTH, HEAD + FOOT + max(PICTURE + 0.1, lines, _bars_height(len(rounds.masks[0])))


def _bars_height(layers: int) -> float:
    return 0.48 * layers


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _check_rounds(masks: Sequence[Masks]) -> None:
    if isinstance(masks, Mapping) or not len(masks):
        raise ValueError("masks are not understood; expected a list with the masks of each round, one or more")
    shapes = {name: mask.shape for name, mask in masks[0].items()}
    for number, each in enumerate(masks):
        check_masks(each, shapes, "masks of round 0")
        if missing := [name for name in shapes if name not in each]:
            raise ValueError(f"round {number} has no mask for {missing[0]}; expected one, as in round 0")
    if len(shapes) > MOST_LAYERS:
        raise ValueError(f"masks are of {len(shapes)} layers; expected 1 to {MOST_LAYERS}, since each gets a bar")


def _check_lines(name: str, lines: Mapping[str, Sequence[float]], rounds: int, *, most: float) -> None:
    if len(lines) > len(DASHES):
        raise ValueError(f"{name} has {len(lines)} lines; expected up to {len(DASHES)}")
    for key, line in lines.items():
        if len(line) != rounds:
            raise ValueError(f"{name} of {key!r} has {len(line)} numbers; expected {rounds}, one for each round")
        if wrong := [value for value in line if value < 0 or value > most or math.isinf(value)]:
            expected = "shares from 0 to 1" if most == 1 else "finite numbers from 0"
            raise ValueError(f"{name} of {key!r} holds {wrong[0]}; expected {expected}, or nan for none")
