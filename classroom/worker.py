"""The child: runs a student's cells, calls the student's functions, hands back data.

Started by `jail`. It holds no secrets: no expected value, no test, no answer ever reaches this process, so student
code that takes it over gains nothing but the right to send data, which it had anyway.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import linecache
import os
import re
import socket
import sys
import traceback
from typing import Any

from classroom import wire

MAX_PRINTED = 4_000


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
            names = {"__name__": "__main__", "__builtins__": __builtins__}
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
    return reply


def _do(request: dict[str, Any], names: dict[str, Any]) -> Any:
    match request["do"]:
        case "fresh":
            return None
        case "cell":
            return _run_cell(request["source"], request["title"], names)
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


def _run_cell(source: str, title: str, names: dict[str, Any]) -> None:
    filename = f"<{title}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        code = compile(source, filename, "exec")
    except SyntaxError:
        # Jupyter's own lines (%timeit, !ls) are not Python: leave them out, keep the line numbers.
        code = compile(re.sub(r"(?m)^(\s*)[%!?].*$", r"\1pass", source), filename, "exec")
    exec(code, names)


def _describe(error: BaseException) -> list[str]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<")]
    where = "".join(traceback.format_list(frames[-4:]))
    try:
        text = str(error)
    except Exception:
        text = ""
    return [type(error).__name__, text[:2_000], where[:4_000]]
