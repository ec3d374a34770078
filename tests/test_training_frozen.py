"""``fit`` pays for what is trained: memory, undoing and checkpoints of a model most of which is frozen."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.training import FitConfig, fit

ROOT = Path(__file__).resolve().parents[1]

JOB = """
import resource, sys, torch
from torch import nn
from torch.utils.data import TensorDataset
from course_lib.training import FitConfig, fit

class Tuned(nn.Module):  # 50 million frozen numbers, 200 MB, and ten that are trained
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(5_000, 10_000, bias=False).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, inputs):
        return self.base(inputs)[:, :10] * self.scale

def peak():  # in MB; macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

def train(model, **options):
    data = TensorDataset(torch.randn(8, 5_000), torch.arange(8) % 10)
    config = FitConfig(epochs=3, batch_size=4, patience=2)
    return fit(model, data, config, validation=data, device="cpu", progress=False, **options)

train(nn.Sequential(nn.Linear(5_000, 10)))  # whatever the first training brings into memory
model = Tuned()
before = peak()
train(model, checkpoint_dir=sys.argv[1])
fails = lambda model: 1 / 0
try:
    train(model, after_step=fails)
except ZeroDivisionError:
    print(peak() - before)
"""


@pytest.mark.skipif(not importlib.util.find_spec("resource"), reason="Windows tells no peak of a process this way")
def test_memory_and_disk_do_not_grow_with_a_frozen_base(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", JOB, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60  # MB: not a third of one copy of the base
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"epoch-00002.safetensors", "epoch-00003.safetensors", "settings.json"}
    assert sum(sizes.values()) < 20_000


def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(12, 6, generator=generator), torch.arange(12) % 3)


class Adapted(nn.Module):
    """A frozen base with batch norm, a trained head, an expanded buffer and a count kept as extra state."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.base = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).requires_grad_(False)
        torch.manual_seed(9)
        self.head = nn.Linear(8, 3)
        self.register_buffer("ones", torch.ones(1).expand(8))
        self.calls = ("calls", 0)

    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = state

    def forward(self, inputs):
        if self.training:
            self.calls = ("calls", self.calls[1] + 1)
        return self.head(self.base(inputs) * self.ones)


def state(model):
    return {name: value.clone() if name != "_extra_state" else value for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


CONFIG = FitConfig(epochs=3, batch_size=4, learning_rate=0.05)


def quiet(model, config=CONFIG, **options):
    return fit(model, data(), config, validation=data(), progress=False, **options)


def stop_at(step, error):
    calls = []

    def stop(model):
        calls.append(1)
        if len(calls) == step:
            raise error

    return stop


def test_an_error_undoes_the_buffers_of_a_frozen_base_too():
    model = Adapted()
    before = state(model)
    with pytest.raises(OSError, match="the first error"):
        quiet(model, after_step=stop_at(7, OSError("the first error")))
    assert same(state(model), before) and model.calls == ("calls", 0)


def test_a_frozen_base_resumes_to_the_same_bits(tmp_path):
    whole, stopped, again = Adapted(), Adapted(), Adapted()
    expected = quiet(whole)
    with pytest.raises(KeyboardInterrupt):
        quiet(stopped, checkpoint_dir=tmp_path, after_step=stop_at(7, KeyboardInterrupt()))
    history = quiet(again, checkpoint_dir=tmp_path)  # a fresh model of the same base
    assert same(state(again), state(whole)) and history.validation_loss == expected.validation_loss
    assert again.calls == ("calls", 9) and whole.calls == ("calls", 9)


def test_another_base_is_refused(tmp_path):
    quiet(Adapted(), checkpoint_dir=tmp_path)
    model = Adapted(seed=1)
    before = state(model)
    with pytest.raises(ValueError, match="made with other data: frozen parameters has changed"):
        quiet(model, checkpoint_dir=tmp_path)
    assert same(state(model), before)


def test_patience_brings_back_the_best_weights_and_buffers():
    model, seen = Adapted(), []
    config = FitConfig(epochs=30, batch_size=4, learning_rate=0.5, patience=3)

    def keep(model):
        seen.append(state(model))

    history = quiet(model, config, after_step=keep)
    assert len(history.train_loss) < 30
    assert same(state(model), seen[3 * (history.best_epoch + 1) - 1])


def test_extra_state_that_cannot_be_stored_is_found_before_the_first_step(tmp_path):
    model, steps = Adapted(), []
    model.calls = {1, 2}
    model.forward = lambda inputs: model.head(model.base(inputs))
    with pytest.raises(TypeError, match="is a set; expected tensors, numbers"):
        quiet(model, checkpoint_dir=tmp_path, after_step=steps.append)
    assert steps == [] and model.calls == {1, 2}
    quiet(model)  # without checkpoints it is no matter


def test_what_has_become_trainable_is_another_model(tmp_path):
    quiet(Adapted(), checkpoint_dir=tmp_path)
    model = Adapted()
    model.base[0].requires_grad_(True)
    with pytest.raises(ValueError, match="frozen parameters has changed"):
        quiet(model, checkpoint_dir=tmp_path)
