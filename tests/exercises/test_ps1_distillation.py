"""The gates of the exercise contract on ps1_distillation."""

import ast
import collections
import re
from dataclasses import replace

import nbformat
import pytest

from course_lib.grading.grader import Student, grade
from course_lib.grading.sheet import Sheet, read_cells, read_sheet
from tests.exercises.alternatives_ps1 import ALTERNATIVES
from tests.exercises.conftest import NAME, ROOT
from tests.exercises.mutants_ps1 import MUTANTS

REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.DOTALL)


def names_in(source: str) -> set[str]:
    body = ast.parse(source).body
    assigned = {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return assigned | {n.name for n in body if isinstance(n, ast.FunctionDef)}


def graded(sheet: Sheet, room, source: str = "", only=None):
    """Grade the reference solution with one answer replaced by `source`."""
    mine = names_in(source)
    cells = [replace(c, source=source) if c.kind == "answer" and mine & set(c.defines) else c for c in sheet.cells]
    assert not source or cells != list(sheet.cells), "the source answers no exercise"
    with Student(sheet.program(cells), room=room) as student:
        return grade(sheet, student, only), student


def released() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "assignments" / NAME, as_version=4)


# --- gate 1: every solution passes its own tests ---------------------------------------------------------------------


def test_the_reference_solution_scores_full_marks(sheet, room):
    results, student = graded(sheet, room)
    assert {n: r.error for n, r in {**student.cells, **results}.items() if r.error} == {}
    assert sum(r.points for r in results.values()) == sheet.points == 34


