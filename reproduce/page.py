"""docs/results.md, made from the ledger and the recorded results; never edited by hand."""

import json
from pathlib import Path

from course_lib.claims import Claim, load_ledger
from reproduce.record import FULL_RESULTS, RESULTS, load_record, mean_and_spread
from reproduce.topics import HEAD, TOPICS, Topic

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
SIGNS = {"confirmed": "✓ confirmed", "refuted": "✗ refuted", "null": "○ null", "untested": "untested"}
NOT_SHOWN = ("seed", "temperature", "minutes", "count_of_classes", "shift")
WORDS = {
    "errors": "test errors",
    "errors_on_classes": "of them on its digits",
    "shift_shifted_on_validation": "bias, chosen on validation",
    "errors_shifted_on_validation": "test errors with it",
    "errors_on_classes_shifted_on_validation": "of them on its digits",
    "shift_shifted_on_test": "bias, chosen on test",
    "errors_shifted_on_test": "test errors with it",
    "errors_on_classes_shifted_on_test": "of them on its digits",
}
PICTURE = (
    "![Left: test errors on MNIST of the large net, the small net distilled and alone, beside the paper's. Right: test "
    "errors of a student that was never shown a 3, as the bias of the 3 is raised.](images/hinton_mnist.png)\n"
)
FULL_HEAD = """### At full scale

The same experiments, trained longer: `COURSE_SCALE=full make reproduce`. They were run after the results above were
known, and no claim is judged by them.
"""


def make_page(folder: Path = RESULTS) -> str:
    """The whole page: how the claims came out, then each topic with its claims and its experiments."""
    claims, parts = load_ledger(), []
    for topic in TOPICS:
        judged = [claim for claim in claims if claim.id.startswith(topic.claims)]
        records = [make().name for module in topic.modules for make in module.EXPERIMENTS]
        if judged or records:
            parts += _topic(topic, judged, records, folder)
    return "\n".join([HEAD, _overview(claims), *parts])


