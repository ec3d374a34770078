"""Tests of the walls themselves run where student code can be isolated, and say why where it cannot."""

import pytest

from classroom.sandbox import Sandbox, SandboxError


def isolation_problem() -> str:
    """Why this machine cannot isolate student code; "" if it can."""
    try:
        with Sandbox(preload=()):
            return ""
    except SandboxError as error:
        return str(error).replace("\n", " ")


@pytest.fixture(scope="session")
def needs_isolation() -> None:
    """Skips the test where student code cannot be isolated."""
    if problem := isolation_problem():
        pytest.skip(f"no isolation on this machine: {problem}")
