"""Claims: intervals and outcomes by hand and against scipy, the ledger's errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course_lib.claims import T_975, Claim, claim, interval, load_ledger


def make(kind="greater", margin=1.0, outcome="untested", numbers=None):
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
        seeds=(0, 1, 2),
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


def test_check_returns_the_verdict_where_it_agrees():
    verdict = make(outcome="confirmed").check([11, 12, 13])
    assert str(verdict) == "confirmed: 12 (95% interval 9.516 to 14.48)"


def test_check_says_what_differs():
    with pytest.raises(AssertionError, match="claim X1 .* is recorded as refuted, but this run says confirmed: 12"):
        make(outcome="refuted").check([11, 12, 13])


# 11, 12 and 13, which confirm a margin of 9
RECORD = {"mean": 12.0, "low": 9.516, "high": 14.484}


@pytest.mark.parametrize("differences", [[11, 12, 13], [2, 12, 22]])
def test_a_run_near_the_record_agrees_though_its_outcome_is_null(differences):
    make(margin=9, outcome="confirmed", numbers=RECORD).check(differences)


@pytest.mark.parametrize("differences", [[0, 1, 2], [-8, 2, 12]])
def test_a_run_far_from_the_record_does_not_agree(differences):
    """One is refuted, the other null with a mean outside the recorded interval."""
    with pytest.raises(AssertionError, match="recorded as confirmed"):
        make(margin=9, outcome="confirmed", numbers=RECORD).check(differences)


def test_what_was_confirmed_cannot_be_refuted_however_near():
    with pytest.raises(AssertionError, match="recorded as refuted"):
        make(margin=9, outcome="refuted", numbers=RECORD).check([11, 12, 13])


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_differences_that_say_nothing(differences):
    with pytest.raises(ValueError, match="expected two or more finite numbers"):
        make().judge(differences)


def test_unknown_id_names_the_near_ones():
    with pytest.raises(ValueError, match="no claim 'F1.1'.* near ids: .*F1.1a"):
        claim("F1.1")


def test_claim_reads_the_ledger():
    assert claim("F1.1a").seeds == (0, 1, 2, 3, 4)


def test_missing_ledger(tmp_path):
    with pytest.raises(FileNotFoundError, match="the ledger of claims"):
        load_ledger(tmp_path / "claims.json")


def test_an_entry_with_a_misspelt_field_is_refused(tmp_path):
    (tmp_path / "claims.json").write_text(json.dumps([{"id": "F1", "seeds": [], "marginn": 3}]))
    with pytest.raises(TypeError, match="marginn"):
        load_ledger(tmp_path / "claims.json")