def write_page(folder: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(make_page(folder), encoding="utf-8")


def quoted(claim: Claim) -> str:
    """The paper's numbers, if they may be printed: not when they are only remembered."""
    return "" if claim.certainty == "M" or claim.paper is None else claim.paper


def _overview(claims: list[Claim]) -> str:
    """How many claims of each topic came out how."""
    rows = []
    for topic in TOPICS:
        outcomes = [claim.outcome for claim in claims if claim.id.startswith(topic.claims)]
        if outcomes:
            counts = (str(outcomes.count(outcome)) for outcome in SIGNS)
            rows.append((f"[{topic.title}](#{topic.title.lower().replace(' ', '-')}), {topic.papers}", *counts))
    totals = [sum(int(row[column]) for row in rows) for column in range(1, 5)]
    head, rows = ["", *SIGNS.values()], [*rows, ("**all**", *(f"**{total}**" for total in totals))]
    if not totals[-1]:  # no claim waits for its run
        head, rows = head[:-1], [row[:-1] for row in rows]
    return _table(tuple(head), rows)


def _topic(topic: Topic, claims: list[Claim], names: list[str], folder: Path) -> list[str]:
    """The claims of a topic, how each was measured, and its experiments."""
    parts = [f"## {topic.title}\n"]
    if topic.title == "Soft targets" and (ROOT / "docs" / "images" / "hinton_mnist.png").exists():
        parts.append(PICTURE)
    if claims:
        parts.append(_claims_table(claims))
        measured = "\n".join(f"- **{claim.id}**: {_measured(claim)}" for claim in claims)
        parts.append(_folded("What was measured for each claim", measured))
    if topic.notes:
        parts.append("Weaker evidence, because other numbers had been seen before the claim was written down:\n")
        parts.append("\n".join(f"- {note}" for note in topic.notes) + "\n")
    if topic.limits:
        parts.append("What this scale does not show:\n")
        parts.append("\n".join(f"- {limit}" for limit in topic.limits) + "\n")
    if here := [record for name in names if (record := load_record(name, folder))]:
        parts.append("### Experiments: click on a question\n")
        parts += [_section(record, "results") for record in here]
    full = [record for name in names if (record := load_record(name, folder / FULL_RESULTS.name))]
    if full:
        parts.append(FULL_HEAD)
        parts += [_section(record, "results/full") for record in full]
    return parts


def _claims_table(claims: list[Claim]) -> str:
    """The claims that the scripts test on MNIST come first, then those of the lessons."""
    rows = [
        (
            f"**{claim.id}** {claim.statement} *{_source(claim)}*",
            quoted(claim),
            _found(claim),
            SIGNS[claim.outcome].replace(" ", "\N{NO-BREAK SPACE}"),
        )
        for claim in sorted(claims, key=lambda claim: claim.tested_by.startswith("notebooks/"))
    ]
    return _table(("claim", "the paper", "ours: mean (95% interval)", "outcome"), rows)


def _measured(claim: Claim) -> str:
    """The difference, its seeds, and where to find the run."""
    where = f"[{Path(claim.tested_by).stem}](../{claim.tested_by})"
    seeds = f"{len(claim.seeds)} seeds, {claim.seeds[0]} to {claim.seeds[-1]}"
    return f"{claim.difference} ({claim.unit}); {seeds}; {where}"


def _folded(title: str, text: str) -> str:
    """``text`` behind a line to click on."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>\n"


def _found(claim: Claim) -> str:
    """What was found, and what was claimed beforehand."""
    claimed = f"{'above ' if claim.kind == 'greater' else 'within ±'}{claim.margin:g}"
    if claim.numbers is None:
        return f"claimed: {claimed} {claim.unit}"
    mean, low, high = (_number(claim.numbers[name]) for name in ("mean", "low", "high"))
    return f"**{mean}** ({low} to {high}) {claim.unit}; claimed: {claimed}"


def _source(claim: Claim) -> str:
    certainty = {"S": ", as reported by others", "M": ", from memory: an ordering only"}.get(claim.certainty, "")
    return claim.source + certainty


def _section(record: dict, folder: str) -> str:
    """One experiment, recorded in ``reproduce/<folder>``: its numbers, the paper's, what to know, how it was run."""
    lines = [_runs_table(record["runs"])]
    if record["paper"]:
        lines.append(f"The paper: {', '.join(f'{_words(key)} {value}' for key, value in record['paper'].items())}.\n")
    if record["notes"]:
        lines.append("\n".join(f"- {note}" for note in record["notes"]) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    minutes = f"{record['minutes']:.1f} minutes in all"
    name = f"[`{record['name']}.json`](../reproduce/{folder}/{record['name']}.json)"
    lines.append(f"{name}: {record['hardware']}, {minutes}, {versions}, {record['date']}. Setting:\n")
    lines.append(f"`{json.dumps(_brief(record['setting']), ensure_ascii=False)}`")
    return _folded(record["question"], "\n".join(lines))


def _brief(setting: dict) -> dict:
    """Without the settings of the teacher, which its own experiment shows, and without what is off."""
    return {
        key: {name: item for name, item in value.items() if not _off(name, item, value)}
        if isinstance(value, dict)
        else value
        for key, value in setting.items()
        if key != "teacher"
    }


def _off(name: str, item: object, settings: dict) -> bool:
    return item in (None, 0.0, "constant") or (name == "momentum" and settings.get("optimizer") != "sgd")


def _runs_table(runs: list[dict]) -> str:
    """A row a variant: mean and standard deviation over its seeds."""
    variants: dict[str, list[dict]] = {}
    for run in runs:
        names = [f"T = {run['temperature']}" if "temperature" in run else "", run.get("method", run.get("teacher", ""))]
        variants.setdefault(" ".join(filter(None, names)), []).append(_flat(run))
    if all(name.startswith("T = ") for name in variants):
        variants = dict(sorted(variants.items(), key=lambda item: float(item[0][4:])))
    columns = list(next(iter(variants.values()))[0])
    rows = [
        (name, str(len(group)), *(_spread([run[column] for run in group]) for column in columns))
        for name, group in variants.items()
    ]
    return _table(("", "seeds", *map(_words, columns)), rows)


def _flat(run: dict) -> dict[str, float]:
    """The numbers of a run that go into the table: no curve, no seed; a table within becomes columns."""
    flat = {}
    for key, value in run.items():
        if key == "norm_with_factor":
            flat |= {f"T = {temperature}": norm for temperature, norm in value.items()}
        elif isinstance(value, (int, float)) and key not in NOT_SHOWN:
            flat[key] = value
    return flat


def _spread(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return _number(mean) if len(values) == 1 else f"{_number(mean)} ± {_number(spread)}"


def _number(value: float) -> str:
    """Three or four digits that matter."""
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _words(key: str) -> str:
    return WORDS.get(key, key.replace("_", " "))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells) + "\n"
