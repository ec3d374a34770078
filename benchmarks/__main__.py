"""Run the benchmarks and write their results.

    python -m benchmarks                    all of them
    python -m benchmarks kd_step fit_loop   some
    python -m benchmarks --quick            few rounds, to see that they work; writes nothing
    python -m benchmarks --page             run nothing; write benchmarks/README.md from the stored results

Exits with 1 if a lesson is over its budget.
"""

import argparse
import importlib

from benchmarks.page import PAGE, machine, table, write_page, write_result

NAMES = ["kd_step", "fit_loop", "global_mask", "masked_forward", "sparse_crossover", "structured_resnet"]
NAMES += ["width_speedup", "zoo", "lessons", "widget", "import_time"]


def main() -> int:
    """Do what the command line says; 1 if a lesson is over its budget."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the course beside others.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(NAMES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="few rounds; prints the tables and writes nothing")
    parser.add_argument("--page", action="store_true", help="only write the page from the stored results")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"unknown: {', '.join(unknown)}; expected any of {', '.join(NAMES)}")
    over = False
    for name in [] if arguments.page else arguments.names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        where = machine()
        rows = benchmark.run(quick=arguments.quick)
        print(f"\n{benchmark.TITLE}\n{table(rows)}", flush=True)
        over |= name == "lessons" and not all(row["met"] for row in rows)
        if not arguments.quick:
            write_result(name, benchmark.TITLE, benchmark.NOTE, rows, where)
    if not arguments.quick:
        write_page(NAMES)
        print(f"\nwritten: {PAGE.parent.name}/{PAGE.name}")
    return int(over)


if __name__ == "__main__":
    raise SystemExit(main())
