"""Claims as data: what a paper says, and what our own runs say to it.

The ledger, ``course_lib/claims.json``, holds each claim with a margin and seeds that are fixed before the experiment.
Every claim is about a difference A − B, measured once a seed with everything else equal (a paired design)::

    claim("F1.1-digits").check(differences)   # in a lesson: does this run say what the ledger says?

The outcome follows from the 95% interval of the mean difference (Student's t). ``greater`` claims that A − B is above
the margin, ``within`` that it lies between −margin and margin. Confirmed: the whole interval does. Refuted: none of it
does. Null: neither, these seeds cannot tell.
"""

import difflib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEDGER = Path(__file__).with_name("claims.json")

# 97.5% points of Student's t for 1, 2, ... 30 degrees of freedom.
T_975 = [
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
]


@dataclass(frozen=True)
class Verdict:
    """What the differences say: the outcome, their mean, and the ends of its 95% interval."""

    outcome: Literal["confirmed", "refuted", "null"]
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.outcome}: {self.mean:.4g} (95% interval {self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Attributes:
        id: of the paper's claim, with a suffix for the test: ``F1.1a``, ``F1.1-digits``.
        statement, source: one sentence; paper and section.
        certainty: V: read in the paper. S: reported by others. M: remembered, an ordering without the paper's
            numbers. "ours": no paper claims it, it is our control.
        paper: the paper's numbers, if they may be quoted.
        tested_by, difference: the script or the lesson; what A − B is.
        kind, margin, unit: what the difference has to be, fixed before the experiment, as are the seeds.
        outcome: confirmed, refuted, null, or untested.
        numbers: mean, low, high, and one difference a seed, in the order of the seeds; none while untested.
    """

    id: str
    statement: str
    source: str
    certainty: Literal["V", "S", "M", "ours"]
    paper: str | None
    tested_by: str
    difference: str
    kind: Literal["greater", "within"]
    margin: float
    unit: str
    seeds: tuple[int, ...]
    outcome: Literal["confirmed", "refuted", "null", "untested"]
    numbers: dict | None

    def judge(self, differences: Sequence[float]) -> Verdict:
        """What ``differences``, one a seed, say to this claim."""
        mean, low, high = interval(differences)
        if self.kind == "greater":
            confirmed, refuted = low > self.margin, high < self.margin
        else:
            confirmed, refuted = -self.margin < low and high < self.margin, self.margin < low or high < -self.margin
        return Verdict("confirmed" if confirmed else "refuted" if refuted else "null", mean, low, high)

    def check(self, differences: Sequence[float]) -> Verdict:
        """Judge, and raise an ``AssertionError`` unless this run agrees with the record.

        It agrees if the outcome is the same. Another processor rounds otherwise, and a few test pictures then fall on
        the other side; so it also agrees if its mean lies in the recorded interval and only one of the two is null.
        """
        verdict = self.judge(differences)
        recorded = self.numbers or {"low": math.inf, "high": -math.inf}
        near = "null" in (verdict.outcome, self.outcome) and recorded["low"] <= verdict.mean <= recorded["high"]
        if verdict.outcome != self.outcome and not near:
            raise AssertionError(
                f"claim {self.id} ({self.statement}) is recorded as {self.outcome}, but this run says {verdict} "
                f"{self.unit} against a margin of {self.margin:g}. If the change is meant, record it with "
                f"`python -m reproduce record {self.id} <differences>`; if not, look for what differs in this run."
            )
        return verdict


def claim(id: str) -> Claim:
    """The claim with this id. Raises ValueError with the nearest ids if there is none."""
    known = {entry.id: entry for entry in load_ledger()}
    if id not in known:
        near = difflib.get_close_matches(id, known, n=3, cutoff=0.3) or sorted(known)
        raise ValueError(f"no claim {id!r} in course_lib/claims.json; near ids: {', '.join(near)}")
    return known[id]


def load_ledger(path: Path = LEDGER) -> list[Claim]:
    """All claims, in the order of the ledger."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the ledger of claims is part of the course's repository")
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [Claim(**entry | {"seeds": tuple(entry["seeds"])}) for entry in entries]


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95% interval: mean ± t · s / √n.

    Raises:
        ValueError: fewer than two differences, or one that is not finite.
    """
    values = [float(value) for value in differences]
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"differences are {values}; expected two or more finite numbers, one a seed")
    # beyond 31 values the last entry serves: a little too wide, on the safe side
    factor = T_975[min(len(values) - 1, len(T_975)) - 1]
    mean, half = statistics.fmean(values), factor * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
