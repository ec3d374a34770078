"""Every lesson from a fresh kernel, against the budget that its first cell states: "Runs in about N s on 2 CPU cores".

A lesson that takes more than 1.25 times its budget is over it: the command then fails.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.interleave import Row
from tools.lint_lessons import BUDGET
from tools.notebooks import LESSONS, execute, lessons, read

TITLE = "The lessons"
NOTE = "One run of each, with the start of its kernel, on at most two cores of the machine."
ALLOWED = 1.25
CORES = 2


def budget_seconds(first_cell: str) -> int:
    """The N of the budget line. ValueError if there is none."""
    found = BUDGET.search(first_cell)
    if found is None:
        raise ValueError(f"no budget line in {first_cell[:80]!r}; expected: Runs in about N s on 2 CPU cores")
    return int(found.group(1))


def judge(lesson: str, budget: float, seconds: float) -> Row:
    """The row of a lesson that took ``seconds``."""
    return {
        "what": lesson,
        "budget s": budget,
        "seconds": seconds,
        "share of budget": seconds / budget,
        "aim": f"≤ {ALLOWED}",
        "met": seconds <= ALLOWED * budget,
    }


@contextmanager
def few_cores(count: int) -> Iterator[None]:
    """At most ``count`` cores, for this process and those that it starts. Where the system cannot: as it is."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def time_of(path: Path) -> float:
    """Seconds from nothing to the last output."""
    notebook = read(path)
    start = time.perf_counter()
    execute(notebook, LESSONS)
    return time.perf_counter() - start


def run(*, quick: bool = False) -> list[Row]:
    """All lessons; a quick run takes the first only."""
    rows = []
    with few_cores(CORES):
        for path in lessons()[: 1 if quick else None]:
            rows.append(judge(path.stem, budget_seconds(read(path).cells[0].source), time_of(path)))
    return rows
