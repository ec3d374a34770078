"""Claims as data: what a paper says, and what our own runs say to it.

The ledger, ``course_lib/claims.json``, holds each claim with a margin and seeds that are fixed before the experiment.
Every claim is about a difference A − B, measured once a seed with everything else equal (a paired design)::

    claim("F1.1-digits")                             # what is claimed, and what came out
    print(claim("F1.1-digits").check(differences))   # in a lesson: and does this run agree?

The outcome follows from the 95% interval of the mean difference (Student's t). ``greater`` claims that A − B is above
the margin, ``within`` that it lies between −margin and margin. Confirmed: the whole interval does. Refuted: none of it
does. Null: neither, these seeds cannot tell.
"""

import difflib
import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEDGER = Path(__file__).with_name("claims.json")

# A run and its record disagree if their means lie apart as they would once in 2,000 repetitions.
RARE = 1 / 2000

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
        measured: of a claim that a script tests: how A − B follows from its records; see ``reproduce/ledger.py``.
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
    measured: dict | None = None

    def __repr__(self) -> str:
        """What a reader wants to know; from the ledger alone, so that it is the same on every machine."""
        asked = f"above {self.margin:g}" if self.kind == "greater" else f"within ±{self.margin:g}"
        found = "not tested yet"
        if self.numbers is not None:
            mean, low, high = (f"{self.numbers[name]:.3g}" for name in ("mean", "low", "high"))
            found = f"{self.outcome}, mean {mean} (95% interval {low} to {high}; {len(self.seeds)} seeds)"
        return f"{self.id}: {self.statement}\n    {self.difference}\n    claimed: {asked} {self.unit}; {found}"

    def judge(self, differences: Iterable[float]) -> Verdict:
        """What ``differences``, one a seed, say to this claim.

        Raises:
            ValueError: one of them is not finite, or they are not as many as the seeds.
        """
        values = [float(value) for value in differences]
        mean, low, high = interval(values)
        if len(values) != len(self.seeds):
            raise ValueError(f"{len(values)} differences came, but claim {self.id} has the seeds {list(self.seeds)}")
        if self.kind == "greater":
            confirmed, refuted = low > self.margin, high < self.margin
        else:
            confirmed, refuted = -self.margin < low and high < self.margin, self.margin < low or high < -self.margin
        return Verdict("confirmed" if confirmed else "refuted" if refuted else "null", mean, low, high)

    def check(self, differences: Iterable[float]) -> str:
        """The claim as the ledger has it, for the reader, once this run agrees.

        Another processor takes other kernels, which round otherwise; a training then goes another way, and a few test
        pictures fall on the other side. Such a run is a new draw of some of the noise, with the same seeds. It agrees
        with the record if its outcome is the same. If the outcome is another one, because the interval touches the
        margin on one of two machines, it still agrees unless

        - the one is confirmed and the other refuted, or
        - the two means lie further apart than two means of n seeds do once in 2,000 times: Student's t of two samples,
          |mean − mean'| / √((s² + s'²) / n), with 2 (n − 1) degrees of freedom, as if all of the noise were new.

        How often does an honest run fail? At worst, with a true difference at the margin, 2 times in 10,000 with 5
        seeds and 4 with 3 seeds, if half of the variance over the seeds is drawn anew; on the kernels of three
        instruction sets it was at most a fifth. Were all of it new: 15 in 10,000. And the reverse of any confirmed
        claim fails always. ``tests/test_claims.py`` counts all this.

        Raises:
            AssertionError: this run does not agree, or nothing is recorded yet.
            ValueError: as ``judge``.
        """
        values = [float(value) for value in differences]
        verdict = self.judge(values)
        if verdict.outcome != self.outcome and not self._near(values, verdict):
            raise AssertionError(
                f"claim {self.id} ({self.statement}) is recorded as {self.outcome}, but this run says {verdict} "
                f"{self.unit} against a margin of {self.margin:g}. If the change is meant, record it with "
                f"`python -m reproduce record {self.id} <differences>`; if not, look for what differs in this run."
            )
        return f"{self!r}; this run agrees"

    def _near(self, values: list[float], verdict: Verdict) -> bool:
        """Whether a run of another outcome can be one with the record all the same; see ``check``."""
        if self.numbers is None or {verdict.outcome, self.outcome} == {"confirmed", "refuted"}:
            return False
        recorded = self.numbers["differences"]
        variance = (statistics.variance(values) + statistics.variance(recorded)) / len(values)
        apart = abs(verdict.mean - statistics.fmean(recorded))
        return _two_sided(apart / math.sqrt(variance), 2 * (len(values) - 1)) >= RARE if variance else apart == 0


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


def interval(differences: Iterable[float]) -> tuple[float, float, float]:
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


def _two_sided(t: float, degrees: int) -> float:
    """How often Student's t with an even number of degrees of freedom is further from 0 than ``t``.

    Its distribution is then a finite sum (Abramowitz and Stegun 26.7.4), with θ = arctan(t / √degrees):
    1 − sin θ · (1 + 1/2 cos² θ + (1 · 3)/(2 · 4) cos⁴ θ + ...), degrees / 2 terms.
    """
    angle = math.atan(t / math.sqrt(degrees))
    term = total = 1.0
    for count in range(1, degrees // 2):
        term *= (2 * count - 1) / (2 * count) * math.cos(angle) ** 2
        total += term
    return 1 - math.sin(angle) * total
