"""A small course for the tests of grading: one set, two functions and a written answer, NumPy only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.apps import NbGraderAPI
from traitlets.config.loader import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[2]
SET = "small"
NAME = f"{SET}/{SET}.ipynb"
ANSWERS = {"double": "    return 2 * x", "triple": "    return 3 * x"}


def _marks(name: str, *, solution: bool = False, points: int | None = None) -> dict:
    grade = points is not None
    marks = {"grade_id": name, "solution": solution, "grade": grade, "locked": not solution, "task": False}
    return {"nbgrader": {**marks, "schema_version": 3, **({"points": points} if grade else {})}}


def small_notebook() -> nbformat.NotebookNode:
    """The instructor's notebook of the small set."""
    cells = [
        new_markdown_cell("# Small\n\nSee [the lesson](../lesson.ipynb)."),
        new_code_cell("import numpy as np\nfrom classroom.checks import expect, passed", metadata=_marks("setup")),
    ]
    for name, body in ANSWERS.items():
        factor = body[-5]
        answer = f"def {name}(x):\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
        check = f"expect('{name}', {name}(np.arange(3.0)), {factor} * np.arange(3.0), because={{\n"
        check += f"    'the factor is missing': np.arange(3.0)}})\npassed('{name}')"
        cells.append(new_code_cell(answer, metadata=_marks(name, solution=True)))
        cells.append(new_code_cell(check, metadata=_marks(f"check-{name}", points=int(factor))))
    cells.append(new_markdown_cell("**A model answer**", metadata=_marks("why", solution=True, points=4)))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def make_course(root: Path) -> NbGraderAPI:
    """A course folder with the repository's own settings, its gradebook, and the set released."""
    (root / "nbgrader_config.py").symlink_to(ROOT / "nbgrader_config.py")
    source = root / "solutions" / NAME
    source.parent.mkdir(parents=True)
    nbformat.write(small_notebook(), source)
    return registered(root, SET)


def registered(root: Path, name: str) -> NbGraderAPI:
    """nbgrader in `root` with the repository's own settings, after the set was registered."""
    config = PyFileConfigLoader(str(ROOT / "nbgrader_config.py")).load_config()
    config.CourseDirectory.root = str(root)
    api = NbGraderAPI(config=config)
    result = api.generate_assignment(name)
    assert result["success"], result["log"]
    return api


def released(root: Path, **sources: str) -> nbformat.NotebookNode:
    """The student's notebook, with the sources of some cells replaced by name."""
    notebook = nbformat.read(root / "release" / NAME, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = sources.get(name, cell.source)
    return notebook


def answered(root: Path, **sources: str) -> nbformat.NotebookNode:
    """The student's notebook with both functions written, and some cells replaced by name."""
    right = {name: f"def {name}(x):\n{body}" for name, body in ANSWERS.items()}
    return released(root, **{**right, **sources})


def hand_in(root: Path, student: str, notebook: nbformat.NotebookNode, name: str = SET) -> Path:
    """Put a notebook where nbgrader looks for it; gives the file."""
    path = root / "submitted" / student / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def nbgrader(root: Path, *arguments: str) -> subprocess.Popen:
    """Start nbgrader in the course folder as in a shell without the environment activated; its output is merged."""
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": ""}
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "nbgrader"), *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
