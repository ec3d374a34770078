"""One child process for all trusted answers: importing torch anew for each of a hundred mutants would take minutes."""

import sys

import pytest
import torch

from classroom.sandbox import Sandbox
from tests.classroom.conftest import isolation_problem
from tests.exercises.sets import PATIENT


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The checks are small: on a busy machine, PyTorch's threads would spend minutes waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def room():
    if sys.platform == "win32":
        pytest.skip("the grader runs on Linux, in WSL2 or in a container")
    with Sandbox(PATIENT, isolated=not isolation_problem()) as sandbox:
        yield sandbox
