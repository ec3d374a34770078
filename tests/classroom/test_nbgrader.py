"""A class from assignment to feedback, with nbgrader itself as the front."""

import csv
import filecmp
import shutil
import signal
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI

from classroom.marks import Marks
from classroom.preprocessors import GradeInSandbox, canary
from classroom.sheet import Cell, Sheet
from tests.classroom.conftest import isolation_problem
from tests.classroom.course import NAME, ROOT, SET, answered, hand_in, make_course, nbgrader, registered, released
from tests.exercises.sets import SETS
from tools.assignments import generate

# Patches every comparison, looks for the answers, adds points to itself, rewrites the checks, and leaves fake outputs.
CHEAT = """
import builtins, glob, numpy
numpy.allclose = numpy.array_equal = lambda *a, **k: True
numpy.testing.assert_allclose = lambda *a, **k: None
import classroom.checks as checks
checks.expect = checks.expect_that = checks.expect_refusal = lambda *a, **k: None
found = glob.glob("/**/solutions/**/*.ipynb", recursive=False) + glob.glob("../../**/*.ipynb") + glob.glob("/*/*.db")
assert found == [], found
def double(x):
    return x
"""


def test_assignments_are_what_nbgrader_makes_of_the_solutions(tmp_path):
    """Run `make assignments` if this fails."""
    made = {p.relative_to(tmp_path) for p in generate(tmp_path)}
    stored = {p.relative_to(ROOT / "assignments") for p in (ROOT / "assignments").rglob("*") if p.is_file()}
    assert made == {p for p in stored if ".ipynb_checkpoints" not in p.parts}
    different = [p for p in made if not filecmp.cmp(tmp_path / p, ROOT / "assignments" / p, shallow=False)]
    assert different == []


def cheating(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade_id") == "double":
            cell.source = CHEAT
            marks["points"] = 100
            marks["grade"] = True
        elif marks.get("grade") and cell.cell_type == "code":
            cell.source = "print('all tests passed')"
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "40.0"}, execution_count=1)]
            marks["points"] = 1000
        if marks.get("grade_id") == "check-double":  # an answer, says the metadata, and worth reading
            marks["solution"], marks["locked"] = True, False
        elif marks.get("grade_id") == "check-triple":
            marks["grade_id"] = "check-double"
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory, needs_isolation):
    root = tmp_path_factory.mktemp("class")
    api = make_course(root)
    hand_in(root, "good", answered(root, why="Because **so**."))
    hand_in(root, "untouched", released(root))
    hand_in(root, "cheater", cheating(released(root)))
    hand_in(root, "<img src=x>", answered(root))
    hand_in(root, "broken", answered(root)).write_text("{", encoding="utf-8")
    beside = hand_in(root, "files", answered(root)).parent
    (beside / "page.html").write_text("<script>alert(1)</script>")
    (beside / "more").mkdir()
    (beside / "more" / "picture.svg").write_text("<svg onload='alert(1)'/>")
    (beside / "timestamp.txt").write_text("2026-01-01 10:00:00 UTC")
    (root / "submitted" / "misnamed" / SET).mkdir(parents=True)
    (root / "submitted" / "misnamed" / SET / "homework.ipynb").write_text("{}")
    result = api.autograde(SET, "*")
    assert not result["success"]  # two of them cannot be graded
    result["feedback"] = api.generate_feedback(SET)
    return root, api, result


def scores(root: Path, name: str = SET) -> dict[str, dict[str, float | None]]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", "model-compression") as book:
        return {
            submission.student.id: {g.name: g.auto_score for nb in submission.notebooks for g in nb.grades}
            for submission in book.assignment_submissions(name)
        }


def exported(root: Path, api: NbGraderAPI, caplog: pytest.LogCaptureFixture) -> tuple[dict[str, str], list[str]]:
    """Student -> score as the table says it, and who is said to be not graded. As `nbgrader export`."""
    caplog.clear()
    api.log.propagate = True
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", "model-compression") as book:
        Marks(parent=api, log=api.log, to=str(root / "grades.csv")).export(book)
    with open(root / "grades.csv", newline="") as file:
        table = {row["student_id"]: row["score"] for row in csv.DictReader(file)}
    begin = "NOT GRADED, so without a score: "
    return table, [r.getMessage().removeprefix(begin) for r in caplog.records if r.getMessage().startswith(begin)]


def feedback(root: Path, student: str) -> str:
    return (root / "feedback" / student / NAME).with_suffix(".html").read_text(encoding="utf-8")


def test_the_gradebook_holds_what_each_student_earned(course):
    found = scores(course[0])
    assert found["good"] == {"check-double": 2, "check-triple": 3, "why": None}  # that waits for a person
    assert found["untouched"] == found["cheater"] == dict.fromkeys(found["good"], 0)  # no cell of their own making


