"""The lessons as slides: build/slides/<lesson>.html, for a browser.

    python -m tools.slides [00 01 ...]

A section of the lesson is a column of slides; each of its pieces of text begins a new one, with the code and the
figures that follow. Captions stay with their figures. The page loads reveal.js from the network.
"""

import html
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.notebooks import ROOT, caption, lessons, read

TARGET = ROOT / "build" / "slides"
NO_ALT = "No description has been provided for this image"  # what nbconvert writes: this template knows no alt text


def with_slides(notebook: NotebookNode) -> NotebookNode:
    """``notebook``, changed in place: every cell says whether it begins a slide."""
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown" or caption(cell):
            kind = "-"
        elif position == 0 or cell.source.startswith("## "):
            kind = "slide"
        else:
            kind = "subslide"
        cell.metadata.slideshow = nbformat.from_dict({"slide_type": kind})
    return notebook


def write(path: Path, target: Path = TARGET) -> Path:
    """Write the slides of one lesson into the folder ``target``; answers with the file."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(reveal_scroll=True, reveal_transition="none", reveal_theme="white")
    notebook = with_slides(read(path))
    page, _ = exporter.from_notebook_node(notebook)
    for text in _alt_texts(notebook):
        page = page.replace(NO_ALT, html.escape(text), 1)
    target.mkdir(parents=True, exist_ok=True)
    file = target / f"{path.stem}.html"
    file.write_text(page, encoding="utf-8")
    return file


def _alt_texts(notebook: NotebookNode) -> list[str]:
    """The stored alt text of every image in the outputs, in order."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    return [image.metadata.get("image/png", {}).get("alt", NO_ALT) for image in images]


if __name__ == "__main__":
    for lesson in lessons(sys.argv[1:]):
        print(write(lesson).relative_to(ROOT))
