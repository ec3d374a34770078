"""Claims about hints and teachers (F2) on MNIST: small convolutional networks, 5,000 training cases.

FitNets (Romero et al. 2015, arXiv 1412.6550) and the comparison in RepDistiller's README are on CIFAR; here the same
orderings are looked for on small networks that a CPU trains in a minute. Settings were fixed before the runs.
"""

from dataclasses import replace
from functools import cache

from torch import nn
from torch.utils.data import TensorDataset

from course_lib.activations import layer_outputs
from course_lib.data.images import fraction
from course_lib.distillation.hinton import soft_target_loss, with_teacher_logits
from course_lib.distillation.hints import GuidedStudent, regressor_for, stage_1_loss, with_features
from course_lib.evaluation import evaluate
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig, fit, hard_label_loss
from reproduce.features_digits import he_weights
from reproduce.mnist import mnist
from reproduce.record import Case, Experiment, Numbers

CHANNELS = {"better": (32, 64), "weaker": (12, 24), "student": (4, 8)}
CASES = 5000
TEACHER = FitConfig(epochs=10, batch_size=100, learning_rate=2e-3, schedule="cosine", precision="fp32")
STUDENT = FitConfig(epochs=8, batch_size=100, learning_rate=2e-3, schedule="cosine", precision="fp32")
STUDENT_LONG = replace(STUDENT, epochs=40)
HINTS = replace(STUDENT, epochs=3)
LAYER = "blocks.0"  # the middle of two blocks, in the student and in the teacher
DEEP = [784] + 16 * [32] + [10]
DEEP_FIT = replace(STUDENT, epochs=15)
DEEP_HINTS = replace(STUDENT, epochs=5)
DEEP_SGD = FitConfig(epochs=20, batch_size=100, learning_rate=0.05, optimizer="sgd", clip_norm=1.0, precision="fp32")
DEEP_SGD_HALF = replace(DEEP_SGD, epochs=10)  # hints, then soft targets
DEEP_TEACHER = [784, 256, 256, 10]
DEEP_LAYER = "16"  # the ReLU behind the eighth hidden layer
DEEP_SETTING = {
    "sizes": DEEP,
    "guided_layer": DEEP_LAYER,
    "teacher_sizes": DEEP_TEACHER,
    "hint_layer": "2",
    "cases": CASES,
    "temperature": 4,
    "alpha": 0.9,
}


@cache
def some_cases() -> TensorDataset:
    """The cases that teachers and students learn from."""
    return fraction(mnist().train, CASES / len(mnist().train), seed=0)


@cache
def teacher(name: str) -> nn.Module:
    """A trained teacher."""
    model = SmallConvNet(CHANNELS[name], seed=0)
    fit(model, some_cases(), TEACHER, progress=False)
    return model


@cache
def deep_teacher() -> nn.Module:
    """The teacher of the deep and thin perceptrons: a shallow and wide one."""
    model = mlp(DEEP_TEACHER, seed=0)
    fit(model, some_cases(), TEACHER, progress=False)
    return model


@cache
def taught_by(name: str) -> TensorDataset:
    """The cases with a teacher's logits."""
    return with_teacher_logits(teacher(name), some_cases())


def features_teachers() -> Experiment:
    """The two teachers."""

    def run(case: Case) -> Numbers:
        return {"test_accuracy": _accuracy(teacher(case["teacher"]))}

    return Experiment(
        "features_teachers",
        "How good are the two convolutional teachers?",
        {"fit": TEACHER, "channels": CHANNELS, "cases": CASES},
        [{"seed": 0, "teacher": name} for name in ("better", "weaker")],
        run,
        notes=("One teacher of each size, with the seed 0: the students' seeds do not vary it.",),
    )


def features_students() -> Experiment:
    """A small student alone, distilled from either teacher, and with hints first."""
    methods = ("alone", "distilled", "hints", "weaker teacher")
    return Experiment(
        "features_students",
        "Does a small convolutional student gain by soft targets, by hints first, by a better teacher?",
        _setting(STUDENT),
        [{"seed": seed, "method": method} for seed in range(5) for method in methods],
        lambda case: _student(case, STUDENT),
        notes=(
            '"hints" trains three epochs on hints first, then as long as the others: a little more in all.',
            "These students are far from their end after 8 epochs. The next table has the same question after 40.",
        ),
    )


def features_students_long() -> Experiment:
    """The same for five times as many epochs, with other seeds."""
    methods = ("alone", "distilled", "hints")
    return Experiment(
        "features_students_long",
        "Does a small convolutional student gain by soft targets, by hints first, when it is trained longer?",
        _setting(STUDENT_LONG),
        [{"seed": seed, "method": method} for seed in range(5, 10) for method in methods],
        lambda case: _student(case, STUDENT_LONG),
        notes=("Planned after the table above was known, with seeds that had not been used.",),
    )


