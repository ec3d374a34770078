"""The widget of lesson 00 as a reader meets it: in JupyterLab, in a real browser, moved by keyboard."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import ROOT, Lab, open_page, picture_digest, press_and_wait, running_lab, watch, why_not

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the lesson runs up to its widget


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Locator"]:
    if reason := why_not():
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"the widgets are not tested in a browser: {reason}")
    lesson = ROOT / "notebooks" / "00_measuring.ipynb"
    with running_lab(lesson, tmp_path_factory.mktemp("lab")) as url, open_page() as page:
        cell = Lab(page, url).run_until("widget-time")
        image = cell.locator("img.widget-image")
        image.wait_for()
        watch(image)
        yield cell


def test_each_slider_moves_the_picture_and_the_words(cell: "Locator") -> None:
    image = cell.locator("img.widget-image")
    assert image.get_attribute("title").startswith("6 layers of 86, 1 at once: 14 layers are called")
    for number, words in enumerate(("7 layers of 86, 1 ", "7 layers of 128, 1 ", "7 layers of 128, 2 ")):
        before = picture_digest(image)
        cell.get_by_role("slider").nth(number).focus()
        press_and_wait(image, "ArrowRight")
        assert picture_digest(image) != before
        assert image.get_attribute("title").startswith(words)
        assert cell.get_by_text(words).first.is_visible()  # the sentence under the picture
