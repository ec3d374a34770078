"""The grader's handle on the process that runs a student's code.

On Linux the process lives in its own mount, network, process and IPC namespaces (`jail`), built with util-linux's
`unshare`: as root directly, as an ordinary user through a user namespace. Elsewhere it refuses to start, unless
the caller gives up isolation in so many words.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from classroom import wire

HERE = Path(__file__).resolve().parent


class SandboxError(RuntimeError):
    """The room for the student's code cannot be built on this machine. Not the student's fault."""


class StudentProcessEnded(Exception):
    """The process that ran the student's code is gone; the text says why, in words for the student."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds_per_call: float = 10.0
    seconds_per_cell: float = 20.0
    seconds_in_all: float = 180.0
    memory_mb: int = 2_048
    processes: int = 48  # threads count too
    file_mb: int = 32
    tmp_mb: int = 64


class Sandbox:
    """A child process for one student's code. Use as a context manager.

    Args:
        limits: time, memory, processes, files.
        preload: modules to import before the memory limit is set and the student's code arrives.
        isolated: False runs the child with time and memory limits only, in full view of the disk and the network.
            For a teacher's own code on a machine without namespaces; never for a class.

    Raises:
        SandboxError: the machine cannot isolate the child, or the child cannot start.
    """

    def __init__(
        self, limits: Limits = Limits(), *, preload: Sequence[str] = ("numpy", "torch"), isolated: bool = True
    ) -> None:
        self.limits, self.preload, self.isolated = limits, tuple(preload), isolated
        self.ended: str | None = None  # why the process is gone, None while it runs

    def __enter__(self) -> Sandbox:
        self._end_of_time = time.monotonic() + self.limits.seconds_in_all
        self._closing = threading.Event()
        self._room = tempfile.mkdtemp(prefix="grading-room-")
        self._errors = tempfile.TemporaryFile()
        self._connection, other = socket.socketpair()
        self._process = None
        try:
            with other:
                command, environment = self._command(other.fileno())
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[other.fileno()],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                )
            self._wait_until_ready()
            self._own_memory = _memory(self._process.pid)
            threading.Thread(target=self._watch, daemon=True).start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._stop("closed")
        self._connection.close()
        self._errors.close()

    def request(self, seconds: float, **message: Any) -> dict[str, Any]:
        """Send one request to the worker and return its reply.

        Returns:
            Either `value`, with `after`: the arguments as they are after a call, or `error`: name, message and place
            as text. And `printed`, a text.

        Raises:
            StudentProcessEnded: the process ended, sent junk, or ran out of time or memory.
        """
        if self.ended:
            raise StudentProcessEnded(self.ended)
        deadline = min(time.monotonic() + seconds, self._end_of_time)
        try:
            wire.send(self._connection, message, deadline)
            return _checked(wire.receive(self._connection, deadline))
        except TimeoutError:
            self._stop(f"the code ran for more than {seconds:g} s without an answer. Is there a loop that never ends?")
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._stop("the code ended the Python process it ran in (sys.exit, os._exit, a crash, or too much memory)")
        except wire.WireError as error:
            self._stop(f"the code wrote to the grader's own channel, which then held {error}")
        except BaseException:  # whatever it is, nobody waits for this process any more
            self._stop("the grader was interrupted")
            raise
        raise StudentProcessEnded(self.ended)

    def _command(self, channel: int) -> tuple[list[str], dict[str, str]]:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "USER": "student",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "GRADING_FD": str(channel),
            "GRADING_PRELOAD": ",".join(self.preload),
            "GRADING_MEMORY_MB": str(self.limits.memory_mb),
        }
        where = "/course" if self.isolated else str(HERE.parent)
        start = f"import sys; sys.path.insert(0, {where!r}); from classroom.worker import main; main()"
        worker = [sys.executable, "-s", "-B", "-c", start]
        if not self.isolated:
            return worker, environment
        settings = {
            "root": self._room,
            "shared": _shared_paths(),
            "tmp_mb": self.limits.tmp_mb,
            "seconds": int(self.limits.seconds_in_all) + 5,
            "limits": {
                "RLIMIT_NPROC": self.limits.processes,
                "RLIMIT_FSIZE": self.limits.file_mb * 2**20,
                "RLIMIT_CPU": int(self.limits.seconds_in_all) + 5,
                "RLIMIT_NOFILE": 256,
                "RLIMIT_CORE": 0,
            },
            # Processes are counted for each user: as root a submission gets a user id that no process has, and as an
            # ordinary user its own user namespace.
            "user": _free_user_id() if os.geteuid() == 0 else None,
            "command": worker,
            "environment": environment,
        }
        jail = [sys.executable, "-I", "-S", "-B", str(HERE / "jail.py"), json.dumps(settings)]
        return _unshare() + jail, {"PATH": environment["PATH"]}

    def _wait_until_ready(self) -> None:
        try:
            wire.receive(self._connection, time.monotonic() + 120)
        except (EOFError, TimeoutError, ConnectionResetError, wire.WireError) as error:
            self._stop("not started")
            self._errors.seek(0)
            detail = self._errors.read()[-1_500:].decode(errors="replace").strip()
            raise SandboxError(
                "cannot start the isolated process for student code. It needs Linux 5.12 or newer with namespaces "
                "(as root, or as a user who may create user namespaces). In a container, allow them; on Windows, use "
                f"WSL2; on macOS, a Linux virtual machine. What the system said:\n{detail or error!r}"
            ) from error

    def _watch(self) -> None:
        while not self._closing.wait(0.2):
            if _memory(self._process.pid) - self._own_memory > self.limits.memory_mb * 2**20:
                self._stop(f"the code used more than {self.limits.memory_mb} MB of memory")
            if self.ended:
                return

    def _stop(self, reason: str) -> None:
        self.ended = self.ended or reason
        if self._process is not None and self._process.returncode is None:
            family = _family(self._process.pid)
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if self.isolated and family:  # unshare ends when the room's first process is gone, and with it all others
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        shutil.rmtree(self._room, ignore_errors=True)


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, if it is of the form that `Sandbox.request` promises. The other side is not trusted."""
    error = reply.get("error", ["", "", ""])
    good = isinstance(error, list) and len(error) == 3 and all(isinstance(text, str) for text in error)
    if not good or not isinstance(reply.setdefault("printed", ""), str) or not {"value", "error"} & reply.keys():
        raise wire.WireError("an answer of another form")
    return reply


def _free_user_id() -> int:
    taken = set(_of_each(psutil.process_iter(), lambda process: process.uids().real))
    return secrets.choice([number for number in range(50_000, 60_000) if number not in taken])


def _unshare() -> list[str]:
    program = shutil.which("unshare")
    if sys.platform != "linux" or program is None:
        raise SandboxError(
            f"student code is only run isolated, and this machine ({sys.platform}) cannot: it needs Linux and "
            "util-linux's unshare. Grade on Linux, in WSL2 or in a container. To run code that you trust without "
            "isolation, set c.GradeInSandbox.isolated = False in nbgrader_config.py"
        )
    command = [program, "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    return command if os.geteuid() == 0 else [*command, "--user", "--map-root-user"]


def _shared_paths() -> list[list[str]]:
    """What the child may read, as (path here, path there): the interpreter, system libraries, this package."""
    wanted = ["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/lib32", "/etc/ld.so.cache", "/etc/alternatives"]
    for prefix in _prefixes():
        wanted += [os.path.join(prefix, name) for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    found = sorted(path for path in set(wanted) if os.path.exists(path))
    tops = [path for path in found if not any(path.startswith(other + "/") for other in found)]
    return [[path, path] for path in tops] + [[str(HERE), "/course/classroom"]]


def _prefixes() -> set[str]:
    """Where the interpreter's files lie, by every name under which it may look for them."""
    found = {sys.prefix, sys.base_prefix}
    program = sys.executable
    while os.path.islink(program):
        program = os.path.normpath(os.path.join(os.path.dirname(program), os.readlink(program)))
        found.add(os.path.dirname(os.path.dirname(program)))
    return found | {os.path.realpath(prefix) for prefix in found}


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _memory(pid: int) -> int:
    """Bytes used by all processes below this one, shared pages counted once if it matters."""
    family = _family(pid)
    if len(family) < 3:  # the room's first process and the worker share next to nothing
        return sum(_of_each(family, lambda process: process.memory_info().rss))
    return sum(_of_each(family, lambda process: process.memory_full_info().pss))


def _of_each(family: Iterable[psutil.Process], measure: Callable[[psutil.Process], int]) -> Iterator[int]:
    for process in family:
        with contextlib.suppress(psutil.Error, OSError):  # it may end while we look
            yield measure(process)
