"""A real JupyterLab and a real Chromium, for the tests, the screenshots and the benchmarks of the widgets.

    with widget_cell("widget-temperature", scratch) as cell:
        cell.get_by_role("slider").first.focus()
        press_and_wait(picture_of(cell), "ArrowRight")

The server has its own port, token, configuration and working copy, all under ``scratch``, and reaches for nothing
outside the machine. The lessons mark the cell of a widget with a tag: ``widget-temperature``.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from course_lib.doctor import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
WIDE = {"width": 1280, "height": 1000}
BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERVER_FLAGS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--LabApp.expose_app_in_browser=True",
)
# Every cell is in the page at all times, and no message asks a question on the first visit.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}
# From a key press to the picture that it changes: the two times are taken inside the browser.
STOPWATCH = """(image) => {
    window.moves = [];
    let pressed = null;
    document.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
    image.addEventListener("load", () => {
        requestAnimationFrame(() => {
            if (pressed !== null) { window.moves.push(performance.now() - pressed); pressed = null; }
        });
    });
}"""
# What Run > Run All Above Selected Cell and Shift+Enter do, on the cell with a tag; then every error in the notebook.
RUN = """async (tag) => {
    const {content} = window.jupyterapp.shell.currentWidget;
    const tags = (cell) => cell.model.sharedModel.getMetadata("tags") ?? [];
    const index = content.widgets.findIndex((cell) => tags(cell).includes(tag));
    if (index < 0) throw new Error(`no cell has the tag ${tag}`);
    content.activeCellIndex = index;
    if (index > 0) await window.jupyterapp.commands.execute("notebook:run-all-above");
    content.activeCellIndex = index;
    await window.jupyterapp.commands.execute("notebook:run-cell");
    const outputs = content.widgets.flatMap((cell) => cell.model.outputs?.toJSON() ?? []);
    const errors = outputs.filter((output) => output.output_type === "error");
    return [index, errors.map((error) => `${error.ename}: ${error.evalue}`)];
}"""
DIGEST = """async (image) => {
    const file = await (await fetch(image.src)).arrayBuffer();
    return Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", file)));
}"""


def why_not() -> str:
    """Why no browser can be driven here; empty if one can."""
    if find_browser() is None:
        return "no Chromium found (COURSE_BROWSER names one)"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed (python -m pip install playwright)"
    return ""


@contextmanager
def running_lab(notebook: Path, scratch: Path, timeout: float = 60) -> Iterator[str]:
    """A JupyterLab that serves a working copy of ``notebook`` from ``scratch``; gives the copy's address.

    Raises RuntimeError, with what the server said, if it does not start within ``timeout`` seconds.
    """
    work = scratch / "work"
    work.mkdir(parents=True)
    shutil.copy(notebook, work / notebook.name)
    token = secrets.token_hex(16)
    environment = _private_environment(scratch)
    command = [sys.executable, "-m", "jupyterlab", *SERVER_FLAGS, f"--ServerApp.root_dir={work}"]
    log = scratch / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env={**environment, "JUPYTER_TOKEN": token},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=work,
            start_new_session=True,
        )
    try:
        address = _address(server, scratch / "runtime", log, timeout)
        yield f"{address}lab/tree/{notebook.name}?token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # twice would be "now": once lets it end its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _private_environment(scratch: Path) -> dict[str, str]:
    """The environment of a server that keeps all that it writes under ``scratch``."""
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    for place in places.values():
        (scratch / place).mkdir()
    for name, values in SETTINGS.items():
        file = scratch / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {name: str(scratch / place) for name, place in places.items()}
    course = {"COURSE_DEVICE": "cpu", "COURSE_SCALE": "quick", "PYTHONPATH": search}
    # One thread, unless somebody wants more: a busy machine is many times slower with two.
    return {"OMP_NUM_THREADS": "1", **os.environ, **own, **course}


def _address(server: subprocess.Popen, runtime: Path, log: Path, timeout: float) -> str:
    """Where the server listens, from the file that it writes once it does."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text())["url"]
            except (json.JSONDecodeError, KeyError):
                pass  # the file is being written
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start within {timeout:g} s; it said:\n{log.read_text()[-4000:]}")


@contextmanager
def open_page(*, pixel_ratio: float = 1) -> Iterator["Page"]:
    """An empty page of a headless Chromium. Without one: RuntimeError with the reason."""
    if reason := why_not():
        raise RuntimeError(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(BROWSER_FLAGS))
        try:
            yield browser.new_page(viewport=WIDE, device_scale_factor=pixel_ratio)
        finally:
            browser.close()


class Lab:
    """One notebook, open in JupyterLab on ``page``. ``url`` comes from ``running_lab``."""

    def __init__(self, page: "Page", url: str, timeout: float = 60) -> None:
        self.page = page
        page.set_default_timeout(timeout * 1000)
        page.goto(url)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        # The kernel is there, and the notebook is in front.
        page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def run_until(self, tag: str) -> "Locator":
        """Run every cell down to the one with ``tag``, as a reader would; gives that cell.

        Raises RuntimeError with the message of a cell that failed.
        """
        index, errors = self.page.evaluate(RUN, tag)
        if errors:
            raise RuntimeError("a cell failed:\n" + "\n".join(errors))
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)


def lesson_with(tag: str) -> Path:
    """The first lesson that has a cell with ``tag``. Raises ValueError if there is none."""
    for lesson in sorted(LESSONS.glob("*.ipynb")):
        if any(tag in cell.metadata.get("tags", []) for cell in nbformat.read(lesson, as_version=4).cells):
            return lesson
    raise ValueError(f"tag is {tag!r}; expected that of a cell of a lesson, such as 'widget-temperature'")


@contextmanager
def widget_cell(tag: str, scratch: Path, *, pixel_ratio: float = 1) -> Iterator["Locator"]:
    """The cell with ``tag`` of its lesson, run in a JupyterLab of its own, with the stopwatch on its picture.

    Raises RuntimeError as ``running_lab``, ``open_page`` and ``Lab.run_until`` do.
    """
    with running_lab(lesson_with(tag), scratch / "lab") as url, open_page(pixel_ratio=pixel_ratio) as page:
        cell = Lab(page, url).run_until(tag)
        picture_of(cell).wait_for()
        watch(picture_of(cell))
        yield cell


def picture_of(cell: "Locator") -> "Locator":
    """The picture of the widget in ``cell``."""
    return cell.locator("img.widget-image")


def watch(image: "Locator") -> None:
    """Start the stopwatch: from now on ``window.moves`` collects the milliseconds from key press to picture."""
    image.evaluate(STOPWATCH)


def press_and_wait(image: "Locator", key: str, timeout: float = 5) -> float:
    """Press ``key`` on what has the focus, wait for ``image`` to change; gives the milliseconds it took."""
    page = image.page
    done = page.evaluate("() => window.moves.length")
    page.keyboard.press(key)
    page.wait_for_function("(done) => window.moves.length > done", arg=done, timeout=timeout * 1000)
    return page.evaluate("() => window.moves.at(-1)")


def picture_digest(image: "Locator") -> bytes:
    """SHA-256 of the file that ``image`` shows now."""
    return bytes(image.evaluate(DIGEST))
