"""What several tests need, and how they run side by side: ``make test`` starts a worker for each core."""

import os
import sys
from contextlib import contextmanager

import pytest

os.environ.pop("COURSE_SCALE", None)  # the tests hold for the quick scale; reproduce/ reads it when it is imported
# There are as many processes as cores: one thread each. And a thread that waits leaves its core to others: beside other
# work PyTorch's own waiting makes two threads thirty times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MEMORY = 2 * 2**30  # bytes, for a worker with the kernel or the browser that it starts
MOST_WORKERS = 8  # more would wait for the longest lesson


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` means: a worker for each core that this process may use, if there is memory for it."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS, psutil.virtual_memory().available // MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A test file stays on one worker, for what its tests share; only the runs of lessons are spread."""
    from xdist.scheduler import LoadFileScheduling

    class FilesAndLessons(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if nodeid.startswith("tests/lessons/test_run.py") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # the order of the items, not the files with most tests first
    return FilesAndLessons(config, log)


@pytest.fixture
def broken_torchvision():
    """Inside ``broken_torchvision(error)``, every import of torchvision raises ``error``."""

    @contextmanager
    def broken(error):
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name.split(".")[0] == "torchvision":
                    raise error("operator torchvision::nms does not exist")

        kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
        for name in kept:
            del sys.modules[name]
        sys.meta_path.insert(0, Finder)
        try:
            yield
        finally:
            sys.meta_path.remove(Finder)
            sys.modules.update(kept)

    return broken
