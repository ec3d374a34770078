"""The glue to nbgrader: two preprocessors for `nbgrader autograde`, set up in nbgrader_config.py.

`RestoreMarks` goes first in the first pass and puts nbgrader's own metadata back as the instructor wrote it.
`GradeInSandbox` takes the place of `Execute` in the second pass: nothing of a submission is run in nbgrader's process
or in a kernel. Scores, gradebook and feedback are then nbgrader's, from the outputs written here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Float, Integer

from classroom.grader import MAX_SHOWN, Result, Student, grade
from classroom.sandbox import Limits
from classroom.sheet import Sheet, read_cells, read_sheet


class CanaryFailed(RuntimeError):
    """The reference solution does not score full marks here, so no submission is graded."""


class _WithSource(NbGraderPreprocessor):
    def _source(self, resources: dict[str, Any]) -> Path:
        course = self.parent.parent.coursedir  # preprocessor -> exporter -> converter
        names = resources["nbgrader"]
        folder = course.format_path(course.source_directory, ".", names["assignment"])
        return Path(folder) / f"{names['notebook']}.ipynb"


class RestoreMarks(_WithSource):
    """Undo what a submission changed in nbgrader's metadata: points, kinds of cells, names that are not ours."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Change the notebook in place."""
        import nbformat

        source = nbformat.read(self._source(resources), as_version=4)
        ours = {cell.metadata.nbgrader.grade_id: cell for cell in source.cells if "nbgrader" in cell.metadata}
        seen: set[str] = set()
        for cell in nb.cells:
            marks = cell.metadata.pop("nbgrader", None) or {}
            name = marks.get("grade_id")
            if name in ours and name not in seen and ours[name].cell_type == cell.cell_type:
                seen.add(name)
                checksum = {"checksum": marks["checksum"]} if "checksum" in marks else {}
                cell.metadata["nbgrader"] = NotebookNode({**ours[name].metadata.nbgrader, **checksum})
        return nb, resources


class GradeInSandbox(_WithSource):
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
        with _one_thread(), Student(program, self._limits(), isolated=self.isolated) as student:
            results = {**student.cells, **grade(sheet, student)}
            results = {**results, **{n: r for n, r in student.cells.items() if n not in results or r.error}}
        number = 0
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            number += 1
            name = (cell.metadata.get("nbgrader") or {}).get("grade_id") or f"your cell {number}"
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


def canary(
    sheet: Sheet,
    limits: Limits = Limits(),
    *,
    preload: Sequence[str] = ("numpy", "torch"),
    isolated: bool = True,
) -> str:
    """Grade the reference solution. Return "" if it scores full marks, else what failed."""
    program = sheet.program(sheet.cells)
    with _one_thread(), Student(program, limits, preload=preload, isolated=isolated) as student:
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
