"""The gates of the exercise contract, on every set."""

import collections
import re

import nbformat
import pytest

from classroom.grader import Student, grade
from classroom.sheet import Sheet, read_cells, read_sheet
from tests.exercises.sets import PATIENT, ROOT, SETS, ExerciseSet, graded

REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.DOTALL)


@pytest.fixture(scope="module", params=SETS, ids=lambda one: one.name)
def one(request) -> ExerciseSet:
    return request.param


@pytest.fixture(scope="module")
def sheet(one) -> Sheet:
    return one.sheet()


# --- gate 1: every solution passes its own tests ---------------------------------------------------------------------


def test_the_reference_solution_scores_full_marks(one, sheet, room):
    results = graded(sheet, room)
    assert {n: r.error for n, r in results.items() if r.error} == {}
    assert sum(r.points for r in results.values()) == sheet.points == one.by_machine


def test_the_set_is_complete(one):
    cells = one.notebook("solutions").cells
    marks = [cell.metadata.nbgrader for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert sum(m.points for m in marks) == one.by_machine + one.by_hand == 40
    assert sum(1 for m in marks if not m.solution) >= 6  # graded by machine
    assert [m.grade_id for m in marks if m.solution] == [one.written]  # read by a person
    assert "**Mark scheme**" in next(c.source for c in cells if c.id == one.written)
    heads = [c.source for c in cells if re.match(r"## \d", c.source)]
    assert len(heads) == one.exercises
    assert all(re.search(r"\*.+ · \d+ minutes · [\d +]+ points.*\*", head) for head in heads)
    assert all("**Goal.**" in head for head in heads[:-1])


def test_points_and_minutes_of_the_table_are_those_of_the_exercises(one):
    cells = one.notebook("solutions").cells
    table = re.findall(r"^\| (\d+) \|.*\| (\d+) \| (\d+) \|$", cells[0].source, re.MULTILINE)
    found, earned, graded_here = [], [], 0
    for cell in cells:
        if head := re.match(r"## (\d+)\..*?\*[^*]*?(\d+) minutes · ([\d +]+) points", cell.source, re.DOTALL):
            found.append((head[1], str(sum(map(int, head[3].split("+")))), head[2]))
            earned.append(0)
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade"):
            earned[-1] += marks.points
            graded_here += 1
    assert table == found
    assert [str(points) for points in earned] == [points for _, points, _ in found]


def test_a_visible_check_follows_each_answer_and_a_hint_each_exercise(one, sheet):
    coded = [c for c in sheet.cells if c.kind in ("answer", "check")]
    for before, after in zip(coded, coded[1:], strict=False):
        if before.kind == "answer":
            assert after.kind == "check"
    hints = [c.source for c in one.notebook("assignments").cells if c.source.startswith("**Hints**")]
    assert len(hints) == one.exercises - 1
    assert all("\n#### " in hint for hint in hints)


# --- gate 2: an untouched assignment scores 0 ------------------------------------------------------------------------


def test_an_untouched_assignment_scores_nothing(one, sheet, room):
    with Student(sheet.program(read_cells(one.notebook("assignments"))), PATIENT, room=room) as student:
        results = grade(sheet, student)
    assert sum(r.points for r in results.values()) == 0
    assert all("written" in r.error[1] or "not there" in r.error[1] for r in results.values()), results


# --- gate 3: mutants -------------------------------------------------------------------------------------------------


def test_all_mutants_are_caught_with_the_message_meant_for_them(one, sheet, room, capsys):
    caught = collections.Counter()
    wrong = []
    for mutant in one.mutants:
        result = graded(sheet, room, mutant.source, [mutant.check])[mutant.check]
        if result.error is None:
            wrong.append(f"{mutant.check}: '{mutant.name}' scores full marks")
            continue
        caught[mutant.check] += 1
        if mutant.message not in result.error[1]:
            wrong.append(f"{mutant.check}: '{mutant.name}' is told '{result.error[1]}', not '{mutant.message}'")
    with capsys.disabled():
        print(f"\nmutants of {one.name}: {caught.total()} of {len(one.mutants)} caught", end=" ")
    assert wrong == []
    assert len(one.mutants) >= 60


def test_further_wrong_answers_lose_points(one, sheet, room, capsys):
    wrong = []
    for name, (source, message) in one.further.items():
        errors = [result.error[1] for result in graded(sheet, room, source).values() if result.error]
        if not errors:
            wrong.append(f"'{name}' scores full marks")
        elif not any(message in error for error in errors):
            wrong.append(f"'{name}' is told {errors}, not '{message}'")
    with capsys.disabled():
        print(
            f"\nfurther wrong answers to {one.name}: {len(one.further) - len(wrong)} of {len(one.further)} caught",
            end=" ",
        )
    assert wrong == []
    assert len(one.further) >= 70


def test_every_check_has_mutants(one, sheet):
    per_check = collections.Counter(mutant.check for mutant in one.mutants)
    assert {c.name for c in sheet.of_kind("check")} == set(per_check)
    assert min(per_check.values()) >= 3
    assert len({(mutant.check, mutant.name) for mutant in one.mutants}) == len(one.mutants)


# --- gate 4: a right answer written another way ----------------------------------------------------------------------


WAYS = {f"{one.name}: {name}": (one, name) for one in SETS for name in one.alternatives}


@pytest.mark.parametrize(("one", "name"), WAYS.values(), ids=WAYS, indirect=["one"])
def test_a_right_answer_written_another_way_scores_full_marks(one, sheet, room, name):
    results = graded(sheet, room, one.alternatives[name])
    assert results
    assert {n: r.error for n, r in results.items() if r.error} == {}


# --- gate 5: nothing of the answers in the assignment ----------------------------------------------------------------


def secret_lines(one: ExerciseSet) -> set[str]:
    """Lines of answers, hidden tests and mark scheme that stand nowhere else in the source."""
    hidden, shown = set(), set()
    for cell in one.notebook("solutions").cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and marks.get("solution"):
            hidden |= set(cell.source.splitlines())
            continue
        for _, region in REGION.findall(cell.source):
            hidden |= set(region.splitlines())
        shown |= {line.strip() for line in REGION.sub("", cell.source).splitlines()}
    return {line.strip() for line in hidden if len(line.strip()) > 12} - shown


def test_nothing_of_the_answers_is_in_the_assignment(one):
    text = "\n".join(cell.source for cell in one.notebook("assignments").cells)
    secrets = secret_lines(one)
    assert len(secrets) > 120
    assert sorted(line for line in secrets if line in text) == []
    assert not re.search(r"BEGIN|HIDDEN TESTS|Mark scheme|model answer", text)


@pytest.mark.parametrize("folder", ["assignments", "solutions"])
def test_no_outputs_are_stored(one, folder):
    for cell in one.notebook(folder).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_format_is_the_one_agreed(one):
    for folder in ("assignments", "solutions"):
        notebook = one.notebook(folder)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
        assert all(m.schema_version == 3 for c in notebook.cells if (m := c.metadata.get("nbgrader")))


def test_reading_the_assignment_gives_the_same_parts(one, sheet):
    ours = read_sheet(one.path("assignments"))
    assert [(c.kind, c.name, c.points) for c in ours.cells] == [(c.kind, c.name, c.points) for c in sheet.cells]


# --- gate 6: the canary is in test_nbgrader.py; here, that a learner can work alone ----------------------------------


def test_a_learner_needs_no_grader(one, sheet, capsys):
    """The visible checks run in one plain namespace, as in any Jupyter, on the reference answers."""
    names: dict = {"__name__": "__main__"}
    visible = {cell.name: cell.source for cell in read_cells(one.notebook("assignments"))}
    for cell in sheet.cells:
        if cell.kind != "other":
            exec(compile(visible[cell.name] if cell.kind == "check" else cell.source, cell.name, "exec"), names)
    assert capsys.readouterr().out.count("the checks in this cell pass") == len(sheet.of_kind("check"))


def test_every_registered_set_is_in_the_folders(one):
    for folder in ("assignments", "solutions"):
        found = {path.parent.name for path in (ROOT / folder).glob("*/*.ipynb")}
        assert found == {each.name for each in SETS}
