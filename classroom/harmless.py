"""A student's Markdown as HTML in which nothing can act, for the form grader and the feedback page.

The text is rendered as Jupyter renders it, with HTML shown as text, links as text with their address, and no pictures
but attached ones; bleach then keeps only what is on its list. nbgrader's pages, JupyterLab and any other reader take
the result as one block of HTML, whatever Markdown means to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

import bleach
from bleach.css_sanitizer import CSSSanitizer
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

MOST_CHARACTERS = 40_000  # longer text is shown as it is: rendering may take time that grows with its square
_OPENING = '<div class="answer">'
_TAGS = frozenset(
    "blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr img input li ol p pre span strong sub sup table "
    "tbody td th thead tr ul".split()
)
_CLEANER = bleach.Cleaner(
    tags=_TAGS,
    attributes=lambda tag, name, value: (
        (tag == "img" and (name == "alt" or (name == "src" and bool(_PICTURE.fullmatch(value)))))
        or (tag in ("div", "span") and name == "class" and bool(_CLASS.fullmatch(value)))
        or (tag in ("td", "th") and name == "style")
        or (tag == "input" and name in ("checked", "disabled") or (name, value) == ("type", "checkbox"))
    ),
    protocols={"data"},
    css_sanitizer=CSSSanitizer(allowed_css_properties=["text-align"]),
)
_PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
_CLASS = re.compile(
    r"answer|highlight|[a-z][a-z0-9]{0,2}"
)  # what Pygments writes, and no class that the pages' scripts know
_PLAIN = re.compile(r"[\w\s.,!?]*")


class _Renderer(IPythonRenderer):
    def __init__(self, attachments: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(escape=True, exclude_anchor_links=True)
        self.pictures = attachments

    def link(self, text: str, url: str, title: str | None = None) -> str:
        address = self.escape_html(url)
        return text if address in text else f"{text} ({address})"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        bundle = self.pictures.get(url.removeprefix("attachment:"), {})
        for kind in ("image/png", "image/jpeg", "image/gif"):
            if kind in bundle:
                return f'<img src="data:{kind};base64,{self.escape_attribute(bundle[kind])}">'
        return f"{text} ({self.escape_html(url)})"

    def block_mermaidjs(self, code: str) -> str:
        return self.block_code(code)


def harmless(source: str, attachments: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """HTML for the source of a Markdown cell, without anything that acts. What it returned comes back as it is.

    Args:
        source: Markdown. Words, full stops and commas alone stay as they are.
        attachments: pictures attached to the cell: name -> type -> base64.
    """
    if _PLAIN.fullmatch(source):  # nbgrader tells an unanswered cell by its text
        return source
    if not source.startswith(_OPENING):
        short = len(source) <= MOST_CHARACTERS
        markdown = MarkdownWithMath(_Renderer(attachments or {}))
        source = f"{_OPENING}\n{markdown.render(source) if short else f'<pre>{escape(source)}</pre>'}</div>"
    # Markdown ends a block of HTML at the first empty line: there must be none.
    return re.sub(r"\n(?=\s*\n)", "&#10;", _CLEANER.clean(source).strip())
