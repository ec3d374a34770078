"""One child process for all trusted answers: importing torch anew for each of a hundred mutants would take minutes."""

import sys
from pathlib import Path

import pytest

from course_lib.grading.sandbox import Sandbox, SandboxError
from course_lib.grading.sheet import Sheet, read_sheet

ROOT = Path(__file__).resolve().parents[2]
NAME = "ps1_distillation/ps1_distillation.ipynb"


def isolation_problem() -> str:
    """Why this machine cannot isolate student code; "" if it can."""
    try:
        with Sandbox(preload=()):
            return ""
    except SandboxError as error:
        return str(error).replace("\n", " ")


@pytest.fixture(scope="session")
def problem() -> str:
    return isolation_problem()


@pytest.fixture
def needs_isolation(problem: str) -> None:
    """For tests of the walls themselves. The gates on the exercises run everywhere."""
    if problem:
        pytest.skip(f"no isolation on this machine: {problem}")


@pytest.fixture(scope="session")
def room(problem: str):
    if sys.platform == "win32":
        pytest.skip("the grader runs on Linux, in WSL2 or in a container")
    with Sandbox(isolated=not problem) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def sheet() -> Sheet:
    return read_sheet(ROOT / "solutions" / NAME)
