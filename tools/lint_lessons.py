"""The contract of a lesson, as far as it can be read from the file.

    python -m tools.lint_lessons [00 01 ...]    prints what is wrong, and each lesson's measures

Each rule is a function from a notebook to the list of its breaches. What only a run can show, tests/lessons does.
"""

import copy
import re
import statistics
import sys
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.notebooks import IGNORED, caption, code_cells, compared_share, lessons, normalise, read

TAGS = re.compile(rf"{IGNORED}|widget-[a-z]+")  # widget-... marks a cell that a test runs in a browser
BUDGET = re.compile(r"[Rr]uns in about (\d+) s on 2 CPU cores\b")
LONGEST_CELL = 40
MEDIAN = (3, 9)  # lines; the aim is about 6
RATIO = (1.3, 1.8)  # markdown cells to code cells
LARGEST = 2_000_000  # bytes of a stored lesson, outputs and all
REMOTE_IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(?:https?:)?//|<img[^>]+src\s*=\s*[\"']?(?:https?:)?//", re.IGNORECASE)
IMAGE_WITHOUT_ALT = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt=[\"'][^\"'])[^>]*>", re.IGNORECASE)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<])/(?:home|root|tmp|Users|work|mnt|opt|var|usr|etc|content|private|kaggle)/\w|\b[A-Za-z]:\\\w"
)
PROGRESS_BAR = re.compile(r"\d%\|")
FORBIDDEN = {
    r"^\s*[!%]\s*(?:pip|conda|uv)\b|^\s*!": "runs a shell command; a lesson needs nothing but Python",
    r"^\s*from\s+\S+\s+import\s+\*": "uses import *; name what you import",
    r"\.cuda\(": "calls .cuda(); use course_lib.device.pick_device",
    r"\btqdm\b": "draws a progress bar of its own, which gets stored; use course_lib.progress.bar",
    r"_create_unverified|verify\s*=\s*False|CERT_NONE": "turns certificate checks off",
}


def title(notebook: NotebookNode) -> Iterator[str]:
    """One H1 heading, as the first line of the first cell."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        yield "the first cell does not begin with a title: # Title"
    headings = sum(len(re.findall(r"^# \S", _prose(cell), re.MULTILINE)) for cell in _markdown(notebook))
    if headings > 1:
        yield f"{headings} headings of the first level; the title is the only one"


def budget(notebook: NotebookNode) -> Iterator[str]:
    """The run time is promised in the first cell, as a number that the benchmark can check."""
    if not notebook.cells or not BUDGET.search(notebook.cells[0].source):
        yield "the first cell has no budget line: Runs in about N s on 2 CPU cores"


def cell_length(notebook: NotebookNode) -> Iterator[str]:
    """No long code cells, and most of them short."""
    lengths = [len(cell.source.strip().splitlines()) for cell in code_cells(notebook)]
    for cell, length in zip(code_cells(notebook), lengths, strict=True):
        if length > LONGEST_CELL:
            yield f"cell {cell.id} has {length} lines; at most {LONGEST_CELL}"
    if lengths and not MEDIAN[0] <= statistics.median(lengths) <= MEDIAN[1]:
        yield f"the median code cell has {statistics.median(lengths):g} lines; {MEDIAN[0]} to {MEDIAN[1]}"


def ratio(notebook: NotebookNode) -> Iterator[str]:
    """Text and code in balance: cells of markdown for each cell of code."""
    value = _ratio(notebook)
    if not RATIO[0] <= round(value, 2) <= RATIO[1]:
        yield f"{value:.2f} markdown cells a code cell; {RATIO[0]} to {RATIO[1]}"


def tags(notebook: NotebookNode) -> Iterator[str]:
    """Only tags that something reads."""
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if not TAGS.fullmatch(tag):
                yield f"cell {cell.id} has the unknown tag {tag!r}; known are {TAGS.pattern}"


def images(notebook: NotebookNode) -> Iterator[str]:
    """Pictures are local and described; a drawn figure is followed by its caption."""
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            if REMOTE_IMAGE.search(cell.source):
                yield f"cell {cell.id} shows an image from another host"
            if IMAGE_WITHOUT_ALT.search(_prose(cell)):
                yield f"cell {cell.id} shows an image without alt text"
        elif any(_is_image(output) for output in cell.get("outputs", [])):
            following = notebook.cells[position + 1] if position + 1 < len(notebook.cells) else None
            if not caption(following):
                yield f"cell {cell.id} draws a figure; the next cell must begin with *Figure: what it shows.*"


def paths(notebook: NotebookNode) -> Iterator[str]:
    """No path of one machine, neither in what is written nor in what is printed."""
    for cell in notebook.cells:
        if found := ABSOLUTE_PATH.search("\n".join([cell.source, *_texts(cell)])):
            yield f"cell {cell.id} holds an absolute path: {found.group()}..."


def forbidden(notebook: NotebookNode) -> Iterator[str]:
    """Nothing that ties a lesson to one set-up."""
    for cell in code_cells(notebook):
        for pattern, message in FORBIDDEN.items():
            if re.search(pattern, cell.source, re.MULTILINE):
                yield f"cell {cell.id} {message}"


def executed(notebook: NotebookNode) -> Iterator[str]:
    """Run from top to bottom in one go, without an error or a progress bar."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the code cells were not run in order from 1: {counts}"
    for cell in code_cells(notebook):
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {cell.id} stores an error; show a mistake failing with try and print"
        if any(map(PROGRESS_BAR.search, _texts(cell))):
            yield f"cell {cell.id} stores a progress bar: store it again with make notebooks"


