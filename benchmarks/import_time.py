"""What ``import course_lib`` costs beyond PyTorch, each time in a fresh Python. Aim: under 0.3 s."""

import subprocess
import sys

from benchmarks.interleave import Row, compare, interleave

TITLE = "Import"
NOTE = (
    "Each in a fresh Python that has imported torch already. A lesson imports data, models, training, distillation, "
    "measures and the table; the widget adds matplotlib and ipywidgets, which a notebook mostly has loaded anyway."
)
AIM = 0.3
LESSON = (
    "course_lib.data.images, course_lib.models.vision, course_lib.training, course_lib.evaluation, "
    "course_lib.distillation.hinton, course_lib.distillation.teachers, course_lib.measure, course_lib.table"
)
TORCH = "torch itself"
AFTER_TORCH = {
    "course_lib": "course_lib",
    "all of course_lib that a lesson uses": LESSON,
    "the temperature widget as well": f"{LESSON}, course_lib.widgets.temperature",
}
CODE = "import time{before}; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"


def seconds_to_import(modules: str, before: str = "") -> float:
    """Seconds of ``import <modules>`` in a fresh Python, after ``before``. CalledProcessError if it fails."""
    code = CODE.format(before=f", {before}" if before else "", modules=modules)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def run(*, quick: bool = False) -> list[Row]:
    """Each set of imports in turns."""
    times: dict[str, list[float]] = {name: [] for name in (TORCH, *AFTER_TORCH)}
    candidates = {TORCH: lambda _: times[TORCH].append(seconds_to_import("torch"))}
    for name, modules in AFTER_TORCH.items():
        candidates[name] = lambda _, name=name, modules=modules: times[name].append(seconds_to_import(modules, "torch"))
    interleave(candidates, rounds=2 if quick else 9)  # for the turns; the times are taken inside
    rows = compare({name: values[1:] for name, values in times.items()}, base=TORCH, unit="s")  # without the warm-up
    for row in rows:
        if row["what"] in list(AFTER_TORCH)[:2]:
            row |= {"aim": f"< {AIM} s", "met": row["median s"] < AIM}
    return rows
