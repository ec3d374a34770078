"""Running a lesson as its test needs it: elsewhere in the repository, with the network off, with other kernels.

One run shows all of it, for its outputs are compared with the stored ones, which come from a run in notebooks/, with
the best kernels of the machine that stored them and as many threads as it has.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from tools.notebooks import ENVIRONMENT, ROOT

OFFLINE = ["unshare", "--map-root-user", "--net", sys.executable, str(Path(__file__).with_name("offline.py"))]
ELSEWHERE = ROOT / "build"
OURS = {"__pycache__", ".pytest_cache", ".ipynb_checkpoints"}
# ATen's kernels one step below the best of a machine, and what the libraries under it may use at most. MKL cannot be
# held down on every processor by the name of an instruction set; in its compatible mode it computes otherwise anywhere.
BELOW = {"AVX512": ("avx2", "AVX2"), "AVX2": ("default", "SSE41")}


def other_kernels(best: str) -> dict[str, str]:
    """Variables with which PyTorch computes with an older instruction set than ``best``, as on an older processor.

    Every training then takes another path. Empty for a processor that knows no older set.
    """
    if best not in BELOW:
        return {}
    aten, onednn = BELOW[best]
    return {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "MKL_CBWR": "COMPATIBLE"}


def run_environment() -> dict[str, str]:
    """The environment of a run, with other kernels unless ``ATEN_CPU_CAPABILITY`` names those that somebody wants.

    One thread: lessons run side by side, and a stored output that hangs on the number of threads shows up.
    """
    chosen = "ATEN_CPU_CAPABILITY" in os.environ
    kernels = {} if chosen else other_kernels(torch.backends.cpu.get_cpu_capability())
    return {"OMP_NUM_THREADS": "1", **os.environ, **kernels, **ENVIRONMENT}


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Run the notebook at ``path`` in its own folder, without a network where that can be arranged, and compare."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "--color=no"]
    command += ["--rootdir", str(path.parent), "--nbval", "--nbval-cell-timeout=300", str(path)]
    return subprocess.run(
        [*(OFFLINE if can_go_offline() else []), *command], cwd=path.parent, env=run_environment(), text=True,
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def run_elsewhere(lesson: Path) -> tuple[subprocess.CompletedProcess, set[str]]:
    """Run a copy of ``lesson`` in a folder of its own within the repository; also the names of what it leaves there."""
    ELSEWHERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ELSEWHERE, prefix=f"{lesson.stem}-") as folder:
        copy = Path(shutil.copy(lesson, folder))
        return nbval(copy), set(os.listdir(folder)) - OURS - {copy.name}


@cache
def can_go_offline() -> bool:
    """Can this machine give a process a network namespace of its own?"""
    try:
        return subprocess.run([*OFFLINE, "true"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
