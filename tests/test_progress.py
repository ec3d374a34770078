"""The progress bar: seen where somebody waits, and never in the stored outputs of a lesson."""

import io

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_lib.progress import bar
from tools.notebooks import ENVIRONMENT, execute

# Longer than the two seconds after which a bar comes up.
SLOW_LOOP = "for _ in bar(range(25)):\n    time.sleep(0.1)"
START = "import os, time\nfrom course_lib.progress import bar"


def test_a_slow_fit_in_a_lesson_leaves_no_bar_in_the_output(tmp_path):
    """In a real kernel, with the environment that lessons are stored and compared in; then without its variable."""
    assert ENVIRONMENT["TQDM_DISABLE"] == "1"
    sources = (START, SLOW_LOOP, "del os.environ['TQDM_DISABLE']", SLOW_LOOP)
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    execute(notebook, tmp_path)
    *quiet, shown = (cell.outputs for cell in notebook.cells)
    assert quiet == [[], [], []]
    assert "%|" in str(shown)


@pytest.mark.parametrize("value", ["", "0"])
def test_a_terminal_shows_a_bar_unless_it_is_switched_off(monkeypatch, value):
    monkeypatch.setenv("TQDM_DISABLE", value)
    assert not bar(range(3)).disable
    assert bar(range(3), show=False).disable
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert bar(range(3)).disable


def test_a_bar_without_parts_is_moved_by_hand(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with bar(total=10, initial=4, unit="round") as rounds:
        rounds.update(2)
        assert (rounds.n, rounds.total, rounds.unit) == (6, 10, "round")
