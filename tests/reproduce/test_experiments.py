"""Every experiment runs, on a few made-up pictures and for one epoch: numbers of the right kind come out."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset

from course_lib.claims import load_ledger
from course_lib.data.images import DIGITS, ImageData
from course_lib.data.text import load_agreement
from course_lib.distillation.hinton import with_teacher_logits
from course_lib.models.vision import SmallConvNet, mlp
from reproduce import (
    features_digits,
    features_mnist,
    hinton_mnist,
    lottery_mnist,
    pruning_digits,
    pruning_encoder,
    pruning_filters,
    pruning_healing,
    pruning_rewinding,
    pruning_weights,
)
from reproduce.ledger import differences_of
from reproduce.page import _section
from reproduce.record import carry_out
from reproduce.topics import EXPERIMENTS


def made_up(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 1, 28, 28, generator=generator), torch.arange(count) % 10)


EVERY = EXPERIMENTS.values()


@pytest.fixture
def tiny(monkeypatch, tmp_path_factory):
    """Experiments on 200 made-up pictures, one epoch each."""
    data = ImageData("mnist", made_up(200, 0), made_up(50, 1), made_up(50, 2), DIGITS, (0.0,), (1.0,))
    teacher = mlp([784, 16, 10])
    taught = with_teacher_logits(teacher, data.train)
    for name, value in {
        "mnist": data,
        "big_net": teacher,
        "big_net_minutes": 1.0,
        "all_training_cases": data.train,
        "soft_targets": taught,
        "soft_targets_without_validation": taught,
    }.items():
        monkeypatch.setattr(hinton_mnist, name, lambda value=value: value)
    for name in ("SMALL", "LONG", "SHORT", "WIDE", "NARROW", "FEW"):
        monkeypatch.setattr(hinton_mnist, name, replace(getattr(hinton_mnist, name), epochs=1, precision="fp32"))
    convolutional = SmallConvNet(features_mnist.CHANNELS["better"])
    monkeypatch.setattr(features_mnist, "mnist", lambda: data)
    monkeypatch.setattr(features_mnist, "some_cases", lambda: data.train)
    monkeypatch.setattr(features_mnist, "teacher", lambda name: convolutional)
    monkeypatch.setattr(features_mnist, "taught_by", lambda name: with_teacher_logits(convolutional, data.train))
    monkeypatch.setattr(features_mnist, "deep_teacher", lambda: mlp([784, 256, 10]))
    for name in ("STUDENT", "STUDENT_LONG", "HINTS", "DEEP_FIT", "DEEP_HINTS", "DEEP_SGD", "DEEP_SGD_HALF"):
        monkeypatch.setattr(features_mnist, name, replace(getattr(features_mnist, name), epochs=1))
    for name in ("TEACHER", "STUDENT", "DEEP_FIT", "DEEP_HALF"):
        monkeypatch.setattr(features_digits, name, replace(getattr(features_digits, name), epochs=1))
    monkeypatch.setattr(lottery_mnist, "mnist", lambda: data)
    monkeypatch.setattr(lottery_mnist, "LENET", replace(lottery_mnist.LENET, epochs=1))
    monkeypatch.setattr(lottery_mnist, "LOOK", 2)
    monkeypatch.setattr(lottery_mnist, "CACHE", tmp_path_factory.mktemp("lottery"))
    tiny_pruning(monkeypatch, data)
    cached = (features_digits.teacher, *CACHED)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


CACHED = (
    *(
        pruning_weights.some_cases,
        pruning_weights.dense,
        pruning_weights.convolutional,
        pruning_filters.some_cases,
        pruning_filters.dense,
    ),
    pruning_filters.lenet,
    *(pruning_encoder.sentences, pruning_encoder.encoder, pruning_encoder.importance),
    *(pruning_rewinding._trajectory, pruning_rewinding._lottery, pruning_rewinding._to_prune),
)


def tiny_pruning(monkeypatch, data):
    """The experiments on pruning: few pictures, narrow networks, one epoch where the number does not matter."""
    for module in (pruning_weights, pruning_filters, pruning_rewinding):
        monkeypatch.setattr(module, "mnist", lambda: data)
    small = tuple(
        TensorDataset(part.tensors[0][..., ::2, ::2].contiguous(), part.tensors[1]) for part in (data.train, data.test)
    )
    for module, name, value in (
        (pruning_rewinding, "half_size", lambda cases: small),
        (pruning_rewinding, "LENET_CASES", 200),
        (pruning_rewinding, "WIDTHS", {"narrow": (2, 3, 4), "wide": (4, 6, 8)}),
        (pruning_weights, "LENET_CASES", 200),
        (pruning_weights, "CASES", 200),
        (pruning_weights, "CHANNELS", (4, 6, 8)),
        (pruning_encoder, "load_agreement", lambda seed: load_agreement(train=200, held_out=20, seed=seed)),
        (pruning_encoder, "DRAWS", 1),
        (pruning_filters, "CASES", 200),
        (pruning_filters, "LENET_CASES", 200),
        (pruning_filters, "SCORED_ON", 50),
        (pruning_filters, "CHANNELS", (8, 16, 16)),
        (pruning_filters, "TIMED_CHANNELS", (4, 8, 8)),
        (pruning_digits, "SIZES", [64, 4, 10]),
        (pruning_digits, "CHANNELS", (4, 4)),
        (pruning_healing, "FILTERS", (4, 4)),
        (pruning_healing, "NEURONS", 8),
    ):
        monkeypatch.setattr(module, name, value)
    for module, name in (
        (pruning_rewinding, "RESIDUAL"),
        (pruning_rewinding, "LENET"),
        (pruning_weights, "DENSE"),
        (pruning_weights, "LONGEST"),
        (pruning_weights, "CONVOLUTIONAL"),
        (pruning_healing, "DENSE"),
        (pruning_healing, "HEALING"),
        (pruning_digits, "PERCEPTRON"),
        (pruning_digits, "CONVOLUTIONAL"),
        (pruning_encoder, "AGREEMENT_FIT"),
        (pruning_filters, "DENSE"),
        (pruning_filters, "LENET"),
    ):
        monkeypatch.setattr(module, name, replace(getattr(module, name), epochs=1))


@pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)
def test_experiments_run(make, tiny, tmp_path):
    experiment = make()
    experiment.cases[:] = [case for case in experiment.cases if case["seed"] == experiment.cases[0]["seed"]][:4]
    record = carry_out(experiment, tmp_path)
    assert len(record["runs"]) == len(experiment.cases)
    for run in record["runs"]:
        assert all(value >= 0 for key, value in run.items() if key.startswith(("errors", "test_", "train_")))
        assert run.get("test_errors", 0) <= 50 and run.get("test_accuracy", 0) <= 100
    assert f"<summary>{experiment.question}</summary>" in _section(record, "results")


def test_seeds_of_the_claims_are_seeds_of_the_experiments(tiny, tmp_path):
    """Whatever the numbers, a whole set of records answers every claim: no seed or method is misspelt."""
    for make in EVERY:
        experiment = make()
        sample = make().run(experiment.cases[0])
        carry_out(replace(experiment, run=lambda case, sample=sample: dict(sample)), tmp_path)
    measured = [entry for entry in load_ledger() if entry.measured]
    assert [entry.id for entry in measured if differences_of(entry, tmp_path) is None] == []
