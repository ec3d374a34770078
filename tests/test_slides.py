"""Slides: where one begins, and that a lesson becomes a page of them."""

import nbformat

from tests.lessons.fixture import good_lesson
from tools.slides import with_slides, write


def test_text_begins_a_slide_and_a_caption_stays_with_its_figure():
    lesson = good_lesson()
    lesson.cells[2].source = "## A section"
    kinds = [cell.metadata.slideshow.slide_type for cell in with_slides(lesson).cells]
    assert kinds == ["slide", "-", "slide", "-", "-"]
    lesson.cells[2].source = "More of the same section."
    assert with_slides(lesson).cells[2].metadata.slideshow.slide_type == "subslide"


def test_a_lesson_becomes_a_page(tmp_path):
    lesson = good_lesson()
    lesson.cells[2].source = "## A section"
    nbformat.write(lesson, tmp_path / "00_tiny.ipynb")
    page = write(tmp_path / "00_tiny.ipynb", tmp_path / "slides").read_text(encoding="utf-8")
    slides = page.split('<div class="slides">')[1].split("Reveal.initialize")[0]
    assert slides.count("<section>") == 4  # two columns of one slide each
    assert 'alt="a single black pixel."' in page
    assert "sum 3" in page
