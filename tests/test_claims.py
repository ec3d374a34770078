"""Claims: intervals and outcomes by hand and against scipy, the ledger's errors."""

import json
import statistics
import tomllib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course_lib.claims import LEDGER, RARE, T_975, Claim, _two_sided, claim, interval, load_ledger


def make(kind="greater", margin=1.0, outcome="untested", numbers=None, seeds=3):
    return Claim(
        id="X1",
        statement="A beats B",
        source="a paper",
        certainty="V",
        paper=None,
        tested_by="here",
        difference="A − B",
        kind=kind,
        margin=margin,
        unit="points",
        seeds=tuple(range(seeds)),
        outcome=outcome,
        numbers=numbers,
    )


def test_interval_by_hand():
    # mean 2, standard deviation 1, so 2 ± 4.303 · 1 / √3 = 2 ± 2.484
    assert interval([1, 2, 3]) == pytest.approx((2.0, -0.4843, 4.4843), abs=1e-4)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=31))
def test_interval_is_scipys(values):
    mean, low, high = interval(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9, rel=1e-9)
    assert high - mean == pytest.approx(half, rel=3e-4, abs=1e-9)
    assert mean - low == pytest.approx(half, rel=3e-4, abs=1e-9)


def test_table_of_t_is_scipys():
    assert T_975 == pytest.approx([stats.t.ppf(0.975, n) for n in range(1, 31)], abs=6e-4)


def test_more_values_than_the_table_holds_give_a_wider_interval():
    values = [0.0, 1.0] * 30
    half = stats.t.ppf(0.975, 59) * stats.sem(values)
    _, low, high = interval(values)
    assert half < (high - low) / 2 < 1.03 * half


@pytest.mark.parametrize(
    ("kind", "differences", "outcome"),
    [
        # 1, 2, 3 has the interval −0.48 to 4.48; the margin is 1
        ("greater", [1, 2, 3], "null"),
        ("greater", [11, 12, 13], "confirmed"),
        ("greater", [-9, -8, -7], "refuted"),
        ("greater", [0.9, 0.9, 0.9], "refuted"),
        ("greater", [1, 1, 1], "null"),  # not above the margin, not below it
        ("within", [-0.1, 0, 0.1], "confirmed"),
        ("within", [1, 2, 3], "null"),
        ("within", [11, 12, 13], "refuted"),
        ("within", [-13, -12, -11], "refuted"),
    ],
)
def test_outcomes_by_hand(kind, differences, outcome):
    assert make(kind).judge(differences).outcome == outcome


def test_a_confirmed_claim_is_one_above_the_margin_in_every_unit():
    assert make(margin=20).judge([30, 31, 32]).outcome == "confirmed"
    assert make(margin=40).judge([30, 31, 32]).outcome == "refuted"


def test_a_claim_shows_statement_margin_and_record():
    assert repr(recorded(margin=9)).splitlines() == [
        "X1: A beats B",
        "    A − B",
        "    claimed: above 9 points; confirmed, mean 12 (95% interval 9.52 to 14.5; 3 seeds)",
    ]
    assert repr(make("within")).endswith("claimed: within ±1 points; not tested yet")


# --- whether a run agrees with the record ---------------------------------------------------------------------------


def recorded(differences=(11, 12, 13), *, kind="greater", margin=0.0):
    """A claim as the ledger holds it once these differences are recorded."""
    verdict = make(kind, margin, seeds=len(differences)).judge(differences)
    numbers = {"mean": verdict.mean, "low": verdict.low, "high": verdict.high, "differences": list(differences)}
    return make(kind, margin, verdict.outcome, numbers, len(differences))


def agrees(entry, differences):
    try:
        entry.check(differences)
    except AssertionError:
        return False
    return True


def test_what_check_says_is_the_same_for_every_run_that_agrees():
    entry = recorded(margin=9)
    said = {entry.check(differences) for differences in ([11, 12, 13], torch.tensor([12, 11.9, 13.1]), [2, 12, 22])}
    assert said == {f"{entry!r}; this run agrees"}


def test_check_says_what_differs():
    with pytest.raises(AssertionError, match="claim X1 .* is recorded as refuted, but this run says confirmed: 12"):
        recorded([-13, -12, -11]).check([11, 12, 13])


def test_an_untested_claim_is_not_agreed_with():
    with pytest.raises(AssertionError, match="claim X1 .* is recorded as untested"):
        make().check([11, 12, 13])


@pytest.mark.parametrize("differences", [[11, 12, 13], [2, 12, 22], [9, 10, 11], [7, 9, 11]])
def test_a_run_near_the_record_agrees_though_its_outcome_is_null(differences):
    assert agrees(recorded(margin=9), differences)


@pytest.mark.parametrize(("margin", "differences"), [(9, [0, 1, 2]), (2, [1, 2, 3])])
def test_a_run_far_from_the_record_does_not_agree(margin, differences):
    """The first says the opposite; the second is null, and its mean 12 standard errors of a difference away."""
    assert not agrees(recorded(margin=margin), differences)


def test_a_record_without_spread_knows_only_itself():
    entry = recorded([3, 3, 3], margin=1)
    assert agrees(entry, [3, 3, 3]) and not agrees(entry, [1, 1, 1])


def test_the_opposite_never_agrees_however_near():
    assert recorded([-1, -1.2, -1.4]).outcome == "refuted"
    assert not agrees(recorded([-1, -1.2, -1.4]), [0.5, 0.6, 0.7])


