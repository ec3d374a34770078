"""The distillation loss, forward and backward, beside torchdistill's and one written by hand.

All three have to give the same loss and the same gradient before any of them is timed. Aim: the loss alone costs at
most 10% more than by hand, on small logits too.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.interleave import Row, compare, interleave, missing
from course_lib.distillation.hinton import distillation_loss
from course_lib.models.vision import mlp

TITLE = "The distillation step"
NOTE = (
    "Forward and backward of the loss alone, for two sizes of logits, then a whole training step of Hinton's small "
    "network (two layers of 800 units, batch 128, SGD), where the checks of our arguments no longer show."
)
TEMPERATURE, ALPHA = 4.0, 0.9
BASE, AIMS = "by hand", {"course_lib": 1.1}

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """course_lib's loss."""
    return distillation_loss(student, teacher, labels, temperature=TEMPERATURE, alpha=ALPHA)


def by_hand(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The five lines that are in most people's code, in their right form."""
    log_q = F.log_softmax(student / TEMPERATURE, dim=-1)
    p = F.softmax(teacher / TEMPERATURE, dim=-1)
    soft = F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2
    return ALPHA * soft + (1 - ALPHA) * F.cross_entropy(student, labels)


def torchdistill() -> Loss:
    """torchdistill's loss. Its alpha is the weight of the hard labels."""
    from torchdistill.losses.mid_level import KDLoss

    loss = KDLoss("model", "output", "model", "output", temperature=TEMPERATURE, alpha=1 - ALPHA)

    def call(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return loss({"model": {"output": student}}, {"model": {"output": teacher}}, labels)

    return call


def losses() -> dict[str, Loss]:
    """The candidates by name, those that are installed."""
    return {BASE: by_hand, "course_lib": ours} | ({} if missing("torchdistill") else {"torchdistill": torchdistill()})


def check_same(rows: int, classes: int) -> None:
    """Assert that all candidates give the same loss and the same gradient."""
    student, teacher, labels = example(rows, classes)
    answers = {}
    for name, loss in losses().items():
        student.grad = None
        value = loss(student, teacher, labels)
        value.backward()
        answers[name] = (value.detach(), student.grad)
    for answer in answers.values():
        torch.testing.assert_close(answer, answers[BASE])


def example(rows: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random student logits (with a gradient), teacher logits and labels."""
    generator = torch.Generator().manual_seed(0)
    student = (3 * torch.randn(rows, classes, generator=generator)).requires_grad_()
    teacher = 3 * torch.randn(rows, classes, generator=generator)
    return student, teacher, torch.randint(classes, (rows,), generator=generator)


def loss_alone(rows: int, classes: int, *, rounds: int, repeats: int) -> list[Row]:
    """Forward and backward of each loss, ``repeats`` times in each timed call."""
    student, teacher, labels = example(rows, classes)

    def timed(loss: Loss) -> Callable[[object], None]:
        def call(_: object) -> None:
            for _ in range(repeats):
                student.grad = None
                loss(student, teacher, labels).backward()

        return call

    times = interleave({name: timed(loss) for name, loss in losses().items()}, rounds=rounds)
    compared = compare(times, base=BASE, aims=AIMS, unit="µs", each=repeats)
    return [{"case": f"logits {rows} × {classes}", **row} for row in compared]


def training_step(*, rounds: int, repeats: int) -> list[Row]:
    """A training step of a 784-800-800-10 network with each loss."""
    _, teacher, labels = example(128, 10)
    pictures = torch.randn(128, 784, generator=torch.Generator().manual_seed(1))

    def timed(loss: Loss) -> Callable[[object], None]:
        student: nn.Module = mlp([784, 800, 800, 10])
        optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)

        def call(_: object) -> None:
            for _ in range(repeats):
                optimizer.zero_grad(set_to_none=True)
                loss(student(pictures), teacher, labels).backward()
                optimizer.step()

        return call

    times = interleave({name: timed(loss) for name, loss in losses().items()}, rounds=rounds)
    return [{"case": "training step", **row} for row in compare(times, base=BASE, unit="µs", each=repeats)]


def run(*, quick: bool = False) -> list[Row]:
    """All cases, after the check that they are the same."""
    check_same(64, 10)
    check_same(256, 1000)
    rounds = 3 if quick else 21
    return [
        *loss_alone(64, 10, rounds=rounds, repeats=200),
        *loss_alone(256, 1000, rounds=rounds, repeats=20),
        *training_step(rounds=rounds, repeats=5),
        *missing("torchdistill"),
    ]
