"""Grades one submission: the student's code in a sandbox, the instructor's checks here.

This process never runs a line of the student's code. The names that the answers define are bound to stand-ins; a
check that calls one sends the arguments to the sandbox and gets data back. Expected values never leave this process.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from classroom.checks import CheckFailed, expect_that, told_change
from classroom.sandbox import Limits, Sandbox, StudentProcessEnded
from classroom.sheet import OWN_CELL, Cell, Sheet

MAX_RESTARTS = 4
MAX_SHOWN = 8_000


class StudentError(Exception):
    """An error of a type that only the student's process knows."""


@dataclass(frozen=True)
class Result:
    """What became of one cell. `error` is None if it passed, else (name, message, where in the student's code)."""

    name: str
    points: float
    out_of: float
    error: tuple[str, str, str] | None
    printed: str


class Student:
    """The student's code in its sandbox, started again when a call ends the process. Use as a context manager.

    Args:
        program: (title, source) of each cell, in order.
        limits: for the whole submission, restarts included.
        room: a sandbox to use instead of a new one. Only for code that is trusted: it leaves traces in it.
        preload, isolated: as in `Sandbox`.
    """

    def __init__(
        self,
        program: Sequence[tuple[str, str]],
        limits: Limits = Limits(),
        *,
        room: Sandbox | None = None,
        preload: Sequence[str] = ("numpy", "torch"),
        isolated: bool = True,
    ) -> None:
        self.program, self.limits, self.room = list(program), limits, room
        self.preload, self.isolated = preload, isolated
        self.cells: dict[str, Result] = {}  # how each cell of the program went
        self._fatal: set[str] = set()  # cells that end the process or run too long: left out from then on
        self._own_seconds = limits.seconds_per_cell  # what is left for the cells that the student added
        self._restarts = 0
        self._borrowed = room is not None
        self._end_of_time = time.monotonic() + limits.seconds_in_all

    def __enter__(self) -> Student:
        try:
            with contextlib.suppress(StudentProcessEnded):  # told again, and better, by the first check
                self._load()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.room is not None and not self._borrowed:
            self.room.__exit__()

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a request; return the reply: `value`, `printed` and, of a call, `after`.

        Raises:
            StudentProcessEnded: the call ended the process. The next request starts a new one.
            Exception: whatever the student's code raised, as a built-in error or a `StudentError`.
        """
        if self.room is None or self.room.ended:
            self._load()
        reply = self.room.request(self.limits.seconds_per_call, **message)
        if "error" in reply:
            raise _error(*reply["error"])
        return reply

    def _load(self) -> None:
        while True:
            try:
                self._start()
                return
            except StudentProcessEnded:
                if self._restarts > MAX_RESTARTS or time.monotonic() > self._end_of_time:
                    raise

    def _start(self) -> None:
        if self.room is None or self.room.ended:
            left = self._end_of_time - time.monotonic()
            if self._restarts > MAX_RESTARTS or left < 1:
                raise StudentProcessEnded(
                    f"the submission ended its process {self._restarts} times or used up its "
                    f"{self.limits.seconds_in_all:g} s; the rest was not run"
                )
            self._restarts += 1
            self.__exit__()
            limits = dataclasses.replace(self.limits, seconds_in_all=left)
            self.room = Sandbox(limits, preload=self.preload, isolated=self.isolated).__enter__()
            self._borrowed = False  # this one is ours to close, whatever the first was
        self.room.request(self.limits.seconds_per_call, do="fresh")
        for title, source in self.program:
            if title not in self._fatal:
                self._run(title, source)

    def _run(self, title: str, source: str) -> None:
        own = title.startswith(OWN_CELL)
        seconds = max(self._own_seconds, 1.0) if own else self.limits.seconds_per_cell
        started = time.monotonic()
        try:
            reply = self.room.request(seconds + 1, do="cell", source=source, title=title, limit=float(seconds))
        except StudentProcessEnded as end:
            self._note(title, ("StudentProcessEnded", str(end), ""), "")
            raise
        if own:
            self._own_seconds -= time.monotonic() - started
        self._note(title, tuple(reply["error"]) if "error" in reply else None, reply["printed"])

    def _note(self, title: str, error: tuple[str, str, str] | None, printed: str) -> None:
        self.cells[title] = Result(title, 0, 0, error, printed)
        if error and error[0] in ("StudentProcessEnded", "OutOfTime"):
            self._fatal.add(title)


class StandIn:
    """In the checks' eyes, a function of the student's. Calls travel to the sandbox.

    `changed` becomes what is wrong when a call did not leave its arguments as they were.
    """

    def __init__(self, name: str, student: Student, printed: io.StringIO) -> None:
        self.name, self.student, self.printed = name, student, printed
        self.changed = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reply = self._ask(do="call", args=list(args), kwargs=kwargs)
        self.changed = self.changed or told_change(self.name, [list(args), kwargs], reply.get("after"))
        return reply["value"]

    def remote_gradient(self, args: Sequence[Any], wrt: int) -> Any:
        """Serves `checks.gradient`, which cannot differentiate across processes."""
        return self._ask(do="gradient", args=list(args), wrt=wrt)["value"]

    def _ask(self, **message: Any) -> dict[str, Any]:
        reply = self.student.ask(name=self.name, **message)
        self.printed.write(reply["printed"])
        return reply


def grade(sheet: Sheet, student: Student, only: Iterable[str] | None = None) -> dict[str, Result]:
    """Run the sheet's checks against a student's code.

    Args:
        sheet: the instructor's notebook, solutions and hidden tests included.
        student: entered, made from `sheet.program(...)`.
        only: names of the checks to run; None for all.

    Returns:
        The result of each check, by name.
    """
    wanted = None if only is None else set(only)
    names: dict[str, Any] = {"__name__": "checks"}
    results: dict[str, Result] = {}
    for cell in sheet.cells:
        if cell.kind == "given":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"<{cell.name}>", "exec"), names)
        elif cell.kind == "check" and (wanted is None or cell.name in wanted):
            results[cell.name] = _check(cell, sheet, student, names)
    return results


def _check(cell: Cell, sheet: Sheet, student: Student, names: dict[str, Any]) -> Result:
    printed = io.StringIO()
    error = None
    try:
        answers = _answers(cell, sheet, student, printed)
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.source, f"<{cell.name}>", "exec"), {**names, **answers})
        changed = [a.changed for a in answers.values() if isinstance(a, StandIn) and a.changed]
        expect_that(not changed, "; ".join(changed))  # last: a wrong value says more
    except Exception as problem:
        error = _explain(problem, sheet, student)
    points = cell.points if error is None else 0.0
    return Result(cell.name, points, cell.points, error, printed.getvalue()[:MAX_SHOWN])


def _answers(cell: Cell, sheet: Sheet, student: Student, printed: io.StringIO) -> dict[str, Any]:
    """The student's answers that a check uses, by name: values, and stand-ins for functions."""
    used = _names_in(compile(cell.source, cell.name, "exec"))
    asked = sorted({name for answer in sheet.of_kind("answer") for name in answer.defines} & used)
    found = student.ask(do="look", names=asked)["value"]
    answers = {}
    for name, (kind, value) in ((name, found[name]) for name in asked if name in found):
        if kind == "other":
            raise CheckFailed(f"{name} is {value}")
        answers[name] = StandIn(name, student, printed) if kind == "function" else value
    return answers


