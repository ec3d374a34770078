"""Side by side, the longest lessons begin first; after the tests: how much of what lessons print is compared."""

import json

import pytest

from tools.lint_lessons import BUDGET
from tools.notebooks import FLOORS, compared_share, lessons, read


def promised(item: pytest.Item) -> float:
    """The seconds that a lesson promises in its first cell, if ``item`` is the run of a lesson; else 0."""
    if not item.get_closest_marker("lesson") or not hasattr(item, "callspec"):
        return 0
    found = BUDGET.search(read(item.callspec.params["path"]).cells[0].source)
    return float(found.group(1)) if found else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several workers; alone, what is quick comes first
        items.sort(key=promised, reverse=True)


def pytest_terminal_summary(terminalreporter):
    paths = lessons()
    if not paths:
        return
    floors = json.loads(FLOORS.read_text(encoding="utf-8"))
    terminalreporter.section("outputs of lessons that are compared")
    for path in paths:
        floor = floors.get(path.stem)
        recorded = "no floor recorded" if floor is None else f"floor {floor:.0%}"
        terminalreporter.write_line(f"{path.stem}: {compared_share(read(path)):.0%} ({recorded})")
