"""From recorded results to the outcomes in the ledger: one function a claim, from records to a difference a seed."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from course_lib.claims import LEDGER, claim
from reproduce.record import RESULTS, indented, load_record, values_of

Differences = dict[int, float]


def minus(first: Differences, second: Differences) -> Differences:
    """A − B for each seed that both have."""
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def _methods(name: str, key: str, first: str, second: str) -> Callable[[Path], Differences]:
    """``key`` of one method minus that of another, in one record."""

    def differences(folder: Path) -> Differences:
        record = load_record(name, folder)
        return minus(values_of(record, key, method=first), values_of(record, key, method=second))

    return differences


def _temperatures(name: str, first: float, second: float) -> Callable[[Path], Differences]:
    """Test errors at one temperature minus those at another."""

    def differences(folder: Path) -> Differences:
        record = load_record(name, folder)
        return minus(
            values_of(record, "test_errors", temperature=first), values_of(record, "test_errors", temperature=second)
        )

    return differences


def _behind_the_large_net(folder: Path) -> Differences:
    (large,) = values_of(load_record("hinton_big", folder), "test_errors").values()
    small = values_of(load_record("hinton_small", folder), "test_errors", method="distilled")
    return {seed: errors - large for seed, errors in small.items()}


def _right_on_3(folder: Path, method: str, shifted: str) -> Differences:
    """Percent of the test 3s that are right."""
    record = load_record("hinton_without_3", folder)
    wrong = values_of(record, "errors_on_classes" + shifted, method=method)
    count = values_of(record, "count_of_classes", method=method)
    return {seed: 100 * (1 - wrong[seed] / count[seed]) for seed in wrong}


def _fewer_errors(name: str, per: float, **case: object) -> Callable[[Path], Differences]:
    """Errors before minus errors after the bias chosen on validation pictures, times ``per``."""

    def differences(folder: Path) -> Differences:
        record = load_record(name, folder)
        before, after = (values_of(record, key, **case) for key in ("errors", "errors_shifted_on_validation"))
        return {seed: per * value for seed, value in minus(before, after).items()}

    return differences


def _slope_plus_2(folder: Path) -> Differences:
    """Slope of log norm over log T between 4 and 20, without T², plus 2: the slope with T²."""
    norms = values_of(load_record("hinton_gradient", folder), "norm_with_factor")
    return {seed: math.log(norm["20"] / norm["4"]) / math.log(20 / 4) for seed, norm in norms.items()}


def _ratio_minus_1(folder: Path) -> Differences:
    norms = values_of(load_record("hinton_gradient", folder), "norm_with_factor")
    return {seed: norm["20"] / norm["4"] - 1 for seed, norm in norms.items()}


def _lottery(
    key: str, first: tuple[str, int], second: tuple[str, int], compare: Callable = minus
) -> Callable[[Path], Differences]:
    """``key`` of one network of the lottery's table compared with that of another."""

    def differences(folder: Path) -> Differences:
        record = load_record("lottery_lenet", folder)
        return compare(*(values_of(record, key, network=network, round=number) for network, number in (first, second)))

    return differences


def _ratio(first: Differences, second: Differences) -> Differences:
    return {seed: first[seed] / second[seed] for seed in first if seed in second}


def _percent_sooner(first: Differences, second: Differences) -> Differences:
    return {seed: 100 * (1 - ratio) for seed, ratio in _ratio(first, second).items()}


def _keys(name: str, first: str, second: str, **case: object) -> Callable[[Path], Differences]:
    """One number of a run minus another of the same run."""

    def differences(folder: Path) -> Differences:
        record = load_record(name, folder)
        return minus(values_of(record, first, **case), values_of(record, second, **case))

    return differences


def _value(name: str, key: str, less: float = 0, **case: object) -> Callable[[Path], Differences]:
    """A number of a run, less a number that is known."""
    return lambda folder: {s: v - less for s, v in values_of(load_record(name, folder), key, **case).items()}


def _share_gone(folder: Path) -> Differences:
    """Which share of the error barrier is gone after 10% of the training."""
    record = load_record("lottery_stability", folder)
    first, later = (values_of(record, "error_barrier", method=f"residual, {share}") for share in ("0%", "10%"))
    return {seed: 1 - later[seed] / first[seed] if first[seed] else 0.0 for seed in first if seed in later}