def _setting(config: FitConfig) -> dict[str, object]:
    return {
        "fit": config,
        "hints": HINTS,
        "layer": LAYER,
        "channels": CHANNELS,
        "cases": CASES,
        "temperature": 4,
        "alpha": 0.9,
        "teachers": TEACHER,
    }


def _student(case: Case, config: FitConfig) -> Numbers:
    method, seed = case["method"], case["seed"]
    student = SmallConvNet(CHANNELS["student"], seed=seed)
    if method == "hints":
        _learn_hints(student, teacher("better"), replace(HINTS, seed=seed), LAYER, LAYER)
    loss = hard_label_loss if method == "alone" else soft_target_loss(temperature=4, alpha=0.9)
    data = taught_by("weaker" if method == "weaker teacher" else "better")
    fit(student, data, replace(config, seed=seed), loss=loss, progress=False)
    return {"test_accuracy": _accuracy(student)}


def features_deep() -> Experiment:
    """A very deep and thin perceptron: from labels, from soft targets, and with hints for its lower half first."""

    def run(case: Case) -> Numbers:
        method, seed = case["method"], case["seed"]
        student = mlp(DEEP, seed=seed)
        if method == "hints":
            _learn_hints(student, deep_teacher(), replace(DEEP_HINTS, seed=seed), DEEP_LAYER, "2")
        loss = hard_label_loss if method == "alone" else soft_target_loss(temperature=4, alpha=0.9)
        data = with_teacher_logits(deep_teacher(), some_cases())
        fit(student, data, replace(DEEP_FIT, seed=seed), loss=loss, progress=False)
        few = TensorDataset(*some_cases().tensors[:2])
        return {
            "test_accuracy": _accuracy(student),
            "train_accuracy": round(100 * evaluate(student, few).accuracy, 2),
        }

    return Experiment(
        "features_deep",
        "Does a perceptron of 16 layers with 32 units each learn, from labels, from soft targets, with hints first?",
        {"fit": DEEP_FIT, "hints": DEEP_HINTS, **DEEP_SETTING},
        [{"seed": seed, "method": method} for seed in range(5) for method in ("alone", "hints", "distilled")],
        run,
        notes=("PyTorch's usual initial weights, which shrink the signal from layer to layer; no batch norm.",),
    )


def features_deep_sgd() -> Experiment:
    """The same network trained by SGD, as was usual in 2015; with He's initial weights as the control."""

    def run(case: Case) -> Numbers:
        method, seed = case["method"], case["seed"]
        student = mlp(DEEP, seed=seed)
        if method == "he":
            he_weights(student, seed)
        if method == "hints":
            _learn_hints(student, deep_teacher(), replace(DEEP_SGD_HALF, seed=seed), DEEP_LAYER, "2")
        loss = hard_label_loss if method == "alone" else soft_target_loss(temperature=4, alpha=0.9)
        config = replace(DEEP_SGD_HALF if method == "hints" else DEEP_SGD, seed=seed)
        fit(student, with_teacher_logits(deep_teacher(), some_cases()), config, loss=loss, progress=False)
        return {"test_accuracy": _accuracy(student)}

    return Experiment(
        "features_deep_sgd",
        "And trained by SGD: does it learn from labels, from soft targets, with hints first?",
        {"fit": DEEP_SGD, "half": DEEP_SGD_HALF, **DEEP_SETTING},
        [
            {"seed": seed, "method": method}
            for seed in range(20, 25)
            for method in ("alone", "distilled", "hints", "he")
        ],
        run,
        notes=(
            "Planned after the table above was known. Learning rate and epochs were tried on two other seeds.",
            "Hints for half of the epochs, then soft targets. He's initial weights only where it says so.",
        ),
    )


def _learn_hints(student: nn.Module, teacher: nn.Module, config: FitConfig, guided_layer: str, hint_layer: str) -> None:
    """Stage 1 of FitNets, on the cases that all learn from."""
    data = with_features(teacher, some_cases(), [hint_layer], progress=False)
    guided = layer_outputs(student, data.tensors[0][:1], [guided_layer], progress=False)[guided_layer]
    regressor = regressor_for(guided.shape, data.tensors[-1].shape, seed=config.seed)
    fit(GuidedStudent(student, guided_layer, regressor), data, config, loss=stage_1_loss, progress=False)


def _accuracy(model: nn.Module) -> float:
    return round(100 * evaluate(model, mnist().test).accuracy, 2)


EXPERIMENTS = (features_teachers, features_students, features_students_long, features_deep, features_deep_sgd)