def test_the_set_is_complete():
    cells = nbformat.read(ROOT / "solutions" / NAME, as_version=4).cells
    marks = [cell.metadata.nbgrader for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert sum(m.points for m in marks) == 40
    assert sum(1 for m in marks if not m.solution) >= 6  # graded by machine
    assert sum(1 for m in marks if m.solution) == 1  # read by a person
    assert "**Mark scheme**" in next(c.source for c in cells if c.id == "why-soft-targets")
    heads = [c.source for c in cells if re.match(r"## \d", c.source)]
    assert len(heads) == 10
    assert all(re.search(r"\*.+ · \d+ minutes · [\d +]+ points.*\*", head) for head in heads)
    assert all("**Goal.**" in head for head in heads[:-1])


def test_points_and_minutes_of_the_table_are_those_of_the_exercises():
    cells = nbformat.read(ROOT / "solutions" / NAME, as_version=4).cells
    table = re.findall(r"^\| (\d+) \|.*\| (\d+) \| (\d+) \|$", cells[0].source, re.MULTILINE)
    found = []
    for cell in cells:
        if head := re.match(r"## (\d+)\..*?\*[^*]*?(\d+) minutes · ([\d +]+) points", cell.source, re.DOTALL):
            found.append((head[1], str(sum(map(int, head[3].split("+")))), head[2]))
    assert table == found


def test_a_visible_check_follows_each_answer_and_a_hint_each_exercise(sheet):
    coded = [c for c in sheet.cells if c.kind in ("answer", "check")]
    for before, after in zip(coded, coded[1:], strict=False):
        if before.kind == "answer":
            assert after.kind == "check"
    hints = [c.source for c in released().cells if c.source.startswith("**Hints**")]
    assert len(hints) == 9
    assert all("\n#### " in hint for hint in hints)


# --- gate 2: an untouched assignment scores 0 ------------------------------------------------------------------------


def test_an_untouched_assignment_scores_nothing(sheet, room):
    with Student(sheet.program(read_cells(released())), room=room) as student:
        results = grade(sheet, student)
    assert sum(r.points for r in results.values()) == 0
    assert all("written" in r.error[1] or "not there" in r.error[1] for r in results.values()), results


# --- gate 3: mutants -------------------------------------------------------------------------------------------------


def test_all_mutants_are_caught_with_the_message_meant_for_them(sheet, room, capsys):
    caught = collections.Counter()
    wrong = []
    for mutant in MUTANTS:
        result = graded(sheet, room, mutant.source, [mutant.check])[0][mutant.check]
        if result.error is None:
            wrong.append(f"{mutant.check}: '{mutant.name}' scores full marks")
            continue
        caught[mutant.check] += 1
        if mutant.message not in result.error[1]:
            wrong.append(f"{mutant.check}: '{mutant.name}' is told '{result.error[1]}', not '{mutant.message}'")
    with capsys.disabled():
        print(f"\nmutants of ps1_distillation: {caught.total()} of {len(MUTANTS)} caught", end=" ")
    assert wrong == []
    assert len(MUTANTS) >= 24


def test_every_check_has_mutants(sheet):
    per_check = collections.Counter(mutant.check for mutant in MUTANTS)
    assert {c.name for c in sheet.of_kind("check")} == set(per_check)
    assert min(per_check.values()) >= 3


# --- gate 4: a right answer written another way ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_a_right_answer_written_another_way_scores_full_marks(sheet, room, name):
    results, _ = graded(sheet, room, ALTERNATIVES[name])
    assert {n: r.error for n, r in results.items() if r.error} == {}


# --- gate 5: nothing of the answers in the assignment ----------------------------------------------------------------


def secret_lines() -> set[str]:
    """Lines of answers, hidden tests and mark scheme that stand nowhere else in the source."""
    hidden, shown = set(), set()
    for cell in nbformat.read(ROOT / "solutions" / NAME, as_version=4).cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and marks.get("solution"):
            hidden |= set(cell.source.splitlines())
            continue
        for _, region in REGION.findall(cell.source):
            hidden |= set(region.splitlines())
        shown |= {line.strip() for line in REGION.sub("", cell.source).splitlines()}
    return {line.strip() for line in hidden if len(line.strip()) > 12} - shown


def test_nothing_of_the_answers_is_in_the_assignment():
    text = "\n".join(cell.source for cell in released().cells)
    secrets = secret_lines()
    assert len(secrets) > 120
    assert sorted(line for line in secrets if line in text) == []
    assert not re.search(r"BEGIN|HIDDEN TESTS|Mark scheme|model answer", text)


@pytest.mark.parametrize("folder", ["assignments", "solutions"])
def test_no_outputs_are_stored(folder):
    for cell in nbformat.read(ROOT / folder / NAME, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_format_is_the_one_agreed():
    for folder in ("assignments", "solutions"):
        notebook = nbformat.read(ROOT / folder / NAME, as_version=4)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
        assert all(m.schema_version == 3 for c in notebook.cells if (m := c.metadata.get("nbgrader")))


# --- gate 6: the canary is in test_nbgrader.py; here, that a broken reference would be noticed -----------------------


def test_a_learner_needs_no_grader(sheet, capsys):
    """The visible checks run in one plain namespace, as in any Jupyter, on the reference answers."""
    names: dict = {"__name__": "__main__"}
    visible = {cell.name: cell.source for cell in read_cells(released())}
    for cell in sheet.cells:
        if cell.kind != "other":
            exec(compile(visible[cell.name] if cell.kind == "check" else cell.source, cell.name, "exec"), names)
    assert capsys.readouterr().out.count("the checks in this cell pass") == len(sheet.of_kind("check"))


def test_the_demonstrations_run(sheet, capsys):
    """The cells that show the bugs at work, and the claims made of them in the text."""
    import warnings

    names: dict = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the very bug that is shown
        for cell in sheet.cells:
            if cell.kind != "check":
                exec(compile(cell.source, cell.name or "shown", "exec"), names)
    printed = capsys.readouterr().out
    assert "step 50: the student says [1.0, 0.0, 0.0, 0.0]" in printed  # pulled away from a perfect start
    wrong = {name: int(count) for name, count in re.findall(r"(with the bug|mended): (\d+) of 500", printed)}
    assert wrong["with the bug"] > 400  # no better than a guess
    assert wrong["mended"] < 50
    soft = [float(x) for x in re.findall(r"soft term ([\d.]+)", printed)]
    assert soft[0] / soft[-1] > 100  # 2 classes against 1,000


def test_reading_the_assignment_gives_the_same_parts(sheet):
    ours = read_sheet(ROOT / "assignments" / NAME)
    assert [(c.kind, c.name, c.points) for c in ours.cells] == [(c.kind, c.name, c.points) for c in sheet.cells]
