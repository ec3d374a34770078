"""The exercise sets, and how a test grades one of them with an answer replaced."""

import ast
import functools
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat

from classroom.grader import Result, Student, grade
from classroom.sandbox import Limits, Sandbox
from classroom.sheet import Cell, Sheet, read_sheet
from tests.exercises import (
    alternatives_ps1,
    alternatives_ps2,
    further_ps1,
    further_ps2,
    mutants_ps1,
    mutants_ps2_units,
    mutants_ps2_weights,
)
from tests.exercises.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
# One room serves all answers of a test run, and the machine may be busy.
PATIENT = Limits(seconds_per_call=120, seconds_per_cell=120, seconds_in_all=3_600)


@dataclass(frozen=True)
class ExerciseSet:
    """One set: what it promises, the wrong answers to it and the right ones written another way."""

    name: str
    by_machine: int  # points
    by_hand: int
    exercises: int
    written: str  # the cell that a person reads
    mutants: list[Mutant] = field(repr=False)
    alternatives: dict[str, str] = field(repr=False)
    further: dict[str, tuple[str, str]] = field(repr=False)  # wrong answers beside the mutants

    def path(self, folder: str) -> Path:
        """The notebook in `solutions` or `assignments`."""
        return ROOT / folder / self.name / f"{self.name}.ipynb"

    def notebook(self, folder: str) -> nbformat.NotebookNode:
        """The notebook in `solutions` or `assignments`, read."""
        return nbformat.read(self.path(folder), as_version=4)

    def sheet(self) -> Sheet:
        """The instructor's notebook as the grader sees it."""
        return read_sheet(self.path("solutions"))


SETS = (
    ExerciseSet(
        "ps1_distillation",
        34,
        6,
        10,
        "why-soft-targets",
        mutants_ps1.MUTANTS,
        alternatives_ps1.ALTERNATIVES | further_ps1.ANSWERS.rights,
        further_ps1.ANSWERS.wrongs,
    ),
    ExerciseSet(
        "ps2_pruning",
        34,
        6,
        10,
        "two-sentences",
        mutants_ps2_weights.MUTANTS + mutants_ps2_units.MUTANTS,
        alternatives_ps2.ALTERNATIVES | further_ps2.ANSWERS.rights,
        further_ps2.ANSWERS.wrongs,
    ),
)


@functools.cache
def names_used(source: str) -> set[str]:
    """The names that a piece of code reads or calls, those in its functions included."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def needed(cells: Collection[Cell], checks: Iterable[str]) -> list[Cell]:
    """The cells without the answers and given cells that these checks do not use, directly or through others.

    A measurement that trains ten networks need not run again for each wrong answer to another exercise.
    """
    wanted = set().union(*(names_used(cell.source) for cell in cells if cell.kind == "check" and cell.name in checks))
    taken: set[str] = set()
    sources = [cell for cell in cells if cell.kind in ("answer", "given")]
    while new := {c.name for c in sources if wanted & set(c.defines)} - taken:
        taken |= new
        wanted = wanted.union(*(names_used(cell.source) for cell in sources if cell.name in new))
    return [c for c in cells if c.kind == "check" or c.name in taken or (c.kind == "given" and not c.defines)]


def graded(sheet: Sheet, room: Sandbox, source: str = "", only: Collection[str] | None = None) -> dict[str, Result]:
    """Grade the reference solution, with the answer replaced that defines the names of `source`.

    Args:
        only: names of checks; None for those that use the new answer, or for all if there is none.
    """
    mine = set(Cell("answer", "", source).defines)
    cells = [replace(c, source=source) if c.kind == "answer" and mine & set(c.defines) else c for c in sheet.cells]
    assert not source or cells != list(sheet.cells), "the source answers no exercise"
    if only is None:
        changed = {cell.name for cell in cells if source and cell.source == source}
        checks = [cell.name for cell in sheet.of_kind("check")]
        only = [c for c in checks if not source or changed & {cell.name for cell in needed(cells, [c])}]
    parts = {cell.name for cell in needed(cells, only)} if source else {cell.name for cell in cells}
    sheet = Sheet(tuple(cell for cell in sheet.cells if cell.name in parts))
    with Student(sheet.program([cell for cell in cells if cell.name in parts]), PATIENT, room=room) as student:
        results = grade(sheet, student, only)
    errors = {name: result for name, result in student.cells.items() if result.error}
    return results if source else {**errors, **results}


def run_demonstrations(sheet: Sheet) -> dict:
    """Run all cells but the checks in one plain namespace, as a learner with the reference answers does. Returns it."""
    names: dict = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of one of the very bugs that are shown
        for cell in sheet.cells:
            if cell.kind != "check":
                exec(compile(cell.source, cell.name or "shown", "exec"), names)
    return names
