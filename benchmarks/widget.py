"""A move of each widget: in the kernel, and from key press to picture in a real browser.

Aim: under 100 ms. The part in the browser needs Chromium, and runs each lesson as far as its widget.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.interleave import Row, spread
from course_lib.data.images import load_images
from course_lib.models.vision import mlp
from course_lib.pruning.criteria import magnitude, random_scores
from course_lib.pruning.masks import local_masks
from course_lib.widgets.rounds import MaskRounds, rounds_widget
from course_lib.widgets.sparsity import sparsity_widget
from course_lib.widgets.temperature import temperature_widget
from tools.lab import picture_of, press_and_wait, why_not, widget_cell

if TYPE_CHECKING:
    from ipywidgets import SelectionSlider

TITLE = "The widgets"
NOTE = "In the kernel: numbers to PNG. In the browser: key press to the picture on the page, through a real JupyterLab."
AIM = 100.0
SLIDERS = {  # tag of the cell -> what a move of its first slider shows
    "widget-temperature": "another temperature",
    "widget-sparsity": "another sparsity",
    "widget-rounds": "another round",
}


def judge(what: str, milliseconds: list[float]) -> Row:
    """The row of moves that took so long."""
    median = statistics.median(milliseconds)
    return {
        "what": what,
        "moves": len(milliseconds),
        "median ms": median,
        "minimum ms": min(milliseconds),
        "maximum ms": max(milliseconds),
        "spread": spread(milliseconds),
        "aim": f"< {AIM:g}",
        "met": median < AIM,
    }


def sliders() -> dict[str, "SelectionSlider"]:
    """The sliders of all widgets, by what a move of each shows."""
    digits = load_images("digits")
    pictures = digits.picture(digits.test.tensors[0][:5])
    logits = 5 * torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    temperature, picture, *_ = temperature_widget(logits, pictures, digits.class_names).children
    model = mlp([64, 32, 10])
    scores = {"magnitude": magnitude(model)} | {f"random {seed}": random_scores(model, seed=seed) for seed in (0, 1)}
    sparsity, criterion, scope, *_ = sparsity_widget(model, digits.test, scores, sparsity=0.8).children
    masks = [local_masks(scores["magnitude"], 1 - 0.8**number) for number in range(16)]
    lines = {name: [0.9 + 0.001 * number for number in range(16)] for name in ("ticket", "random mask")}
    rounds, *_ = rounds_widget(MaskRounds(masks, (8, 8), accuracies=lines, picture=pictures[0])).children
    names = ("temperature", "picture", "sparsity", "criterion", "scope", "round")
    found = (temperature, picture, sparsity, criterion, scope, rounds)
    return {f"another {name}": slider for name, slider in zip(names, found, strict=True)}


def in_the_kernel(rounds: int) -> list[Row]:
    """Every value of every slider, ``rounds`` times."""
    rows = []
    for what, slider in sliders().items():
        times = []
        for index in [*range(len(slider.options))] * rounds:
            if index != slider.index:
                start = time.perf_counter()
                slider.index = index
                times.append(1000 * (time.perf_counter() - start))
        rows.append(judge(f"{what}, in the kernel", times))
    return rows


def in_the_browser(tag: str, moves: int) -> list[float]:
    """Milliseconds of so many moves along the first slider of the cell with ``tag``, to the end and back."""
    with tempfile.TemporaryDirectory() as scratch, widget_cell(tag, Path(scratch)) as cell:
        slider = cell.get_by_role("slider").first
        slider.focus()
        times, key = [], "ArrowRight"
        for _ in range(moves):
            if slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax"):
                key = "ArrowLeft"
            elif slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemin"):
                key = "ArrowRight"
            times.append(press_and_wait(picture_of(cell), key, timeout=30))
    return times


def run(*, quick: bool = False) -> list[Row]:
    """Both parts; without a browser the first, and why."""
    rows = in_the_kernel(1 if quick else 3)
    if reason := why_not():
        return [*rows, {"what": f"in the browser: not measured, {reason}"}]
    moves = 10 if quick else 80
    return rows + [judge(f"{what}, in the browser", in_the_browser(tag, moves)) for tag, what in SLIDERS.items()]
