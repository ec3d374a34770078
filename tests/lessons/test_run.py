"""Every lesson runs, prints what it stores, and runs again: elsewhere in the repository, with the network off.

This is the slow part of the tests. Without it: ``make test TESTS='-m "not lesson"'``.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from tests.lessons.fixture import runnable_lesson
from tests.lessons.runs import OFFLINE, can_go_offline, left_behind, listing, nbval, run_elsewhere
from tools.notebooks import FLOORS, compared_share, execute, lessons, normalise, read

by_lesson = pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def runs(request):
    """Lesson -> its first and second run, under way: two lessons at a time, the second run after the first."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    chosen = sorted({item.callspec.params["path"] for item in here if "runs" in item.fixturenames})
    first: dict[Path, Future] = {}
    second: dict[Path, Future] = {}
    before = listing()
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for path in chosen:
            first[path] = pool.submit(nbval, path)
        for path in chosen:
            second[path] = pool.submit(lambda p=path: (first[p].result(), run_elsewhere(p.stem))[1])
        yield first, second, before


@pytest.mark.lesson
@pytest.mark.timeout(900)
@by_lesson
def test_stored_outputs_are_what_a_run_gives(path, runs):
    result = runs[0][path].result()
    assert result.returncode == 0, result.stdout[-6000:]


@pytest.mark.lesson
@pytest.mark.timeout(900)
@by_lesson
def test_a_second_run_elsewhere_without_a_network(path, runs):
    result = runs[1][path].result()
    assert result.returncode == 0, result.stdout[-6000:]
    assert left_behind(runs[2]) == set(), "a lesson writes where it runs; use a temporary folder"
    if not can_go_offline():
        pytest.skip("the lesson ran again, but with the network on: unshare cannot turn it off here")


@by_lesson
def test_the_share_of_compared_outputs_does_not_fall(path):
    floors = json.loads(FLOORS.read_text(encoding="utf-8"))
    assert path.stem in floors, f"record the share of {path.stem}: python -m tools.notebooks --floors"
    assert compared_share(read(path)) >= floors[path.stem]


def test_every_floor_belongs_to_a_lesson():
    assert set(json.loads(FLOORS.read_text(encoding="utf-8"))) <= {path.stem for path in lessons()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A tiny notebook that has been run and stored."""
    path = tmp_path_factory.mktemp("stored") / "tiny.ipynb"
    notebook = runnable_lesson()
    execute(notebook, path.parent)
    nbformat.write(normalise(notebook), path)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    return path


@pytest.mark.lesson
def test_nbval_passes_an_untouched_lesson(stored):
    result = nbval(stored)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.lesson
def test_nbval_finds_an_edited_output_and_no_more(stored, tmp_path):
    notebook = read(stored)
    notebook.cells[1].outputs[0].text = "sum 4\n"
    notebook.cells[2].outputs[0].data["text/plain"] = "0"  # tagged nbval-ignore-output
    edited = tmp_path / "edited.ipynb"
    nbformat.write(notebook, edited)
    result = nbval(edited)
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed" in result.stdout
    assert "sum 4" in result.stdout and "sum 3" in result.stdout


@pytest.mark.lesson
def test_a_lesson_that_needs_the_network_fails_offline(tmp_path):
    if not can_go_offline():
        pytest.skip("unshare cannot turn the network off here")
    script = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=5)"
    result = subprocess.run([*OFFLINE, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "unreachable" in result.stderr


def test_files_left_behind_are_seen(monkeypatch, tmp_path):
    monkeypatch.setattr("tests.lessons.runs.LESSONS", tmp_path)
    monkeypatch.setattr("tests.lessons.runs.ELSEWHERE", tmp_path / "none")
    before = listing()
    (tmp_path / "checkpoint.safetensors").touch()
    assert left_behind(before) == {str(tmp_path / "checkpoint.safetensors")}