def _names_in(code: Any) -> set[str]:
    inner = [_names_in(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return set(code.co_names).union(*inner)


def _error(name: str, text: str, where: str) -> Exception:
    if name == "CheckFailed":
        return CheckFailed(text)
    kind = getattr(builtins, name, None)
    try:
        error = kind(text) if issubclass(kind, Exception) else StudentError(f"{name}: {text}")
    except TypeError:  # no class, or one that wants more than a text
        error = StudentError(f"{name}: {text}")
    error.student_trace = where
    return error


def _explain(problem: Exception, sheet: Sheet, student: Student) -> tuple[str, str, str]:
    where = getattr(problem, "student_trace", None)
    if isinstance(problem, CheckFailed):
        return "Not yet", str(problem), ""
    if isinstance(problem, StudentProcessEnded):
        return "Stopped", str(problem), ""
    if isinstance(problem, NotImplementedError):
        return "Not yet", "this answer is not written yet (it raises NotImplementedError)", ""
    if isinstance(problem, NameError) and where is None:
        cell = next((a for a in sheet.of_kind("answer") if problem.name in a.defines), None)
        went = student.cells.get(cell.name) if cell else None
        if went and went.error:
            name, text, trace = went.error
            return "Not yet", f"{problem.name} is not there: its cell stopped with {name}: {text}", trace
        return "Not yet", f"{problem.name} is not there. Was its cell deleted, or the name changed?", ""
    if where is not None:
        return "Your code raised an error", f"{type(problem).__name__}: {problem}{_hint(problem)}", where
    return "The check could not use the answer", f"{type(problem).__name__}: {problem}", ""


def _hint(problem: Exception) -> str:
    if isinstance(problem, ImportError) and "course_lib" in str(problem):
        return ". Graded answers stand on torch, numpy and the standard library; course_lib holds the reference answers"
    return ""