def stored_form(notebook: NotebookNode) -> Iterator[str]:
    """As tools/notebooks.py stores it: no widget state, no timings, ids there and different."""
    if "widgets" in notebook.metadata:
        yield "metadata.widgets is not stripped"
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "cell ids are missing or used twice"
    if len(str(notebook)) > LARGEST:
        yield f"{len(str(notebook)):,} bytes; at most {LARGEST:,}: draw smaller figures, print less"
    if notebook != normalise(copy.deepcopy(notebook)):
        yield "not in the stored form: run python tools/notebooks.py"


RULES = (title, budget, cell_length, ratio, tags, images, paths, forbidden, executed, stored_form)


def problems(notebook: NotebookNode) -> list[str]:
    """Every breach of the contract, as lines to read."""
    return [message for rule in RULES for message in rule(notebook)]


def measures(notebook: NotebookNode) -> str:
    """The numbers of a lesson that the contract gives aims for."""
    lengths = [len(cell.source.strip().splitlines()) for cell in code_cells(notebook)] or [0]
    words = sum(len(_prose(cell).split()) for cell in _markdown(notebook))
    return (
        f"{len(lengths)} code cells, median {statistics.median(lengths):g} and longest {max(lengths)} lines; "
        f"{_ratio(notebook):.2f} markdown cells a code cell; {words / max(sum(lengths), 1):.1f} words a line of code; "
        f"{compared_share(notebook):.0%} of outputs compared"
    )


def _markdown(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def _prose(cell: NotebookNode) -> str:
    """A markdown cell without its blocks of code, where # begins a comment."""
    return re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)


def _ratio(notebook: NotebookNode) -> float:
    return len(_markdown(notebook)) / max(len(code_cells(notebook)), 1)


def _is_image(output: NotebookNode) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def _texts(cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield from (str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def main(arguments: list[str]) -> int:
    """Print what is wrong and the measures; 1 if anything is wrong."""
    found = 0
    for path in lessons(arguments):
        notebook = read(path)
        print(f"{path.stem}: {measures(notebook)}")
        for message in problems(notebook):
            found += 1
            print(f"  {message}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
