"""The commands of docs/grading.md, typed in a clone."""

import contextlib
import csv
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.classroom.course import ROOT, small_notebook

DOCS = ROOT / "docs" / "grading.md"


def commands() -> list[str]:
    text = DOCS.read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    in_text = re.findall(r"`(\.venv/bin/[^`]+)`", text)
    assert len(in_text) == 2
    return [line for line in block.splitlines() if line and not line.startswith("#")] + in_text


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the commands need of the repository, with a small notebook for the set and an environment not activated."""
    shutil.copytree(ROOT / "classroom", tmp_path / "classroom", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for folder in ("solutions", "assignments"):
        path = tmp_path / folder / "ps1_distillation" / "ps1_distillation.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(small_notebook(), path)
    return tmp_path


# nbgrader as its command starts it, loaded once: each line of the input is a command line, run in a child.
SERVE = """
import os, shlex, sys
from nbgrader.apps.nbgraderapp import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = shlex.split(line)
        try:
            main()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_the_commands_work_as_they_stand(clone, needs_isolation):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(clone), "TERM": "dumb"}
    assert (clone / ".venv" / "bin" / "nbgrader").exists()
    log = clone / "nbgrader.log"
    with log.open("w") as output:
        nbgrader = subprocess.Popen(
            [clone / ".venv" / "bin" / "python", "-c", SERVE],
            cwd=clone,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    for command in commands():
        if "jupyter lab" in command:
            assert_form_grader_opens(command, clone, environment)
        elif command.startswith(".venv/bin/nbgrader "):
            nbgrader.stdin.write(command + "\n")
            nbgrader.stdin.flush()
            assert nbgrader.stdout.readline() == "0\n", f"{command}\n{log.read_text()[-3000:]}"
            assert (clone / "gradebook.db").exists()
        else:
            subprocess.run(command, shell=True, cwd=clone, env=environment, check=True)
    nbgrader.communicate()
    assert "Skipping" not in log.read_text()  # no command did nothing
    assert "Using exporter: Marks" in log.read_text()
    with open(clone / "grades.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["student_id"], row["score"], row["max_score"]) == ("anna", "5.0", "9.0")
    assert (clone / "feedback" / "anna" / "ps1_distillation" / "ps1_distillation.html").exists()


def assert_form_grader_opens(command: str, clone: Path, environment: dict[str, str]) -> None:
    options = " --allow-root --no-browser --ServerApp.port=0 --IdentityProvider.token=''"
    log = clone / "lab.log"
    with log.open("w") as output:
        lab = subprocess.Popen(
            "exec " + command + options, shell=True, cwd=clone, env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 90
        page = None
        while page is None:
            assert lab.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
            if address := re.search(r"http://127.0.0.1:\d+/formgrader", log.read_text()):
                with contextlib.suppress(urllib.error.URLError):  # it is told before the server listens
                    page = urllib.request.urlopen(address[0])
        with page:
            assert "manage_assignments" in page.url
            assert "nbgrader" in page.read().decode()
    finally:
        lab.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            lab.wait(20)
        lab.kill()
