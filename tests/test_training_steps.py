"""``fit``: accumulation, token budgets, parameter groups, a last batch of one example; each against a loop by hand."""

import math
import random

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit, hard_label_loss
from course_lib.training_config import make_optimizer, steps_per_epoch


def examples(count=50, features=6, classes=3):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, features, generator=generator).double(), torch.arange(count) % classes)


def net(seed=0):
    return mlp([6, 8, 3], seed=seed).double()


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5)).double()

    def forward(self, tokens):
        return self.body(tokens)


def sequences(count=22, length=6):
    """Of lengths from 0 to 6, so that batches of as many sequences have very different numbers of tokens."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(7, (count, length), generator=generator)
    labels = torch.randint(5, (count, length), generator=generator)
    lengths = torch.randint(0, length + 1, (count, 1), generator=generator)
    return TensorDataset(tokens, labels.masked_fill(torch.arange(length) >= lengths, -100))


def quiet(model, data, config, **kwargs):
    return fit(model, data, config, progress=False, **kwargs)


def orders(config, count):
    """The order of the examples in each epoch, as ``fit`` draws it."""
    for epoch in range(config.epochs):
        seed = hash((config.seed, epoch)) % 2**63
        yield torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def close(model, other, **tolerance):
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **(tolerance or {"rtol": 1e-9, "atol": 1e-12}))


def mean_loss(model, inputs, labels):
    """PyTorch's own mean over the labels that are no padding."""
    logits = model(inputs)
    return nn.functional.cross_entropy(logits if labels.dim() == 1 else logits.transpose(1, 2), labels)


# ---- gradient accumulation


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("kind", ["examples", "sequences"])
def test_accumulated_steps_are_those_of_one_batch_that_holds_all(kind, clip_norm):
    model, other, data = (net(), net(), examples()) if kind == "examples" else (Tagger(), Tagger(), sequences())
    config = FitConfig(
        epochs=2, batch_size=4, accumulate=3, optimizer="sgd", learning_rate=0.1, clip_norm=clip_norm, schedule="linear"
    )
    history = quiet(model, data, config)
    optimizer, losses = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9), []
    steps = math.ceil(len(data) / 12)
    assert steps_per_epoch(data, config) == steps and len(data) % 12 not in (0, 4, 8)  # an odd batch, an odd group
    for order in orders(config, len(data)):
        for index in order.split(12):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - len(losses) / (2 * steps))
            optimizer.zero_grad()
            loss = mean_loss(other, *(tensor[index] for tensor in data.tensors))
            loss.backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(other.parameters(), clip_norm)
            optimizer.step()
            losses.append(loss.item())
    close(model, other)
    assert history.train_loss == pytest.approx([sum(losses[:steps]) / steps, sum(losses[steps:]) / steps], rel=1e-6)


def test_accumulation_over_a_loader_and_one_step_for_each_group():
    data, steps = examples(), []
    model, other = net(), net()
    config = FitConfig(epochs=1, accumulate=4, optimizer="sgd", learning_rate=0.1)
    quiet(model, DataLoader(data, batch_size=5), config, after_step=steps.append)
    quiet(other, DataLoader(data, batch_size=20), FitConfig(epochs=1, optimizer="sgd", learning_rate=0.1))
    close(model, other)
    assert len(steps) == 3 == steps_per_epoch(DataLoader(data, batch_size=5), config)


def test_a_group_of_nothing_but_padding_changes_nothing():
    tokens, labels = sequences().tensors
    model = Tagger()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    data = TensorDataset(tokens, torch.full_like(labels, -100))
    history = quiet(model, data, FitConfig(epochs=1, batch_size=4, accumulate=2, optimizer="sgd"))
    assert history.train_loss == [0] and all(map(torch.equal, model.parameters(), before))


# ---- so many tokens


def test_training_ends_with_the_step_that_reaches_the_tokens():
    data, steps = examples(), []  # 50 examples, one label each: 7 steps of 8, the last of 2
    model, other = net(), net()
    history = quiet(model, data, FitConfig(tokens=70, batch_size=8), after_step=steps.append)
    assert len(steps) == 7 + 3 and history.tokens == [50, 24] and len(history.train_loss) == 2
    config, optimizer, done = FitConfig(batch_size=8), torch.optim.Adam(other.parameters(), lr=1e-3), 0
    for order in orders(config, 50):
        for index in order.split(8):
            if done < 70:
                optimizer.zero_grad()
                mean_loss(other, *(tensor[index] for tensor in data.tensors)).backward()
                optimizer.step()
                done += len(index)
    close(model, other)


