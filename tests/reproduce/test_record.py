"""Recorded results: written after each run, taken up again, moved aside when the setting changes."""

import json
from dataclasses import asdict, dataclass, is_dataclass, replace

import pytest

from course_lib.resume import as_json, differing
from course_lib.training import FitConfig
from reproduce.record import Experiment, carry_out, load_record, mean_and_spread, values_of
from reproduce.topics import EXPERIMENTS


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


def test_another_setting_begins_afresh_and_the_old_record_stays(experiment, tmp_path, capsys):
    trial, seen = experiment
    first = carry_out(trial, tmp_path)
    for count, sizes in enumerate([(1, 3), (1, 2), (1, 3)]):
        carry_out(replace(trial, setting={"sizes": sizes}), tmp_path)
        assert len(seen) == 2 * (count + 2) and load_record("trial", tmp_path)["setting"] == {"sizes": list(sizes)}
    stem = f"trial-{first['date']}"
    assert sorted(path.stem for path in (tmp_path / "aside").iterdir()) == [stem, f"{stem}-2", f"{stem}-3"]
    assert load_record(stem, tmp_path / "aside") == first
    assert (
        f"trial was recorded with another setting; moved to {tmp_path / 'aside' / stem}.json" in capsys.readouterr().out
    )


# --- settings that grow ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wider(FitConfig):
    """A config of later: one more field, with a default."""

    token_budget: int | None = None


def widened(setting, **more):
    """``setting`` with every ``FitConfig`` in it as one of later."""
    if isinstance(setting, FitConfig):
        return Wider(**asdict(setting), **more)
    return {name: widened(value, **more) for name, value in setting.items()} if isinstance(setting, dict) else setting


@pytest.mark.parametrize("make", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_record_outlives_a_field_that_is_added(make, tmp_path):
    experiment = make()
    record = load_record(experiment.name)
    (tmp_path / f"{experiment.name}.json").write_text(json.dumps(record), encoding="utf-8")
    later = replace(experiment, setting=widened(experiment.setting), run=lambda case: pytest.fail(f"{case} ran again"))
    assert carry_out(later, tmp_path)["runs"] == record["runs"]
    assert not (tmp_path / "aside").exists()
    if as_json(later.setting) != record["setting"]:  # it holds a config: another value is another setting
        assert any(differing(record["setting"], widened(experiment.setting, token_budget=5)))


def test_the_records_hold_configs():
    """Or else the test above shows nothing."""
    held = [any(map(is_dataclass, make().setting.values())) for make in EXPERIMENTS.values()]
    assert len(held) == 34 and sum(held) == 33  # no training in pruning_filters_speed


def test_another_value_is_another_setting_and_so_is_a_field_that_went():
    written = as_json({"fit": FitConfig(epochs=3)})
    assert not any(differing(written, {"fit": FitConfig(epochs=3)}))
    assert any(differing(written, {"fit": FitConfig(epochs=4)}))
    assert any(differing(as_json({"fit": Wider(epochs=3, token_budget=5)}), {"fit": FitConfig(epochs=3)}))
    assert any(differing(written, {"fit": FitConfig(epochs=3), "more": 1}))


def test_a_default_that_changes_is_another_setting():
    @dataclass(frozen=True)
    class Other(FitConfig):
        batch_size: int = 32

    assert any(differing(as_json(FitConfig()), Other()))


def test_a_run_has_a_line_of_its_own(experiment, tmp_path):
    carry_out(experiment[0], tmp_path)
    lines = (tmp_path / "trial.json").read_text().splitlines()
    assert json.loads(next(line for line in lines if '"seed": 1' in line).strip().rstrip(","))["errors"] == 10


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1, 2, 3]) == (2, 1)
    assert mean_and_spread([4]) == (4, 0)
