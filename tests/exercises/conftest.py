"""One child process for all trusted answers: importing torch anew for each of a hundred mutants would take minutes."""

import sys

import pytest

from classroom.sandbox import Sandbox, SandboxError
from tests.exercises.sets import PATIENT


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
    with Sandbox(PATIENT, isolated=not problem) as sandbox:
        yield sandbox
