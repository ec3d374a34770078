"""Builds the room in which the worker runs. First process of fresh namespaces, started by `unshare`.

A new root in memory holds read-only views of the interpreter and the system's libraries, an empty /tmp, and nothing
else: no home, no course, no gradebook. The old root is detached. Then this process forks: the child gives up
every privilege, takes its limits and becomes the worker; the parent stays as the first process of the namespace,
keeps the clock, and takes everything down with it when it ends.

Standard library only, and run by path with `-I -S`: nothing here depends on what a student could have touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC = 2, 4, 4096, 16384
MNT_DETACH, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 2, 24, 38
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
SYS_MOUNT_SETATTR = 442  # the same number on every architecture (Linux 5.12)

_libc = ctypes.CDLL(None, use_errno=True)


def main(settings: dict[str, Any]) -> None:
    """Build the room and run `settings["command"]` in it."""
    _build_root(settings["root"], settings["shared"], settings["tmp_mb"])
    worker = os.fork()
    if worker == 0:
        _confine(settings)
        os.execve(settings["command"][0], settings["command"], settings["environment"])
    os.closerange(3, 256)  # the worker alone holds the line to the grader
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
    signal.alarm(settings["seconds"])
    while True:
        child, status = os.wait()
        if child == worker:
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def _build_root(root: str, shared: list[list[str]], tmp_mb: int) -> None:
    _mount("tmpfs", root, "tmpfs", MS_NOSUID, "size=4m,mode=755")
    for path, size in (("/tmp", tmp_mb), ("/dev/shm", 16)):
        os.makedirs(root + path)
        _mount("tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size}m,mode=1777")
    for source, target in shared:  # after /tmp: an environment may live there
        _share(source, root + target)
    for link in ("/bin", "/sbin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(link):
            os.symlink(os.readlink(link), root + link)
        elif os.path.isdir(link):
            _share(link, root + link)
    for device in ("null", "zero", "random", "urandom"):
        _share(f"/dev/{device}", f"{root}/dev/{device}", read_only=False)
    os.makedirs(root + "/proc")
    _mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV, None)
    os.chdir(root)
    _call("pivot_root", _libc.pivot_root(b".", b"."))
    _call("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    _set_attributes("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, recursive=False)


def _share(source: str, target: str, *, read_only: bool = True) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    _mount(source, target, None, MS_BIND | MS_REC, None)
    _set_attributes(target, MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if read_only else 0), recursive=True)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    text = [None if item is None else item.encode() for item in (source, target, kind, options)]
    result = _libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3])
    _call(f"mount {source} on {target}", result)


def _set_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    arguments = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR,
        AT_FDCWD,
        path.encode(),
        AT_RECURSIVE if recursive else 0,
        ctypes.byref(arguments),
        ctypes.sizeof(arguments),
    )
    _call(f"make {path} read-only", result)


def _confine(settings: dict[str, Any]) -> None:
    os.setsid()
    os.chdir("/tmp")
    for name, value in settings["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    capability = 0
    while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if settings["user"] is not None:
        os.setgroups([])
        os.setresgid(*[settings["user"]] * 3)
        os.setresuid(*[settings["user"]] * 3)
    # With an empty bounding set and no new privileges, the coming exec drops every capability for good.
    _call("no_new_privs", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _call(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
