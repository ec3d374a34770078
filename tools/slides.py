"""The lessons as slides: build/slides/<lesson>.html, one file each, which a browser opens without a network.

    python -m tools.slides [00 01 ...]

Each piece of text begins a slide, with the code and the figures that follow; a caption stays with its figure, and the
code that drew a figure is folded away. Keys: arrows, space, Page Up and Down (a presenter's clicker), Home, End.
Print the page for a PDF. Formulas become MathML, which browsers draw by themselves.
"""

import html
import re
import sys
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from tools.notebooks import ROOT, caption, lessons, read

TARGET = ROOT / "build" / "slides"
PAGE = Path(__file__).with_name("slides.html")
WIDGET = "<p class='widget'>Here the lesson has a widget: open it with <code>make lab</code>.</p>"


def slides_of(notebook: NotebookNode) -> list[list[NotebookNode]]:
    """The cells of each slide: a piece of text, and all up to the next."""
    slides: list[list[NotebookNode]] = []
    for cell in notebook.cells:
        if not slides or (cell.cell_type == "markdown" and not caption(cell)):
            slides.append([])
        slides[-1].append(cell)
    return slides


def write(path: Path, target: Path = TARGET) -> Path:
    """Write the slides of one lesson into the folder ``target``; answers with the file."""
    notebook = read(path)
    sections = "\n".join(f"<section>{''.join(map(_cell, slide))}</section>" for slide in slides_of(notebook))
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    page = PAGE.read_text(encoding="utf-8")
    for name, value in (("title", html.escape(title)), ("code-style", _code_style()), ("slides", _links(sections))):
        page = page.replace(f"<!-- {name} -->", value)
    target.mkdir(parents=True, exist_ok=True)
    file = target / f"{path.stem}.html"
    file.write_text(page, encoding="utf-8")
    return file


def formula(tex: str, display: str = "inline") -> str:
    """``tex`` as MathML; as it is written where a command in it is not known."""
    from latex2mathml.converter import convert

    mathml = convert(re.sub(r"\\[lr]?Vert\b|\\\|", "‖", tex), display=display)  # \big knows the sign alone
    return f"<code>{html.escape(tex)}</code>" if "\\" in mathml else mathml


@cache
def _markdown():
    """What turns markdown with formulas into HTML."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return formula(body)

        def block_math(self, body: str) -> str:
            return formula(body, "block")

    return MarkdownWithMath(renderer=Renderer(escape=False))


def _cell(cell: NotebookNode) -> str:
    if cell.cell_type != "code":
        return f"<div class='text'>{_markdown().render(cell.source)}</div>"
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    code = highlight(cell.source, PythonLexer(), HtmlFormatter())
    outputs = "".join(map(_output, cell.outputs))
    if any(tag.startswith("widget-") for tag in cell.metadata.get("tags", [])):
        outputs = WIDGET
    folded = f"<details><summary>code</summary>{code}</details>"
    return (folded if "<img" in outputs else code) + outputs


def _output(output: NotebookNode) -> str:
    """Pictures and tables as they are, else the text."""
    data = output.get("data", {})
    if "image/png" in data:
        alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
        return f"<img alt='{alt}' src='data:image/png;base64,{''.join(data['image/png'].split())}'>"
    if "text/html" in data:
        return f"<div class='table'>{data['text/html']}</div>"
    return f"<pre class='output'>{html.escape(output.get('text', data.get('text/plain', '')))}</pre>"


def _code_style() -> str:
    from pygments.formatters import HtmlFormatter

    return f"<style>{HtmlFormatter().get_style_defs('.highlight')}</style>"


def _links(page: str) -> str:
    """Links to other lessons go to their slides, links to other files up from build/slides/."""
    page = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', page)
    return page.replace('href="../', 'href="../../')


if __name__ == "__main__":
    for lesson in lessons(sys.argv[1:]):
        print(write(lesson).relative_to(ROOT))
