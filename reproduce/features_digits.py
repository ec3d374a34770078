"""Claims about hints and teachers (F2) on digits, besides those that lesson 02 tests: minutes in all.

The settings were fixed before the runs. Lesson 02 has the same questions for other teachers and with other seeds.
"""

from dataclasses import replace
from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from course_lib.data.images import ImageData, fraction, load_images
from course_lib.distillation.hinton import distill, soft_target_loss, soften, with_teacher_logits
from course_lib.distillation.hints import (
    GuidedStudent,
    regressor_for,
    soft_and_hint_loss,
    stage_1_loss,
    with_features,
)
from course_lib.evaluation import evaluate
from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit, hard_label_loss
from reproduce.record import Case, Experiment, Numbers

TEACHER = FitConfig(epochs=60, precision="fp32")
SMOOTHING = 0.2
STUDENT = FitConfig(epochs=200, learning_rate=3e-3, precision="fp32")
SHARE = 0.05  # of the 1,000 training pictures
DEEP = [64] + 10 * [16] + [10]
DEEP_FIT = FitConfig(epochs=30, learning_rate=0.05, optimizer="sgd", clip_norm=1.0, precision="fp32")
DEEP_HALF = replace(DEEP_FIT, epochs=15)  # hints, then soft targets


@cache
def digits() -> ImageData:
    """The pictures."""
    return load_images("digits")


@cache
def teacher(seed: int, smoothing: float) -> nn.Module:
    """One network, trained with or without label smoothing."""

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return cross_entropy(model(batch[0]), batch[1], label_smoothing=smoothing)

    model = mlp([64, 64, 10], seed=seed)
    fit(model, digits().train, replace(TEACHER, seed=seed), loss=loss, progress=False)
    return model


def level(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits (N, C) with the same softened probability for the likeliest class, and one and the same for the others."""
    top, answer = soften(logits, temperature).max(1, keepdim=True)
    others = (1 - top) / (logits.shape[1] - 1)
    return temperature * others.expand_as(logits).scatter(1, answer, top).log()


def he_weights(model: nn.Module, seed: int) -> None:
    """Give the linear layers of ``model``, in place, the initial weights of He et al. 2015 (arXiv 1502.01852)."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def digits_smoothing() -> Experiment:
    """Students of a teacher with label smoothing and of one without."""

    def run(case: Case) -> Numbers:
        seed, method = case["seed"], case["method"]
        shown = teacher(seed, SMOOTHING if method in ("smoothed", "hints") else 0.0)
        student, config = mlp([64, 16, 10], seed=seed), replace(STUDENT, seed=seed)
        few = fraction(digits().train, SHARE, seed=seed)
        if method == "hints":
            data = with_features(shown, with_teacher_logits(shown, few), ["2"], progress=False)
            guided = GuidedStudent(student, "2", regressor_for((1, 16), (1, 64), seed=seed))
            fit(guided, data, config, loss=soft_and_hint_loss(temperature=4, alpha=1, beta=1), progress=False)
        else:
            inputs, labels, logits = with_teacher_logits(shown, few).tensors
            targets = TensorDataset(inputs, labels, level(logits, 4) if method == "levelled" else logits)
            fit(student, targets, config, loss=soft_target_loss(temperature=4, alpha=1), progress=False)
        return {"test_accuracy": _accuracy(student), "teacher_test_accuracy": _accuracy(shown)}

    return Experiment(
        "digits_smoothing",
        "Does label smoothing alone make a better teacher with a worse student? (digits)",
        {
            "teacher": TEACHER,
            "smoothing": SMOOTHING,
            "student": STUDENT,
            "share": SHARE,
            "sizes": {"teacher": [64, 64, 10], "student": [64, 16, 10]},
            "temperature": 4,
            "alpha": 1,
            "beta": 1,
        },
        [
            {"seed": seed, "method": method}
            for seed in range(6)
            for method in ("plain", "smoothed", "levelled", "hints")
        ],
        run,
        notes=("Students see 50 pictures. Hints come from the teacher with smoothing, beside its soft targets.",),
    )


def digits_deep() -> Experiment:
    """A thin student of 11 layers."""

    def run(case: Case) -> Numbers:
        seed, method = case["seed"], case["method"]
        student, shown, train = mlp(DEEP, seed=seed), teacher(seed, 0.0), digits().train
        if method == "he":
            he_weights(student, seed)
        if method == "hints":
            guided = GuidedStudent(student, "10", regressor_for((1, 16), (1, 64), seed=seed))
            data = with_features(shown, train, ["2"], progress=False)
            fit(guided, data, replace(DEEP_HALF, seed=seed), loss=stage_1_loss, progress=False)
        config = replace(DEEP_HALF if method == "hints" else DEEP_FIT, seed=seed)
        if method == "alone":
            fit(student, train, config, loss=hard_label_loss, progress=False)
        else:
            distill(student, shown, train, config, temperature=4, alpha=0.9, progress=False)
        return {"test_accuracy": _accuracy(student)}

    return Experiment(
        "digits_deep",
        "Does a perceptron of 11 layers with 16 units each learn, from labels, from soft targets, with hints? (digits)",
        {"fit": DEEP_FIT, "half": DEEP_HALF, "sizes": DEEP, "temperature": 4, "alpha": 0.9},
        [{"seed": seed, "method": method} for seed in range(5) for method in ("alone", "distilled", "hints", "he")],
        run,
        notes=("Hints for half of the epochs, then soft targets. He's initial weights only where it says so.",),
    )


def _accuracy(model: nn.Module) -> float:
    return round(100 * evaluate(model, digits().test).accuracy, 2)


EXPERIMENTS = (digits_smoothing, digits_deep)