small = st.lists(st.integers(-20, 20), min_size=5, max_size=5)


@given(small, small, st.integers(0, 10))
def test_a_null_agrees_as_far_as_scipys_test_of_two_samples_allows(first, second, margin):
    entry = recorded(first, margin=margin)
    outcome = entry.judge(second).outcome
    if outcome == entry.outcome or statistics.variance(first) + statistics.variance(second) == 0:
        return
    rare = stats.ttest_ind(first, second).pvalue < RARE
    assert agrees(entry, second) == (not rare and "null" in (outcome, entry.outcome))


@pytest.mark.parametrize("degrees", [2, 4, 8, 38])
def test_how_often_t_is_so_large_is_scipys(degrees):
    for t in (0.0, 0.5, 2.0, 5.0, 12.0):
        assert _two_sided(t, degrees) == pytest.approx(2 * stats.t.sf(t, degrees), abs=1e-12)


def false_alarms(seeds, share, above, runs=100_000):
    """How often an honest run disagrees with its record, when ``share`` of the variance is drawn anew in it.

    The true difference is ``above`` standard errors above the margin, 0. Outcomes come from numpy and scipy here; the
    library is asked about every pair with two outcomes and means that lie apart, and those are all that can disagree.
    """
    random = np.random.default_rng(100 * seeds + int(10 * above))
    same = random.standard_normal((runs, seeds)) * (1 - share) ** 0.5 + above / seeds**0.5
    pair = [same + random.standard_normal((runs, seeds)) * share**0.5 for _ in range(2)]
    halves = [stats.t.ppf(0.975, seeds - 1) * stats.sem(values, axis=1) for values in pair]
    low, high = ([values.mean(1) + sign * half for values, half in zip(pair, halves, strict=True)] for sign in (-1, 1))
    outcomes = [(low[run] > 0) * 1 - (high[run] < 0) * 1 for run in range(2)]
    opposite = outcomes[0] * outcomes[1] < 0
    asked = opposite | (outcomes[0] != outcomes[1]) & (stats.ttest_ind(*pair, axis=1).pvalue < 0.01)
    return (
        sum(not agrees(recorded(first), second) for first, second in zip(*(v[asked] for v in pair), strict=True)) / runs
    )


@pytest.mark.parametrize(("seeds", "most"), [(3, 5e-4), (5, 3e-4), (20, 1e-4)])
def test_an_honest_run_rarely_disagrees(seeds, most):
    """With half of the variance drawn anew; measured over the kernels of three instruction sets: at most a fifth."""
    assert max(false_alarms(seeds, 0.5, above) for above in (0, 1)) <= most


def test_an_honest_run_rarely_disagrees_even_if_all_noise_is_new():
    found = [false_alarms(5, 1.0, above) for above in (0, 6)]
    assert 5e-4 < max(found) < 1.8e-3, "the docstring of check says 15 in 10,000"
    assert found[-1] <= 5e-4


CONFIRMED = [entry for entry in load_ledger() if entry.outcome == "confirmed"]


@pytest.mark.parametrize("entry", CONFIRMED, ids=lambda entry: entry.id)
def test_the_reverse_of_a_confirmed_claim_is_caught(entry):
    values = np.array(entry.numbers["differences"])
    reverse = values + 3 * entry.margin + 3 * np.ptp(values) if entry.kind == "within" else -values
    assert agrees(entry, values) and not agrees(entry, reverse)


def test_a_reversed_effect_is_caught_in_new_noise_too():
    """All noise drawn anew around the reversed mean: all but the weakest of the lessons' claims are seen through."""
    random, caught = np.random.default_rng(0), []
    for entry in CONFIRMED:
        if entry.kind == "greater" and entry.tested_by.startswith("notebooks/"):
            values = np.array(entry.numbers["differences"])
            runs = random.normal(-values.mean(), values.std(ddof=1), (200, len(values)))
            caught.append(sum(not agrees(entry, run) for run in runs) / 200)
    assert min(caught) >= 0.5 and sorted(caught)[1] >= 0.9 and statistics.fmean(caught) >= 0.97


@pytest.mark.parametrize("differences", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_one_difference_for_each_seed(differences):
    with pytest.raises(ValueError, match=r"differences came, but claim X1 has the seeds \[0, 1, 2\]"):
        make().judge(differences)


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_differences_that_say_nothing(differences):
    with pytest.raises(ValueError, match="expected two or more finite numbers"):
        make().judge(differences)


def test_unknown_id_names_the_near_ones():
    with pytest.raises(ValueError, match="no claim 'F1.1'.* near ids: .*F1.1a"):
        claim("F1.1")


def test_claim_reads_the_ledger():
    assert claim("F1.1a").seeds == (0, 1, 2, 3, 4)


def test_the_ledger_is_installed_with_the_library():
    project = tomllib.loads((LEDGER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert LEDGER.name in project["tool"]["setuptools"]["package-data"][LEDGER.parent.name]


def test_missing_ledger(tmp_path):
    with pytest.raises(FileNotFoundError, match="the ledger of claims"):
        load_ledger(tmp_path / "claims.json")


def test_an_entry_with_a_misspelt_field_is_refused(tmp_path):
    (tmp_path / "claims.json").write_text(json.dumps([{"id": "F1", "seeds": [], "marginn": 3}]))
    with pytest.raises(TypeError, match="marginn"):
        load_ledger(tmp_path / "claims.json")