def _behind_over_barriers(folder: Path) -> Differences:
    """Spearman's correlation over a seed's six sparse networks: error barrier, and how far behind the dense one."""
    record = load_record("lottery_rewinding", folder)
    tickets: dict[int, list[dict]] = {}
    for run in record["runs"]:
        tickets.setdefault(run["seed"], []).append(run)
    return {
        seed: rank_correlation([run["error_barrier"] for run in group], [run["behind_dense"] for run in group])
        for seed, group in tickets.items()
        if len(group) == 6
    }


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's: equal numbers share their rank; 0 where all numbers are equal."""
    ranks = [[sum(w < v for w in row) + sum(w == v for w in row) / 2 for v in row] for row in (first, second)]
    return statistics.correlation(*ranks) if all(len(set(values)) > 1 for values in ranks) else 0.0


def _grown(folder: Path) -> Differences:
    """How far the rewound learning rate is ahead of fine-tuning: at the highest sparsity minus at the lowest."""
    gaps = [_ways(f"narrow, {sparsity}", "learning rate rewound", "fine-tuned")(folder) for sparsity in ("95%", "20%")]
    return minus(*gaps)


def _ways(network: str, first: str, second: str) -> Callable[[Path], Differences]:
    """Two ways to retrain one network."""
    return _methods("lottery_retraining", "test_accuracy", f"{network}, {first}", f"{network}, {second}")


def _retraining(first: str, second: str) -> Callable[[Path], Differences]:
    return _methods("pruning_retraining", "test_accuracy", first, second)


def _layers(net: str) -> Callable[[Path], Differences]:
    worst, first = "test_accuracy_worst_other_pruned", "test_accuracy_first_layer_pruned"
    return _keys("pruning_layers", worst, first, method=net)


def _filters(name: str, first: str, second: str) -> Callable[[Path], Differences]:
    return _methods(f"pruning_filters_{name}", "test_accuracy", first, second)


def _encoder(name: str, key: str, first: str, second: str) -> Callable[[Path], Differences]:
    return _methods(f"pruning_encoder_{name}", key, first, second)


def _second_worst_block(folder: Path) -> Differences:
    """The accuracy lost with the block that matters most but one, each removed alone."""
    record = load_record("pruning_encoder_blocks", folder)
    blocks = [values_of(record, "test_accuracy_removed", method=f"block {block}") for block in range(4)]
    return {seed: 100 - sorted(block[seed] for block in blocks)[1] for seed in blocks[-1]}


