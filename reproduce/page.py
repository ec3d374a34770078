"""docs/results.md, made from the ledger and the recorded results; never edited by hand."""

import json
from pathlib import Path

from course_lib.claims import Claim, load_ledger
from reproduce.record import FULL_RESULTS, RESULTS, load_record, mean_and_spread

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
# the order of the page
RECORDS = (
    "hinton_big",
    "hinton_small",
    "hinton_small_long",
    "hinton_without_3",
    "hinton_only_7_8",
    "hinton_3_percent",
    "hinton_gradient",
    "hinton_temperature_narrow",
    "hinton_temperature_wide",
    "features_teachers",
    "features_students",
    "features_students_long",
    "features_deep",
    "digits_smoothing",
    "digits_deep",
)
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
HEAD = """# Results

<!-- made by `python -m reproduce page`; do not edit -->

Claims of the papers, and what our own runs say. Margin and seeds of each claim were written down before the run
that is recorded. Some were written down with other numbers already seen, and are weaker evidence for it:

- **F1.1-digits-same** was added after a trial run with the same seeds had shown its numbers.
- **F1.7-digits-parts** was added after F1.7-digits had come out null.
- **F2.4d-digits** and **F2.4e-digits** repeat F2.4a and F2.4b on new seeds with a margin of 0, after those had come out
  null at 20; **F2.2b-digits** and **F2.5d** to **F2.5f-digits** ask about another pair of teachers on new seeds, after
  the first pair (F2.2, F2.5a to F2.5c) had come out partly null.

All other claims of lesson 01 were run once before on the same seeds, with a teacher trained for 60 epochs in place of
40; every outcome was the same.

The outcome follows from the 95% interval of the mean difference over the seeds (Student's t, paired):

- **confirmed**: the whole interval lies where the claim says;
- **refuted**: none of it does;
- **null**: these seeds cannot tell.

All numbers are from recorded runs: [`reproduce/results/`](../reproduce/results). `make reproduce` runs what is missing.
The ledger of claims is [`reproduce/claims.json`](../reproduce/claims.json).
"""
FULL_HEAD = """## At full scale

The same experiments, trained longer: `COURSE_SCALE=full make reproduce`. They were run after the results above were
known, and no claim is judged by them.
"""


def make_page(folder: Path = RESULTS) -> str:
    """The whole page."""
    parts = [HEAD, "## Claims\n", _claims_table(load_ledger())]
    if (ROOT / "docs" / "images" / "hinton_mnist.png").exists():
        parts.append(
            "![Left: test errors on MNIST of the large net, the small net distilled and alone, beside the paper's. "
            "Right: test errors of a student that was never shown a 3, as the bias of the 3 is raised.]"
            "(images/hinton_mnist.png)\n"
        )
    parts.append("## Experiments\n")
    records = [load_record(name, folder) for name in RECORDS]
    parts += [_section(record, "results") for record in records if record is not None]
    full = [load_record(name, folder / FULL_RESULTS.name) for name in RECORDS]
    if any(full):
        parts.append(FULL_HEAD)
        parts += [_section(record, "results/full") for record in full if record is not None]
    return "\n".join(parts)


def write_page(folder: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(make_page(folder), encoding="utf-8")


def quoted(claim: Claim) -> str:
    """The paper's numbers, if they may be printed: not when they are only remembered."""
    return "" if claim.certainty == "M" or claim.paper is None else claim.paper


def _claims_table(claims: list[Claim]) -> str:
    rows = []
    for claim in claims:
        where = f"[{Path(claim.tested_by).stem}](../{claim.tested_by})"
        rows.append(
            (
                f"**{claim.id}** {claim.statement} *{_source(claim)}*",
                quoted(claim),
                f"{claim.difference}: {_found(claim)}. {len(claim.seeds)} seeds, {where}",
                SIGNS[claim.outcome],
            )
        )
    return _table(("claim", "the paper", "ours", "outcome"), rows)


def _found(claim: Claim) -> str:
    """What was found, and what was claimed beforehand."""
    claimed = f"{'above ' if claim.kind == 'greater' else 'within ±'}{claim.margin:g} {claim.unit}"
    if claim.numbers is None:
        return f"claimed {claimed}"
    mean, low, high = (_number(claim.numbers[name]) for name in ("mean", "low", "high"))
    return f"**{mean}** ({low} to {high}), claimed {claimed}"


def _source(claim: Claim) -> str:
    certainty = {"S": ", as reported by others", "M": ", from memory: an ordering only"}.get(claim.certainty, "")
    return claim.source + certainty


def _section(record: dict, folder: str) -> str:
    """One experiment, recorded in ``reproduce/<folder>``: its numbers, the paper's, what to know."""
    lines = [f"### {record['question']}\n", _runs_table(record["runs"])]
    if record["paper"]:
        lines.append(f"The paper: {', '.join(f'{_words(key)} {value}' for key, value in record['paper'].items())}.\n")
    lines += [f"- {note}" for note in record["notes"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    minutes = f"{record['minutes']:.1f} minutes in all"
    name = f"[`{record['name']}.json`](../reproduce/{folder}/{record['name']}.json)"
    lines.append(f"- {name}: {record['hardware']}, {minutes}, {versions}, {record['date']}.")
    lines.append(f"- Setting: `{json.dumps(_brief(record['setting']), ensure_ascii=False)}`\n")
    return "\n".join(lines)


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
