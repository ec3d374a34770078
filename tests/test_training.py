"""``fit``: against a loop written by hand, schedules by hand, and what happens when something goes wrong."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig, fit, hard_label_loss
from course_lib.training_config import make_optimizer, rate_factor


def examples(count=50, features=6, classes=3, seed=0):
    """Points around a centre for each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, features, generator=torch.Generator().manual_seed(99)) * 2
    return TensorDataset(centres[labels] + torch.randn(count, features, generator=generator), labels)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def quiet(model, data, config=None, **kwargs):
    return fit(model, data, config or FitConfig(epochs=2, batch_size=8), progress=False, **kwargs)


# ---- against a loop by hand


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        (FitConfig(epochs=3, batch_size=8), lambda p: torch.optim.Adam(p, lr=1e-3)),
        (
            FitConfig(epochs=3, batch_size=8, optimizer="adamw", weight_decay=0.1, learning_rate=0.02),
            lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
        ),
        (
            FitConfig(epochs=3, batch_size=8, optimizer="sgd", momentum=0.8, weight_decay=0.01, learning_rate=0.1),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.01),
        ),
    ],
)
@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_the_same_as_a_loop_by_hand(config, optimizer, clip_norm):
    config = FitConfig(**{**config.__dict__, "clip_norm": clip_norm})
    data = examples()
    model, other = mlp([6, 8, 3]), mlp([6, 8, 3])
    order = []  # of the examples, as fit takes them

    def loss(model, batch):
        order.append(batch[2])
        return hard_label_loss(model, batch)

    history = quiet(model, TensorDataset(*data.tensors, torch.arange(50)), config, loss=loss)

    steps, losses = optimizer(other.parameters()), []
    for index in order:
        inputs, labels = data.tensors[0][index], data.tensors[1][index]
        steps.zero_grad()
        value = -torch.log_softmax(other(inputs), 1)[range(len(labels)), labels].mean()
        value.backward()
        if clip_norm is not None:
            norm = math.sqrt(sum((p.grad**2).sum().item() for p in other.parameters()))
            for parameter in other.parameters():
                parameter.grad *= min(1, clip_norm / (norm + 1e-6))
        steps.step()
        losses.append(value.item())
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
    expected = [sum(losses[start : start + 7]) / 7 for start in (0, 7, 14)]
    assert history.train_loss == pytest.approx(expected, rel=1e-5)
    assert [len(index) for index in order] == [8] * 6 + [2] + [8] * 6 + [2] + [8] * 6 + [2]
    for start in (0, 7, 14):
        assert sorted(torch.cat(order[start : start + 7]).tolist()) == list(range(50))
    assert not torch.equal(order[0], order[7]) and not torch.equal(order[0], order[0].sort().values)


class Reshaped(nn.Module):
    """A linear layer whose weight lies in memory as ``layout`` says."""

    def __init__(self, layout):
        super().__init__()
        values = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
        if layout == "slice":  # every other number of a larger tensor
            self.rest = torch.full((3, 12), 7.0)
            weight = self.rest[:, ::2]
            weight.copy_(values)
        else:
            weight = {"rows": values, "columns": values.t().contiguous().t(), "half": values.bfloat16()}[layout]
        self.weight = nn.Parameter(weight)

    def forward(self, inputs):
        return (inputs.to(self.weight.dtype) @ self.weight.t()).float()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(("layout", "fused"), [("rows", True), ("columns", False), ("slice", False), ("half", False)])
def test_fused_steps_only_where_they_are_right(layout, fused, optimizer):
    config = FitConfig(epochs=2, batch_size=8, optimizer=optimizer, learning_rate=0.01, weight_decay=0.01)
    model, other = Reshaped(layout), Reshaped("half" if layout == "half" else "rows")
    assert bool(make_optimizer(model, config).defaults["fused"]) is fused
    quiet(model, examples(), config)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    settings = {"momentum": 0.9} if optimizer == "sgd" else {}
    by_hand = kind(other.parameters(), lr=0.01, weight_decay=0.01, foreach=False, **settings)
    for epoch in range(2):
        seed = hash((0, epoch)) % 2**63
        for index in torch.randperm(50, generator=torch.Generator().manual_seed(seed)).split(8):
            by_hand.zero_grad()
            hard_label_loss(other, tuple(tensor[index] for tensor in examples().tensors)).backward()
            by_hand.step()
    torch.testing.assert_close(model.weight, other.weight, rtol=1e-5, atol=1e-6)
    if layout == "slice":  # the numbers between are not the model's
        assert (model.rest[:, 1::2] == 7).all()


