"""A figure as a picture in a notebook: drawn without pyplot, redrawn in milliseconds.

Every widget of the course uses the two parts of this file.

- ``LiveFigure`` holds a figure and the few artists in it that move. What stands still (axes, ticks, labels)
  is drawn once and kept as pixels; a redraw puts those pixels back and draws only what moves over them.
  matplotlib calls this blitting: https://matplotlib.org/stable/users/explain/animations/blitting.html
- ``figure_image`` makes the widget that shows it, and ``show`` puts a new state into it.

There is no pyplot, so no figure is left open behind a widget, and no window or inline backend is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image as PillowImage
from traitlets import Unicode

if TYPE_CHECKING:
    from matplotlib.artist import Artist

# Pixels drawn for each pixel of the page: sharp on the dense screens that most laptops have.
PIXEL_RATIO = 2
DPI = 100


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` by ``height`` inches (100 page pixels to the inch), with an Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI * PIXEL_RATIO, layout="none", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


class LiveFigure:
    """A figure that is drawn fast after a small change, and shows itself in a notebook.

    ``figure`` comes from ``new_figure``. ``moving`` are the artists in it that change between two drawings.
    ``description`` says in words what the figure shows: it is the alternative text of the picture.
    Whoever changes an artist that is not in ``moving`` calls ``redraw_all`` before the next ``png``.
    """

    def __init__(self, figure: Figure, moving: Sequence[Artist], description: str) -> None:
        self.figure = figure
        self.moving = tuple(moving)
        self.description = description
        self._still = None  # the pixels of all that does not move, once they have been drawn
        for artist in self.moving:
            artist.set_animated(True)  # left out when the canvas draws the rest

    def redraw_all(self) -> None:
        """Forget the kept pixels: the next ``png`` draws everything."""
        self._still = None

    def png(self) -> bytes:
        """The figure as it is now, as the bytes of a PNG file. Equal figures give equal bytes."""
        canvas = self.figure.canvas
        if self._still is None:
            canvas.draw()
            self._still = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._still)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return encode_png(canvas)

    @property
    def page_width(self) -> int:
        """The width on the page, in CSS pixels."""
        return round(self.figure.get_figwidth() * DPI)

    def _repr_png_(self) -> tuple[bytes, dict[str, object]]:
        return self.png(), {"alt": self.description, "width": self.page_width}

    def __repr__(self) -> str:
        # Without the numbers: a notebook stores this text, and they differ a little from machine to machine.
        width, height = self.figure.get_size_inches() * DPI
        return f"<figure, {width:.0f} by {height:.0f} pixels>"


def encode_png(canvas: FigureCanvasAgg) -> bytes:
    """The pixels on ``canvas`` as a PNG file, packed fast rather than small."""
    width, height = canvas.get_width_height(physical=True)
    pixels = PillowImage.frombuffer("RGBA", (width, height), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    file = io.BytesIO()
    # The figures are opaque, so the fourth channel says nothing.
    pixels.convert("RGB").save(file, format="png", compress_level=1)
    return file.getvalue()


class DescribedImage(ipywidgets.Image):
    """An image whose ``tooltip`` says what it shows, for screen readers and on hovering.

    ipywidgets has no alternative text for images, and the browser's side takes a tooltip only from a widget that has
    a description too: without one the view of an ``ipywidgets.Image`` with a tooltip fails
    (https://github.com/jupyter-widgets/ipywidgets/pull/3921). Hence the empty one here.
    """

    description = Unicode("").tag(sync=True)


def figure_image(live: LiveFigure) -> DescribedImage:
    """A widget that shows ``live``: as wide as the figure, or as the page where that is narrower."""
    layout = ipywidgets.Layout(width="100%", max_width=f"{live.page_width}px", height="auto")
    image = DescribedImage(format="png", layout=layout)
    show(live, image)
    return image


def show(live: LiveFigure, image: DescribedImage) -> None:
    """Put the present state of ``live`` into ``image`` (changed in place), with its description in words."""
    with image.hold_sync():  # in one message: the browser decodes the picture once for each
        image.value = live.png()
        image.tooltip = live.description
