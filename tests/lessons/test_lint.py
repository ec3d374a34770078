"""The lint of the lesson contract: every lesson passes it, and every rule is broken once to see that it bites."""

from collections.abc import Callable

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tests.lessons.fixture import good_lesson
from tools.lint_lessons import problems
from tools.notebooks import lessons, read


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_lesson_keeps_the_contract(path):
    assert problems(read(path)) == []


def test_a_good_lesson_has_no_problems():
    assert problems(good_lesson()) == []


def source(cell: str, text: str) -> Callable[[NotebookNode], None]:
    """A change that gives the cell with this id another source."""

    def change(notebook: NotebookNode) -> None:
        next(each for each in notebook.cells if each.id == cell).source = text

    return change


def printing(text: str) -> Callable[[NotebookNode], None]:
    """A change that makes the first code cell have printed ``text``."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[1].outputs[0].text = text

    return change


def with_metadata(cell: int | None, **metadata) -> Callable[[NotebookNode], None]:
    """A change to the metadata of a cell, or of the notebook."""

    def change(notebook: NotebookNode) -> None:
        (notebook if cell is None else notebook.cells[cell]).metadata.update(metadata)

    return change


def with_error(notebook: NotebookNode) -> None:
    notebook.cells[1].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=[])]


def with_more_code(notebook: NotebookNode) -> None:
    extra = new_code_cell("a = 1\nb = 2\nc = 3", id="extra", execution_count=2)
    notebook.cells.insert(2, extra)
    notebook.cells[4].execution_count = 3


def with_more_text(notebook: NotebookNode) -> None:
    notebook.cells.append(new_markdown_cell("More.", id="more"))


def run_out_of_order(notebook: NotebookNode) -> None:
    notebook.cells[1].execution_count, notebook.cells[3].execution_count = 2, 1


def not_run(notebook: NotebookNode) -> None:
    notebook.cells[3].execution_count = None


def without_caption(notebook: NotebookNode) -> None:
    notebook.cells[4].source = "A single black pixel."


def same_ids(notebook: NotebookNode) -> None:
    notebook.cells[2].id = notebook.cells[1].id


def huge_output(notebook: NotebookNode) -> None:
    notebook.cells[1].outputs[0].text = "1234567 " * 300_000


BUDGET_LINE = "Runs in about 2 s on 2 CPU cores"
BREACHES = {
    "no title": (source("first", f"A title\n\n{BUDGET_LINE}"), "does not begin with a title"),
    "a title of the second level": (source("first", f"## A title\n\n{BUDGET_LINE}"), "does not begin with a title"),
    "two titles": (source("text", "# Another title"), "2 headings of the first level"),
    "no budget": (source("first", "# A title\n\nQuick."), "no budget line"),
    "a budget without a number": (source("first", "# T\n\nRuns in a few s on 2 CPU cores"), "no budget line"),
    "a long cell": (source("add", "\n".join(f"a{i} = {i}" for i in range(41))), "has 41 lines"),
    "tiny cells": (lambda n: [source("add", "1")(n), source("draw", "2")(n)], "median code cell has 1 lines"),
    "too much code": (with_more_code, "1.00 markdown cells a code cell"),
    "too much text": (with_more_text, "2.00 markdown cells a code cell"),
    "an unknown tag": (with_metadata(1, tags=["nbval-ignore-ouput"]), "unknown tag 'nbval-ignore-ouput'"),
    "a remote image": (source("text", "![a cat](https://example.org/cat.png)"), "image from another host"),
    "a remote image in HTML": (source("text", '<img alt="cat" src="//example.org/c.png">'), "image from another host"),
    "an image without alt text": (source("text", "![](figures/cat.png)"), "without alt text"),
    "a figure without a caption": (without_caption, "must begin with *Figure:"),
    "an absolute path": (source("add", "a = 1\nb = 2\nopen('/home/me/data.csv')"), "absolute path: /home/m"),
    "a Windows path": (source("add", "a = 1\nb = 2\nopen(r'C:\\data.csv')"), "absolute path: C:\\d"),
    "a path in an output": (printing("read /Users/me/data.csv\n"), "absolute path: /Users/m"),
    "a shell command": (source("add", "a = 1\nb = 2\n!pip install torch"), "runs a shell command"),
    "a pip magic": (source("add", "a = 1\nb = 2\n%pip install torch"), "runs a shell command"),
    "import *": (source("add", "from math import *\na = 1\nb = 2"), "uses import *"),
    "cuda()": (source("add", "a = 1\nb = 2\nmodel.cuda()"), "calls .cuda()"),
    "a bar of its own": (source("add", "a = 1\nb = 2\nfor i in tqdm(range(3)): pass"), "a progress bar of its own"),
    "a stored progress bar": (printing("  0%|          | 0/5 [00:00<?, ?it/s]"), "stores a progress bar"),
    "no certificate checks": (source("add", "a = 1\nb = 2\nget(url, verify=False)"), "certificate checks off"),
    "run out of order": (run_out_of_order, "not run in order from 1: [2, 1]"),
    "not run": (not_run, "not run in order from 1: [1, None]"),
    "an error in an output": (with_error, "stores an error"),
    "widget state": (with_metadata(None, widgets={"state": {}}), "metadata.widgets is not stripped"),
    "timings": (with_metadata(1, execution={"iopub.execute_input": "2026"}), "not in the stored form"),
    "another kernel": (with_metadata(None, kernelspec={"name": "my-env"}), "not in the stored form"),
    "an id used twice": (same_ids, "ids are missing or used twice"),
    "a huge output": (huge_output, "at most 2,000,000"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_found(name):
    change, message = BREACHES[name]
    notebook = good_lesson()
    change(notebook)
    assert any(message in problem for problem in problems(notebook)), problems(notebook)


@pytest.mark.parametrize(
    "text",
    [
        "See [the paper](https://arxiv.org/abs/1503.02531).",
        "The ratio and/or the root/work of it, 1/2, 3/home.",
        "```python\n# a comment, not a title\n```",
        "![a bar chart](figures/bars.png)",
    ],
)
def test_ordinary_text_is_no_breach(text):
    notebook = good_lesson()
    notebook.cells[2].source = text
    assert problems(notebook) == []
