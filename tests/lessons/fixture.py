"""A lesson small enough to run in a second that keeps the whole contract; the tests break it, one rule at a time."""

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebooks import normalise

FIRST = "# A title\n\nYou will add. Runs in about 2 s on 2 CPU cores, 100 MB; GPU: 2 s."
ADD = "one = 1\ntwo = 2\nprint('sum', one + two)"
DRAW = "# stands for a figure\nfrom IPython.display import Image\nwidth = 1\nImage"
# One black pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def good_lesson() -> NotebookNode:
    """Three markdown cells and two code cells, as if they had been run and stored."""
    picture = new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})
    cells = [
        new_markdown_cell(FIRST, id="first"),
        new_code_cell(ADD, id="add", outputs=[new_output("stream", name="stdout", text="sum 3\n")]),
        new_markdown_cell("Now a picture.", id="text"),
        new_code_cell(DRAW, id="draw", outputs=[picture]),
        new_markdown_cell("*Figure: a single black pixel.*", id="caption"),
    ]
    notebook = normalise(new_notebook(cells=cells))
    nbformat.validate(notebook)
    return notebook


def runnable_lesson() -> NotebookNode:
    """A title, a cell whose output is compared, and one whose output is not; neither has been run."""
    cells = [
        new_markdown_cell(FIRST, id="first"),
        new_code_cell(ADD, id="add"),
        new_code_cell("import time\ntime.time_ns()", id="clock", metadata={"tags": ["nbval-ignore-output"]}),
    ]
    return new_notebook(cells=cells)