def test_tokens_of_sequences_are_those_without_padding():
    data = sequences()
    counted = int((data.tensors[1] != -100).sum())
    history = quiet(Tagger(), data, FitConfig(tokens=2 * counted + 1, batch_size=4))
    assert history.tokens[:2] == [counted, counted] and len(history.tokens) == 3
    assert 1 <= history.tokens[2] <= 4 * 6


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
def test_a_schedule_over_tokens_is_the_schedule_over_as_many_steps(schedule):
    data = examples(48)
    settings = {"batch_size": 8, "schedule": schedule, "warmup": 0.25, "optimizer": "sgd", "learning_rate": 0.1}
    by_tokens, by_epochs = net(), net()
    history = quiet(by_tokens, data, FitConfig(tokens=2 * 48, **settings))
    expected = quiet(by_epochs, data, FitConfig(epochs=2, **settings))
    close(by_tokens, by_epochs)
    assert history.learning_rate == pytest.approx(expected.learning_rate, rel=1e-12)


def test_a_token_budget_resumes(tmp_path):
    config, calls = FitConfig(tokens=170, batch_size=8, schedule="cosine"), []
    whole, stopped = net(), net()
    expected = quiet(whole, examples(), config)

    def stop(model):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(stopped, examples(), config, checkpoint_dir=tmp_path, after_step=stop)
    history = quiet(stopped, examples(), config, checkpoint_dir=tmp_path)
    assert all(map(torch.equal, stopped.parameters(), whole.parameters()))
    assert history.tokens == expected.tokens == [50, 50, 50, 24] and history.train_loss == expected.train_loss
    assert (
        quiet(net(), examples(), config, checkpoint_dir=tmp_path).tokens == expected.tokens
    )  # over: nothing is trained


def test_tokens_that_never_come_and_a_first_step_without_epochs():
    tokens, labels = sequences().tensors
    nothing = TensorDataset(tokens, torch.full_like(labels, -100))
    with pytest.raises(ValueError, match="train gave no label that counts in epoch 1"):
        quiet(Tagger(), nothing, FitConfig(tokens=10))
    with pytest.raises(ValueError, match="first_step is 3; expected .* 0 to 0 where tokens says when it ends"):
        quiet(net(), examples(), FitConfig(tokens=10), first_step=3)


# ---- parameter groups


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_parameter_groups_are_those_of_torch(optimizer):
    groups = {"*.bias": {"weight_decay": 0.0}, "3.*": {"learning_rate": 0.05}}
    config = FitConfig(
        epochs=2, batch_size=8, optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, schedule="linear",
        parameter_groups=groups,
    )  # fmt: skip
    model, other, done = net(), net(), 0
    quiet(model, examples(), config)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    by_hand = kind(
        [
            {"params": [other[1].weight], "lr": 0.01, "weight_decay": 0.1},
            {"params": [other[1].bias, other[3].bias], "lr": 0.01, "weight_decay": 0.0},
            {"params": [other[3].weight], "lr": 0.05, "weight_decay": 0.1},
        ],
        foreach=False,
        **({"momentum": 0.9} if optimizer == "sgd" else {}),
    )
    highest = [group["lr"] for group in by_hand.param_groups]
    for order in orders(config, 50):
        for index in order.split(8):
            for group, rate in zip(by_hand.param_groups, highest, strict=True):
                group["lr"] = rate * (1 - done / 14)
            by_hand.zero_grad()
            mean_loss(other, *(tensor[index] for tensor in examples().tensors)).backward()
            by_hand.step()
            done += 1
    close(model, other)


def test_parameter_groups_resume(tmp_path):
    config = FitConfig(epochs=3, batch_size=8, parameter_groups={"3.*": {"learning_rate": 0.05}})
    whole, stopped, calls = net(), net(), []

    def stop(model):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt

    quiet(whole, examples(), config)
    with pytest.raises(KeyboardInterrupt):
        quiet(stopped, examples(), config, checkpoint_dir=tmp_path, after_step=stop)
    quiet(stopped, examples(), config, checkpoint_dir=tmp_path)
    assert all(map(torch.equal, stopped.parameters(), whole.parameters()))


