"""``training.fit`` beside the loop that one would write by hand: same model, same data, same order of the examples.

All have to arrive at the same weights before they are timed. ``fit`` asks for Adam's fused kernels, as does the loop by
hand that it is compared with; beside them stands the usual loop, without. Aim: ``fit`` costs at most 5% more.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.interleave import Row, compare, interleave
from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit

TITLE = "The training loop"
NOTE = (
    "Adam, no validation, no progress bar. All loops end with the same weights: asserted before they are timed. `fit` "
    "steps with Adam's fused kernels, and so does the loop that it is compared with; the one that one usually writes "
    "does not ask for them."
)
BASE, USUAL, AIMS = "by hand, fused", "by hand, as usual", {"course_lib": 1.05}


@dataclass(frozen=True)
class Case:
    """A network, random data of its size, and how long to train."""

    name: str
    sizes: tuple[int, ...]
    examples: int
    config: FitConfig

    def model(self) -> nn.Module:
        """The network, always with the same initial weights."""
        return mlp(list(self.sizes))

    def data(self) -> TensorDataset:
        """Random inputs (N, ``sizes[0]``) and labels (N,), always the same."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(self.examples, self.sizes[0], generator=generator)
        return TensorDataset(inputs, torch.randint(self.sizes[-1], (self.examples,), generator=generator))


CASES = (
    Case("digits: 64-64-10, 1,000 examples, 40 epochs", (64, 64, 10), 1_000, FitConfig(epochs=40, precision="fp32")),
    Case(
        "MNIST's size: 784-1200-1200-10, 2,000 examples, 2 epochs",
        (784, 1200, 1200, 10),
        2_000,
        FitConfig(epochs=2, batch_size=100, precision="fp32"),
    ),
)


def by_hand(model: nn.Module, data: TensorDataset, config: FitConfig, *, fused: bool | None = None) -> list[float]:
    """Train ``model`` in place; the mean loss of each epoch. The order of the examples is that of ``fit``."""
    inputs, labels = data.tensors
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=fused)
    means = []
    model.train()
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(hash((config.seed, epoch)) % 2**63)
        total, steps = torch.zeros(()), 0
        for index in torch.randperm(len(inputs), generator=generator).split(config.batch_size):
            loss = nn.functional.cross_entropy(model(inputs[index]), labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            steps += 1
        means.append(total.item() / steps)
    model.eval()
    return means


def with_fit(model: nn.Module, data: TensorDataset, config: FitConfig) -> list[float]:
    """The same with the course's loop."""
    return fit(model, data, config, device="cpu", progress=False).train_loss


def weights_after(train, case: Case) -> tuple[list[float], dict[str, Tensor]]:
    """The losses and the weights that a loop arrives at."""
    model = case.model()
    losses = train(model, case.data(), case.config)
    return losses, model.state_dict()


def check_same(case: Case) -> None:
    """Assert that the loops arrive at the same losses and weights.

    The two kernels of Adam round differently, and training makes more of that with each step: with the other kernel
    only the first epoch is compared.
    """
    torch.testing.assert_close(weights_after(with_fit, case), weights_after(partial(by_hand, fused=True), case))
    short = replace(case, config=replace(case.config, epochs=1))
    torch.testing.assert_close(weights_after(with_fit, short), weights_after(by_hand, short), rtol=1e-4, atol=1e-5)


def run(*, quick: bool = False) -> list[Row]:
    """Both cases, after the check."""
    rows = []
    for case in CASES:
        check_same(case)
        data, start = case.data(), case.model()
        times = interleave(
            {
                BASE: lambda model, data=data, case=case: by_hand(model, data, case.config, fused=True),
                USUAL: lambda model, data=data, case=case: by_hand(model, data, case.config),
                "course_lib": lambda model, data=data, case=case: with_fit(model, data, case.config),
            },
            rounds=3 if quick else 15,
            prepare=lambda start=start: copy.deepcopy(start),
        )
        rows += [{"case": case.name, **row} for row in compare(times, base=BASE, aims=AIMS)]
    return rows
