"""Slides: where one begins, and that a lesson becomes a page that needs no network."""

import re

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from tests.lessons.fixture import good_lesson
from tools.notebooks import lessons, read
from tools.slides import formula, slides_of, write


def test_text_begins_a_slide_and_a_caption_stays_with_its_figure():
    ids = [[cell.id for cell in slide] for slide in slides_of(good_lesson())]
    assert ids == [["first", "add"], ["text", "draw", "caption"]]


@pytest.fixture
def page(tmp_path):
    lesson = good_lesson()
    lesson.cells[
        2
    ].source = "## A section\n\n$$\\frac{1}{2}$$ See [lesson 01](01_next.ipynb), [results](../docs/results.md)."
    lesson.cells.append(new_markdown_cell("Half is $\\tfrac12$, a code is `$x$`.", id="half"))
    nbformat.write(lesson, tmp_path / "00_tiny.ipynb")
    return write(tmp_path / "00_tiny.ipynb", tmp_path / "slides").read_text(encoding="utf-8")


def test_a_lesson_becomes_a_page(page):
    assert "<title>A title</title>" in page and page.count("<section>") == 3
    assert "<pre class='output'>sum 3\n</pre>" in page
    assert "alt='a single black pixel.'" in page
    assert page.count("<summary>code</summary>") == 1  # of the figure, not of the sum
    assert 'href="01_next.html"' in page and 'href="../../docs/results.md"' in page


def test_formulas_are_mathml_and_code_is_left_alone(page):
    assert page.count("<mfrac>") == 2 and page.count('display="block"') == 2  # one formula, one rule of the style
    assert "<code>$x$</code>" in page


def test_a_formula_that_cannot_be_drawn_is_shown_as_it_is_written():
    assert formula(r"\nosuchcommand{x} < 1") == r"<code>\nosuchcommand{x} &lt; 1</code>"
    assert "<code>" not in formula(r"\Big\lVert \frac{Q}{\lVert Q\rVert} \Big\rVert")


@pytest.mark.parametrize("lesson", lessons(), ids=lambda path: path.stem)
def test_the_page_of_a_lesson_loads_nothing_and_draws_every_formula(lesson, tmp_path):
    page = write(lesson, tmp_path).read_text(encoding="utf-8")
    assert page.count("<section>") == len(slides_of(read(lesson)))
    loaded = re.findall(r"""<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)\s*=\s*["']?(.{0,40})""", page)
    assert loaded and all(address.startswith("data:image/png;base64,") for address in loaded)
    assert "@import" not in page and "url(" not in page
    text = "\n".join(cell.source for cell in read(lesson).cells if cell.cell_type == "markdown")
    assert page.count("<math ") >= text.count("$$") // 2
    assert not re.findall(r"<code>[^<]*\\[a-zA-Z]+[^<]*</code>", page), "a formula that MathML cannot draw"
