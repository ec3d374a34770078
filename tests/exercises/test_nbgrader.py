"""A class from assignment to feedback, with nbgrader itself as the front."""

import filecmp
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config.loader import PyFileConfigLoader

from classroom.preprocessors import GradeInSandbox, canary
from classroom.sheet import Cell, Sheet
from tests.exercises.sets import ROOT, SETS
from tools.assignments import generate

SET = "ps1_distillation"
NAME = f"{SET}/{SET}.ipynb"
# Patches every comparison, looks for the answers, adds points to itself, rewrites the checks, and leaves fake outputs.
CHEAT = """
import builtins, glob, numpy, torch
numpy.allclose = torch.allclose = torch.equal = lambda *a, **k: True
numpy.testing.assert_allclose = torch.testing.assert_close = lambda *a, **k: None
import classroom.checks as checks
checks.expect = checks.expect_that = checks.expect_refusal = lambda *a, **k: None
found = glob.glob("/**/solutions/**/*.ipynb", recursive=False) + glob.glob("../../**/*.ipynb") + glob.glob("/*/*.db")
assert found == [], found
def soften(logits, temperature):
    return logits
"""


def test_assignments_are_what_nbgrader_makes_of_the_solutions(tmp_path):
    """Run `make assignments` if this fails."""
    made = {p.relative_to(tmp_path) for p in generate(tmp_path)}
    stored = {p.relative_to(ROOT / "assignments") for p in (ROOT / "assignments").rglob("*") if p.is_file()}
    assert made == {p for p in stored if ".ipynb_checkpoints" not in p.parts}
    different = [p for p in made if not filecmp.cmp(tmp_path / p, ROOT / "assignments" / p, shallow=False)]
    assert different == []


def course_in(root: Path, name: str = SET) -> NbGraderAPI:
    """A course folder with the repository's own settings, its gradebook and one assignment."""
    config = PyFileConfigLoader(str(ROOT / "nbgrader_config.py")).load_config()
    config.CourseDirectory.root = str(root)
    shutil.copytree(ROOT / "solutions", root / "solutions")
    api = NbGraderAPI(config=config)
    result = api.generate_assignment(name)
    assert result["success"], result["log"]
    return api


def hand_in(root: Path, student: str, notebook: nbformat.NotebookNode, name: str = SET) -> None:
    path = root / "submitted" / student / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def cheating(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.id == "soften":
            cell.source = CHEAT
            marks["points"] = 100
            marks["grade"] = True
        elif marks.get("grade") and cell.cell_type == "code":
            cell.source = "print('all tests passed')"
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "40.0"}, execution_count=1)]
            marks["points"] = 1000
        if cell.id == "check-hint-loss":  # an answer, says the metadata, and worth reading
            marks["solution"], marks["locked"] = True, False
        if cell.id == "check-entropy":
            marks["grade_id"] = "check-soften"
    return notebook


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, problem):
    if problem:
        pytest.skip(f"no isolation on this machine: {problem}")
    root = tmp_path_factory.mktemp("class")
    with pytest.MonkeyPatch.context() as patch:
        # nbgrader calls alembic by name, as where the environment is activated
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        api = course_in(root)
        released = root / "assignments" / NAME
        hand_in(root, "good", nbformat.read(root / "solutions" / NAME, as_version=4))
        hand_in(root, "untouched", nbformat.read(released, as_version=4))
        hand_in(root, "cheater", cheating(nbformat.read(released, as_version=4)))
        logs = {}
        for student in ("good", "untouched", "cheater"):
            result = api.autograde(SET, student)
            logs[student] = result["log"]
            assert result["success"], result["log"]
        result = api.generate_feedback(SET)
        assert result["success"], result["log"]
        yield root, api, logs


def scores(root: Path, name: str = SET) -> dict[str, dict[str, float | None]]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", "model-compression") as book:
        return {
            submission.student.id: {g.name: g.auto_score for nb in submission.notebooks for g in nb.grades}
            for submission in book.assignment_submissions(name)
        }


