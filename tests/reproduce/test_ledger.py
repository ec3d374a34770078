"""The ledger, the lessons, the recorded results and docs/results.md say the same."""

import json
import re
from pathlib import Path

import pytest

from course_lib.claims import LEDGER, claim, load_ledger
from reproduce.ledger import DIFFERENCES, differences_of, record_outcome, write_ledger
from reproduce.page import PAGE, RECORDS, ROOT, make_page
from reproduce.topics import TOPICS

CLAIMS = load_ledger()
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ID = r"F\d+[a-d]?\.\d+[a-z]?(?:-[a-z-]+)?"
NAMED = re.compile(rf"""["']({ID})["']""")


def named_in(notebook: Path) -> set[str]:
    """The ids in a notebook's code cells: in ``claim("F1.1x")``, or in a list that a loop takes to ``claim``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return {id for source in sources for id in NAMED.findall(source)}


def test_ids_are_unique():
    ids = [entry.id for entry in CLAIMS]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("entry", CLAIMS, ids=lambda entry: entry.id)
def test_entries_are_well_formed(entry):
    assert re.fullmatch(ID, entry.id)
    assert entry.certainty in ("V", "S", "M", "ours")
    assert entry.kind in ("greater", "within") and entry.outcome in ("confirmed", "refuted", "null", "untested")
    assert entry.margin > 0 if entry.kind == "within" else entry.margin >= 0
    assert len(set(entry.seeds)) == len(entry.seeds) >= 2
    assert (ROOT / entry.tested_by).exists(), f"{entry.tested_by} is not there"


@pytest.mark.parametrize("entry", CLAIMS, ids=lambda entry: entry.id)
def test_outcomes_follow_from_the_recorded_differences(entry):
    if entry.numbers is None:
        assert entry.outcome == "untested"
        return
    assert len(entry.numbers["differences"]) == len(entry.seeds)
    verdict = entry.check(entry.numbers["differences"])
    for name in ("mean", "low", "high"):
        assert entry.numbers[name] == pytest.approx(getattr(verdict, name), abs=1e-4)


def test_every_claim_of_the_scripts_has_its_differences():
    assert set(DIFFERENCES) == {entry.id for entry in CLAIMS if entry.tested_by.startswith("reproduce/")}


@pytest.mark.parametrize("id", DIFFERENCES)
def test_recorded_differences_are_those_of_the_results(id):
    recorded = claim(id).numbers
    assert differences_of(id) == (None if recorded is None else recorded["differences"]), (
        "run `python -m reproduce page`"
    )


@pytest.mark.parametrize("notebook", LESSONS, ids=lambda path: path.stem)
def test_lessons_and_ledger_name_the_same_claims(notebook):
    recorded = {entry.id for entry in CLAIMS if entry.tested_by == f"notebooks/{notebook.name}"}
    assert named_in(notebook) == recorded


@pytest.mark.parametrize("name", [*(entry.id for entry in CLAIMS), *RECORDS])
def test_every_claim_and_every_experiment_has_one_place_on_the_page(name):
    places = [topic.title for topic in TOPICS if name.startswith((*topic.claims, *topic.records))]
    assert len(places) == 1, f"{name} stands in {places}: see reproduce/topics.py"


def test_the_page_is_what_the_generator_makes():
    assert PAGE.read_text(encoding="utf-8") == make_page(), "run `python -m reproduce page`"


def test_no_remembered_number_is_printed_as_the_papers():
    remembered = [entry for entry in CLAIMS if entry.certainty == "M"]
    assert remembered, "there is nothing to check: take this test away"
    assert [entry.id for entry in remembered if entry.paper is not None] == []


def test_an_outcome_is_written_and_the_rest_left(tmp_path):
    ledger = tmp_path / "claims.json"
    ledger.write_text(LEDGER.read_text(encoding="utf-8"), encoding="utf-8")
    record_outcome("F1.1a", [70, 60, 65, 80, 72], ledger)
    before = {entry.id: entry for entry in CLAIMS}
    after = {entry.id: entry for entry in load_ledger(ledger)}
    changed = after.pop("F1.1a")
    assert after == {id: entry for id, entry in before.items() if id != "F1.1a"}
    assert changed.outcome == "confirmed" and changed.numbers["mean"] == 69.4
    with pytest.raises(ValueError, match="2 differences came"):
        record_outcome("F1.1a", [1, 2], ledger)


def test_writing_the_ledger_changes_nothing_by_itself(tmp_path):
    write_ledger(json.loads(LEDGER.read_text(encoding="utf-8")), tmp_path / "claims.json")
    assert json.loads((tmp_path / "claims.json").read_text("utf-8")) == json.loads(LEDGER.read_text("utf-8"))
