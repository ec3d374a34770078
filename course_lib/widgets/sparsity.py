"""Sparsity: which weights go, what the network still knows without them, and what is saved.

Unstructured pruning at one stroke: of N weights the ``round(sparsity · N)`` with the lowest scores become zero, of the
whole network together (scope ``global``) or of each layer (``local``); nothing is trained afterwards. With the scope
``2:4`` two of every four neighbours go, always half (Mishra et al. 2021, arXiv 2104.08378).

``sparsity_figure`` is the drawing, and needs no kernel and no widget. ``sparsity_widget`` is a thin shell over it:
sliders for sparsity, criterion and scope, an image, and a sentence that says the same in words. What they show is
computed in ``trials.py``. The model is copied, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from course_lib.plots import COLORS, style
from course_lib.table import show_bytes
from course_lib.widgets.figure import LiveFigure, figure_image, new_figure, show
from course_lib.widgets.mask_pictures import MOST_LAYERS, MaskPictures, height_needed
from course_lib.widgets.trials import GLOBAL, SPARSITIES, TWO_OF_FOUR, Outcome, Trials

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from course_lib.pruning.masks import Scores

WIDTH, HEAD, FOOT = 8.6, 0.76, 0.62  # inches: the figure, and what is over and under its three panels
LEFT, PICTURES = 0.1, 1.95  # inches: where the pictures begin, and how wide they are
CURVES, BYTES = (3.78, 2.0), (6.42, 2.08)  # inches: left edge and width of the two panels
TALLEST = 2.4  # inches: these two beside many pictures
LAYOUT_WORDS = {"dense": "dense", "coo": "COO", "csr": "CSR", "2:4": "2:4"}
LINES = (("blue", "-"), ("vermillion", "--"), ("green", "-."), ("purple", ":"), ("orange", (0, (5, 1, 1, 1, 1, 1))))


def describe(outcome: Outcome) -> str:
    """Two or three sentences on ``outcome``: what is left of the weights and of the accuracy, and the bytes."""
    count = sum(mask.numel() for mask in outcome.masks.values())
    kept = sum(int(mask.sum()) for mask in outcome.masks.values())
    sizes = ", ".join(f"{LAYOUT_WORDS[layout]} {show_bytes(size)}" for layout, size in outcome.bytes.items())
    fits = TWO_OF_FOUR in outcome.bytes
    other = "" if fits else " The layout 2:4 does not fit: it stores 2 of every 4 neighbours, always 50 %."
    return (
        f"Sparsity {_percent(outcome.sparsity)}, {outcome.criterion}, {outcome.scope}: {kept:,} of {count:,} weights "
        f"are kept. Accuracy {_percent(outcome.accuracy)}, with all weights {_percent(outcome.full_accuracy)}. "
        f"Size: {sizes}.{other}"
    )


class SparsityArtists:
    """The artists of one drawing, and the way to change them in place. Made by ``draw_sparsity``."""

    def __init__(self, figure: Figure | SubFigure, trials: Trials) -> None:
        self.trials = trials
        width, height = size = figure_size(len(trials.shapes))
        body = height - HEAD - FOOT
        self.pictures = MaskPictures(figure, trials.shapes, size=size, box=(LEFT, FOOT, PICTURES, body))
        figure.text(LEFT / width, 1 - 0.64 / height, "Weights kept", fontsize=11, fontweight="bold", va="center")
        tall = min(body, TALLEST)
        curves, sizes = (
            figure.add_axes((left / width, (FOOT + body - tall) / height, wide / width, tall / height))
            for left, wide in (CURVES, BYTES)
        )
        self.curves = AccuracyCurves(curves, tuple(trials.scores))
        self.sizes = ByteBars(sizes, trials.bytes_before)
        self.heading = figure.text(LEFT / width, 1 - 0.25 / height, "", fontsize=14, fontweight="bold", va="center")
        self.finding = figure.text(0.265, 1 - 0.25 / height, "", fontsize=12, va="center")

    @property
    def moving(self) -> list[Artist]:
        """All that ``update`` changes, in the order in which it is drawn."""
        return [*self.pictures.moving, *self.curves.moving, *self.sizes.moving, self.heading, self.finding]

    def update(self, outcome: Outcome) -> None:
        """Show another ``outcome``: same artists, new pictures, points and words."""
        self.pictures.update(outcome.masks)
        points = {name: self.trials.curve(name, outcome.scope) for name in self.trials.scores}
        self.curves.update(points, outcome.criterion, outcome.sparsity, outcome.accuracy)
        self.sizes.update(outcome.bytes)
        self.heading.set_text(f"Sparsity {_percent(outcome.sparsity)}")
        accuracy, full = _percent(outcome.accuracy), _percent(outcome.full_accuracy)
        how = f"{outcome.criterion}, {outcome.scope}"
        self.finding.set_text(f"{how}: accuracy {accuracy}, with all weights {full}")


class AccuracyCurves:
    """Accuracy over sparsity, a line for each criterion, and a dot where the slider is (changed in place)."""

    def __init__(self, axes: Axes, criteria: Sequence[str]) -> None:
        self.lines = {}
        for name, (color, dashes) in zip(criteria, LINES, strict=False):
            (self.lines[name],) = axes.plot([], [], color=COLORS[color], linestyle=dashes, label=name)
        (self.dot,) = axes.plot([0], [0], marker="o", markersize=8, markeredgecolor="black")
        axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.03))
        axes.set_title("Accuracy, in %", fontsize=11)
        axes.set_xlabel("sparsity, in %", fontsize=9)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(ticks, [f"{100 * tick:g}" for tick in ticks], fontsize=9)
        self.legend = axes.legend(loc="lower left", fontsize=8.5, handlelength=2.2, borderpad=0.2, labelspacing=0.3)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [*self.lines.values(), self.dot]

    def update(
        self, points: Mapping[str, tuple[Sequence[float], Sequence[float]]], criterion: str, x: float, y: float
    ) -> None:
        """Show other ``points``, sparsities and accuracies by criterion; a single point is a small square."""
        for name, line in self.lines.items():
            line.set_data(*points[name])
            line.set_marker("s" if len(points[name][0]) == 1 else "")
            line.set(linewidth=2.6 if name == criterion else 1.4, markersize=5)
        self.dot.set_data([x], [y])
        self.dot.set_color(self.lines[criterion].get_color())
        self.dot.set_markeredgecolor("black")


class ByteBars:
    """A bar for each layout, in multiples of the dense size, and its bytes beside it (changed in place).

    ``before`` are the bytes by layout with every weight kept: no bar gets longer. A layout that is not in ``before`` is
    not possible at all.
    """

    def __init__(self, axes: Axes, before: Mapping[str, int]) -> None:
        self.before = dict(before)
        possible = TWO_OF_FOUR in before
        self.why_not = "not 2 of every 4\n(always 50 %)" if possible else "not possible:\ninputs not in fours"
        longest, rows = max(before.values()) / before["dense"], range(len(LAYOUT_WORDS))
        self.bars = dict(zip(LAYOUT_WORDS, axes.barh(rows, [0.0] * len(rows), height=0.7), strict=True))
        self.numbers = {layout: axes.text(0, row, "", va="center", fontsize=9) for row, layout in enumerate(self.bars)}
        axes.set_yticks(rows, list(LAYOUT_WORDS.values()), fontsize=9)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.42 * longest))
        ticks = range(int(longest) + 1)
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.grid(False)
        axes.axvline(1, color="0.3", linewidth=1, linestyle=":")
        axes.set_title("Bytes", fontsize=11)
        axes.set_xlabel("× dense (indices: 8 bytes)", fontsize=9)

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [*self.bars.values(), *self.numbers.values()]

    def update(self, sizes: Mapping[str, int]) -> None:
        """Show other ``sizes`` in bytes by layout; one that is missing becomes an empty bar."""
        for layout, bar in self.bars.items():
            fits = layout in sizes
            ratio = sizes.get(layout, self.before.get(layout, 0)) / self.before["dense"]
            color = COLORS["green"] if ratio < 1 else COLORS["vermillion"] if ratio > 1 else "0.5"
            bar.set_width(ratio)
            bar.set(facecolor=color if fits else "white", edgecolor=color if fits else "0.6")
            bar.set_hatch("" if fits else "////")
            self.numbers[layout].set_x(max(ratio, 1) + 0.1)  # right of the line at 1
            self.numbers[layout].set_text(show_bytes(sizes[layout]) if fits else self.why_not)
            self.numbers[layout].set_color("black" if fits else "0.35")


def draw_sparsity(
    figure: Figure | SubFigure, trials: Trials, criterion: str, scope: str, sparsity: float
) -> SparsityArtists:
    """Draw one position of the controls on ``figure``, which has ``figure_size``; returns its artists.

    Raises ValueError for a criterion or a scope that ``trials`` does not have, and a sparsity outside [0, 1].
    """
    trials.check(criterion, scope)
    with style():
        artists = SparsityArtists(figure, trials)
    artists.update(trials.outcome(criterion, scope, sparsity))
    return artists


def sparsity_figure(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    scores: Mapping[str, Scores],
    choices: Sequence[tuple[str, str, float]],
    *,
    sparsities: Sequence[float] = SPARSITIES,
) -> LiveFigure:
    """A figure of ``model`` after pruning, one row for each of ``choices``: (criterion, scope, sparsity).

    Several, such as ``[("magnitude", "global", 0.5), ("magnitude", "global", 0.9)]``, say what the widget says where no
    kernel runs. As the last value of a cell it is displayed. Shapes and errors as in ``sparsity_widget``; no choice at
    all is a ValueError too.
    """
    trials = _trials(model, data, scores, sparsities)
    if isinstance(choices, str) or not choices or any(isinstance(c, str) or len(c) != 3 for c in choices):
        raise ValueError(f"choices are {choices!r}; expected [(criterion, scope, sparsity), ...], one or more")
    width, height = figure_size(len(trials.shapes))
    figure = new_figure(width, height * len(choices))
    panels = figure.subfigures(len(choices), 1, squeeze=False)[:, 0]
    moving, sentences = [], []
    for panel, (criterion, scope, sparsity) in zip(panels, choices, strict=True):
        moving += draw_sparsity(panel, trials, criterion, scope, sparsity).moving
        sentences.append(describe(trials.outcome(criterion, scope, sparsity)))
    return LiveFigure(figure, moving, " ".join(sentences))


def sparsity_widget(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    scores: Mapping[str, Scores],
    *,
    criterion: str | None = None,
    scope: str = GLOBAL,
    sparsity: float = 0.5,
    sparsities: Sequence[float] = SPARSITIES,
) -> ipywidgets.VBox:
    """Sliders for sparsity, criterion and scope, and the drawing of ``draw_sparsity``, redrawn at every move.

    ``model`` gives logits, and is left as it is: the widget works on a copy. ``data`` are (inputs, labels), what the
    accuracy is measured on. ``scores`` has one to five criteria, ``{"magnitude": magnitude(model), ...}``, each with a
    score for every weight of the same one to twelve layers. It starts at ``criterion`` (the first, if none is named),
    ``scope`` and ``sparsity``, which is one of ``sparsities``, the positions of the slider. Every position is measured
    here, once. The children of the box are the three sliders, the image and the sentence.
    Raises TypeError and ValueError as ``Trials`` does, and for a start that is no position of the controls.
    """
    trials = _trials(model, data, scores, sparsities)
    criterion = next(iter(scores)) if criterion is None else criterion
    if sparsity not in trials.sparsities:
        raise ValueError(f"sparsity is {sparsity!r}; expected one of sparsities: {list(trials.sparsities)}")
    trials.check(criterion, scope)
    for name in trials.scores:
        for each in trials.scopes:
            trials.curve(name, each)  # measured now, so that a move only draws
    figure = new_figure(*figure_size(len(trials.shapes)))
    artists = draw_sparsity(figure, trials, criterion, scope, sparsity)
    live = LiveFigure(figure, artists.moving, describe(trials.outcome(criterion, scope, sparsity)))
    box = _controls(live, trials, criterion, scope, sparsity)
    share, which, where, image, sentence = box.children

    def redraw(_: dict) -> None:
        outcome = trials.outcome(which.value, where.value, share.value)
        share.disabled = where.value == TWO_OF_FOUR  # it is always a half
        artists.update(outcome)
        live.description = describe(outcome)
        show(live, image)
        sentence.value = escape(live.description)

    for control in (share, which, where):
        control.observe(redraw, names="value")
    return box


def figure_size(layers: int) -> tuple[float, float]:
    """Width and height in inches of one drawing with so many layers."""
    return WIDTH, HEAD + FOOT + max(1.75, height_needed(layers))


def _controls(live: LiveFigure, trials: Trials, criterion: str, scope: str, sparsity: float) -> ipywidgets.VBox:
    """The three sliders, the image and the sentence, not yet connected.

    All are sliders, since JupyterLab keeps the arrow keys of a drop-down list for itself.
    """
    wide = ipywidgets.Layout(width="100%", max_width="560px")
    look = {"description_width": "110px"}
    shares = [(_percent(value, "g"), value) for value in trials.sparsities]
    share, which, where = (
        ipywidgets.SelectionSlider(options=options, value=value, description=words, layout=wide, style=look)
        for options, value, words in (
            (shares, sparsity, "sparsity"),
            (list(trials.scores), criterion, "criterion"),
            (list(trials.scopes), scope, "scope"),
        )
    )
    share.disabled = scope == TWO_OF_FOUR
    return ipywidgets.VBox([share, which, where, figure_image(live), ipywidgets.HTML(value=escape(live.description))])


def _trials(
    model: nn.Module, data: TensorDataset | DataLoader, scores: Mapping[str, Scores], sparsities: Sequence[float]
) -> Trials:
    trials = Trials(model, data, scores, sparsities)
    for name, count, most in (("layers", len(trials.shapes), MOST_LAYERS), ("criteria", len(scores), len(LINES))):
        if count > most:
            raise ValueError(f"scores are of {count} {name}; expected 1 to {most}, since each is drawn")
    return trials


def _percent(share: float, form: str = ".1f") -> str:
    """``0.9`` -> ``90.0 %``."""
    return f"{100 * share:{form}} %"
