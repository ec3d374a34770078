"""Temperature: what a network tells a student about one picture, and how T brings it to light.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), equation 1:

    q_i = exp(z_i / T) / sum_j exp(z_j / T)

z are the ``logits``, T is the ``temperature``, q the softened distribution. Its entropy is

    H(q) = -sum_i q_i log2 q_i   bits, from 0 (certain) to log2 C (all C classes alike).

``temperature_figure`` is the drawing, and needs no kernel and no widget. ``temperature_widget`` is a thin
shell over it: a slider for T, one for the picture, an image, and a sentence that says the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import torch

from course_lib.distillation.hinton import soften
from course_lib.plots import COLORS, draw_picture, style
from course_lib.widgets.bars import ClassBars, percent
from course_lib.widgets.figure import LiveFigure, figure_image, new_figure, show

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from torch import Tensor

# Round numbers, about evenly spaced on a logarithmic scale. The paper's 1, 2, 2.5, 4, 5, 8, 10, 20 are among them.
TEMPERATURES = (
    *(0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0),
    *(12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0),
)
MOST_CLASSES = 30  # more bars than this cannot be read
LEFT, BARS = 0.012, 0.265  # where the picture and the first bars begin, as shares of the figure's width


def entropy_bits(probabilities: Tensor) -> Tensor:
    """Entropy in bits over the last dimension: ``(..., C)`` -> ``(...)``. A probability of 0 adds nothing."""
    return torch.special.entr(probabilities).sum(dim=-1) / math.log(2)


def describe(probabilities: Tensor, temperature: float, class_names: Sequence[str]) -> str:
    """One sentence on ``probabilities`` ``(C,)``: the three likeliest classes and the entropy."""
    order = probabilities.argsort(descending=True, stable=True)[:3].tolist()
    parts = [f"“{class_names[i]}” {percent(float(probabilities[i]))}" for i in order]
    entropy, most = float(entropy_bits(probabilities)), math.log2(len(class_names))
    return f"T = {temperature:g}: {', '.join(parts)}. Entropy {entropy:.2f} of at most {most:.2f} bits."


class TemperatureArtists:
    """The artists of one drawing, and the way to change them in place. Made by ``draw_temperature``."""

    def __init__(self, figure: Figure | SubFigure, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.picture_axes, entropy_axes, linear_axes, log_axes = _axes(figure, len(self.class_names))
        self.linear = ClassBars(linear_axes, self.class_names, logarithmic=False)
        self.logarithmic = ClassBars(log_axes, self.class_names, logarithmic=True)
        log_axes.tick_params(axis="y", labelleft=False)  # the names stand beside the first bars
        self.entropy_bar, self.entropy_text = _entropy_gauge(entropy_axes, math.log2(len(self.class_names)))
        self.heading = figure.text(LEFT, 0.95, "", fontsize=14, fontweight="bold", va="center")
        self.finding = figure.text(BARS, 0.95, "", fontsize=12, va="center")

    @property
    def moving(self) -> list[Artist]:
        """All that ``update`` changes, in the order in which it is drawn."""
        texts = [self.entropy_text, self.heading, self.finding]
        return [*self.linear.moving, *self.logarithmic.moving, self.entropy_bar, *texts]

    def update(self, probabilities: Tensor, temperature: float) -> None:
        """Show other ``probabilities`` ``(C,)``, those at ``temperature``: same artists, new lengths and words."""
        values = probabilities.tolist()
        self.linear.update(values)
        self.logarithmic.update(values)
        entropy = float(entropy_bits(probabilities))
        self.entropy_bar.set_width(entropy)
        self.entropy_text.set_text(f"entropy {entropy:.2f} bits")
        likeliest = values.index(max(values))
        others = percent(sum(values[:likeliest] + values[likeliest + 1 :]))
        name = self.class_names[likeliest]
        self.heading.set_text(f"T = {temperature:g}")
        self.finding.set_text(f"{others} of the probability is on classes other than “{name}”")

    def update_picture(self, picture: Tensor | None, caption: str = "") -> None:
        """Show another ``picture`` (``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, from 0 to 1), or none."""
        self.picture_axes.clear()
        self.picture_axes.set_axis_off()
        if picture is not None:
            draw_picture(self.picture_axes, torch.as_tensor(picture), caption)


def draw_temperature(
    figure: Figure | SubFigure,
    logits: Tensor,
    temperature: float,
    class_names: Sequence[str],
    *,
    picture: Tensor | None = None,
    caption: str = "",
) -> TemperatureArtists:
    """Draw the softened distribution of ``logits`` ``(C,)`` on ``figure`` (changed in place); returns its artists.

    ``picture`` is ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)`` with values from 0 to 1; ``caption`` goes over it.
    Raises ValueError for a temperature that is not above 0 and finite, for logits that are not finite or not
    ``(C,)``, for a picture of another shape, and where ``class_names`` are not C different names, C from 2 to 30.
    """
    logits = torch.as_tensor(logits)
    if logits.ndim != 1:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (C,), the logits of one picture")
    _check_names(class_names, len(logits))
    probabilities = _soften(logits, temperature)
    with style():
        artists = TemperatureArtists(figure, class_names)
        artists.update_picture(picture, caption)
    artists.update(probabilities, temperature)
    return artists


def temperature_figure(
    logits: Tensor,
    temperatures: float | Sequence[float],
    class_names: Sequence[str],
    *,
    picture: Tensor | None = None,
    caption: str = "",
) -> LiveFigure:
    """A figure of one picture's softened distribution, one row for each of ``temperatures``.

    Several, such as ``(1, 4, 20)``, say what the widget says where no kernel runs. As the last value of a cell
    it is displayed. Shapes and errors as in ``draw_temperature``; no temperature at all is a ValueError too.
    """
    rows = [float(t) for t in np.atleast_1d(temperatures)]
    if not rows:
        raise ValueError("temperatures is empty; expected at least one, such as (1, 4, 20)")
    _check_names(class_names, len(class_names))
    figure = new_figure(*_size(len(rows), len(class_names)))
    panels = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    moving, sentences = [], []
    for panel, t in zip(panels, rows, strict=True):
        artists = draw_temperature(panel, logits, t, class_names, picture=picture, caption=caption)
        moving += artists.moving
        sentences.append(describe(_soften(torch.as_tensor(logits), t), t, class_names))
    return LiveFigure(figure, moving, " ".join(sentences))


def temperature_widget(
    logits: Tensor,
    pictures: Tensor,
    class_names: Sequence[str],
    *,
    labels: Sequence[int] | None = None,
    temperature: float = 1.0,
    temperatures: Sequence[float] = TEMPERATURES,
) -> ipywidgets.VBox:
    """A slider over T, a choice of pictures, and the drawing of ``draw_temperature``, redrawn at every move.

    ``logits`` is ``(N, C)``, a row for each of ``pictures``: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``,
    from 0 to 1. ``labels`` are the N true classes, if known. The slider starts at ``temperature``, which is one of
    ``temperatures``. The children of the box are the slider, the choice, the image and the sentence.
    Raises ValueError as ``draw_temperature`` does, and where the numbers of rows, pictures and labels differ.
    """
    logits, pictures = torch.as_tensor(logits), torch.as_tensor(pictures)
    captions = _captions(logits, pictures, labels, class_names)
    if temperature not in temperatures:
        raise ValueError(f"temperature is {temperature!r}; expected one of temperatures: {list(temperatures)}")
    softened = {t: _soften(logits, t) for t in temperatures}  # each (N, C); a bad T fails here, not at a move

    figure, first = new_figure(*_size(1, len(class_names))), {"picture": pictures[0], "caption": captions[0]}
    artists = draw_temperature(figure, logits[0], temperature, class_names, **first)
    live = LiveFigure(figure, artists.moving, describe(softened[temperature][0], temperature, class_names))
    box = _controls(live, temperature, temperatures, len(pictures))
    slider, choice, image, sentence = box.children

    def redraw(change: dict) -> None:
        probabilities = softened[slider.value][choice.value]
        if change["owner"] is choice:
            with style():
                artists.update_picture(pictures[choice.value], captions[choice.value])
            live.redraw_all()
        artists.update(probabilities, slider.value)
        live.description = describe(probabilities, slider.value, class_names)
        show(live, image)
        sentence.value = escape(live.description)

    slider.observe(redraw, names="value")
    choice.observe(redraw, names="value")
    return box


def _controls(live: LiveFigure, temperature: float, temperatures: Sequence[float], pictures: int) -> ipywidgets.VBox:
    """The slider, the choice, the image and the sentence, not yet connected.

    Both controls are sliders: the left and right arrow keys move them. JupyterLab keeps the keys of a drop-down list
    for itself, and the next cell would be selected instead of the next picture.
    """
    wide = ipywidgets.Layout(width="100%", max_width="560px")
    style = {"description_width": "110px"}
    numbers = [(f"{t:g}", t) for t in temperatures]
    names = [(f"{i + 1} of {pictures}", i) for i in range(pictures)]
    slider, choice = (
        ipywidgets.SelectionSlider(options=options, value=value, description=words, layout=wide, style=style)
        for options, value, words in ((numbers, temperature, "temperature T"), (names, 0, "picture"))
    )
    sentence = ipywidgets.HTML(value=escape(live.description))
    return ipywidgets.VBox([slider, choice, figure_image(live), sentence])


def _soften(logits: Tensor, temperature: float) -> Tensor:
    """``soften`` in float64 on the CPU, so that what is drawn is exact. ``(..., C)`` -> ``(..., C)``."""
    if not torch.isfinite(logits).all():
        raise ValueError("logits contain a value that is not finite; expected finite numbers only")
    return soften(logits.detach().to("cpu", torch.float64), temperature)


def _check_names(names: Sequence[str], classes: int) -> None:
    if not 2 <= classes <= MOST_CLASSES:
        raise ValueError(f"there are {classes} classes; expected 2 to {MOST_CLASSES}, since each gets a bar")
    if isinstance(names, str) or len(names) != classes or len(set(names)) != classes:
        raise ValueError(f"class_names is {names!r}; expected {classes} different names, one for each logit")


def _captions(logits: Tensor, pictures: Tensor, labels: Sequence[int] | None, class_names: Sequence[str]) -> list[str]:
    """The words over each picture, after checking that there is one of everything for each row of ``logits``."""
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, C) with at least one row")
    rows, classes = logits.shape
    _check_names(class_names, classes)
    numbers = [None] * rows if labels is None else [int(label) for label in labels]
    for name, count in (("pictures", len(pictures)), ("labels", len(numbers))):
        if count != rows:
            raise ValueError(f"there are {count} {name} for {rows} rows of logits; expected as many")
    for number in numbers:
        if number is not None and not 0 <= number < classes:
            raise ValueError(f"labels contain {number}; expected classes from 0 to {classes - 1}")
    return ["" if number is None else f"labelled {class_names[number]}" for number in numbers]


def _size(rows: int, classes: int) -> tuple[float, float]:
    """Width and height in inches of so many rows, each with a bar for every class."""
    return 8.6, rows * max(2.8, 1.2 + 0.21 * classes)


def _axes(figure: Figure | SubFigure, classes: int) -> tuple[Axes, Axes, Axes, Axes]:
    """Places for the picture, the entropy, and the bars on two scales: ``(left, bottom, width, height)``."""
    picture = figure.add_axes((LEFT, 0.36, 0.15, 0.40))
    entropy = figure.add_axes((LEFT, 0.19, 0.15, 0.05))
    linear = figure.add_axes((BARS, 0.19, 0.33, 0.60))
    linear.set_title("Probability", fontsize=11, pad=11)
    linear.set_xlabel(f"▼ all {classes} classes alike", fontsize=9)
    logarithmic = figure.add_axes((0.635, 0.19, 0.35, 0.60))
    logarithmic.set_title("The same on a logarithmic scale", fontsize=11, pad=11)
    logarithmic.set_xlabel(f"▼ 1/{classes}", fontsize=9)
    return picture, entropy, linear, logarithmic


def _entropy_gauge(axes: Axes, most: float) -> tuple[Artist, Artist]:
    """A bar from 0 to the most bits that are possible, and the text over it."""
    (bar,) = axes.barh([0], [0], height=1, color=COLORS["green"])
    axes.set(xlim=(0, most), ylim=(-0.5, 0.5), yticks=[], facecolor="0.92")
    axes.set_xticks([0, most], ["0", f"{most:.2f}"])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    return bar, axes.text(0, 1.4, "", transform=axes.transAxes, fontsize=10)
