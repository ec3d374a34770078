"""The glue to nbgrader: two preprocessors for `nbgrader autograde`, set up in nbgrader_config.py.

`RestoreMarks` goes first in the first pass and puts nbgrader's own metadata back as the instructor wrote it.
`GradeInSandbox` takes the place of `Execute` in the second pass: nothing of a submission is run in nbgrader's process
or in a kernel. Scores, gradebook and feedback are then nbgrader's, from the outputs written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import nbformat
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Float, Integer

from classroom.grader import MAX_SHOWN, Result, Student, grade
from classroom.harmless import harmless
from classroom.sandbox import Limits
from classroom.sheet import OWN_CELL, Sheet, read_cells, read_sheet

_METADATA = {"language_info": {"name": "python"}}


class CanaryFailed(RuntimeError):
    """The reference solution does not score full marks here, so no submission is graded."""


class _InCourse(NbGraderPreprocessor):
    def _folder(self, step: str, student: str, assignment: str) -> Path:
        course = self.parent.parent.coursedir  # preprocessor -> exporter -> converter
        return Path(course.format_path(getattr(course, f"{step}_directory"), student, assignment))

    def _source(self, resources: dict[str, Any]) -> Path:
        names = resources["nbgrader"]
        return self._folder("source", ".", names["assignment"]) / f"{names['notebook']}.ipynb"


class TakeText(_InCourse):
    """Build the notebook anew: of a submission only the text of its cells comes in, and Markdown as harmless HTML.

    Outputs, metadata and names of cells are the student's to write, and nbgrader would show or trust them. Which cell
    is worth what is taken from the instructor's notebook.
    """

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Return a new notebook.

        Raises:
            ValueError: the folder of the submission has a name that nbgrader's pages would not show as text.
        """
        names = resources["nbgrader"]
        self._check_student(names)
        # nbgrader has copied whatever lay beside the notebook, and its server would show it under its own address.
        shutil.rmtree(self._folder("autograded", names["student"], names["assignment"]), ignore_errors=True)
        timestamp = self._folder("submitted", names["student"], names["assignment"]) / "timestamp.txt"
        if timestamp.is_file():  # written again with the notebook: nbgrader sees by it that a newer one was handed in
            resources["outputs"] = {timestamp.name: timestamp.read_bytes()}
        source = nbformat.read(self._source(resources), as_version=4)
        ours = {cell.metadata.nbgrader.grade_id: cell for cell in source.cells if "nbgrader" in cell.metadata}
        cells = []
        for cell in nb.cells:
            known = ours.get((cell.metadata.get("nbgrader") or {}).get("grade_id"))
            if known and known.cell_type == cell.cell_type:
                del ours[known.metadata.nbgrader.grade_id]  # a second cell of this name is the student's own
                cells.append(_fresh(cell, known.metadata.nbgrader))
            else:
                cells.append(_fresh(cell, None))
        return new_notebook(cells=cells, metadata=_METADATA), resources

    def _check_student(self, names: dict[str, str]) -> None:
        student = names["student"]
        if not re.fullmatch(r"[\w.@+ -]+", student):
            with Gradebook(names["db_url"]) as book:
                book.remove_student(student)  # nbgrader has entered it already
            raise ValueError(f"the folder submitted/{student}: rename it to letters, digits and any of _ . @ + -")


def _fresh(cell: NotebookNode, marks: NotebookNode | None) -> NotebookNode:
    metadata = {"nbgrader": marks} if marks else {}
    if cell.cell_type != "code":
        return new_markdown_cell(harmless(cell.source, cell.get("attachments")), metadata=metadata)
    texts = [output for output in cell.outputs if output.output_type in ("stream", "error")]
    return new_code_cell(cell.source, metadata=metadata, outputs=texts)


class ShowHarmless(Preprocessor):
    """For what nbgrader shows: the same, also for notebooks that were graded before `TakeText` was there."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Return a new notebook."""
        cells = [_fresh(cell, cell.metadata.get("nbgrader")) for cell in nb.cells]
        return new_notebook(cells=cells, metadata=_METADATA), resources


class GradeInSandbox(_InCourse):
    """Run the checks on a submission whose code runs in a sandbox, and write the outputs that nbgrader scores."""

    seconds_in_all = Float(180.0, help="Time for one submission.").tag(config=True)
    seconds_per_call = Float(10.0, help="Time for one call of a student's function.").tag(config=True)
    seconds_per_cell = Float(20.0, help="Time for one of the student's cells.").tag(config=True)
    memory_mb = Integer(2_048, help="Memory for one submission, beyond the interpreter's own.").tag(config=True)
    isolated = Bool(
        True,
        help="False runs student code in full view of the disk and the network. Only for code that you trust.",
    ).tag(config=True)

    # Source notebooks whose reference solution scored full marks, or the reason why not, in this run of nbgrader.
    _canaries: ClassVar[dict[str, str]] = {}

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Change the outputs of the notebook in place.

        Raises:
            CanaryFailed: the reference solution does not score full marks on this machine.
            SandboxError: this machine cannot isolate student code.
        """
        path = self._source(resources)
        sheet = read_sheet(path)
        self._canary(path, sheet)
        program = sheet.program(read_cells(nb))
        with _one_thread(), Student(program, self._limits(), preload=sheet.imports, isolated=self.isolated) as student:
            results = {**student.cells, **grade(sheet, student)}
            results = {**results, **{n: r for n, r in student.cells.items() if n not in results or r.error}}
        number = 0
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            number += 1
            name = (cell.metadata.get("nbgrader") or {}).get("grade_id") or f"{OWN_CELL} {number}"
            cell.outputs = _outputs(results[name]) if name in results else []
            cell.execution_count = None
        return nb, resources

    def _limits(self) -> Limits:
        return Limits(
            seconds_per_call=self.seconds_per_call,
            seconds_per_cell=self.seconds_per_cell,
            seconds_in_all=self.seconds_in_all,
            memory_mb=self.memory_mb,
        )

    def _canary(self, path: Path, sheet: Sheet) -> None:
        key = hashlib.sha256(path.read_bytes()).hexdigest() + str(path)
        if key not in self._canaries:
            self._canaries[key] = canary(sheet, self._limits(), isolated=self.isolated)
        if self._canaries[key]:
            raise CanaryFailed(
                f"the reference solution in {path} does not score full marks on this machine, so nobody's "
                f"submission is graded. Is a package missing in the grader's interpreter?\n{self._canaries[key]}"
            )


def canary(sheet: Sheet, limits: Limits = Limits(), *, isolated: bool = True) -> str:
    """Grade the reference solution. Return "" if it scores full marks, else what failed."""
    program = sheet.program(sheet.cells)
    with _one_thread(), Student(program, limits, preload=sheet.imports, isolated=isolated) as student:
        try:
            results = [*student.cells.values(), *grade(sheet, student).values()]
        except Exception as error:  # a given cell, which runs in this process as well
            return f"{type(error).__name__}: {error}"
    return "\n".join(f"{r.name}: {r.error[1]}" for r in results if r.error)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Checks are small: on a busy machine, PyTorch's threads would spend seconds waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _outputs(result: Result) -> list[NotebookNode]:
    outputs = []
    if result.printed:
        outputs.append(new_output("stream", name="stdout", text=result.printed[:MAX_SHOWN]))
    if result.error:
        name, message, where = result.error
        text = f"{name}: {message}" + (f"\n{where}" if where else "")
        outputs.append(new_output("error", ename=name, evalue=message, traceback=text.splitlines()))
    return outputs
