"""The widget of lesson 00 as a reader meets it: in JupyterLab, in a real browser, moved by keyboard."""

from typing import TYPE_CHECKING

import pytest

from tools.lab import picture_digest, press_and_wait

if TYPE_CHECKING:
    from playwright.sync_api import Locator

WIDGET = "time"
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the test runs the lesson down to the widget


def test_each_slider_moves_the_picture_and_the_words(cell: "Locator", image: "Locator") -> None:
    assert image.get_attribute("title").startswith("6 layers of 86, 1 at once: 14 layers are called")
    for number, words in enumerate(("7 layers of 86, 1 ", "7 layers of 128, 1 ", "7 layers of 128, 2 ")):
        before = picture_digest(image)
        cell.get_by_role("slider").nth(number).focus()
        press_and_wait(image, "ArrowRight")
        assert picture_digest(image) != before
        assert image.get_attribute("title").startswith(words)
        assert cell.get_by_text(words).first.is_visible()  # the sentence under the picture
