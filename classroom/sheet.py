"""The instructor's notebook as the grader sees it: given cells, answers, checks, written answers.

nbgrader marks cells in their metadata: a solution cell is an answer, a graded locked code cell a check, a locked
cell without points is given to the student, a graded solution in Markdown is read by a person.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

OWN_CELL = "your cell"  # what the title of a cell begins with that the student added


@dataclass(frozen=True)
class Cell:
    """One code cell. `kind` is "given", "answer", "check" or "other" (no part in the grading)."""

    kind: str
    name: str  # nbgrader's grade_id, "" for other cells
    source: str
    points: float = 0.0

    @property
    def defines(self) -> tuple[str, ...]:
        """The names that the cell's top level defines or assigns."""
        return _defined(self.source)


@functools.cache
def _defined(source: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [leaf.id for t in targets for leaf in ast.walk(t) if isinstance(leaf, ast.Name)]
    return tuple(names)


@dataclass(frozen=True)
class Sheet:
    """The code cells of one instructor's notebook, in order."""

    cells: tuple[Cell, ...]

    def of_kind(self, kind: str) -> tuple[Cell, ...]:
        """The cells of one kind."""
        return tuple(cell for cell in self.cells if cell.kind == kind)

    @property
    def points(self) -> float:
        """The points that checks can give, without those of written answers."""
        return sum(cell.points for cell in self.of_kind("check"))

    @property
    def imports(self) -> tuple[str, ...]:
        """The large packages that the given cells import: the student's process has them before its clock starts."""
        given = "\n".join(cell.source for cell in self.of_kind("given"))
        return tuple(name for name in ("numpy", "torch") if f"import {name}" in given)

    def program(self, submitted: Sequence[Cell]) -> list[tuple[str, str]]:
        """The cells to run in the student's process, as (title, source), in the submission's order.

        The student decides nothing but the text of answers and of cells that they added: given cells are taken from
        here, checks are left out, and cells that are as we shipped them and take no part in the grading are skipped.
        """
        known = {cell.name: cell for cell in self.cells if cell.name}
        shipped = {cell.source for cell in self.of_kind("other")}
        present = {cell.name for cell in submitted}
        steps = [(cell.name, cell.source) for cell in self.of_kind("given") if cell.name not in present]
        for number, cell in enumerate(submitted):
            ours = known.get(cell.name)
            if ours is None:
                if cell.source.strip() and cell.source not in shipped:
                    steps.append((f"{OWN_CELL} {number + 1}", cell.source))
            elif ours.kind == "given":
                steps.append((ours.name, ours.source))
            elif ours.kind == "answer":
                steps.append((ours.name, cell.source))
        return steps


def read_sheet(path: Path | str) -> Sheet:
    """Read a notebook file in nbgrader's format."""
    return Sheet(tuple(read_cells(nbformat.read(path, as_version=4))))


def read_cells(notebook: nbformat.NotebookNode) -> list[Cell]:
    """The code cells of a notebook, each with its part in the grading according to its metadata."""
    return [_cell(cell) for cell in notebook.cells if cell.cell_type == "code"]


def _cell(cell: nbformat.NotebookNode) -> Cell:
    marks = cell.metadata.get("nbgrader") or {}
    name = str(marks.get("grade_id", ""))
    if not name:
        return Cell("other", "", cell.source)
    if marks.get("solution"):
        return Cell("answer", name, cell.source)
    if marks.get("grade"):
        return Cell("check", name, cell.source, float(marks.get("points", 0)))
    return Cell("given", name, cell.source)
