"""``python -m reproduce``: run what is missing, judge the claims, write docs/results.md and its figure.

python -m reproduce                      everything (hours; an interrupted run goes on where it stopped)
python -m reproduce hinton_small         some experiments; --seeds 3: the first seeds only
python -m reproduce page                 judge and write the page and the figure only
python -m reproduce record F1.1x 3 4 2   write a lesson's differences, one a seed, into the ledger

With COURSE_SCALE=full the experiments of Hinton's paper train two to four times as long, and are recorded apart, in
reproduce/results/full/. No claim is judged by them.
"""

import sys
from dataclasses import replace

import torch

from reproduce import hinton_mnist, lottery_mnist
from reproduce.figure import draw
from reproduce.ledger import judge_all, record_outcome
from reproduce.mnist import FULL
from reproduce.page import write_page
from reproduce.record import FULL_RESULTS, RESULTS, Experiment, carry_out
from reproduce.topics import EXPERIMENTS

AT_FULL_SCALE = {make().name: make for make in (*hinton_mnist.AT_FULL_SCALE, *lottery_mnist.EXPERIMENTS)}
TO_RUN = AT_FULL_SCALE if FULL else EXPERIMENTS


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    if arguments[:1] == ["record"]:
        record_outcome(arguments[1], [float(value) for value in arguments[2:]])
        write_page()
        return
    names, seeds = arguments, None
    if "--seeds" in arguments:
        place = arguments.index("--seeds")
        names, seeds = arguments[:place] + arguments[place + 2 :], int(arguments[place + 1])
    unknown = [name for name in names if name not in TO_RUN and name != "page"]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are: page, record, {', '.join(TO_RUN)}")
    torch.set_flush_denormal(True)  # numbers too small to matter, and slow on a CPU
    for name, experiment in TO_RUN.items():
        if not names or name in names:
            _carry_out(experiment(), seeds)
            _judge_and_write()
    _judge_and_write()


def _carry_out(experiment: Experiment, seeds: int | None) -> None:
    if seeds is not None:
        experiment.cases[:] = [case for case in experiment.cases if case["seed"] < seeds]
    if FULL:  # the notes speak of the other runs
        carry_out(replace(experiment, notes=()), FULL_RESULTS)
    else:
        carry_out(experiment, RESULTS)


def _judge_and_write() -> None:
    judge_all()
    write_page()
    draw()


if __name__ == "__main__":
    main(sys.argv[1:])
