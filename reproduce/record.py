"""Recorded results: one JSON file an experiment, written after every run, so that a broken session loses one run.

An experiment is a setting and a list of cases (a case names a seed, and a variant where there are several).
A case that is already recorded under the same setting is not run again. A setting may grow: a field that a config got
later, with a default, changes nothing. A record of another setting is moved aside, and the experiment starts afresh.
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

from course_lib.resume import as_json, differing

RESULTS = Path(__file__).parent / "results"
FULL_RESULTS = RESULTS / "full"  # of COURSE_SCALE=full

Case = dict[str, int | float | str]
Numbers = dict[str, object]


@dataclass(frozen=True)
class Experiment:
    """What is to be run.

    Attributes:
        name: of the file with the results.
        question: one sentence for the reader of the results.
        setting: everything but the case that the numbers depend on; configs as they are, not as dicts.
        cases: one run each, in the order of importance.
        run: from a case to its numbers.
        paper: the paper's numbers, where they may be quoted.
        notes: what a reader should know: where we differ from the paper, and why.
    """

    name: str
    question: str
    setting: dict[str, object]
    cases: list[Case]
    run: Callable[[Case], Numbers]
    paper: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def carry_out(experiment: Experiment, folder: Path = RESULTS) -> dict:
    """Run the cases that are missing, record each, and return the whole record."""
    record = load_record(experiment.name, folder)
    if record is not None and any(differing(record["setting"], experiment.setting)):
        print(
            f"{experiment.name} was recorded with another setting; moved to {_move_aside(record, folder)}", flush=True
        )
        record = None
    record = record or {"name": experiment.name, "runs": []}
    for case in experiment.cases:
        if find_run(record["runs"], case) is None:
            start = time.perf_counter()
            numbers = experiment.run(case)
            minutes = round((time.perf_counter() - start) / 60, 2)
            record["runs"].append({"minutes": minutes, **case, **numbers})  # a run may know its minutes better
            print(experiment.name, case, _short(numbers), f"{minutes} min", flush=True)
            record |= {"hardware": hardware(), "versions": versions(), "date": date.today().isoformat()}
        record |= {
            "question": experiment.question,
            "setting": as_json(experiment.setting),
            "paper": experiment.paper,
            "notes": list(experiment.notes),
            "minutes": round(sum(run["minutes"] for run in record["runs"]), 1),
        }
        _write(record, folder)
    return record


def _move_aside(record: dict, folder: Path) -> Path:
    """Move the file of ``record`` to ``folder/aside``, under its name and date; what lies there already stays."""
    stem, count = f"{record['name']}-{record.get('date', 'undated')}", 1
    while (target := folder / "aside" / f"{stem}{f'-{count}' if count > 1 else ''}.json").exists():
        count += 1
    target.parent.mkdir(exist_ok=True)
    return (folder / f"{record['name']}.json").rename(target)


def load_record(name: str, folder: Path = RESULTS) -> dict | None:
    """The record of an experiment, none if there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def find_run(runs: Iterable[dict], case: Case) -> dict | None:
    """The run of ``case``: the first whose entries agree with all of the case's."""
    return next((run for run in runs if all(run.get(key) == value for key, value in case.items())), None)


def values_of(record: dict, key: str, **case: object) -> dict[int, float]:
    """From seed to the number ``key``, over the runs that agree with ``case``, in the order of the seeds."""
    runs = [run for run in record["runs"] if all(run.get(name) == value for name, value in case.items())]
    return {run["seed"]: run[key] for run in sorted(runs, key=lambda run: run["seed"])}


def mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds (0 for a single one)."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def hardware() -> str:
    """What computed, as far as a reader needs to know to judge the minutes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()}-core CPU, {torch.get_num_threads()} thread(s) used"


def versions() -> dict[str, str]:
    """Of Python and PyTorch."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def indented(content: object) -> str:
    """JSON with a field a line, and lists of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return re.sub(r"\[\s+([-\d.,e\s]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)


def _write(record: dict, folder: Path) -> None:
    """Whole or not at all: written beside, then moved."""
    order = ("name", "question", "setting", "paper", "notes", "hardware", "versions", "date", "minutes")
    text = indented({key: record[key] for key in order if key in record})
    runs = ",\n".join("    " + json.dumps(run, ensure_ascii=False) for run in record["runs"])  # a run a line
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{record['name']}.json.new"
    temporary.write_text(f'{text[:-2]},\n  "runs": [\n{runs}\n  ]\n}}\n', encoding="utf-8")
    temporary.replace(folder / f"{record['name']}.json")


def _short(numbers: Numbers) -> str:
    return ", ".join(f"{key}={value}" for key, value in numbers.items() if not isinstance(value, (list, dict)))
