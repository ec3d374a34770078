"""The temperature widget as a reader meets it: lesson 01 in JupyterLab, in a real browser, moved by keyboard."""

from typing import TYPE_CHECKING

import pytest

from tests.browser.checks import check_moves, check_sharp_and_fitting
from tools.lab import picture_digest, picture_of, press_and_wait

if TYPE_CHECKING:
    from playwright.sync_api import Locator

WIDGET = "temperature"
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first test trains what the lesson trains


@pytest.fixture
def slider(cell: "Locator") -> "Locator":
    """The slider, at T = 1 and with the focus."""
    slider = cell.get_by_role("slider").first
    slider.focus()
    while (at := float(slider.get_attribute("aria-valuenow"))) != 8:  # T = 1 is the ninth value
        press_and_wait(picture_of(cell), "ArrowLeft" if at > 8 else "ArrowRight")
    return slider


def test_an_arrow_key_changes_the_picture_and_the_words(cell: "Locator", slider: "Locator", image: "Locator") -> None:
    source, picture, title = image.get_attribute("src"), picture_digest(image), image.get_attribute("title")
    assert title.startswith("T = 1: ")
    press_and_wait(image, "ArrowRight")
    assert image.get_attribute("src") != source
    assert picture_digest(image) != picture
    assert image.get_attribute("title").startswith("T = 1.2: ")
    assert cell.get_by_text("T = 1.2: ").is_visible()  # the sentence under the picture
    press_and_wait(image, "ArrowLeft")
    assert picture_digest(image) == picture
    assert image.get_attribute("title") == title


def test_tab_leads_to_the_other_slider_and_an_arrow_key_to_the_next_picture(
    cell: "Locator", slider: "Locator", image: "Locator"
) -> None:
    before = picture_digest(image)
    for _ in range(2):  # from the handle to the number beside the slider, and on
        image.page.keyboard.press("Tab")
    assert cell.get_by_role("slider").nth(1).evaluate("(handle) => handle === document.activeElement")
    press_and_wait(image, "ArrowRight")
    assert picture_digest(image) != before
    press_and_wait(image, "ArrowLeft")
    assert picture_digest(image) == before


def test_every_move_of_twenty_gives_another_picture_soon(slider: "Locator", image: "Locator") -> None:
    check_moves(image, 20)


def test_the_picture_is_sharp_and_fits_the_page(image: "Locator") -> None:
    check_sharp_and_fitting(image)