@pytest.mark.parametrize("layout", ["columns", "slice"])
def test_a_checkpoint_of_fused_steps_goes_on_where_they_do_not_fit(layout, tmp_path):
    config, calls = FitConfig(epochs=2, batch_size=8, learning_rate=0.01), []
    whole, model = Reshaped("rows"), Reshaped(layout)

    def stop(model):
        calls.append(1)
        if len(calls) == 9:  # in the second epoch
            raise KeyboardInterrupt

    quiet(whole, examples(), config)
    with pytest.raises(KeyboardInterrupt):
        quiet(Reshaped("rows"), examples(), config, checkpoint_dir=tmp_path, after_step=stop)
    quiet(model, examples(), config, checkpoint_dir=tmp_path)
    torch.testing.assert_close(model.weight, whole.weight, rtol=1e-5, atol=1e-6)
    assert layout == "columns" or (model.rest[:, 1::2] == 7).all()


def test_sparse_gradients_of_an_embedding_are_taken_too():
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten())
    before = weights(model)["0.weight"]
    data = TensorDataset(torch.tensor([[0], [1], [2], [1]]), torch.tensor([0, 1, 2, 1]))
    quiet(model, data, FitConfig(epochs=1, optimizer="sgd"))
    moved = (model[0].weight != before).any(dim=1)
    assert moved.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_weight_at_zero_without_a_gradient_stays_at_exactly_zero(optimizer):
    model = mlp([6, 8, 3])
    with torch.no_grad():
        model[1].weight[2:5] = 0.0
    model[1].weight.register_hook(lambda gradient: gradient.index_fill(0, torch.arange(2, 5), 0.0))
    config = FitConfig(epochs=2, batch_size=8, optimizer=optimizer, weight_decay=0.1, learning_rate=0.01)
    before = weights(model)["1.weight"]
    quiet(model, examples(), config)
    assert (model[1].weight[2:5] == 0).all()
    assert (model[1].weight != before)[[0, 1, 5, 6, 7]].all()


def test_a_data_loader_is_taken_as_it_is():
    data = examples(20)
    seen = []

    def loss(model, batch):
        seen.append(batch[0])
        return hard_label_loss(model, batch)

    quiet(mlp([6, 3]), DataLoader(data, batch_size=6), FitConfig(epochs=2, batch_size=999), loss=loss)
    assert [len(batch) for batch in seen] == [6, 6, 6, 2] * 2
    assert torch.equal(torch.cat(seen[:4]), data.tensors[0])


def test_it_learns():
    model = mlp([6, 8, 3])
    history = quiet(model, examples(), FitConfig(epochs=30, batch_size=8, learning_rate=1e-2), validation=examples(30))
    assert history.train_loss[-1] < 0.3 * history.train_loss[0]
    assert history.validation_accuracy[-1] > 0.9


# ---- learning rates


