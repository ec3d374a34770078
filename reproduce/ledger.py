"""From recorded results to the outcomes in the ledger, as each claim's entry says under ``measured``::

    {"record": "hinton_small", "key": "test_errors", "first": {"method": "alone"}, "second": {"method": "distilled"}}

A − B, once a seed: ``first`` is A, ``second`` is B. Each is a record, a number (``key``; a list of keys leads into a
table) and a case; what both have in common stands beside them. A side may also be a number that is known, or a
comparison with a ``first`` and a ``second`` of its own. ``compare`` names another comparison than the difference, and
``take`` which of several runs of a seed is meant.
"""

import difflib
import json
import math
import operator
import statistics
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from course_lib.claims import LEDGER, Claim, load_ledger
from reproduce.record import RESULTS, find_run, load_record
from reproduce.topics import EXPERIMENTS

Read = Callable[[str], dict | None]  # from the name of an experiment to its record

COMPARISONS: dict[str, Callable[[float, float], float]] = {
    "difference": operator.sub,
    "ratio": operator.truediv,
    "log ratio": lambda first, second: math.log(first / second),
    "percent less": lambda first, second: 100 * (1 - first / second),
    "share less": lambda first, second: 1 - first / second if second else 0.0,  # nothing can be less than nothing
}
# of all the runs that fit, in place of one
OF_SEVERAL: dict[str, Callable[[list[float]], float]] = {"second lowest": lambda values: sorted(values)[1]}


def differences_of(entry: Claim, folder: Path = RESULTS) -> list[float] | None:
    """One difference a seed of the claim, from the recorded results; ``None`` while a run that is planned is missing.

    Raises:
        ValueError: ``measured`` names an experiment, a case, a seed, a number or a comparison that does not exist.
    """
    read = cache(partial(load_record, folder=folder))
    try:
        found = [_compared(entry.measured, seed, read) for seed in entry.seeds]
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"claim {entry.id}, measured: {error}") from None
    return None if None in found else [round(value, 6) for value in found]


def _compared(how: dict, seed: int, read: Read) -> float | None:
    """A comparison of two sides, for one seed; ``None`` if a run is missing, as in the functions below."""
    compare = how.get("compare", "difference")
    shared = {name: value for name, value in how.items() if name not in ("compare", "first", "second")}
    sides = [_entry(how, name, how) for name in ("first", "second")]
    sides = [shared | side if isinstance(side, dict) else side for side in sides]
    if compare == "rank correlation":  # over all the runs that fit
        of, values = rank_correlation, [_numbers(side, seed, read, several=True) for side in sides]
    else:
        of, values = _entry(COMPARISONS, compare, "compare"), [_number(side, seed, read) for side in sides]
    return None if None in values else of(*values)


def _number(side: dict | float, seed: int, read: Read) -> float | None:
    """One side, for one seed."""
    if not isinstance(side, dict):
        return side
    if "first" in side or "second" in side:
        return _compared(side, seed, read)
    side = dict(side)
    take = side.pop("take", None)
    of = operator.itemgetter(0) if take is None else _entry(OF_SEVERAL, take, "take")
    numbers = _numbers(side, seed, read, several=take is not None)
    return None if numbers is None else of(numbers)


def _numbers(side: dict, seed: int, read: Read, *, several: bool) -> list[float] | None:
    """The number that ``side`` names, in each run that its experiment plans for this seed and case."""
    case = {"seed": seed} | {name: value for name, value in side.items() if name not in ("record", "key")}
    name, key = _entry(side, "record", side), _entry(side, "key", side)
    planned = _entry(EXPERIMENTS, name, "the experiments")().cases
    fitting = [run for run in planned if case.items() <= run.items()]
    if not fitting:
        near = difflib.get_close_matches(str(case), map(str, planned), n=2, cutoff=0)
        raise ValueError(f"{name} has no run {case}; near: {', '.join(near)}")
    if len(fitting) > 1 and not several:
        raise ValueError(f"{len(fitting)} runs of {name} fit {case}; expected a case that one run fits")
    record = read(name)
    runs = [find_run(record["runs"], run) if record else None for run in fitting]
    numbers = [_lookup(run, [key] if isinstance(key, str) else key) for run in runs if run]
    return numbers if len(numbers) == len(runs) else None


def _lookup(run: dict, keys: list[str]) -> float:
    """The number under ``keys``, one table within another."""
    found = run
    for key in keys:
        found = _entry(found, key, "the run")
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{' '.join(keys)} is {found!r}; expected a number")
    return found


def _entry(known: dict, name: str, where: object) -> object:
    """``known[name]``, or a ValueError with the names that are near."""
    if not isinstance(known, dict):
        raise ValueError(f"{known!r} holds no {name!r}")
    if name not in known:
        near = difflib.get_close_matches(str(name), map(str, known), n=3, cutoff=0.3)
        raise ValueError(f"no {name!r} in {where}; near: {', '.join(near) or 'nothing'}")
    return known[name]


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's: equal numbers share their rank; 0 where all numbers are equal."""
    ranks = [[sum(w < v for w in row) + sum(w == v for w in row) / 2 for v in row] for row in (first, second)]
    return statistics.correlation(*ranks) if all(len(set(values)) > 1 for values in ranks) else 0.0


def judge_all(folder: Path = RESULTS, ledger: Path = LEDGER) -> None:
    """Write into the ledger the outcome of every claim that the recorded results can answer."""
    found = {entry.id: differences_of(entry, folder) for entry in load_ledger(ledger) if entry.measured}
    _write_outcomes({id: differences for id, differences in found.items() if differences is not None}, ledger)


def record_outcome(id: str, differences: list[float], ledger: Path = LEDGER) -> None:
    """Judge the ``differences`` of a lesson and write outcome and numbers into the claim's entry."""
    entry = _entry({entry.id: entry for entry in load_ledger(ledger)}, id, "the ledger")
    if entry.measured:
        raise ValueError(f"claim {id} is judged from recorded results: run `python -m reproduce page`")
    _write_outcomes({id: differences}, ledger)


def _write_outcomes(found: dict[str, list[float]], ledger: Path) -> None:
    claims = {entry.id: entry for entry in load_ledger(ledger)}
    entries = json.loads(ledger.read_text(encoding="utf-8"))
    for entry in entries:
        if entry["id"] in found:
            verdict = claims[entry["id"]].judge(found[entry["id"]])
            numbers = {name: round(getattr(verdict, name), 4) for name in ("mean", "low", "high")}
            entry |= {"outcome": verdict.outcome, "numbers": numbers | {"differences": found[entry["id"]]}}
    write_ledger(entries, ledger)


def write_ledger(entries: list[dict], ledger: Path = LEDGER) -> None:
    """One object a claim, a field a line: easy to edit by hand."""
    claims = (
        ",\n".join(f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items())
        for entry in entries
    )
    ledger.write_text("[\n" + ",\n".join(f"  {{\n{claim}\n  }}" for claim in claims) + "\n]\n", encoding="utf-8")