def test_a_pattern_that_matches_nothing_that_is_trained():
    model = net()
    model[3].requires_grad_(False)
    for pattern in ("3.*", "lora"):
        with pytest.raises(ValueError, match=f"parameter_groups has '{pattern[0]}.*matches none of the names; "):
            quiet(model, examples(), FitConfig(parameter_groups={pattern: {"weight_decay": 0.0}}))
    twice = FitConfig(parameter_groups={"1.*": {"weight_decay": 0.0}, "1.bias": {"weight_decay": 0.1}})
    with pytest.raises(ValueError, match="parameter_groups has '1.bias' matches none"):
        make_optimizer(net(), twice)
    everything = make_optimizer(net(), FitConfig(parameter_groups={"*": {"learning_rate": 0.5}}))
    assert [group["lr"] for group in everything.param_groups] == [0.5]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"accumulate": 0}, ValueError, "accumulate is 0; expected a number above 0"),
        ({"accumulate": 1.5}, TypeError, "accumulate is 1.5"),
        ({"tokens": 0}, ValueError, "tokens is 0"),
        ({"tokens": 1e6}, TypeError, "tokens is 1000000.0, a float; expected a whole number"),
        ({"drop_last": "yes"}, ValueError, "drop_last is 'yes'; expected one of False, True"),
        (
            {"parameter_groups": {"*": {"lr": 0.1}}},
            ValueError,
            r"parameter_groups\['\*'\] sets lr; expected learning_rate",
        ),
        ({"parameter_groups": {"*": {"learning_rate": -1}}}, ValueError, r"learning_rate of '\*' is -1"),
        ({"parameter_groups": {"*": {"weight_decay": "no"}}}, TypeError, r"weight_decay of '\*' is 'no'"),
    ],
)
def test_settings_out_of_range(settings, error, message):
    with pytest.raises(error, match=message):
        FitConfig(**settings)
    assert hash(FitConfig(parameter_groups={"*": {"weight_decay": 0.0}})) == hash(FitConfig())


# ---- a last batch of one example


def normalised():
    return nn.Sequential(net(), nn.BatchNorm1d(3).double())


@pytest.mark.parametrize("loader", [False, True])
def test_a_last_batch_of_one_example_with_batch_norm(loader):
    data = examples(17)
    train = DataLoader(data, batch_size=8) if loader else data
    with pytest.raises(
        ValueError, match=r"batch norm .* one example \(Expected more than 1 .*drop_last=True"
    ) as caught:
        quiet(normalised(), train, FitConfig(epochs=1, batch_size=8))
    assert "Expected more than 1 value per channel" in str(caught.value.__cause__)


def test_drop_last_leaves_the_incomplete_batch_out_of_every_epoch():
    seen, config = [], FitConfig(epochs=3, batch_size=8, drop_last=True, schedule="linear")

    def loss(model, batch):
        seen.append(len(batch[0]))
        return hard_label_loss(model, batch)

    history = quiet(normalised(), examples(17), config, loss=loss)
    assert seen == [8] * 6 and steps_per_epoch(examples(17), config) == 2
    assert history.learning_rate[-1] == pytest.approx(1e-3 / 6)  # of six steps, the last
    with pytest.raises(ValueError, match="drop_last leaves no batch: train has 7 examples, batch_size is 8"):
        quiet(net(), examples(7), config)


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 1, 3]), ValueError, "validation labels hold 3; expected 0 to 2"),
        (torch.zeros(3, 1).long(), ValueError, r"validation labels are \(3, 1\) and the logits \(3, 3\)"),
        (torch.zeros(3), TypeError, "validation labels are torch.float32"),
        (None, ValueError, "validation holds no labels"),
    ],
)
def test_validation_that_does_not_fit_is_found_before_the_first_step(labels, error, message, loader):
    inputs, steps = torch.randn(3, 6).double(), []
    validation = TensorDataset(inputs) if labels is None else TensorDataset(inputs, labels)
    validation = DataLoader(validation, batch_size=3) if loader else validation
    with pytest.raises(error, match=message):
        quiet(net(), examples(), FitConfig(epochs=1), validation=validation, after_step=steps.append)
    assert steps == []


# ---- NumPy's and Python's random numbers


class Noisy(Dataset):
    """Draws in the main process, from NumPy and from Python."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.full((6,), numpy.random.rand() + index % 3).double(), random.randrange(3)


def test_resuming_repeats_what_numpy_and_random_draw(tmp_path):
    config, calls = FitConfig(epochs=3), []

    def stop(model):
        calls.append(1)
        if len(calls) == 7:  # in the second epoch
            raise KeyboardInterrupt

    def noise(inputs, generator):
        return inputs + 0.1 * numpy.random.rand()

    def trained(model, **options):
        return quiet(model, DataLoader(Noisy(), batch_size=4, shuffle=True), config, augment=noise, **options)

    whole, stopped = net(), net()
    expected = trained(whole)
    numpy.random.rand(7), random.random()
    before = numpy.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(KeyboardInterrupt):
        trained(stopped, checkpoint_dir=tmp_path, after_step=stop)
    history = trained(stopped, checkpoint_dir=tmp_path)
    assert history.train_loss == expected.train_loss
    assert all(map(torch.equal, stopped.parameters(), whole.parameters()))
    assert (numpy.random.get_state()[1].tolist(), random.getstate()) == before
