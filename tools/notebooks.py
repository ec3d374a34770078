"""Run the lessons and store what they print and draw, in one form that makes small diffs.

    python tools/notebooks.py                   every lesson, in place
    python tools/notebooks.py 00 01             only those whose names begin so
    python tools/notebooks.py --check           run nothing; fail if a lesson is not in the stored form
    python tools/notebooks.py --dry --cwd tests run in another working directory and store nothing
    python tools/notebooks.py --floors          run nothing; raise tests/lessons/compared.json to what is reached

Each lesson runs from a fresh kernel in notebooks/. The stored form keeps tags and outputs; it drops widget state,
timings and the version of the Python that ran it, and gives every figure its caption as alt text.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
FLOORS = ROOT / "tests" / "lessons" / "compared.json"
IGNORED = "nbval-ignore-output"
CAPTION = re.compile(r"\A\*Figure\b[^:\n]*:\s*(.+?)\*?\s*\Z", re.DOTALL)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What the stored outputs hold for. Bars show on slow machines only; a CUDA toolkit with no GPU prints its path.
ENVIRONMENT = {"COURSE_DEVICE": "cpu", "COURSE_SCALE": "quick", "TQDM_DISABLE": "1", "CUDA_HOME": "", "CUDA_PATH": ""}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def lessons(names: list[str] | None = None) -> list[Path]:
    """The lessons in reading order; with ``names``, those whose file names begin with one of them.

    Raises:
        ValueError: a name fits no lesson.
    """
    every = sorted(LESSONS.glob("*.ipynb"))
    for name in names or []:
        if not any(path.stem.startswith(name) for path in every):
            raise ValueError(f"no lesson begins with {name!r}; there are {', '.join(path.stem for path in every)}")
    return [path for path in every if not names or path.stem.startswith(tuple(names))]


def read(path: Path) -> NotebookNode:
    """A notebook as it is stored, format 4.5 or newer."""
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def execute(notebook: NotebookNode, cwd: Path, timeout: float = 600) -> None:
    """Run every cell of ``notebook``, in place, in a fresh kernel with working directory ``cwd``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    from nbclient import NotebookClient  # imported here: --check and the lint need no kernel

    resources = {"metadata": {"path": str(cwd)}}
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False, resources=resources)
    client.execute(env={**os.environ, **ENVIRONMENT})


def normalise(notebook: NotebookNode) -> NotebookNode:
    """``notebook``, changed in place to the form in which lessons are stored."""
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for position, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{position:02d}")
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type != "code":
            continue
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        following = notebook.cells[position + 1] if position + 1 < len(notebook.cells) else None
        cell.outputs = [_plain(output, count, caption(following)) for output in _joined(cell.outputs)]
    return notebook


def caption(cell: NotebookNode | None) -> str | None:
    """The text of a figure's caption, if ``cell`` is one: a markdown cell ``*Figure: what it shows.*``"""
    if cell is None or cell.cell_type != "markdown":
        return None
    found = CAPTION.match(cell.source.strip().split("\n\n")[0])
    return " ".join(found.group(1).split()) if found else None


def _plain(output: NotebookNode, count: int, alt: str | None) -> NotebookNode:
    """An output without what changes from run to run, and with its alt text."""
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
        images = [kind for kind in output.data if kind.startswith("image/")]
        output.metadata = nbformat.from_dict({kind: {"alt": alt} for kind in images} if alt else {})
    return output


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """``outputs`` with each run of text to the same stream as one output, however it was cut up on the way."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that are not empty."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def compared_share(notebook: NotebookNode) -> float:
    """Of the code cells that store text, the share whose text nbval compares; 1.0 if none stores any.

    A cell that only draws does not count: nbval does not compare pictures.
    """
    storing = [cell for cell in code_cells(notebook) if any(map(_is_text, cell.outputs))]
    ignored = sum(IGNORED in cell.metadata.get("tags", []) for cell in storing)
    return 1.0 - ignored / len(storing) if storing else 1.0


def _is_text(output: NotebookNode) -> bool:
    return not any(kind.startswith("image/") for kind in output.get("data", {}))


def raise_floors() -> None:
    """Write the share that each lesson reaches to compared.json, where it is higher than what stands there."""
    floors = json.loads(FLOORS.read_text(encoding="utf-8")) if FLOORS.exists() else {}
    for path in lessons():
        reached = int(100 * compared_share(read(path))) / 100  # rounded down
        floors[path.stem] = max(reached, floors.get(path.stem, 0.0))
    FLOORS.write_text(json.dumps(dict(sorted(floors.items())), indent=2) + "\n", encoding="utf-8")


def check(path: Path) -> bool:
    """Is the lesson in the stored form?"""
    return read(path) == normalise(read(path))


def run(path: Path, cwd: Path, *, store: bool) -> None:
    """Run one lesson and say how long it took."""
    start = time.perf_counter()
    notebook = read(path)
    execute(notebook, cwd)
    if store:
        nbformat.validate(normalise(notebook))
        nbformat.write(notebook, path)
    print(f"{path.stem}: {time.perf_counter() - start:.0f} s, {compared_share(notebook):.0%} of outputs compared")


def main(arguments: list[str]) -> int:
    """Do what the command line says; the answer is the exit status."""
    parser = argparse.ArgumentParser(description="Run the lessons and store their outputs.")
    parser.add_argument("names", nargs="*", help="how the lessons' names begin; none means all")
    parser.add_argument("--check", action="store_true", help="run nothing; fail if a lesson is not in the stored form")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    parser.add_argument("--cwd", type=Path, default=LESSONS, help="the working directory; notebooks/ without it")
    parser.add_argument("--floors", action="store_true", help="raise the recorded shares of compared outputs")
    given = parser.parse_args(arguments)
    if given.floors:
        raise_floors()
        return 0
    try:
        paths = lessons(given.names)
    except ValueError as error:
        parser.error(str(error))
    if given.check:
        loose = [path.stem for path in paths if not check(path)]
        for name in loose:
            print(f"{name} is not in the stored form: run python tools/notebooks.py {name}", file=sys.stderr)
        return 1 if loose else 0
    for path in paths:
        run(path, given.cwd.resolve(), store=not given.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
