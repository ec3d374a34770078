"""Results as JSON, and ``benchmarks/README.md``, which is drawn from them."""

import json
import os
import platform
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.interleave import Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE / "README.md"
PACKAGES = ("torch", "torchvision", "torchdistill", "torch-pruning", "matplotlib", "ipywidgets", "jupyterlab")
HEAD = """<!-- Written by `make bench` from benchmarks/results/. Change nothing by hand. -->
# Benchmarks

`make bench` times the course beside what a practitioner would use instead, and writes this page.
`python -m benchmarks kd_step import_time` runs some of them, `--quick` with few rounds to see that they work.

What is compared runs in turns, so that a slow minute of the machine is slow for all. The *spread* is the distance
between the quartiles as a share of the median. With a spread of 10 to 20%, ratios from 0.85 to 1.15 read as equal.
"""


def machine() -> dict[str, object]:
    """What the times depend on, without a name of the machine or a path. The load is that before the first round."""
    return {
        "system": platform.system(),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that are compared, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_result(name: str, title: str, note: str, rows: list[Row], where: dict) -> None:
    """Write ``results/<name>.json``. ``where`` is what ``machine`` gave before the run."""
    record = {"name": name, "title": title, "note": note, "date": date.today().isoformat()}
    record |= {"machine": where, "versions": versions(), "rows": [rounded(row) for row in rows]}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def rounded(row: Row) -> Row:
    """``row`` with four significant digits: the others are noise."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def page(records: list[dict]) -> str:
    """The whole page, from the records of ``write_result``."""
    parts = [HEAD]
    for record in records:
        parts += [f"## {record['title']}", "", record["note"], "", table(record["rows"]), "", origin(record), ""]
    return "\n".join(parts)


def origin(record: dict) -> str:
    """Where and when, in one line."""
    where, made_with = record["machine"], ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    busy = (where["load"] or 0) > where["cores"] / 2
    noisy = " Others were using the machine: read the ratios, not the times." if busy else ""
    return (
        f"<sub>{record['date']}, {where['system']}, {where['processor']}, {where['cores']} cores, "
        f"{where['threads']} threads, load {where['load']}. {made_with}.{noisy}</sub>"
    )


def table(rows: list[Row]) -> str:
    """``rows`` in Markdown; the columns are all keys, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key for row in rows for key, value in row.items() if type(value) in (int, float)}
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "|".join(" ---: " if column in numeric else " --- " for column in columns) + "|")
    lines += ["| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value as the table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def write_page(order: list[str]) -> None:
    """Write the page from the results that are there, in this order."""
    files = [RESULTS / f"{name}.json" for name in order]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    PAGE.write_text(page(records), encoding="utf-8")
