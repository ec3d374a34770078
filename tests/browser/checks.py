"""What the tests of all widgets check in the same way."""

import statistics
from typing import TYPE_CHECKING

from tools.lab import picture_digest, press_and_wait

if TYPE_CHECKING:
    from playwright.sync_api import Locator


def check_moves(image: "Locator", moves: int, *, slowest: float = 2000) -> None:
    """Assert that each of so many presses of the right arrow gives another picture, and soon enough.

    ``slowest`` is in milliseconds, for the median: far above the aim of 100, which a busy machine may miss; benchmarks/
    measures it.
    """
    pictures, milliseconds = {picture_digest(image)}, []
    for _ in range(moves):
        milliseconds.append(press_and_wait(image, "ArrowRight"))
        pictures.add(picture_digest(image))
    print(f"key press to picture: median {statistics.median(milliseconds):.0f} ms, most {max(milliseconds):.0f} ms")
    assert len(pictures) == moves + 1
    assert statistics.median(milliseconds) < slowest


def check_sharp_and_fitting(image: "Locator") -> None:
    """Assert that the picture has more pixels than it takes on the page, and is no wider than the page."""
    shown, drawn, page = image.evaluate("(i) => [i.clientWidth, i.naturalWidth, i.ownerDocument.body.clientWidth]")
    assert 500 < shown <= page
    assert drawn >= 1.5 * shown
