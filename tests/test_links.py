"""Links within the repository lead somewhere: to a file that is there, and to a heading that is in it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
FOLDERS = (".", "docs", "benchmarks", "notebooks", "assignments/*", "solutions/*")
PAGES = sorted(path for folder in FOLDERS for kind in ("*.md", "*.ipynb") for path in ROOT.glob(f"{folder}/{kind}"))


def text_of(page: Path) -> str:
    """The markdown of a page, or of all cells of text of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return CODE.sub("", text)


def places(text: str) -> set[str]:
    """The names under which the headings of markdown text can be linked to."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of ``page`` to what is not there."""
    found = []
    for target in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", target):  # another machine's business
            continue
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (place and place not in places(text_of(file))):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_link_to_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    lines = ("# One, two!", "[a](page.md) [b](#one-two) [c](https://example.org/x) `[d](nowhere.md)`")
    page.write_text("\n\n".join(lines), encoding="utf-8")
    assert broken(page) == []
    page.write_text("[a](nowhere.md) ![b](no.png) [c](page.md#three) [d](#four)", encoding="utf-8")
    assert broken(page) == ["nowhere.md", "no.png", "page.md#three", "#four"]