DIFFERENCES: dict[str, Callable[[Path], Differences]] = {
    "F1.1a": _methods("hinton_small", "test_errors", "alone", "distilled"),
    "F1.1b": _behind_the_large_net,
    "F1.2a": _temperatures("hinton_temperature_wide", 8, 20),
    "F1.2b": _temperatures("hinton_temperature_narrow", 1, 3),
    "F1.2c": _temperatures("hinton_temperature_narrow", 20, 3),
    "F1.3a": lambda folder: _right_on_3(folder, "distilled", ""),
    "F1.3b": lambda folder: _right_on_3(folder, "distilled", "_shifted_on_validation"),
    "F1.3c": _fewer_errors("hinton_without_3", 1, method="distilled"),
    "F1.3d": lambda folder: minus(
        _right_on_3(folder, "distilled", "_shifted_on_validation"),
        _right_on_3(folder, "labels", "_shifted_on_validation"),
    ),
    "F1.4": _fewer_errors("hinton_only_7_8", 0.01),
    "F1.5a": _methods("hinton_3_percent", "test_accuracy", "soft", "labels"),
    "F1.5b": _methods("hinton_3_percent", "train_accuracy", "labels", "soft"),
    "F1.6a": _slope_plus_2,
    "F1.6b": _ratio_minus_1,
    "F2.2-digits": _methods("digits_smoothing", "test_accuracy", "hints", "smoothed"),
    "F2.4a-digits": _methods("digits_deep", "test_accuracy", "hints", "alone"),
    "F2.4b-digits": _methods("digits_deep", "test_accuracy", "hints", "distilled"),
    "F2.4c-digits": _methods("digits_deep", "test_accuracy", "he", "hints"),
    "F2.5a-digits": _methods("digits_smoothing", "teacher_test_accuracy", "smoothed", "plain"),
    "F2.5b-digits": _methods("digits_smoothing", "test_accuracy", "smoothed", "plain"),
    "F2.5c-digits": _methods("digits_smoothing", "test_accuracy", "plain", "levelled"),
    "F2.1-mnist": _methods("features_students", "test_accuracy", "distilled", "alone"),
    "F2.2-mnist": _methods("features_students", "test_accuracy", "hints", "distilled"),
    "F2.1-mnist-long": _methods("features_students_long", "test_accuracy", "distilled", "alone"),
    "F2.2-mnist-long": _methods("features_students_long", "test_accuracy", "hints", "distilled"),
    "F2.4a-mnist": _methods("features_deep", "test_accuracy", "hints", "alone"),
    "F2.4b-mnist": _methods("features_deep", "test_accuracy", "hints", "distilled"),
    "F2.4d-mnist": _methods("features_deep_sgd", "test_accuracy", "hints", "alone"),
    "F2.4e-mnist": _methods("features_deep_sgd", "test_accuracy", "hints", "distilled"),
    "F2.4f-mnist": _methods("features_deep_sgd", "test_accuracy", "he", "hints"),
    "F2.5-mnist": _methods("features_students", "test_accuracy", "distilled", "weaker teacher"),
    "F3b.1a": _lottery("test_accuracy", ("ticket", 9), ("ticket", 0)),
    "F3b.1b": _lottery("test_accuracy", ("ticket", 9), ("re-initialised", 9)),
    "F3b.2a": _lottery("early_stop_step", ("ticket", 7), ("ticket", 0), _percent_sooner),
    "F3b.2b": _lottery("early_stop_step", ("re-initialised", 7), ("ticket", 7), _ratio),
    "F3b.3": _lottery("test_accuracy", ("ticket", 9), ("ticket", 18)),
    "F3b.4a": _lottery("test_accuracy", ("ticket", 12), ("one-shot", 12)),
    "F3b.4b": _lottery("test_accuracy", ("ticket", 15), ("one-shot", 15)),
    "F3b.5": _lottery("test_accuracy", ("ticket", 9), ("random mask", 9)),
    "F3a.1": _retraining("one-shot", "pruned"),
    "F3a.2a": _retraining("iterative", "one-shot"),
    "F3a.2b": _retraining("iterative, longer", "one-shot"),
    "F3a.3a": _methods("pruning_penalty", "test_accuracy_pruned", "L1", "L2"),
    "F3a.3b": _methods("pruning_penalty", "test_accuracy_retrained", "L2", "L1"),
    "F3a.4-lenet": _layers("LeNet-300-100"),
    "F3a.4-conv": _layers("SmallConvNet"),
    "F3a.5a": _retraining("one-shot", "drawn anew"),
    "F3a.5b": _retraining("one-shot", "drawn anew, longer"),
    "F3c.1a": _methods("lottery_stability", "error_barrier", "residual, 0%", "residual, 10%"),
    "F3c.1b": _value("lottery_stability", "error_barrier", method="LeNet, 0%"),
    "F3c.1c": _share_gone,
    "F3c.2a": _methods("lottery_rewinding", "test_accuracy", "residual, ticket from 10%", "residual, ticket from 0%"),
    "F3c.2b": _methods("lottery_rewinding", "test_accuracy", "LeNet, ticket from 10%", "LeNet, ticket from 0%"),
    "F3c.3a": _methods(
        "lottery_rewinding", "error_barrier", "residual, random mask from 0%", "residual, ticket from 0%"
    ),
    "F3c.3b": _behind_over_barriers,
    "F3d.1a": _ways("narrow, 95%", "learning rate rewound", "fine-tuned"),
    "F3d.1b": _ways("narrow, 95%", "weights rewound", "fine-tuned"),
    "F3d.1c": _ways("narrow, 95%", "learning rate rewound", "weights rewound"),
    "F3d.2": _grown,
    "F3d.3": _ways("wide, 20%", "fine-tuned", "learning rate rewound"),
    "F4.1a-conv": _filters("damage", "convolutional, smallest L1", "convolutional, random"),
    "F4.1b-conv": _filters("damage", "convolutional, random", "convolutional, largest L1"),
    "F4.1a-lenet": _filters("damage", "LeNet, smallest L1", "LeNet, random"),
    "F4.1b-lenet": _filters("damage", "LeNet, random", "LeNet, largest L1"),
    "F4.2-conv": _filters("damage", "convolutional, smallest L1", "convolutional, smallest L2"),
    "F4.2-lenet": _filters("damage", "LeNet, smallest L1", "LeNet, smallest L2"),
    "F4.3a-conv": _filters("retraining", "pruned", "from scratch, 4 epochs"),
    "F4.3b-conv": _filters("retraining", "pruned", "from scratch, 14 epochs"),
    "F4.4a-conv": _value("pruning_filters_speed", "speed_up_filters"),
    "F4.4b-conv": _value("pruning_filters_speed", "speed_up_weights", less=1),
    "F4.5a-conv": _keys("pruning_filters_ranks", "correlation_taylor", "correlation_norm"),
    "F4.5b-conv": _keys("pruning_filters_ranks", "correlation_norm", "correlation_random"),
    "F3a.6b-digits": _keys("pruning_digits", "weights_global", "weights_local"),
    "F4.1e-digits": _keys("pruning_digits", "filters_small_each_layer", "filters_any_each_layer"),
    "F4.8c-digits": _keys("pruning_digits", "weights_small", "weights_flat"),
    "F4.8d-digits": _keys("pruning_digits", "filters_flat", "filters_any"),
    "F4.6a-conv": _filters("rounds", "in rounds", "at once"),
    "F4.6b-conv": _filters("rounds", "in rounds, retrained", "at once, retrained"),
    "F4.20a-encoder": _encoder("scope", "test_accuracy_at_90%", "global", "local"),
    "F4.20b-encoder": _encoder("retrained", "test_accuracy", "global", "local"),
    "F4.20c-encoder": _encoder("retrained", "test_accuracy", "local", "random"),
    "F4.21a-encoder": _encoder("scope", "test_accuracy_at_80%", "local in the first block", "global"),
    "F4.21b-encoder": _encoder("scope", "test_accuracy_at_70%", "gentle first", "local"),
    "F4.21c-encoder": _encoder("scope", "test_accuracy_at_70%", "gentle first", "gentle last"),
    "F4.21d-encoder": _encoder("scope", "test_accuracy_at_90%", "gentle first", "local"),
    "F4.22-encoder": _encoder("blocks", "loss_rise_at_90%", "block 0", "block 3"),
    "F4.21e-encoder": _encoder("scope", "test_accuracy_at_80%", "global", "local in the first block"),
    "F4.21f-encoder": _encoder("scope", "test_accuracy_at_70%", "gentle first", "local"),
    "F4.21g-encoder": _encoder("scope", "test_accuracy_at_70%", "gentle first", "gentle last"),
    "F4.22b-encoder": _encoder("blocks", "test_accuracy_at_90%", "block 3", "block 0"),
    "F4.22c-encoder": _second_worst_block,
    "F4.23-encoder": _keys("pruning_encoder_scope", "test_accuracy_at_80%", "hard_accuracy_at_80%", method="global"),
    "F4.24a-encoder": _value("pruning_encoder_heads", "test_accuracy_without_8", less=100, method="least important"),
    "F4.24b-encoder": _encoder("heads", "test_accuracy_without_8", "least important", "random"),
    "F4.24c-encoder": _encoder("heads", "test_accuracy_without_12", "in rounds", "least important"),
    "F4.24d-encoder": _encoder("heads", "test_accuracy_without_8", "random", "most important"),
    "F4.24e-encoder": _encoder("heads", "test_accuracy_without_8", "in rounds", "random"),
    "F4.24f-encoder": _encoder("heads", "test_accuracy_without_12", "in rounds", "least important"),
}


