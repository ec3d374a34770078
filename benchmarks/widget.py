"""A move of the temperature widget: in the kernel, and from key press to picture in a real browser.

Aim: under 100 ms. The part in the browser needs Chromium, and runs lesson 01 as far as the widget.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.interleave import Row, spread
from course_lib.data.images import load_images
from course_lib.widgets.temperature import temperature_widget
from tests.browser.lab import LESSON, Lab, open_page, press_and_wait, running_lab, watch, why_not

TITLE = "The temperature widget"
NOTE = "In the kernel: numbers to PNG. In the browser: key press to the picture on the page, through a real JupyterLab."
AIM = 100.0


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


def in_the_kernel(rounds: int) -> list[Row]:
    """Every value of the slider, and every picture of the choice, ``rounds`` times."""
    digits = load_images("digits")
    pictures = digits.picture(digits.test.tensors[0][:5])
    logits = 5 * torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    slider, choice, *_ = temperature_widget(logits, pictures, digits.class_names).children
    times: dict[str, list[float]] = {"another temperature, in the kernel": [], "another picture, in the kernel": []}
    for control, kept in zip((slider, choice), times.values(), strict=True):
        for index in [*range(len(control.options))] * rounds:
            if index != control.index:
                start = time.perf_counter()
                control.index = index
                kept.append(1000 * (time.perf_counter() - start))
    return [judge(what, kept) for what, kept in times.items()]


def in_the_browser(moves: int) -> list[Row]:
    """Along the slider and back, from lesson 01."""
    with tempfile.TemporaryDirectory() as scratch, running_lab(LESSON, Path(scratch)) as url, open_page() as page:
        cell = Lab(page, url).run_until("widget-temperature")
        image = cell.locator("img.widget-image")
        image.wait_for()
        watch(image)
        cell.get_by_role("slider").first.focus()
        keys = (["ArrowRight"] * 20 + ["ArrowLeft"] * 20) * (moves // 40 + 1)
        times = [press_and_wait(image, key, timeout=30) for key in keys[:moves]]
    return [judge("another temperature, in the browser", times)]


def run(*, quick: bool = False) -> list[Row]:
    """Both parts; without a browser the first, and why."""
    rows = in_the_kernel(1 if quick else 3)
    if reason := why_not():
        return [*rows, {"what": f"in the browser: not measured, {reason}"}]
    return [*rows, *in_the_browser(10 if quick else 80)]
