"""Every lesson runs and prints what it stores: elsewhere in the repository, offline, with other kernels, on one thread.

This is the slow part of the tests. Without it: ``make test TESTS='-m "not lesson"'``.
"""

import json
import os
import subprocess
import sys

import nbformat
import pytest
import torch

from tests.lessons.fixture import runnable_lesson
from tests.lessons.runs import OFFLINE, can_go_offline, nbval, other_kernels, run_elsewhere, run_environment
from tools.notebooks import FLOORS, compared_share, execute, lessons, normalise, read

by_lesson = pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)


@pytest.mark.lesson
@pytest.mark.timeout(900)
@by_lesson
def test_a_run_elsewhere_offline_with_other_kernels_gives_what_is_stored(path):
    result, left = run_elsewhere(path)
    assert result.returncode == 0, result.stdout[-6000:]
    assert left == set(), "a lesson writes where it runs; use a temporary folder"
    if not can_go_offline():
        pytest.skip("the lesson ran and prints what is stored, but with the network on: unshare cannot turn it off")


def test_the_kernels_of_that_run_are_others():
    """A product, a convolution and a function differ in their last bits: the training takes another path."""
    best = torch.backends.cpu.get_cpu_capability()
    kernels = other_kernels(best)
    if not kernels:
        pytest.skip(f"this processor has one set of kernels: {best}")
    script = """
import torch
torch.manual_seed(0)
a, b = torch.randn(64, 300), torch.randn(300, 100)
pictures, filters = torch.randn(8, 16, 16, 16), torch.randn(32, 16, 3, 3)
results = [a @ b, torch.conv2d(pictures, filters, padding=1), a.softmax(1)]
print(torch.backends.cpu.get_cpu_capability(), *(hash(result.numpy().tobytes()) for result in results), sep="\\n")
"""
    found = []
    for settings in ({}, kernels):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **settings}
        found.append(
            subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
            ).stdout.split()
        )
    native, other = found
    assert native[0] == best
    assert [a == b for a, b in zip(native, other, strict=True)] == [False] * 4


def test_kernels_that_are_chosen_by_hand_stand(monkeypatch):
    assert other_kernels("DEFAULT") == {}  # a processor without older ones
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    assert run_environment()["ATEN_CPU_CAPABILITY"] == "avx512"
    assert "ONEDNN_MAX_CPU_ISA" not in run_environment()
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    expected = other_kernels(torch.backends.cpu.get_cpu_capability())
    assert run_environment().items() >= {**expected, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}.items()


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


@pytest.mark.lesson
def test_a_file_that_is_left_behind_is_seen(tmp_path):
    notebook = runnable_lesson()
    notebook.cells[1].source = "open('checkpoint.safetensors', 'w').close()"
    nbformat.write(notebook, tmp_path / "writes.ipynb")
    result, left = run_elsewhere(tmp_path / "writes.ipynb")
    assert result.returncode == 0, result.stdout
    assert left == {"checkpoint.safetensors"}