def differences_of(id: str, folder: Path = RESULTS) -> list[float] | None:
    """One difference a seed of the claim, from the recorded results; none while a seed is missing."""
    try:
        found = DIFFERENCES[id](folder)
    except TypeError:  # no record yet: load_record gave none
        return None
    seeds = claim(id).seeds
    return [round(found[seed], 6) for seed in seeds] if all(seed in found for seed in seeds) else None


def judge_all(folder: Path = RESULTS, ledger: Path = LEDGER) -> None:
    """Write into the ledger the outcome of every claim that the recorded results can answer."""
    for id in DIFFERENCES:
        differences = differences_of(id, folder)
        known = (claim(id).numbers or {}).get("differences")
        if differences is not None and differences != known:
            record_outcome(id, differences, ledger)


def record_outcome(id: str, differences: list[float], ledger: Path = LEDGER) -> None:
    """Judge ``differences`` and write outcome and numbers into the claim's entry."""
    entry = claim(id)
    if len(differences) != len(entry.seeds):
        raise ValueError(f"claim {id} has the seeds {list(entry.seeds)}, but {len(differences)} differences came")
    verdict = entry.judge(differences)
    entries = json.loads(ledger.read_text(encoding="utf-8"))
    for written in entries:
        if written["id"] == id:
            written["outcome"] = verdict.outcome
            written["numbers"] = {name: round(getattr(verdict, name), 4) for name in ("mean", "low", "high")}
            written["numbers"]["differences"] = differences
    write_ledger(entries, ledger)


def write_ledger(entries: list[dict], ledger: Path = LEDGER) -> None:
    """One object a claim, a field a line: easy to edit by hand."""
    ledger.write_text(indented(entries) + "\n", encoding="utf-8")
