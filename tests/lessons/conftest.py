"""After the tests: how much of what each lesson prints and draws is compared with a run."""

import json

from tools.notebooks import FLOORS, compared_share, lessons, read


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
