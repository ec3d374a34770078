"""One look for every figure of the course.

The colours are those of Okabe and Ito (2008), "Color Universal Design", which people with the common
forms of colour blindness can tell apart. matplotlib is imported only when something is drawn.

In a lesson::

    import matplotlib.pyplot as plt
    from course_lib.plots import COLORS, STYLE, draw_picture

    plt.rcParams.update(STYLE)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from torch import Tensor

# Yellow comes last: a yellow line on white is hard to see for everybody.
COLORS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "black": "#000000",
    "yellow": "#F0E442",
}

# Plain strings and numbers, so that this file needs no matplotlib until something is drawn.
# The background is white even in a dark theme: black text on a see-through figure cannot be read there.
STYLE: dict[str, Any] = {
    "axes.prop_cycle": f"cycler('color', {list(COLORS.values())})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "grid.alpha": 0.3,
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}


def style() -> AbstractContextManager[None]:
    """A context in which figures are drawn in the course's style; what was set before comes back after."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw_picture(axes: Axes, picture: Tensor, title: str = "") -> None:
    """Draw one picture on ``axes``, with no ticks: grey for one channel, colour for three.

    ``picture`` is ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)`` with values from 0 (black) to 1.
    Raises ValueError for any other shape.
    """
    pixels = picture.detach().cpu().float().clamp(0, 1)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.permute(1, 2, 0).squeeze(-1)  # (C, H, W) -> (H, W, C), or (H, W) when C is 1
    elif pixels.ndim != 2:
        raise ValueError(f"picture has shape {tuple(picture.shape)}; expected (H, W), (1, H, W) or (3, H, W)")
    axes.imshow(pixels.numpy(), cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="center", fontsize=10, fontweight="normal")
    axes.grid(False)
