"""Recorded results: written after each run, taken up again, begun afresh when the setting changes."""

import json
from dataclasses import replace

import pytest

from reproduce.record import Experiment, carry_out, load_record, mean_and_spread, values_of


@pytest.fixture
def experiment():
    seen = []

    def run(case):
        seen.append(case)
        return {"errors": 10 * case["seed"]}

    made = Experiment("trial", "Why?", {"sizes": (1, 2)}, [{"seed": 1}, {"seed": 0}], run, {"errors": 5}, ("A note.",))
    return made, seen


def test_a_second_time_runs_nothing(experiment, tmp_path):
    trial, seen = experiment
    first = carry_out(trial, tmp_path)
    assert carry_out(trial, tmp_path) == first == load_record("trial", tmp_path)
    assert seen == [{"seed": 1}, {"seed": 0}]


def test_the_record_holds_what_a_reader_asks(experiment, tmp_path):
    record = carry_out(experiment[0], tmp_path)
    assert {"setting", "paper", "notes", "hardware", "versions", "date", "minutes", "runs"} <= set(record)
    assert record["setting"] == {"sizes": [1, 2]}
    assert values_of(record, "errors") == {0: 0, 1: 10}
    assert list(values_of(record, "errors")) == [0, 1]  # in the order of the seeds


def test_an_interrupted_experiment_goes_on(experiment, tmp_path):
    trial, seen = experiment

    def breaks(case):
        if case["seed"] == 0:
            raise KeyboardInterrupt
        return trial.run(case)

    with pytest.raises(KeyboardInterrupt):
        carry_out(replace(trial, run=breaks), tmp_path)
    carry_out(trial, tmp_path)
    assert seen == [{"seed": 1}, {"seed": 0}]


def test_another_setting_begins_afresh(experiment, tmp_path):
    trial, seen = experiment
    carry_out(trial, tmp_path)
    carry_out(replace(trial, setting={"sizes": (1, 3)}), tmp_path)
    assert len(seen) == 4 and len(load_record("trial", tmp_path)["runs"]) == 2


def test_a_run_has_a_line_of_its_own(experiment, tmp_path):
    carry_out(experiment[0], tmp_path)
    lines = (tmp_path / "trial.json").read_text().splitlines()
    assert json.loads(next(line for line in lines if '"seed": 1' in line).strip().rstrip(","))["errors"] == 10


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1, 2, 3]) == (2, 1)
    assert mean_and_spread([4]) == (4, 0)
