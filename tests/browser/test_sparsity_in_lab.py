"""The sparsity widget as a reader meets it: its lesson in JupyterLab, in a real browser, moved by keyboard."""

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.checks import check_moves, check_sharp_and_fitting
from tools.lab import picture_digest, picture_of, press_and_wait

if TYPE_CHECKING:
    from playwright.sync_api import Locator

WIDGET = "sparsity"
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first test runs the lesson down to the widget
SHARE, CRITERION, SCOPE = range(3)  # the sliders, from above


def move_to(cell: "Locator", which: int, position: int) -> "Locator":
    """The slider ``which``, moved to ``position`` by its arrow keys; it has the focus."""
    slider = cell.get_by_role("slider").nth(which)
    slider.focus()
    while (at := float(slider.get_attribute("aria-valuenow"))) != position:
        press_and_wait(picture_of(cell), "ArrowLeft" if at > position else "ArrowRight")
    return slider


@pytest.fixture(autouse=True)
def start(cell: "Locator") -> None:
    """The first scope and the first criterion, and a sparsity from which there is a way to both sides."""
    for which, position in ((SCOPE, 0), (CRITERION, 0), (SHARE, 5)):
        move_to(cell, which, position)


def test_an_arrow_key_changes_the_picture_and_the_words(cell: "Locator", image: "Locator") -> None:
    picture, title = picture_digest(image), image.get_attribute("title")
    press_and_wait(image, "ArrowRight")
    assert picture_digest(image) != picture
    after = image.get_attribute("title")
    before, now = (float(re.match(r"Sparsity ([\d.]+) %, ", words)[1]) for words in (title, after))
    assert now > before
    assert cell.get_by_text(after).is_visible()  # the sentence under the picture
    press_and_wait(image, "ArrowLeft")
    assert picture_digest(image) == picture
    assert image.get_attribute("title") == title


@pytest.mark.parametrize("tabs", [CRITERION, SCOPE])
def test_tab_leads_to_the_other_sliders_and_an_arrow_key_changes_them(
    cell: "Locator", image: "Locator", tabs: int
) -> None:
    before, title = picture_digest(image), image.get_attribute("title")
    for _ in range(2 * tabs):  # each from the handle to the word beside the slider, and on
        image.page.keyboard.press("Tab")
    assert cell.get_by_role("slider").nth(tabs).evaluate("(handle) => handle === document.activeElement")
    press_and_wait(image, "ArrowRight")
    assert picture_digest(image) != before
    words = image.get_attribute("title")
    criterion, scope = (re.match(r"Sparsity [\d.]+ %, (.*), (\S+): ", text).groups() for text in (title, words))
    assert (criterion[0] != scope[0], criterion[1] != scope[1]) == (tabs == CRITERION, tabs == SCOPE)
    press_and_wait(image, "ArrowLeft")
    assert picture_digest(image) == before


def test_two_of_four_holds_the_sparsity_at_a_half(cell: "Locator", image: "Locator") -> None:
    move_to(cell, SHARE, 7)
    share = cell.get_by_role("slider").nth(SHARE)
    disabled = "(handle) => handle.closest('.noUi-target').hasAttribute('disabled')"
    assert not share.evaluate(disabled)
    scope = move_to(cell, SCOPE, 2)
    assert re.match(r"Sparsity 50.0 %, .*, 2:4: ", image.get_attribute("title"))
    assert "The layout 2:4 does not fit" not in image.get_attribute("title")
    assert share.evaluate(disabled)
    scope.focus()
    press_and_wait(image, "ArrowLeft")
    assert not share.evaluate(disabled)
    assert "2:4: " not in image.get_attribute("title")


def test_every_move_of_twenty_gives_another_picture_soon(image: "Locator") -> None:
    check_moves(image, 20)


def test_the_picture_is_sharp_and_fits_the_page(image: "Locator") -> None:
    check_sharp_and_fitting(image)
