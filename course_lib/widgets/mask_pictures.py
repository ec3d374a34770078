"""The masks of several layers as pictures, one under the other, changed in place.

A weight matrix ``(outputs, inputs)`` becomes a picture with a row for each output and a column for each input: blue
where the weight is kept, grey where it is pruned. A convolution's is flattened first, ``(outputs, inputs · H · W)``.
A layer with more weights than the page has dots is drawn in blocks: the darker a block, the more of it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from torch.nn.functional import avg_pool2d

from course_lib.plots import COLORS
from course_lib.widgets.figure import DPI, PIXEL_RATIO

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure, SubFigure
    from torch import Tensor

MOST_LAYERS = 12  # more pictures than this are no picture of anything
PRUNED = "0.88"
KEPT = LinearSegmentedColormap.from_list("kept", [PRUNED, COLORS["blue"]])
# One weight kept in ten makes a block a third as dark as ten: on an even scale the last few would be invisible.
DARKNESS = PowerNorm(0.5, vmin=0, vmax=1)
DOTS = 2  # pixels of the file for each block, at least
LINE, GAP = 0.36, 0.11  # inches: two lines of text beside a picture, and the space between two pictures
LONGEST_NAME = 19  # letters that fit beside a picture


class MaskPictures:
    """A picture and two lines of text for each layer, on a figure of ``size`` inches (changed in place).

    ``shapes`` are those of the masks, by name, each with two or more dimensions; up to ``MOST_LAYERS``. ``box`` is the
    place of the pictures in inches: left, bottom, width, height. The text stands to the right of it.
    """

    def __init__(
        self,
        figure: Figure | SubFigure,
        shapes: Mapping[str, Sequence[int]],
        *,
        size: tuple[float, float],
        box: tuple[float, float, float, float],
    ) -> None:
        left, bottom, width, height = box
        matrices = {name: (shape[0], math.prod(shape[1:])) for name, shape in shapes.items()}
        places = _sizes(list(matrices.values()), width, height)
        top, self.pictures, self.texts, self.blocks = bottom + height, {}, {}, {}
        for (name, (rows, columns)), (wide, high) in zip(matrices.items(), places, strict=True):
            share = (left / size[0], (top - high) / size[1], wide / size[0], high / size[1])
            axes = figure.add_axes(share, xticks=[], yticks=[])
            axes.set_axis_off()
            dots = DPI * PIXEL_RATIO / DOTS
            self.blocks[name] = max(1, math.ceil(columns / (wide * dots)), math.ceil(rows / (high * dots)))
            grid = [[0.0] * math.ceil(columns / self.blocks[name])] * math.ceil(rows / self.blocks[name])
            self.pictures[name] = axes.imshow(grid, cmap=KEPT, norm=DARKNESS, interpolation="nearest", aspect="auto")
            beside, words = (left + width + 0.1) / size[0], {"fontsize": 8.5, "va": "top"}
            figure.text(beside, top / size[1], short_name(name), fontweight="bold", **words)
            self.texts[name] = figure.text(beside, (top - 0.16) / size[1], "", **words)
            top -= max(high, LINE) + GAP

    @property
    def moving(self) -> list[Artist]:
        """The artists to draw again after ``update``, in order."""
        return [*self.pictures.values(), *self.texts.values()]

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Show other ``masks``, bool tensors of the same names and shapes, true where kept."""
        for name, picture in self.pictures.items():
            picture.set_data(block_shares(masks[name].flatten(1), self.blocks[name]).numpy())
            kept, count = int(masks[name].sum()), masks[name].numel()
            self.texts[name].set_text(f"{100 * kept / count:.1f} % of {count:,}")


def block_shares(mask: Tensor, block: int) -> Tensor:
    """The share that is true in each ``block`` by ``block`` part of ``mask``; parts at the edges may be smaller.

    Shapes: ``(R, C)`` -> ``(ceil(R / block), ceil(C / block))``, values from 0 to 1.
    """
    return avg_pool2d(mask[None].float(), block, ceil_mode=True, count_include_pad=False)[0]


def height_needed(layers: int) -> float:
    """Inches for so many pictures, one under the other: each a little higher than the text beside it."""
    return layers * 0.5 + (layers - 1) * GAP


def short_name(name: str) -> str:
    """``name``, or its end where it is too long to stand beside a picture."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def _sizes(matrices: Sequence[tuple[int, int]], width: float, height: float) -> list[tuple[float, float]]:
    """Width and height in inches for each (rows, columns): square cells, as large as the box allows.

    All are as wide as the box unless that makes one too high; the highest give way first.
    """

    def sizes(limit: float) -> list[tuple[float, float]]:
        cells = [min(width / columns, limit / rows) for rows, columns in matrices]
        return [(cell * columns, cell * rows) for cell, (rows, columns) in zip(cells, matrices, strict=True)]

    low, high = LINE, max(LINE, height)  # the limit on the height of one picture, found by halving
    for _ in range(30):
        middle = (low + high) / 2
        needed = sum(max(tall, LINE) for _, tall in sizes(middle)) + GAP * (len(matrices) - 1)
        low, high = (middle, high) if needed <= height else (low, middle)
    return sizes(low)
