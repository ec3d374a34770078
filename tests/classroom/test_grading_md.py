"""The commands of docs/grading.md, typed in a clone."""

import contextlib
import csv
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.classroom.course import ROOT

DOCS = ROOT / "docs" / "grading.md"


def commands() -> list[str]:
    text = DOCS.read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    in_text = re.findall(r"`(\.venv/bin/[^`]+)`", text)
    assert len(in_text) == 2
    return [line for line in block.splitlines() if line and not line.startswith("#")] + in_text


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the commands need of the repository, and its environment, which is not activated."""
    for name in ("assignments", "classroom", "solutions"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_the_commands_work_as_they_stand(clone, needs_isolation):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(clone), "TERM": "dumb"}
    for command in commands():
        if "jupyter lab" in command:
            assert_form_grader_opens(command, clone, environment)
            continue
        done = subprocess.run(command, shell=True, cwd=clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    with open(clone / "grades.csv", newline="") as file:
        assert [(row["student_id"], row["score"], row["max_score"]) for row in csv.DictReader(file)] == [
            ("anna", "0.0", "40.0")
        ]
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
        while not (address := re.search(r"http://127.0.0.1:\d+/formgrader", log.read_text())):
            assert lab.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        with urllib.request.urlopen(address[0]) as page:
            assert "manage_assignments" in page.url
            assert "nbgrader" in page.read().decode()
    finally:
        lab.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            lab.wait(20)
        lab.kill()