def test_a_graded_notebook_keeps_the_instructors_points(course):
    notebook = nbformat.read(course[0] / "autograded" / "cheater" / NAME, as_version=4)
    marks = [c.metadata.nbgrader for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert {m.grade_id: m.points for m in marks} == {"check-double": 2, "check-triple": 3, "why": 4}


def test_feedback_says_what_is_wrong(course):
    root, _, _ = course
    assert "the checks in this cell pass" in feedback(root, "good")
    assert "<strong>so</strong>" in feedback(root, "good")
    assert "this answer is not written yet" in feedback(root, "untouched")
    assert "the factor is missing" in feedback(root, "cheater")
    assert "small (Score: 0.0 / 9.0)" in feedback(root, "cheater")


def test_only_the_notebook_comes_in(course):
    """nbgrader's server shows what lies in autograded/, under its own address."""
    root, _, _ = course
    for step in ("autograded", "feedback"):
        found = {path.name for path in (root / step / "files").rglob("*") if path.is_file()}
        assert found - {"timestamp.txt"} == {Path(NAME).with_suffix(".html" if step == "feedback" else ".ipynb").name}
    assert (root / "autograded" / "files" / SET / "timestamp.txt").read_text() == "2026-01-01 10:00:00 UTC"


def test_a_students_name_that_is_no_name_comes_nowhere(course):
    root, _, result = course
    assert "the folder submitted/<img src=x>: rename it" in result["log"]
    assert not (root / "autograded" / "<img src=x>").exists()
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", "model-compression") as book:
        assert "<img src=x>" not in [student.id for student in book.students]


def test_what_is_not_graded_has_no_score_and_no_feedback_and_is_named(course, caplog):
    root, api, _ = course
    table, named = exported(root, api, caplog)
    assert table == {
        "good": "5.0",
        "files": "5.0",
        "untouched": "0.0",
        "cheater": "0.0",
        "broken": "",
        "misnamed": "",
        "<img src=x>": "",
    }
    assert named == ["<img src=x>, small", "broken, small", "misnamed, small"]
    assert "small,,2026-01-01 10:00:00,files,,,,5.0,0.0,5.0,9.0" in (root / "grades.csv").read_text().splitlines()
    assert not [student for student in ("<img src=x>", "broken", "misnamed") if (root / "feedback" / student).exists()]


def test_a_grader_that_was_killed_goes_on_where_it_was(tmp_path, needs_isolation, caplog):
    api = make_course(tmp_path)
    busy = "import time\ntime.sleep(3)\ndef double(x):\n    return 2 * x"
    for student, double in (("anna", "def double(x):\n    return 2 * x"), ("ben", busy), ("cem", "double = 3")):
        folder = hand_in(tmp_path, student, answered(tmp_path, double=double)).parent
        (folder / "timestamp.txt").write_text("2026-01-01 10:00:00 UTC")
    grader = nbgrader(tmp_path, "autograde", SET)
    for line in grader.stdout:
        if "Converting notebook" in line and "/ben/" in line:
            break
    time.sleep(1)  # ben's cell sleeps in its room
    assert (tmp_path / "autograded" / "anna" / NAME).exists()
    assert grader.poll() is None
    grader.send_signal(signal.SIGKILL)
    grader.communicate()
    table, named = exported(tmp_path, api, caplog)
    assert table == {"anna": "5.0", "ben": "", "cem": ""}
    assert named == ["ben, small", "cem, small"]
    result = api.autograde(SET, "*", force=False)
    assert result["success"], result["log"]
    assert "Skipping existing assignment" in result["log"]  # anna's
    assert exported(tmp_path, api, caplog) == ({"anna": "5.0", "ben": "5.0", "cem": "3.0"}, [])


def test_a_broken_reference_stops_the_run(course):
    """The canary: nobody gets a 0 because a package is missing on the grader's machine."""
    root, api, _ = course
    source = root / "solutions" / NAME
    text = source.read_text(encoding="utf-8")
    broken = text.replace("import numpy as np", "import numpy as np, no_such_package")
    assert broken != text
    source.write_text(broken, encoding="utf-8")
    hand_in(root, "late", answered(root))
    try:
        result = api.autograde(SET, "late")
    finally:
        source.write_text(text, encoding="utf-8")
        shutil.rmtree(root / "submitted" / "late")
    assert not result["success"]
    assert "does not score full marks" in result["log"]
    assert "no_such_package" in result["log"]
    assert not (root / "autograded" / "late").exists()
    assert set(scores(root)["late"].values()) == {None}


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_every_set_goes_the_same_way(one, tmp_path, needs_isolation, monkeypatch):
    """All answers right: what is special to a set are its checks, and tests/exercises has those."""
    monkeypatch.setattr(GradeInSandbox, "_canary", lambda *_: None)  # it would grade the same answers in the same way
    shutil.copytree(ROOT / "solutions" / one.name, tmp_path / "solutions" / one.name)
    api = registered(tmp_path, one.name)
    hand_in(tmp_path, "good", one.notebook("solutions"), one.name)
    result = api.autograde(one.name, "good")
    assert result["success"], result["log"]
    found = scores(tmp_path, one.name)["good"]
    assert found.pop(one.written) is None  # waits for a person
    assert sum(found.values()) == one.by_machine


def test_the_canary_names_what_failed():
    sheet = Sheet(
        (
            Cell("given", "setup", "from classroom.checks import expect"),
            Cell("answer", "one", "def one():\n    import no_such_package\n    return 1"),
            Cell("check", "check-one", "expect('one', one(), 1)", 1.0),
        )
    )
    if sys.platform == "win32":
        pytest.skip("the grader runs on Linux, in WSL2 or in a container")
    isolated = not isolation_problem()
    said = canary(sheet, isolated=isolated)
    assert "check-one: ModuleNotFoundError: No module named 'no_such_package'" in said
    assert canary(Sheet(sheet.cells[:1]), isolated=isolated) == ""


def test_isolation_is_on_unless_somebody_turns_it_off():
    assert GradeInSandbox().isolated is True
    assert "GradeInSandbox.isolated" not in (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")


def test_without_the_sandbox_nothing_is_graded(tmp_path):
    """nbgrader goes on with its own settings when ours cannot be read: student code would run in a kernel."""
    (tmp_path / "classroom").mkdir()
    (tmp_path / "classroom" / "__init__.py").write_text("raise ImportError('psutil is missing')")
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    process = nbgrader(tmp_path, "autograde", SET)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "psutil is missing. Nothing is graded without the sandbox" in said
