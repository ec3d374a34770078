"""The ledger, the lessons, the recorded results and docs/results.md say the same."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from course_lib.claims import LEDGER, claim, load_ledger
from reproduce.ledger import differences_of, judge_all, rank_correlation, record_outcome, write_ledger
from reproduce.page import PAGE, ROOT, make_page
from reproduce.record import RESULTS
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
    entry.check(entry.numbers["differences"])
    verdict = entry.judge(entry.numbers["differences"])
    assert verdict.outcome == entry.outcome
    for name in ("mean", "low", "high"):
        assert entry.numbers[name] == pytest.approx(getattr(verdict, name), abs=1e-4)


def test_every_claim_of_the_scripts_and_no_other_says_how_it_is_measured():
    measured = {entry.id for entry in CLAIMS if entry.measured}
    assert measured == {entry.id for entry in CLAIMS if entry.tested_by.startswith("reproduce/")}


def test_judging_all_results_again_gives_the_ledger(tmp_path):
    """Outcomes and numbers are wiped out, and come back as they were, to the last digit."""
    entries = json.loads(LEDGER.read_text(encoding="utf-8"))
    wiped = [entry | ({"outcome": "untested", "numbers": None} if "measured" in entry else {}) for entry in entries]
    write_ledger(wiped, tmp_path / "claims.json")
    judge_all(RESULTS, tmp_path / "claims.json")
    assert json.loads((tmp_path / "claims.json").read_text("utf-8")) == entries, "run `python -m reproduce page`"


# --- what a claim may say of how it is measured ---------------------------------------------------------------------


def measured(how, seeds=(0, 1), id="F1.1a"):
    return replace(claim(id), measured=how, seeds=seeds)


SMALL = {
    "record": "hinton_small",
    "key": "test_errors",
    "first": {"method": "alone"},
    "second": {"method": "distilled"},
}


def test_differences_by_hand(tmp_path):
    runs = [("alone", 0, 9), ("distilled", 0, 4), ("distilled", 1, 5), ("alone", 1, 3)]
    write_runs(tmp_path, "hinton_small", [{"method": m, "seed": s, "test_errors": e} for m, s, e in runs])
    write_runs(tmp_path, "hinton_big", [{"seed": 0, "test_errors": 2}])
    for how, found in (
        ({}, [5, -2]),
        ({"compare": "ratio"}, [2.25, 0.6]),
        ({"compare": "percent less"}, [-125, 40]),
        ({"compare": "share less"}, [-1.25, 0.4]),
        ({"compare": "log ratio"}, [0.81093, -0.510826]),
        ({"second": 4}, [5, -1]),
        ({"first": 100}, [96, 95]),
        ({"second": {"record": "hinton_big", "seed": 0}}, [7, 1]),
        ({"first": {"first": {"method": "alone"}, "second": {"method": "distilled"}}, "second": 1}, [4, -3]),
        ({"first": {"take": "second lowest"}, "second": 0}, [9, 5]),
        ({"first": {}, "compare": "rank correlation", "second": {"key": "seed"}}, [0, 0]),  # a seed's are equal
    ):
        assert differences_of(measured(SMALL | how), tmp_path) == found, how


def write_runs(folder, name, runs):
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "runs": runs}), encoding="utf-8")


def test_a_claim_whose_runs_are_missing_is_not_run_yet(tmp_path):
    assert differences_of(measured(SMALL), tmp_path) is None
    some = [{"method": "alone", "seed": seed, "test_errors": 1} for seed in range(2)]
    write_runs(tmp_path, "hinton_small", some)
    assert differences_of(measured(SMALL), tmp_path) is None


@pytest.mark.parametrize("folder", ["recorded", "empty"])
@pytest.mark.parametrize(
    ("how", "seeds", "message"),
    [
        ({"record": "hinton_smal"}, (0, 1), "no 'hinton_smal' in the experiments; near: hinton_small"),
        ({"first": {"method": "allone"}}, (0, 1), "hinton_small has no run .*allone.*; near: .*alone"),
        ({"second": {"methode": "alone"}}, (0, 1), "hinton_small has no run .*methode"),
        ({}, (0, 1, 7), "hinton_small has no run {'seed': 7, 'method': 'alone'}"),
        ({"first": {}}, (0, 1), "2 runs of hinton_small fit {'seed': 0}"),
        ({"compare": "diference"}, (0, 1), "no 'diference' in compare; near: difference"),
        ({"first": {"take": "lowest"}}, (0, 1), "no 'lowest' in take; near: second lowest"),
        ({"key": "test_error"}, (0, 1), "no 'test_error' in the run; near: test_errors"),
        ({"key": ["test_errors", "3"]}, (0, 1), "holds no '3'"),
        ({"key": "method"}, (0, 1), "method is 'alone'; expected a number"),
    ],
)
def test_a_slip_is_an_error_and_never_not_run_yet(how, seeds, message, folder, tmp_path):
    """Names of numbers can only be looked up in a record; all the rest is seen before anything has been run."""
    if folder == "empty" and "key" in how:
        assert differences_of(measured(SMALL | how, seeds), tmp_path) is None
        return
    with pytest.raises(ValueError, match=f"claim F1.1a, measured: .*{message}"):
        differences_of(measured(SMALL | how, seeds), RESULTS if folder == "recorded" else tmp_path)


@pytest.mark.parametrize("lost", ["record", "key", "first", "second"])
def test_what_is_left_out_is_named(lost):
    with pytest.raises(ValueError, match=f"claim F1.1a, measured: no '{lost}' in "):
        differences_of(measured({name: value for name, value in SMALL.items() if name != lost}))


def test_rank_correlation_is_scipys():
    first, second = [3.0, 1.0, 1.0, 7.0, 5.0], [2.0, 2.0, 1.0, 9.0, 0.0]
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


@pytest.mark.parametrize("notebook", LESSONS, ids=lambda path: path.stem)
def test_lessons_and_ledger_name_the_same_claims(notebook):
    recorded = {entry.id for entry in CLAIMS if entry.tested_by == f"notebooks/{notebook.name}"}
    assert named_in(notebook) == recorded


@pytest.mark.parametrize("name", [entry.id for entry in CLAIMS])
def test_every_claim_has_one_place_on_the_page(name):
    places = [topic.title for topic in TOPICS if name.startswith(topic.claims)]
    assert len(places) == 1, f"{name} stands in {places}: see reproduce/topics.py"


def test_every_experiment_has_one_place_on_the_page():
    written = {
        path.stem
        for path in (ROOT / "reproduce").glob("*.py")
        if re.search(r"^EXPERIMENTS = [^{]", path.read_text("utf-8"), re.MULTILINE)
    }
    placed = [module.__name__.removeprefix("reproduce.") for topic in TOPICS for module in topic.modules]
    assert sorted(placed) == sorted(written), "see reproduce/topics.py"


def test_the_page_is_what_the_generator_makes():
    assert PAGE.read_text(encoding="utf-8") == make_page(), "run `python -m reproduce page`"


def test_no_remembered_number_is_printed_as_the_papers():
    remembered = [entry for entry in CLAIMS if entry.certainty == "M"]
    assert remembered, "there is nothing to check: take this test away"
    assert [entry.id for entry in remembered if entry.paper is not None] == []


def test_an_outcome_is_written_and_the_rest_left(tmp_path):
    ledger = tmp_path / "claims.json"
    ledger.write_text(LEDGER.read_text(encoding="utf-8"), encoding="utf-8")
    record_outcome("F1.1-digits", [70, 60, 65, 80, 72], ledger)
    before = {entry.id: entry for entry in CLAIMS}
    after = {entry.id: entry for entry in load_ledger(ledger)}
    changed = after.pop("F1.1-digits")
    assert after == {id: entry for id, entry in before.items() if id != "F1.1-digits"}
    assert changed.outcome == "confirmed" and changed.numbers["mean"] == 69.4


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("F1.1-digits", "2 differences came"),
        ("F1.1a", "judged from recorded results"),
        ("F1.1-digit", "near: F1"),
    ],
)
def test_a_slip_writes_nothing(id, message, tmp_path):
    ledger = tmp_path / "claims.json"
    ledger.write_bytes(LEDGER.read_bytes())
    with pytest.raises(ValueError, match=message):
        record_outcome(id, [1, 2], ledger)
    assert ledger.read_bytes() == LEDGER.read_bytes()


def test_writing_the_ledger_changes_nothing_by_itself(tmp_path):
    write_ledger(json.loads(LEDGER.read_text(encoding="utf-8")), tmp_path / "claims.json")
    assert (tmp_path / "claims.json").read_bytes() == LEDGER.read_bytes()
