"""What several tests need."""

import os
import sys
from contextlib import contextmanager

import pytest

os.environ.pop("COURSE_SCALE", None)  # the tests hold for the quick scale; reproduce/ reads it when it is imported


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
