"""Running lessons the two ways the tests need: nbval against the stored outputs, and again elsewhere, offline."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from tools.notebooks import ENVIRONMENT, LESSONS, ROOT

OFFLINE = ["unshare", "--map-root-user", "--net", sys.executable, str(Path(__file__).with_name("offline.py"))]
ELSEWHERE = ROOT / "tests"
# One thread each, so that two lessons run side by side on two cores; and a stored output that hangs on the
# number of threads shows up, for the lessons are stored with as many as the machine has.
KERNEL_ENVIRONMENT = {**ENVIRONMENT, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, **KERNEL_ENVIRONMENT}
    return subprocess.run(
        command, cwd=cwd, env=environment, text=True, encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Run the notebook at ``path`` in its own folder and compare its outputs with those it stores."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "--color=no"]
    command += ["--rootdir", str(path.parent), "--nbval", "--nbval-cell-timeout=300", str(path)]
    return _run(command, path.parent)


def run_elsewhere(lesson: str) -> subprocess.CompletedProcess:
    """Run a lesson in another folder of the repository, without a network where that can be arranged."""
    command = [sys.executable, "-m", "tools.notebooks", "--dry", "--cwd", str(ELSEWHERE), lesson]
    return _run([*(OFFLINE if can_go_offline() else []), *command], ROOT)


@cache
def can_go_offline() -> bool:
    """Can this machine give a process a network namespace of its own?"""
    try:
        return subprocess.run([*OFFLINE, "true"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def left_behind(before: dict[Path, set[str]]) -> set[str]:
    """The files that are new in the folders lessons run in, since ``listing()`` gave ``before``."""
    return {str(folder / name) for folder, names in listing().items() for name in names - before[folder]}


def listing() -> dict[Path, set[str]]:
    """What lies in the folders that lessons run in."""
    ours = {"__pycache__", ".pytest_cache", ".ipynb_checkpoints"}
    return {folder: set(os.listdir(folder)) - ours for folder in (LESSONS, ELSEWHERE) if folder.is_dir()}
