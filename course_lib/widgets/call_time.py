"""Where the time of a call goes: entry fees, arithmetic, memory, for a perceptron of any depth and width.

Williams, Waterman and Patterson 2009, "Roofline" (doi 10.1145/1498765.1498785), with a fee for each layer on top:

    time ≈ calls · fee + max(FLOPs / FLOPs a second, bytes moved / bytes a second)

The three numbers of a ``Machine`` are measured in lesson 00. The formula is a model: it knows nothing of caches, nor of
how well a routine fits a shape.

``call_time_figure`` is the drawing, and needs no kernel and no widget. ``call_time_widget`` is a thin shell over it:
sliders for depth, width and batch, an image, and a sentence that says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from course_lib.checking import check_number
from course_lib.plots import COLORS, style
from course_lib.widgets.figure import LiveFigure, figure_image, new_figure, show

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

INPUTS, OUTPUTS = 64, 10  # the digits
DEPTHS = tuple(range(1, 11))
WIDTHS = (1, 8, 16, 32, 48, 64, 86, 128, 192, 256, 384, 512, 800, 1200)
BATCHES = tuple(2**power for power in range(11))  # 1 to 1,024
WIDE = (1, 1200)  # what everything is compared with: one hidden layer of 1,200 numbers
FEE, WORK, WHOLE, OTHER = COLORS["orange"], COLORS["sky"], COLORS["blue"], "0.55"


@dataclass(frozen=True)
class Machine:
    """What a computer charges.

    Attributes:
        fee: seconds for the call of a layer, before any work is done.
        flops_per_second: the most that it computes.
        bytes_per_second: the most that it fetches from memory.

    Raises:
        ValueError: one of them is not a finite number above 0.
    """

    fee: float
    flops_per_second: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        for name in ("fee", "flops_per_second", "bytes_per_second"):
            check_number(name, getattr(self, name), above=0)


@dataclass(frozen=True)
class CallTime:
    """What one call takes, in seconds: ``fees``, and the slower of ``arithmetic`` and ``memory``."""

    calls: int
    flops: int
    fees: float
    arithmetic: float
    memory: float

    @property
    def work(self) -> float:
        """The slower of the two counts: while one number is fetched, another is computed with."""
        return max(self.arithmetic, self.memory)

    @property
    def total(self) -> float:
        """Fees and work."""
        return self.fees + self.work


def call_time(depth: int, width: int, batch: int, machine: Machine) -> CallTime:
    """One call of ``mlp([64, width, ..., width, 10])`` with ``depth`` hidden layers on ``batch`` pictures.

    Raises:
        ValueError: a number is below 1.
    """
    for name, value in (("depth", depth), ("width", width), ("batch", batch)):
        check_number(name, value, whole=True, least=1)
    sizes = [INPUTS, *depth * [width], OUTPUTS]
    weights = sum(n * m for n, m in zip(sizes, sizes[1:], strict=False))
    biases, numbers = sum(sizes[1:]), sum(sizes[:-1]) + sum(sizes[1:])  # in and out of each linear layer
    calls = 2 * (depth + 1)  # flatten, a linear layer for each step, a ReLU between
    flops, moved = 2 * weights * batch, 4 * (weights + biases + numbers * batch)
    arithmetic, memory = flops / machine.flops_per_second, moved / machine.bytes_per_second
    return CallTime(calls, flops, calls * machine.fee, arithmetic, memory)


def describe(depth: int, width: int, batch: int, machine: Machine) -> str:
    """A few sentences on one position of the sliders."""
    time, wide = call_time(depth, width, batch, machine), call_time(*WIDE, batch, machine)
    limit = "arithmetic" if time.arithmetic >= time.memory else "memory"
    return (
        f"{_named(depth, width)}, {batch:,} at once: {time.calls} layers are called, {time.flops / batch:,.0f} FLOPs a "
        f"picture. {_micro(time.total / batch)} a picture: {time.fees / time.total:.0%} entry fees, the rest {limit}. "
        f"{_times(time.total / wide.total)} times as long as {_named(*WIDE)}."
    )


class CallTimeArtists:
    """The artists of one drawing, and the way to change them in place. Made by ``draw_call_time``."""

    def __init__(self, figure: Figure, machine: Machine) -> None:
        self.machine = machine
        axes = figure.add_axes((0.085, 0.17, 0.5, 0.64))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(BATCHES, [f"{batch:,}" for batch in BATCHES], fontsize=9)
        axes.minorticks_off()
        axes.set(xlim=(0.85, BATCHES[-1] * 1.2), xlabel="pictures in a batch", ylabel="time for one picture (µs)")
        wide = [1e6 * call_time(*WIDE, batch, machine).total / batch for batch in BATCHES]
        most = max(call_time(DEPTHS[-1], WIDTHS[-1], batch, machine).total / batch for batch in BATCHES)
        axes.set_ylim(0.03 * min(wide), 2e6 * most)
        axes.plot(BATCHES, wide, color=OTHER, linewidth=4, alpha=0.5, label=_named(*WIDE))
        lines = {"entry fees": (FEE, "--"), "work": (WORK, "-."), "together": (WHOLE, "-")}
        self.lines = [axes.plot(BATCHES, wide, line, color=c, label=name)[0] for name, (c, line) in lines.items()]
        (self.point,) = axes.plot([1], [1], "o", color=WHOLE, markersize=9)
        axes.legend(loc="upper right", ncols=2, fontsize=9)

        self.shares = figure.add_axes((0.66, 0.36, 0.32, 0.34))
        self.shares.set(xlim=(0, 1), ylim=(1.6, -0.6), title="Share of the time")
        self.shares.title.set_fontsize(11)
        self.shares.set_axis_off()
        rows = (0, 1)
        self.work_bars = list(self.shares.barh(rows, (1, 1), height=0.34, color=WORK))
        self.fee_bars = list(self.shares.barh(rows, (0, 0), height=0.34, color=FEE))
        self.names = [self.shares.text(0, row - 0.24, "", fontsize=9, va="bottom") for row in rows]
        self.words = figure.text(0.66, 0.32, "", fontsize=10, va="top", linespacing=1.5)
        self.heading = figure.text(0.012, 0.92, "", fontsize=14, fontweight="bold", va="center")

    @property
    def moving(self) -> list[Artist]:
        """All that ``update`` changes, in the order in which it is drawn."""
        bars = [*self.work_bars, *self.fee_bars, *self.names]
        return [*self.lines, self.point, *bars, self.words, self.heading]

    def update(self, depth: int, width: int, batch: int) -> None:
        """Show another perceptron, or another batch: same artists, new lines, lengths and words."""
        times = [(each, call_time(depth, width, each, self.machine)) for each in BATCHES]
        for line, part in zip(self.lines, ("fees", "work", "total"), strict=True):
            line.set_ydata([1e6 * getattr(time, part) / each for each, time in times])
        here, wide = (call_time(*shape, batch, self.machine) for shape in ((depth, width), WIDE))
        self.point.set_data([batch], [1e6 * here.total / batch])
        for row, (name, time) in enumerate(((_named(depth, width), here), (_named(*WIDE), wide))):
            self.fee_bars[row].set_width(time.fees / time.total)
            self.names[row].set_text(f"{name}: {_micro(time.total / batch)}, {time.fees / time.total:.0%} fees")
        flops, longer = _times(here.flops / wide.flops), _times(here.total / wide.total)
        self.words.set_text(f"Against {_named(*WIDE)}:\n{flops} times the FLOPs\n{longer} times the time")
        self.heading.set_text(f"{_named(depth, width)}, {batch:,} {'picture' if batch == 1 else 'pictures'} at once")


def draw_call_time(figure: Figure, machine: Machine, depth: int, width: int, batch: int) -> CallTimeArtists:
    """Draw one position of the sliders on ``figure`` (changed in place); returns its artists.

    Raises ValueError where ``call_time`` does.
    """
    call_time(depth, width, batch, machine)
    with style():
        artists = CallTimeArtists(figure, machine)
    artists.update(depth, width, batch)
    return artists


def call_time_figure(machine: Machine, depth: int = 6, width: int = 86, batch: int = 1) -> LiveFigure:
    """A figure of one perceptron: its time a picture against the batch, and the share of the fees at one batch.

    As the last value of a cell it is displayed. Raises ValueError where ``call_time`` does.
    """
    figure = new_figure(8.6, 3.3)
    artists = draw_call_time(figure, machine, depth, width, batch)
    return LiveFigure(figure, artists.moving, describe(depth, width, batch, machine))


def call_time_widget(
    machine: Machine,
    depth: int = 6,
    width: int = 86,
    batch: int = 1,
) -> ipywidgets.VBox:
    """Sliders for depth, width and batch, and the drawing of ``draw_call_time``, redrawn at every move.

    The children of the box are the three sliders, the image and the sentence.
    Raises ValueError where a start is not one of the values of its slider.
    """
    for name, value, known in (("depth", depth, DEPTHS), ("width", width, WIDTHS), ("batch", batch, BATCHES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {list(known)}")
    figure = new_figure(8.6, 3.3)
    artists = draw_call_time(figure, machine, depth, width, batch)
    live = LiveFigure(figure, artists.moving, describe(depth, width, batch, machine))
    look = {"layout": ipywidgets.Layout(width="100%", max_width="560px"), "style": {"description_width": "120px"}}
    choices = (("hidden layers", DEPTHS, depth), ("numbers in each", WIDTHS, width), ("pictures", BATCHES, batch))
    sliders = [
        ipywidgets.SelectionSlider(options=[(f"{v:,}", v) for v in values], value=start, description=words, **look)
        for words, values, start in choices
    ]
    image, sentence = figure_image(live), ipywidgets.HTML(value=escape(live.description))

    def redraw(change: dict) -> None:
        position = [slider.value for slider in sliders]
        artists.update(*position)
        live.description = describe(*position, machine)
        show(live, image)
        sentence.value = escape(live.description)

    for slider in sliders:
        slider.observe(redraw, names="value")
    return ipywidgets.VBox([*sliders, image, sentence])


def _named(depth: int, width: int) -> str:
    return f"{depth} {'layer' if depth == 1 else 'layers'} of {width:,}"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} µs"
