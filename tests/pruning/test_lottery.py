"""Pruning in rounds: against a loop by hand with torch's own pruning, rewinding told right, resumable."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import TensorDataset

from course_lib.distillation.hinton import soft_target_loss
from course_lib.models.vision import SmallConvNet, lenet_300_100, mlp
from course_lib.pruning.held import held_masks, hold_masks, release_masks
from course_lib.pruning.lottery import PruningConfig, iterative_pruning, random_masks, reinitialise, rewind
from course_lib.pruning.masks import local_masks
from course_lib.training import FitConfig, fit, hard_label_loss

CONFIG = FitConfig(epochs=3, batch_size=10, learning_rate=0.05, precision="fp32")


def examples(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 3
    centres = 2 * torch.randn(3, 6, generator=generator)
    return TensorDataset((centres[labels] + torch.randn(40, 6, generator=generator)).to(dtype), labels)


def imp(model, pruning, config=CONFIG, **kwargs):
    return iterative_pruning(model, examples(), config, pruning, progress=False, **kwargs)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class FirstOfEachRound:
    """A loss that keeps the weights before the first step of every training."""

    def __init__(self):
        self.weights, self.new = [], True

    def __call__(self, model, batch):
        if self.new:
            self.weights.append(copy.deepcopy(model.state_dict()))
            self.new = False
        return hard_label_loss(model, batch)

    def after_round(self, model, done):
        self.new = True


# ---- against torch's own pruning


def by_hand(model, rounds, rate):
    """Iterative magnitude pruning with rewinding, as one writes it with torch.nn.utils.prune; full batches."""
    inputs, labels = examples(torch.float64).tensors
    first = copy.deepcopy(model.state_dict())
    layers = {"1": model[1], "3": model[3]}
    for number in range(rounds + 1):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(15):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        if number < rounds:
            model(inputs)  # the attribute "weight" is made at each call: without this one it is a step old
            for name, layer in layers.items():
                prune.l1_unstructured(layer, "weight", amount=rate)  # of those that are left
                layer.weight_orig.data = first[f"{name}.weight"].clone()
                layer.bias.data = first[f"{name}.bias"].clone()
    model(inputs)
    return layers


def test_the_same_as_torchs_own_pruning_by_hand():
    ours, theirs = mlp([6, 8, 3]).double(), mlp([6, 8, 3]).double()
    config = FitConfig(epochs=15, batch_size=40, learning_rate=0.05, precision="fp32")
    run = iterative_pruning(
        ours, examples(torch.float64), config, PruningConfig(rounds=3, rate=0.25), progress=False, device="cpu"
    )
    for name, layer in by_hand(theirs, 3, 0.25).items():
        assert torch.equal(run.rounds[3].masks[f"{name}.weight"], layer.weight_mask.bool())
        torch.testing.assert_close(run.rounds[3].weights[f"{name}.weight"], layer.weight.detach())
        torch.testing.assert_close(run.rounds[3].weights[f"{name}.bias"], layer.bias.detach())


# ---- what a round keeps


def test_the_papers_percentages_follow_from_its_rates():
    """Frankle and Carbin's LeNet has 266,200 weights; 20% a round, 10% of the output layer's."""
    model = lenet_300_100()
    weights = {name: value.detach() for name, value in model.named_parameters() if value.dim() == 2}
    assert sum(value.numel() for value in weights.values()) == 266_200
    for number, percent in {3: 51.3, 7: 21.1, 9: 13.5, 12: 7.0, 15: 3.6, 18: 1.9}.items():
        shares = {"*": 1 - 0.8**number, "5.weight": 1 - 0.9**number}
        kept = sum(int(mask.sum()) for mask in local_masks(weights, shares).values())
        assert round(100 * kept / 266_200, 1) == percent


def test_rounds_keep_what_the_rates_say_and_are_monotone():
    model = mlp([6, 8, 3])
    run = imp(model, PruningConfig(rounds=4, rate=0.5, rates={"3.*": 0.25}))
    for done in run.rounds:
        assert int(done.masks["1.weight"].sum()) == 48 - round(48 * (1 - 0.5**done.number))
        assert int(done.masks["3.weight"].sum()) == 24 - round(24 * (1 - 0.75**done.number))
    for before, after in zip(run.rounds, run.rounds[1:], strict=False):
        assert all(not (after.masks[name] & ~before.masks[name]).any() for name in after.masks)
        for name, mask in after.masks.items():  # what goes is what the round before trained to be small
            gone = before.weights[name].abs()[before.masks[name] & ~mask]
            assert gone.numel() == 0 or gone.max() <= before.weights[name].abs()[mask].min()
    assert run.rounds[0].sparsity == 0 and run.rounds[1].sparsity == pytest.approx((24 + 6) / 72)
    assert same(held_masks(model), run.rounds[4].masks) and same(model.state_dict(), run.rounds[4].weights)
    assert all(not run.rounds[4].weights[name][~mask].any() for name, mask in run.rounds[4].masks.items())


def test_global_scope_compares_all_layers():
    run = imp(mlp([6, 8, 3]), PruningConfig(rounds=1, rate=0.5, scope="global"))
    dense, masks = run.rounds[0].weights, run.rounds[1].masks
    gone = torch.cat([dense[name].abs()[~mask] for name, mask in masks.items()])
    kept = torch.cat([dense[name].abs()[mask] for name, mask in masks.items()])
    assert len(gone) == 36 and gone.max() <= kept.min()


def test_one_shot_is_one_round():
    run = imp(mlp([6, 8, 3]), PruningConfig(rounds=1, rate=0.9))
    assert len(run.rounds) == 2 and run.rounds[1].sparsity == pytest.approx((43 + 22) / 72)


def test_only_the_targets_are_pruned():
    run = imp(mlp([6, 8, 3]), PruningConfig(rounds=1, targets="1"))
    assert list(run.rounds[1].masks) == ["1.weight"]


# ---- rewinding


@pytest.mark.parametrize("step", [0, 1, 6])
def test_survivors_go_back_to_the_weights_of_the_rewind_step(step):
    seen, first = [copy.deepcopy(mlp([6, 8, 3]).state_dict())], FirstOfEachRound()
    fit(
        mlp([6, 8, 3]),
        examples(),
        CONFIG,
        after_step=lambda model: seen.append(copy.deepcopy(model.state_dict())),
        progress=False,
    )
    run = imp(mlp([6, 8, 3]), PruningConfig(rounds=2, rewind_step=step), loss=first, after_round=first.after_round)
    assert same(run.start, seen[step])
    for number in (1, 2):
        masks = run.rounds[number].masks
        for name, value in first.weights[number].items():
            assert torch.equal(value, run.start[name] * masks[name] if name in masks else run.start[name])
    assert len(run.rounds[1].history.train_loss) == 3 - step // 4


@pytest.mark.parametrize(
    ("retrain", "rates", "from_trained"),
    [("rewind", [0.005, 0.0005], False), ("learning-rate", [0.005, 0.0005], True), ("fine-tune", [0.0005] * 2, True)],
)
def test_what_each_way_to_retrain_begins_with(retrain, rates, from_trained):
    first, config = FirstOfEachRound(), replace(CONFIG, epochs=4, schedule="step")  # 0.05 for 8 of 16 steps
    pruning = PruningConfig(rounds=1, rewind_step=8, retrain=retrain)
    run = imp(mlp([6, 8, 3]), pruning, config, loss=first, after_round=first.after_round)
    began, masks = first.weights[1], run.rounds[1].masks
    expected = run.rounds[0].weights if from_trained else run.start
    assert all(torch.equal(began[name], expected[name] * mask) for name, mask in masks.items())
    assert torch.equal(began["1.bias"], expected["1.bias"])
    assert run.rounds[1].history.learning_rate == pytest.approx(rates)


def test_a_rate_of_ones_own_for_fine_tuning():
    pruning = PruningConfig(rounds=1, retrain="fine-tune", fine_tune_rate=0.002)
    assert imp(mlp([6, 8, 3]), pruning).rounds[1].history.learning_rate == [0.002] * 3


def test_rewinding_is_not_re_initialising():
    model, masks = mlp([6, 8, 3]), random_masks({"1.weight": torch.arange(48).view(8, 6) % 2 == 0}, seed=0)
    start = copy.deepcopy(model.state_dict())
    fit(model, examples(), CONFIG, progress=False)
    assert rewind(model, start, masks) is model
    kept = masks["1.weight"]
    assert torch.equal(model[1].weight[kept], start["1.weight"][kept]) and not model[1].weight[~kept].any()
    reinitialise(model, masks, seed=5)
    assert (model[1].weight[kept] != start["1.weight"][kept]).all() and not model[1].weight[~kept].any()


def test_batch_norm_is_rewound_too():
    model = SmallConvNet((4,))
    pictures = TensorDataset(torch.randn(20, 1, 4, 4), torch.arange(20) % 10)
    run = iterative_pruning(model, pictures, replace(CONFIG, epochs=1), PruningConfig(rounds=0), progress=False)
    assert model.blocks[0][1].num_batches_tracked == 2
    rewind(model, run.start, {"classifier.weight": torch.ones(10, 16, dtype=torch.bool)})
    assert model.blocks[0][1].num_batches_tracked == 0 and not model.blocks[0][1].running_mean.any()


# ---- controls


def test_re_initialised_weights_are_drawn_as_at_first():
    model, masks = lenet_300_100(), {"1.weight": torch.rand(300, 784) < 0.5}
    state = torch.get_rng_state()
    reinitialise(model, masks, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    kept = model[1].weight[masks["1.weight"]].detach()
    assert kept.abs().max() <= 1 / 28 and kept.std() == pytest.approx(1 / 28 / 3**0.5, rel=0.02)  # uniform
    again, other = reinitialise(lenet_300_100(), masks, seed=3), reinitialise(lenet_300_100(), masks, seed=4)
    assert same(again.state_dict(), model.state_dict()) and not same(other.state_dict(), model.state_dict())


def test_an_initialisation_of_ones_own():
    def ones(module):
        if isinstance(module, nn.Linear):
            nn.init.ones_(module.weight)

    model = reinitialise(
        mlp([4, 3]), {"1.weight": torch.tensor([[True, False, True, True]] * 3)}, seed=0, initialise=ones
    )
    assert model[1].weight.tolist() == [[1.0, 0.0, 1.0, 1.0]] * 3


def test_random_masks_keep_as_many_elsewhere():
    masks = {"a": torch.arange(600).view(20, 30) < 200, "b": torch.arange(50).view(5, 10) < 10}
    drawn = random_masks(masks, seed=0)
    assert all(
        int(drawn[name].sum()) == int(mask.sum()) and drawn[name].shape == mask.shape for name, mask in masks.items()
    )
    overlap = int((drawn["a"] & masks["a"]).sum())
    assert 40 < overlap < 95  # about a third of 200
    assert same(drawn, random_masks(masks, seed=0)) and not same(drawn, random_masks(masks, seed=1))


# ---- interrupted, resumed, failed


@pytest.mark.parametrize("stop_at", [2, 7, 14, 20, 25])  # 12 steps, then 7 a round
def test_a_run_that_was_interrupted_goes_on_to_the_same_numbers(stop_at, tmp_path):
    pruning, calls = PruningConfig(rounds=2, rewind_step=5), []

    def stop(model):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    whole = imp(mlp([6, 8, 3]), pruning)
    with pytest.raises(KeyboardInterrupt):
        imp(mlp([6, 8, 3]), pruning, after_step=stop, folder=tmp_path)
    seen, model = [], mlp([6, 8, 3])
    resumed = imp(model, pruning, folder=tmp_path, after_round=lambda model, done: seen.append(done.number))
    assert same(resumed.start, whole.start) and seen == [0, 1, 2]
    for ours, theirs in zip(resumed.rounds, whole.rounds, strict=True):
        assert same(ours.masks, theirs.masks) and same(ours.weights, theirs.weights)
        assert ours.history.train_loss == theirs.history.train_loss
    assert same(held_masks(model), whole.rounds[2].masks)
    assert not list(tmp_path.glob("training-*")) and not list(tmp_path.glob("*.draft"))


def test_more_rounds_go_on_from_the_saved_ones(tmp_path):
    imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)
    steps = []
    more = imp(mlp([6, 8, 3]), PruningConfig(rounds=3), folder=tmp_path, after_step=lambda model: steps.append(1))
    assert len(steps) == 2 * 12 and same(
        more.rounds[3].weights, imp(mlp([6, 8, 3]), PruningConfig(rounds=3)).rounds[3].weights
    )


def test_a_folder_with_another_run(tmp_path):
    imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)
    with pytest.raises(ValueError, match="holds a run made with .*rate.*=0.2, not 0.3; .*another folder"):
        imp(mlp([6, 8, 3]), PruningConfig(rounds=1, rate=0.3), folder=tmp_path)
    with pytest.raises(ValueError, match="holds a run made with training.learning_rate=0.05, not 0.1"):
        imp(mlp([6, 8, 3]), PruningConfig(rounds=1), replace(CONFIG, learning_rate=0.1), folder=tmp_path)
    with pytest.raises(ValueError, match="holds a run made with other data: the first weights has changed"):
        imp(mlp([6, 8, 3], seed=1), PruningConfig(rounds=1), folder=tmp_path)
    (tmp_path / "round-01.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"round-01.safetensors cannot be read .* delete it"):
        imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)


def test_a_folder_with_another_loss_or_other_data_of_the_same_size(tmp_path):
    imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)
    loss = soft_target_loss(temperature=2.0, alpha=0.5)
    with pytest.raises(ValueError, match="holds a run made with loss.*hard_label_loss"):
        imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path, loss=loss)
    inputs, labels = examples().tensors
    with pytest.raises(ValueError, match="holds a run made with other data: train has changed"):
        other = TensorDataset(inputs, labels.roll(1))
        iterative_pruning(mlp([6, 8, 3]), other, CONFIG, PruningConfig(rounds=1), folder=tmp_path)


def test_a_frozen_weight_is_undone_too():
    model = mlp([6, 8, 3])
    model[1].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    def fails(model, done):
        if done.number == 2:
            raise RuntimeError("no room on the disk")

    with pytest.raises(RuntimeError, match="no room"):
        imp(model, PruningConfig(rounds=2), after_round=fails)
    assert same(model.state_dict(), before)


def test_after_an_error_the_model_is_as_it_was():
    model, calls = mlp([6, 8, 3]), []
    before = copy.deepcopy(model.state_dict())

    def fails(model, batch):
        calls.append(1)
        if len(calls) == 30:
            raise RuntimeError("out of memory")
        return hard_label_loss(model, batch)

    with pytest.raises(RuntimeError, match="out of memory"):
        imp(model, PruningConfig(rounds=3), loss=fails)
    assert same(model.state_dict(), before) and held_masks(model) == {}


def test_modes_and_gradients_are_undone_too():
    model = mlp([6, 8, 3])
    model[2].eval()
    model(examples().tensors[0]).sum().backward()
    gradient = model[1].weight.grad.clone()

    def fails(model, done):
        raise RuntimeError("no room on the disk")

    with pytest.raises(RuntimeError, match="no room"):
        imp(model, PruningConfig(rounds=1), after_round=fails)
    assert model.training and model[1].training and not model[2].training
    assert torch.equal(model[1].weight.grad, gradient)


def test_a_dense_training_that_stops_before_the_rewind_step():
    model = mlp([6, 8, 3])
    before = copy.deepcopy(model.state_dict())
    config = replace(CONFIG, epochs=50, patience=1, learning_rate=0.5)
    inputs, labels = examples().tensors
    with pytest.raises(ValueError, match="patience ended the dense training after .* before rewind_step, which is 199"):
        imp(model, PruningConfig(rounds=1, rewind_step=199), config, validation=TensorDataset(inputs, (labels + 1) % 3))
    assert same(model.state_dict(), before)


def test_round_0_read_from_the_disk_holds_no_masks_either(tmp_path):
    for _ in range(2):
        model = mlp([6, 8, 3])
        run = imp(model, PruningConfig(rounds=0), folder=tmp_path)
        assert held_masks(model) == {} and same(model.state_dict(), run.rounds[0].weights)


def test_a_damaged_start(tmp_path):
    imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)
    (tmp_path / "start.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"start.safetensors cannot be read .* delete it"):
        imp(mlp([6, 8, 3]), PruningConfig(rounds=1), folder=tmp_path)


def test_masks_that_do_not_fit_change_no_weights():
    model, bad = mlp([6, 8, 3]), {"1.weight": torch.ones(2, 2, dtype=torch.bool)}
    masks = {"1.weight": torch.arange(48).view(8, 6) % 2 == 0}
    hold_masks(model, masks)
    before, other = copy.deepcopy(model.state_dict()), mlp([6, 8, 3], seed=1).state_dict()
    with pytest.raises(ValueError, match="mask of 1.weight has shape"):
        rewind(model, other, bad)
    with pytest.raises(ValueError, match="mask of 1.weight has shape"):
        reinitialise(model, bad, seed=9)
    assert same(model.state_dict(), before) and same(held_masks(model), masks)


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": -1}, "rounds is -1; expected a whole number of at least 0"),
        ({"rounds": 1.5}, "rounds is 1.5, a float; expected a whole number"),
        ({"rounds": True}, "rounds is True, a bool; expected a whole number"),
        ({"rounds": 1, "rewind_step": -2}, "rewind_step is -2"),
        ({"rounds": 1, "rate": 1.2}, "rate is 1.2; expected a share of the weights"),
        ({"rounds": 1, "rates": {"1.weight": -0.1}}, "the rate of 1.weight is -0.1"),
        ({"rounds": 1, "rates": {"1.weight": 0.1}, "scope": "global"}, "rates are given for single layers"),
        ({"rounds": 1, "scope": "layer"}, "scope is 'layer'; expected 'local' or 'global'"),
        ({"rounds": 1, "retrain": "reinit"}, "retrain is 'reinit'; expected 'rewind', 'learning-rate' or 'fine-tune'"),
        ({"rounds": 1, "fine_tune_rate": 0.1}, "fine_tune_rate is 0.1 and retrain 'rewind'"),
        ({"rounds": 1, "fine_tune_rate": 0, "retrain": "fine-tune"}, "fine_tune_rate is 0 .* above 0"),
        ({"rounds": 1, "fine_tune_rate": float("inf"), "retrain": "fine-tune"}, "fine_tune_rate is inf"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(TypeError if ", a " in message else ValueError, match=message):
        PruningConfig(**settings)


def test_other_bad_arguments():
    model = mlp([6, 8, 3])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="rewind_step is 12; expected a step of the training, below 12"):
        imp(model, PruningConfig(rounds=1, rewind_step=12))
    with pytest.raises(ValueError, match="rates for '5.weight' matches none of the names; .*3.weight"):
        imp(model, PruningConfig(rounds=1, rates={"5.weight": 0.1}))
    with pytest.raises(ValueError, match="target 'fc' matches no layer"):
        imp(model, PruningConfig(rounds=1, targets="fc"))
    with pytest.raises(ValueError, match="train is empty"):
        empty = TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
        iterative_pruning(model, empty, CONFIG, PruningConfig(rounds=1))
    with pytest.raises(ValueError, match="Sequential has no layer of the types"):
        imp(nn.Sequential(nn.ReLU()), PruningConfig(rounds=1))
    assert same(model.state_dict(), before)
    hold_masks(model, {"1.weight": torch.ones(8, 6, dtype=torch.bool)})
    with pytest.raises(ValueError, match="model holds masks already; call release_masks"):
        imp(model, PruningConfig(rounds=1))
    release_masks(model)
    with pytest.raises(ValueError, match="Scale has no reset_parameters; pass initialise"):
        reinitialise(nn.Sequential(nn.Linear(2, 2), Scale()), {"0.weight": torch.ones(2, 2, dtype=torch.bool)}, seed=0)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