def feedback(root: Path, student: str) -> str:
    return (root / "feedback" / student / NAME).with_suffix(".html").read_text(encoding="utf-8")


def test_the_gradebook_holds_what_each_student_earned(classroom):
    root, _, _ = classroom
    found = scores(root)
    assert sum(s for s in found["good"].values() if s) == 34
    assert found["good"]["why-soft-targets"] is None  # waits for a person
    assert set(found["untouched"].values()) == {0}
    assert sum(s for s in found["cheater"].values() if s) == 0
    assert set(found["cheater"]) == set(found["good"])  # no cell of their own making


def test_a_graded_notebook_keeps_the_instructors_points(classroom):
    root, _, _ = classroom
    notebook = nbformat.read(root / "autograded" / "cheater" / NAME, as_version=4)
    marks = [c.metadata.nbgrader for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert sum(m.points for m in marks) == 40


def test_feedback_says_what_is_wrong(classroom):
    root, _, _ = classroom
    assert "the checks in this cell pass" in feedback(root, "good")
    assert "this answer is not written yet" in feedback(root, "untouched")
    text = feedback(root, "cheater")
    assert "these are the scaled logits themselves; the softmax is missing" in text
    assert "ps1_distillation (Score: 0.0 / 40.0)" in text


def test_a_broken_reference_stops_the_run(classroom):
    """Gate 6: the canary. Nobody gets a 0 because a package is missing on the grader's machine."""
    root, api, _ = classroom
    source = root / "solutions" / NAME
    text = source.read_text(encoding="utf-8")
    broken = text.replace("import torch.nn.functional as F", "import torch.nn.functional as F, no_such_package")
    assert broken != text
    source.write_text(broken, encoding="utf-8")
    hand_in(root, "late", nbformat.read(ROOT / "solutions" / NAME, as_version=4))
    try:
        result = api.autograde(SET, "late")
    finally:
        source.write_text(text, encoding="utf-8")
    assert not result["success"]
    assert "does not score full marks" in result["log"]
    assert "no_such_package" in result["log"]
    assert not (root / "autograded" / "late" / SET / f"{SET}.ipynb").exists()
    assert set(scores(root)["late"].values()) == {None}


@pytest.mark.parametrize("one", [one for one in SETS if one.name != SET], ids=lambda one: one.name)
def test_every_other_set_goes_the_same_way(one, tmp_path, problem, monkeypatch):
    """One submission, all answers right: what is special to a set are its checks, and test_sets.py has those."""
    if problem:
        pytest.skip(f"no isolation on this machine: {problem}")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    api = course_in(tmp_path, one.name)
    hand_in(tmp_path, "good", one.notebook("solutions"), one.name)
    result = api.autograde(one.name, "good")
    assert result["success"], result["log"]
    found = scores(tmp_path, one.name)["good"]
    assert found.pop(one.written) is None  # waits for a person
    assert sum(found.values()) == one.by_machine


def test_the_canary_names_what_failed(problem):
    sheet = Sheet(
        (
            Cell("given", "setup", "from classroom.checks import expect"),
            Cell("answer", "one", "def one():\n    import no_such_package\n    return 1"),
            Cell("check", "check-one", "expect('one', one(), 1)", 1.0),
        )
    )
    if sys.platform == "win32":
        pytest.skip("the grader runs on Linux, in WSL2 or in a container")
    assert "check-one: ModuleNotFoundError: No module named 'no_such_package'" in canary(
        sheet, preload=(), isolated=not problem
    )
    assert canary(Sheet(sheet.cells[:1]), preload=(), isolated=not problem) == ""


def test_isolation_is_on_unless_somebody_turns_it_off():
    assert GradeInSandbox().isolated is True
    assert "GradeInSandbox.isolated" not in (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