def test_warm_up_and_cosine_by_hand():
    # 10 steps, the first 2 a rise: 1/2, 1; then 8 steps of a half cosine from 1
    config = FitConfig(schedule="cosine", warmup=0.2)
    got = [rate_factor(config, step, 10) for step in range(10)]
    assert got[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert got[4] == pytest.approx((1 + math.sqrt(0.5)) / 2) and got[6] == pytest.approx(0.5)
    assert got[9] == pytest.approx((1 - math.cos(math.pi / 8)) / 2)


def test_linear_and_constant_by_hand():
    linear, constant = FitConfig(schedule="linear"), FitConfig(warmup=0.5)
    assert [rate_factor(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [rate_factor(constant, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_the_rate_falls_to_a_tenth_at_half_and_to_a_hundredth_at_three_quarters():
    config = FitConfig(schedule="step")
    assert [rate_factor(config, step, 8) for step in range(8)] == 4 * [1.0] + 2 * [0.1] + 2 * [0.01]


@pytest.mark.parametrize("steps", [1, 2, 10, 99])
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
def test_the_rate_stays_above_zero_and_below_the_highest(schedule, warmup, steps):
    config = FitConfig(schedule=schedule, warmup=warmup)
    factors = [rate_factor(config, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors) and max(factors) == 1


def test_the_optimizer_gets_the_scheduled_rates():
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "SGD", Watched)
        config = FitConfig(epochs=2, batch_size=10, optimizer="sgd", learning_rate=0.4, schedule="linear")
        history = quiet(mlp([6, 3]), examples(20), config)
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert history.learning_rate == pytest.approx([0.3, 0.1])


# ---- history, patience, hooks


def test_history_has_one_number_an_epoch():
    history = quiet(mlp([6, 3]), examples(), FitConfig(epochs=4), validation=examples(9))
    assert [len(values) for values in list(history.__dict__.values())[:5]] == [4] * 5
    assert history.best_epoch == min(range(4), key=history.validation_loss.__getitem__)
    without = quiet(mlp([6, 3]), examples(), FitConfig(epochs=4))
    assert without.validation_loss == without.validation_accuracy == [] and without.best_epoch is None


class Scripted(nn.Module):
    """Its one weight rises by one each step; its loss in eval mode follows a script, one entry a step."""

    def __init__(self, script):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.script = script

    def forward(self, inputs):
        if self.training:
            return inputs * 0 - self.weight  # SGD at rate 1 then adds 1
        loss = self.script[int(self.weight) - 1]
        wrong = math.log(math.expm1(loss)) if not math.isnan(loss) else loss  # of two logits, 0 and this
        return torch.stack([torch.zeros(len(inputs)), torch.full((len(inputs),), wrong)], 1)


def scripted(script, **settings):
    model = Scripted(script)
    data = TensorDataset(torch.zeros(1), torch.zeros(1).long())
    config = FitConfig(batch_size=1, optimizer="sgd", learning_rate=1.0, momentum=0.0, **settings)
    history = quiet(model, data, config, validation=data, loss=lambda model, batch: model(batch[0]).mean())
    return model, history


def test_patience_stops_and_brings_the_best_weights_back():
    model, history = scripted([3.0, 1.0, 2.0, 1.5, 0.1], epochs=5, patience=2)
    assert history.validation_loss == pytest.approx([3.0, 1.0, 2.0, 1.5])  # two epochs without a better one
    assert history.best_epoch == 1 and model.weight.item() == 2


def test_patience_starts_anew_with_each_best_epoch():
    model, history = scripted([3.0, 3.5, 2.0, 2.5, 1.0], epochs=5, patience=2)
    assert len(history.validation_loss) == 5 and history.best_epoch == 4 and model.weight.item() == 5


def test_the_best_weights_come_back_when_the_epochs_run_out_too():
    model, history = scripted([3.0, 1.0, 2.0], epochs=3, patience=9)
    assert history.best_epoch == 1 and model.weight.item() == 2


def test_without_patience_the_last_weights_stay():
    model, history = scripted([3.0, 1.0, 2.0], epochs=3)
    assert history.best_epoch == 1 and model.weight.item() == 3


def test_equal_losses_are_no_progress():
    model, history = scripted([2.0, 2.0, 2.0, 1.0], epochs=4, patience=2)
    assert history.best_epoch == 0 and len(history.validation_loss) == 3 and model.weight.item() == 1


def test_a_validation_loss_that_is_not_a_number_is_never_the_best():
    model, history = scripted([math.nan, 2.0, math.nan, 1.0, 3.0], epochs=5, patience=3)
    assert history.best_epoch == 3 and model.weight.item() == 4


# ---- a run that begins later


@pytest.mark.parametrize("first_step", [1, 7, 10])  # 7 steps an epoch
def test_a_later_beginning_goes_on_as_if_the_first_steps_had_been_done(first_step):
    config = FitConfig(epochs=3, batch_size=8, optimizer="sgd", momentum=0.0, learning_rate=0.1, schedule="cosine")
    data, seen = examples(), []
    whole, late = mlp([6, 8, 3]), mlp([6, 8, 3])

    def noise(inputs, generator):
        return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)

    history = quiet(whole, data, config, augment=noise, after_step=lambda model: seen.append(weights(model)))
    late.load_state_dict(seen[first_step - 1])
    rest = quiet(late, data, config, augment=noise, first_step=first_step)
    assert same(whole, weights(late))
    whole_epochs = 2 - first_step // 7 if first_step % 7 else 3 - first_step // 7
    assert len(rest.train_loss) == 3 - first_step // 7
    assert rest.train_loss[-whole_epochs:] == history.train_loss[-whole_epochs:]


def test_a_later_beginning_resumes(tmp_path):
    config = FitConfig(epochs=4, batch_size=8)
    whole, stopped, calls = mlp([6, 8, 3]), mlp([6, 8, 3]), []

    def stop(model):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt

    quiet(whole, examples(), config, first_step=10)
    with pytest.raises(KeyboardInterrupt):
        quiet(stopped, examples(), config, first_step=10, checkpoint_dir=tmp_path, after_step=stop)
    quiet(stopped, examples(), config, first_step=10, checkpoint_dir=tmp_path)
    assert same(whole, weights(stopped))
    for other in (9, 0):
        with pytest.raises(ValueError, match="made with first_step=10"):
            quiet(mlp([6, 8, 3]), examples(), config, first_step=other, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("first_step", [-1, 14, 1.5, True])
def test_a_first_step_outside_the_run(first_step):
    model = mlp([6, 8, 3])
    before = weights(model)
    with pytest.raises(ValueError, match="first_step is .*; expected a step of this run, from 0 to 13"):
        quiet(model, examples(), FitConfig(epochs=2, batch_size=8), first_step=first_step)
    assert same(model, before)


def test_after_step_is_called_with_the_model_after_each_step():
    calls, model = [], mlp([6, 3])

    def clamp(given):
        calls.append(given is model)
        with torch.no_grad():
            for parameter in given.parameters():
                parameter.clamp_(-0.01, 0.01)

    quiet(model, examples(20), FitConfig(epochs=2, batch_size=8), after_step=clamp)
    assert calls == [True] * 6
    assert max(parameter.abs().max() for parameter in model.parameters()) <= 0.01


def test_augment_changes_the_inputs_and_only_them_from_a_seeded_generator():
    seen = []

    def loss(model, batch):
        seen.append(batch)
        return hard_label_loss(model, batch)

    def noise(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    data = TensorDataset(*examples(20).tensors, torch.arange(20))
    for _ in range(2):
        quiet(mlp([6, 3]), data, FitConfig(epochs=2, batch_size=20), loss=loss, augment=noise)
    assert torch.equal(seen[0][0], seen[2][0]) and torch.equal(seen[1][0], seen[3][0])  # the same seed
    changes = [inputs - data.tensors[0][index] for inputs, _, index in seen]
    assert not torch.allclose(changes[0], changes[1]) and changes[0].std() == pytest.approx(1, abs=0.2)
    assert torch.equal(seen[0][1], data.tensors[1][seen[0][2]])


# ---- determinism, modes, places


def dropout_net():
    return mlp([6, 16, 3], dropout=0.5)


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not():
    models, histories = [dropout_net() for _ in range(3)], []
    for seed, model in zip((1, 1, 2), models, strict=True):
        torch.rand(3)  # whatever happened before
        histories.append(quiet(model, examples(), FitConfig(epochs=2, batch_size=8, seed=seed)))
    assert same(models[0], weights(models[1])) and histories[0].train_loss == histories[1].train_loss
    assert not same(models[0], weights(models[2]))


@pytest.mark.parametrize("loader", [False, True])
def test_the_global_generator_is_left_alone(loader):
    data = examples()
    train = DataLoader(data, batch_size=8, shuffle=True) if loader else data
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    history = quiet(dropout_net(), train, validation=DataLoader(data, batch_size=8) if loader else data)
    assert torch.equal(torch.rand(4), expected)
    assert quiet(dropout_net(), train, validation=data).train_loss == history.train_loss  # a shuffling loader, too


def test_the_model_ends_in_eval_mode_without_gradients_and_the_loss_saw_training_mode():
    model, modes = dropout_net().eval(), set()

    def loss(model, batch):
        modes.update(module.training for module in model.modules())
        return hard_label_loss(model, batch)

    quiet(model, examples(), loss=loss, validation=examples(9))
    assert modes == {True} and not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_goes_back_to_its_device(monkeypatch):
    model, places = mlp([6, 3]), []
    to = model.to
    monkeypatch.setattr(model, "to", lambda device: places.append(torch.device(device)) or to("cpu"))
    monkeypatch.setattr("course_lib.device.device_of", lambda model: torch.device("meta"))
    quiet(model, examples(), device="cpu", loss=lambda model, batch: hard_label_loss(model, batch))
    assert places == [torch.device("cpu"), torch.device("meta")]


def test_what_needs_no_gradient_stays():
    model = mlp([6, 8, 3])
    model[1].requires_grad_(False)
    model[1].weight.grad = torch.full_like(model[1].weight, 1e6)  # left over, and not to count in the norm
    before, moving = weights(model), copy.deepcopy(model)
    moving[1].weight.grad = None
    config = FitConfig(epochs=1, optimizer="sgd", clip_norm=0.1, learning_rate=0.1)
    quiet(model, examples(), config)
    quiet(moving, examples(), config)
    assert torch.equal(model[1].weight, before["1.weight"])
    assert not torch.equal(model[3].weight, before["3.weight"]) and same(model, weights(moving))


def test_mixed_precision_on_a_cpu_runs_and_learns():
    seen, model = set(), mlp([6, 16, 3])

    def loss(model, batch):
        logits = model(batch[0])
        seen.add(logits.dtype)
        return nn.functional.cross_entropy(logits, batch[1])

    config = FitConfig(epochs=20, batch_size=8, learning_rate=1e-2, precision="bf16")
    history = quiet(model, examples(), config, loss=loss, validation=examples(30))
    assert seen == {torch.bfloat16} and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert history.validation_accuracy[-1] > 0.9 and history.train_loss[-1] < 0.5 * history.train_loss[0]
    seen.clear()
    quiet(model, examples(), FitConfig(epochs=1), loss=loss, device="cpu")  # auto on a CPU
    assert seen == {torch.float32}


def test_batch_norm_learns_its_statistics():
    model = SmallConvNet((4,), num_classes=3)
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 3
    quiet(model, TensorDataset(images, torch.arange(20) % 3))
    assert model.blocks[0][1].num_batches_tracked == 6


# ---- when something goes wrong


def explode_at(step, error):
    calls = []

    def after_step(model):
        calls.append(step)
        if len(calls) == step:
            raise error

    return after_step


def test_an_error_gives_the_old_weights_gradients_and_modes_back():
    model = nn.Sequential(mlp([6, 8, 3], dropout=0.5), nn.BatchNorm1d(3))
    model[1].eval()
    model[1].weight.grad = torch.tensor([1.0, 2.0, 3.0])
    before, modes = weights(model), [module.training for module in model.modules()]
    with pytest.raises(OSError, match="no more"):
        quiet(model, examples(), after_step=explode_at(5, OSError("no more")))
    assert same(model, before) and [module.training for module in model.modules()] == modes
    assert model[1].weight.grad.tolist() == [1, 2, 3] and model[1].bias.grad is None


def test_an_interruption_from_the_keyboard_keeps_the_new_weights():
    model = mlp([6, 8, 3])
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        quiet(model, examples(), after_step=explode_at(5, KeyboardInterrupt()))
    assert not same(model, before) and not model.training


def test_a_loss_that_is_no_longer_finite():
    model = mlp([6, 8, 3]).train()
    before = weights(model)
    data = TensorDataset(examples().tensors[0] * math.nan, examples().tensors[1])
    with pytest.raises(FloatingPointError, match="loss is nan in epoch 1: lower the learning rate"):
        quiet(model, data)
    assert same(model, before) and model.training


def test_weights_that_are_no_longer_finite_after_the_last_step():
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    before = weights(model)
    data = TensorDataset(torch.ones(1, 1))
    with pytest.raises(FloatingPointError, match="weights are no longer finite in epoch 1"):  # the root's slope at 0
        quiet(model, data, FitConfig(epochs=1), loss=lambda model, batch: model(batch[0]).sqrt().mean())
    assert same(model, before)


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(loader, label):
    model = mlp([6, 8, 3])
    before, steps = weights(model), []
    inputs, labels = examples().tensors
    labels = labels.clone()
    labels[17] = label
    data = TensorDataset(inputs, labels)
    train = DataLoader(data, batch_size=8) if loader else data
    with pytest.raises(ValueError, match=f"labels hold {label}; expected 0 to 2"):
        quiet(model, train, FitConfig(epochs=2, batch_size=1), after_step=steps.append)
    assert same(model, before) and (loader or steps == [])  # of a TensorDataset, all are looked at beforehand


def test_labels_of_another_type():
    inputs, labels = examples().tensors
    for train in (TensorDataset(inputs, labels.float()), DataLoader(TensorDataset(inputs, labels.float()))):
        with pytest.raises(TypeError, match="labels are torch.float32"):
            quiet(mlp([6, 3]), train)
    with pytest.raises(ValueError, match="train holds no labels"):
        quiet(mlp([6, 3]), TensorDataset(inputs))


def test_labels_may_be_any_integers():
    inputs, labels = examples().tensors
    models = [mlp([6, 3]) for _ in range(3)]
    quiet(models[0], examples())
    quiet(models[1], TensorDataset(inputs, labels.int()))
    quiet(models[2], TensorDataset(inputs, labels.to(torch.uint8)))
    assert same(models[1], weights(models[0])) and same(models[2], weights(models[0]))


def test_bad_arguments_are_named_and_nothing_is_changed():
    model = mlp([6, 3]).train()
    before, data = weights(model), examples()
    nothing = TensorDataset(torch.zeros(0, 6), torch.zeros(0).long())
    for error, match, kwargs in [
        (ValueError, "train is empty", {"train": nothing}),
        (ValueError, "train is empty", {"train": DataLoader(data, batch_size=99, drop_last=True)}),
        (ValueError, "validation is empty", {"train": data, "validation": nothing}),
        (TypeError, "train is a list", {"train": [data]}),
        (TypeError, "config is a int; expected a FitConfig", {"train": data, "config": 3}),
        (
            ValueError,
            "patience is 1 but there are no validation data",
            {"train": data, "config": FitConfig(patience=1)},
        ),
        (ValueError, "device 'abacus' cannot be used", {"train": data, "device": "abacus"}),
    ]:
        with pytest.raises(error, match=match):
            fit(model, progress=False, **kwargs)
        assert same(model, before) and model.training
    with pytest.raises(TypeError, match="model is a function"):
        quiet(examples, data)
    with pytest.raises(ValueError, match="nothing to train"):
        quiet(mlp([6, 3]).requires_grad_(False), data)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"batch_size": -1}, ValueError),
        ({"learning_rate": 0.0}, ValueError),
        ({"learning_rate": math.nan}, ValueError),
        ({"learning_rate": math.inf}, ValueError),
        ({"clip_norm": 0.0}, ValueError),
        ({"patience": 0}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"weight_decay": -0.1}, ValueError),
        ({"warmup": 1.0}, ValueError),
        ({"optimizer": "lion"}, ValueError),
        ({"schedule": "stairs"}, ValueError),
        ({"precision": "fp8"}, ValueError),
        ({"epochs": 2.5}, TypeError),
        ({"epochs": "3"}, TypeError),
        ({"seed": None}, TypeError),
        ({"batch_size": True}, TypeError),
        ({"learning_rate": "1e-3"}, TypeError),
    ],
)
def test_settings_out_of_range(settings, error):
    (name,) = settings
    with pytest.raises(error, match=f"{name} is .*; expected"):
        FitConfig(**settings)
