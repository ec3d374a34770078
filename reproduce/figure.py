"""docs/images/hinton_mnist.png, drawn from the recorded results."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.plots import COLORS, style
from reproduce.page import ROOT
from reproduce.record import RESULTS, load_record, values_of

IMAGE = ROOT / "docs" / "images" / "hinton_mnist.png"


def draw(folder: Path = RESULTS, image: Path = IMAGE) -> None:
    """Draw both panels, unless one of the records is missing."""
    records = {name: load_record(name, folder) for name in ("hinton_big", "hinton_small", "hinton_without_3")}
    if any(record is None for record in records.values()):
        return
    with style():
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_errors(left, records["hinton_big"], records["hinton_small"])
        _draw_bias(right, records["hinton_without_3"])
        image.parent.mkdir(parents=True, exist_ok=True)
        # no software version in the file: the same numbers give the same bytes
        figure.savefig(image, dpi=120, metadata={"Software": None})


def _draw_errors(axes: Axes, big: dict, small: dict) -> None:
    """A dot a seed, a diamond for the paper."""
    groups = [
        ("large net\n2 × 1200", values_of(big, "test_errors"), big["paper"]["test_errors"]),
        ("small net\ndistilled, T = 20", values_of(small, "test_errors", method="distilled"), 74),
        ("small net\nalone", values_of(small, "test_errors", method="alone"), 146),
    ]
    for place, (_, errors, paper) in enumerate(groups):
        shifts = [place + 0.04 * (index - (len(errors) - 1) / 2) for index in range(len(errors))]
        axes.plot(shifts, list(errors.values()), "o", color=COLORS["blue"], label="ours, a seed" if not place else None)
        label = "the paper" if not place else None
        axes.plot(place + 0.28, paper, "D", color=COLORS["vermillion"], label=label)
        axes.annotate(f"{paper}", (place + 0.28, paper), (7, -4), textcoords="offset points", fontsize=9)
    axes.set_xticks(range(3), [name for name, _, _ in groups])
    axes.set(
        xlim=(-0.5, 2.6),
        ylim=(0, 190),
        ylabel="test errors of 10,000",
        title="Distilled, the small net comes closer to the large",
    )
    axes.legend(loc="upper left")


def _draw_bias(axes: Axes, record: dict) -> None:
    """Errors over the number added to the bias of the 3, distilled and from labels."""
    for method, color, label in (("distilled", "blue", "soft targets"), ("labels", "orange", "labels alone")):
        for index, curve in enumerate(values_of(record, "curve", method=method).values()):
            name = f"{label}, no 3 in the data" if not index else None
            axes.plot(curve["shift"], curve["errors"], color=COLORS[color], linewidth=1.5, label=name)
    axes.plot(3.5, 109, "D", color=COLORS["vermillion"], label="the paper, soft targets")
    axes.plot(0, 206, "D", color=COLORS["vermillion"])
    axes.set(
        xlabel="added to the bias of the 3",
        ylabel="test errors of 10,000",
        title="One bias brings back a digit never shown",
        xlim=(-2, 8),
        ylim=(0, 1700),
    )
    axes.legend(loc="upper left")
