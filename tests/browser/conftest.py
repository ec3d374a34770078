"""What the tests of all widgets need: the widget's cell, run in a real JupyterLab."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tools.lab import picture_of, why_not, widget_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator


@pytest.fixture(scope="module")
def cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Locator"]:
    """The cell of the widget that the test file names as ``WIDGET``, run. One JupyterLab serves all tests of a file."""
    name = request.module.WIDGET
    if reason := why_not():
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"the widgets are not tested in a browser: {reason}")
    with widget_cell(f"widget-{name}", tmp_path_factory.mktemp(name)) as cell:
        yield cell


@pytest.fixture
def image(cell: "Locator") -> "Locator":
    """The widget's picture."""
    return picture_of(cell)
