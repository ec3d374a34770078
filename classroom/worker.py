"""The child: runs a student's cells, calls the student's functions, hands back data.

Started by `jail`. It holds no secrets: no expected value, no test, no answer ever reaches this process, so student
code that takes it over gains nothing but the right to send data, which it had anyway.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import linecache
import os
import signal
import socket
import sys
import traceback
from typing import Any

from classroom import wire

MAX_PRINTED = 4_000


class OutOfTime(BaseException):
    """A cell of the student ran too long. No `Exception`, so that the cell does not catch it by accident."""


class Jupyter:
    """What `get_ipython()` gives to a cell: magics that do nothing but run the Python they are given."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def run_line_magic(self, magic: str, line: str, *_: Any, **__: Any) -> None:
        """`%time x = 3` runs its line; all others are left out."""
        if magic == "time":
            run(line, "%time", self.names)

    def run_cell_magic(self, magic: str, line: str, cell: str) -> None:
        """`%%time` and its like run the cell; `%%bash` and all others are left out."""
        if magic in ("time", "timeit", "capture", "prun"):
            run(cell, f"%%{magic}", self.names)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: []  # !ls and the like


def main() -> None:
    """Serve requests on the socket whose number is in `GRADING_FD` until the other side closes it."""
    connection = socket.socket(fileno=int(os.environ.pop("GRADING_FD")))
    for module in filter(None, os.environ.pop("GRADING_PRELOAD", "").split(",")):
        importlib.import_module(module)
    _limit_address_space(int(os.environ.pop("GRADING_MEMORY_MB")))
    wire.send(connection, {"ready": True})
    names: dict[str, Any] = {}
    while True:
        try:
            request = wire.receive(connection)
        except EOFError:
            return
        if request["do"] == "fresh":
            names = {"__name__": "__main__", "__builtins__": __builtins__, "display": print}
            names["get_ipython"] = lambda shell=Jupyter(names): shell
        reply = _answer(request, names)
        try:
            wire.send(connection, reply)
        except wire.WireError as error:  # raised before anything is sent
            wire.send(connection, {"error": ["TypeError", f"the answer is {error}", ""], "printed": ""})


def _limit_address_space(megabytes: int) -> None:
    if sys.platform != "linux":  # no isolation there either: the grader has refused, or was told not to
        return
    import resource

    # Measured from here: importing torch alone maps some 3 GB, most of it never touched.
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


def _answer(request: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    printed = io.StringIO()
    reply: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            reply["value"] = _do(request, names)
        except BaseException as error:  # noqa: B036  SystemExit and KeyboardInterrupt are answers too
            reply["error"] = _describe(error)
    reply["printed"] = printed.getvalue()[:MAX_PRINTED]
    if request["do"] == "call":
        reply["after"] = _sendable([request["args"], request["kwargs"]])
    return reply


def _do(request: dict[str, Any], names: dict[str, Any]) -> Any:
    match request["do"]:
        case "fresh":
            return None
        case "cell":
            return _run_cell(request["source"], request["title"], request["limit"], names)
        case "look":
            # A value is sent as it is; of a function only the fact that it is one.
            return {n: _kind(names[n]) for n in request["names"] if n in names}
        case "call":
            return names[request["name"]](*request["args"], **request["kwargs"])
        case "gradient":
            from classroom.checks import gradient

            return gradient(names[request["name"]], *request["args"], wrt=request["wrt"])
    raise ValueError(f"unknown request {request['do']!r}")


def _kind(value: Any) -> list[Any]:
    if callable(value):
        return ["function", None]
    try:
        wire.encode(value)
    except wire.WireError as error:
        return ["other", str(error)]
    return ["value", value]


def _sendable(value: Any) -> Any:
    return value if _kind(value)[0] == "value" else None


def _run_cell(source: str, title: str, seconds: float, names: dict[str, Any]) -> None:
    def stop(*_: Any) -> None:
        raise OutOfTime(f"the cell ran for more than {seconds:.3g} s. Is there a loop that never ends?")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        run(source, title, names)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(source: str, title: str, names: dict[str, Any]) -> None:
    """Run a cell's source as Jupyter does, without what Jupyter alone can do (%timeit, !ls, print?)."""
    filename = f"<{title}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        code = compile(source, filename, "exec")
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        code = compile(TransformerManager().transform_cell(source), filename, "exec")
    exec(code, names)


def _describe(error: BaseException) -> list[str]:
    """The error as [name, message, where in the student's code], the name that of a built-in error where it is one."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<")]
    where = "".join(traceback.format_list(frames[-4:]))
    try:
        text = str(error)
    except Exception:
        text = ""
    name = own = type(error).__name__
    if own != "CheckFailed":
        name = next((kind.__name__ for kind in type(error).__mro__ if _built_in_error(kind)), own)
    return [name, (text if name == own else f"{own}: {text}")[:2_000], where[:4_000]]


def _built_in_error(kind: type) -> bool:
    return getattr(builtins, kind.__name__, None) is kind and issubclass(kind, Exception) and kind is not Exception
