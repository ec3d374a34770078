"""A poisoned submission in a real browser, on nbgrader's own pages: nothing of it runs, nothing is asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbgrader.api import Gradebook

from tests.classroom.course import NAME, SET, answered, hand_in, make_course
from tests.classroom.payloads import HONEST, PICTURE, attacks, poison
from tools.lab import open_page, why_not

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Route

pytestmark = pytest.mark.browser
# Clicks, points at, focuses all that is the student's.
TOUCH = """() => {
    for (const element of document.querySelectorAll(".rendered_html *, .output *, .input_area *"))
        for (const event of ["click", "mouseover", "focus", "toggle", "error", "load", "submit", "begin"])
            element.dispatchEvent(new Event(event, {bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def course(tmp_path_factory, needs_isolation) -> Path:
    """Two students, graded, with feedback: one writes attacks, one writes well."""
    if reason := why_not():
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"the pages are not tested in a browser: {reason}")
    root = tmp_path_factory.mktemp("class")
    api = make_course(root)
    honest = answered(root, why=HONEST)
    honest.cells[-1]["attachments"] = {"plot.png": {"image/png": PICTURE}}
    hand_in(root, "honest", honest)
    hand_in(root, "poison", poison(answered(root)))
    for result in (api.autograde(SET, "*"), api.generate_feedback(SET)):
        assert result["success"], result["log"]
    return root


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as page:
        page.add_init_script("window.hits = []; window.hit = (n) => top.hits.push(n);")
        yield page


@pytest.fixture(scope="module")
def server(course) -> Iterator[str]:
    """The form grader, with the repository's settings: its address."""
    places = {name: str(course / "jupyter") for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1"]
    command += ["--IdentityProvider.token=", "--ServerApp.open_browser=False"]
    with open(course / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=course, env={**os.environ, **places}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (found := list((course / "jupyter").glob("jpserver-*.json"))):
            assert process.poll() is None and time.monotonic() < deadline, (course / "server.log").read_text()[-3000:]
            time.sleep(0.1)
        time.sleep(0.2)  # the file is written whole
        yield json.loads(found[0].read_text())["url"]
    finally:
        process.terminate()
        process.wait(20)


def look(page: Page, address: str) -> list[str]:
    """Open a page as an instructor does and touch all that is the student's; gives what it ran or asked for."""
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    def expected(url: str) -> bool:  # the page itself, nbgrader's own scripts and questions, MathJax, attached pictures
        own = (
            "/static/favicon.ico",
            "/formgrader/static/",
            "/formgrader/api/",
            "cdnjs.cloudflare.com/ajax/libs/mathjax/",
        )
        return url == address or url.startswith("data:image/png") or any(part in url for part in own)

    def only_here(route: Route) -> None:
        there = route.request.is_navigation_request() and route.request.url != address
        route.abort() if there or "cdnjs" in route.request.url else route.continue_()

    page.route("**/*", only_here)
    page.on("request", note)
    page.goto(address, wait_until="load")
    page.wait_for_timeout(500)
    page.evaluate(TOUCH)
    page.wait_for_timeout(500)
    page.unroute_all()
    page.remove_listener("request", note)
    return [f"hit({n})" for n in page.evaluate("window.hits")] + [url for url in asked if not expected(url)]


def submission(course: Path, student: str) -> str:
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "model-compression") as book:
        return book.find_submission_notebook(SET, SET, student).id


def test_the_attacks_work_where_nothing_is_done_against_them(page, tmp_path):
    """Or the tests below would prove nothing. Each in a frame of its own: some lead to another page."""
    frames = [f'<iframe srcdoc="{escape(markdown2html_mistune(attack))}"></iframe>' for attack in attacks()]
    (tmp_path / "page.html").write_text("".join(frames))
    found = " ".join(look(page, (tmp_path / "page.html").as_uri()))
    assert len(set(re.findall(r"hit[-(](\d+)", found))) > 20


def test_feedback_runs_nothing(course, page):
    assert look(page, (course / "feedback" / "poison" / NAME).with_suffix(".html").as_uri()) == []
    assert "<script>hit(0)</script>" in page.inner_text("body")  # it is there to be read


def test_the_form_grader_runs_nothing(course, page, server):
    address = f"{server}formgrader/submissions/{submission(course, 'poison')}/"
    assert look(page, address) == []
    assert "<script>hit(0)</script>" in page.inner_text("body")
    assert page.locator("input.score").count() == 3
    for name in ("manage_submissions/small", "gradebook/small/small", "manage_students/poison"):
        assert look(page, f"{server}formgrader/{name}") == []


def test_the_form_grader_shows_old_notebooks_harmless_too(course, page, server):
    """Those that were graded before anything was done against it, or put there by hand."""
    stored = course / "autograded" / "poison" / NAME
    kept = stored.read_text()
    stored.chmod(0o644)
    stored.write_text((course / "submitted" / "poison" / NAME).read_text())
    try:
        found = look(page, f"{server}formgrader/submissions/{submission(course, 'poison')}/")
        shown = page.inner_text("body")
    finally:
        stored.write_text(kept)
    assert found == []
    assert "<script>hit(0)</script>" in shown


@pytest.mark.parametrize("where", ["feedback", "form grader"])
def test_an_honest_answer_reads_well(course, page, server, where):
    if where == "feedback":
        page.goto((course / "feedback" / "honest" / NAME).with_suffix(".html").as_uri())
    else:
        page.goto(f"{server}formgrader/submissions/{submission(course, 'honest')}/")
    answer = page.locator("div.answer", has=page.get_by_role("heading", name="Why?"))
    assert answer.locator("em").inner_text() == "soft"
    assert answer.locator("table tbody tr").all_inner_texts() == ["3\t0.7", "8\t0.2"]
    assert answer.locator("pre").inner_text().startswith("def loss(p, q):\n\n    return")
    assert answer.locator("code").first.inner_text() == "x < y & z"
    assert "$a < b$" in answer.inner_text()
    assert answer.locator("img").evaluate("(image) => image.naturalWidth") == 1
    assert answer.locator("blockquote").inner_text() == "quoted"


def test_nothing_that_lies_beside_a_notebook_is_served(course, server):
    address = f"{server}formgrader/submissions/{submission(course, 'honest')}/page.html"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(address)
