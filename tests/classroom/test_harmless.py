"""A student's Markdown reads as it was meant, and nothing in it acts."""

from html.parser import HTMLParser

import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from classroom.harmless import MOST_CHARACTERS, harmless
from tests.classroom.payloads import HONEST, PICTURE, attacks

PASSIVE = {
    "img": {"src", "alt"},
    "div": {"class"},
    "span": {"class"},
    "td": {"style"},
    "th": {"style"},
    "input": {"type", "checked", "disabled"},
}
TAGS = "blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr img input li ol p pre span strong sub sup table"
TAGS = {*TAGS.split(), *"tbody td th thead tr ul".split()}


class Elements(HTMLParser):
    """Collects what a browser would make of a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("attack", attacks())
def test_nothing_but_passive_elements_is_left(attack):
    html = harmless(attack)
    for tag, attributes in Elements(html).found:
        assert tag in TAGS
        assert attributes.keys() <= PASSIVE.get(tag, set())
        assert attributes.get("src", "data:image/png;").startswith("data:image/png;")
        assert attributes.get("class", "answer") in ("answer", "highlight") or len(attributes["class"]) <= 3
        assert "url" not in attributes.get("style", "")


@pytest.mark.parametrize("source", [*attacks(), HONEST, "a\n\n\n\nb <p", "x" * (MOST_CHARACTERS + 1) + "<script>"])
def test_the_result_is_one_block_that_every_renderer_leaves_alone(source):
    html = harmless(source)
    assert harmless(html) == html
    assert markdown2html_mistune(html).strip() == html


def test_an_honest_answer_reads_as_it_was_meant():
    found = Elements(harmless(HONEST, {"plot.png": {"image/png": PICTURE}}))
    tags = [tag for tag, _ in found.found]
    counts = {tag: tags.count(tag) for tag in ("h1", "em", "strong", "table", "td", "pre", "ol", "li", "img")}
    assert counts == {"h1": 1, "em": 1, "strong": 1, "table": 1, "td": 4, "pre": 1, "ol": 1, "li": 2, "img": 1}
    for words in (
        "$a < b$",
        "x < y & z",
        "not <b>less</b>",
        r"L = \sum_i p_i \ln \frac{p_i}{q_i}",
        "def loss(p, q):\n\n    return (p * (p / q).log()).sum() if p < 1 else 0",
        "https://example.org/paper",
    ):
        assert words in found.text
    assert ("img", {"src": f"data:image/png;base64,{PICTURE}"}) in found.found
    assert ("td", {"style": "text-align:right;"}) in found.found


def test_an_unanswered_cell_stays_as_it_is():
    assert harmless("YOUR ANSWER HERE") == "YOUR ANSWER HERE"


def test_links_are_shown_with_their_address():
    assert "the paper (https://example.org/a?b=1&amp;c=2)" in harmless("[the paper](https://example.org/a?b=1&c=2)")
    assert "missing (attachment:none.png)" in harmless("![missing](attachment:none.png)")
