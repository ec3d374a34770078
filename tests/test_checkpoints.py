"""Checkpoints: a run that was killed goes on to the numbers of an unbroken one; what does not fit is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib import resume
from course_lib.models.vision import mlp
from course_lib.training import FitConfig, fit

ROOT = Path(__file__).resolve().parents[1]
CONFIG = FitConfig(
    epochs=4,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.05,
    schedule="cosine",
    warmup=0.2,
    clip_norm=1.0,
    patience=9,
)
ADAM = FitConfig(epochs=4, batch_size=8, learning_rate=1e-2)


def data(count=30):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 6, generator=generator), torch.arange(count) % 3)


def net():
    return nn.Sequential(mlp([6, 16, 8], dropout=0.5), nn.BatchNorm1d(8), mlp([8, 3], seed=1))


def noise(inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def train(model, folder, config=CONFIG, **kwargs):
    kwargs = {"validation": data(9), "augment": noise, **kwargs}
    return fit(model, kwargs.pop("train", None) or data(), config, checkpoint_dir=folder, progress=False, **kwargs)


def numbers(history):
    return {name: values for name, values in history.__dict__.items() if name != "seconds"}


def same(model, other):
    other = other if isinstance(other, dict) else other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in model.state_dict().items())


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def names(folder):
    """Everything in the folder but the settings."""
    return sorted(path.name.removesuffix(".safetensors") for path in Path(folder).iterdir() if path.suffix != ".json")


class Stop(Exception):
    """Raised in the middle of an epoch."""


def stop_at(step, act=None):
    count = [0]

    def after_step(model):
        count[0] += 1
        if count[0] == step:
            if act:
                act()
            raise Stop

    return after_step


# ---- kill -9

KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
import test_checkpoints as t
from course_lib import resume

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

folder, when = sys.argv[1:]
if when == "mid-epoch":
    t.train(t.net(), folder, after_step=t.stop_at(10, die))   # 4 steps an epoch: in the middle of the third
else:  # in the writing of the third checkpoint, when a part of it is on the disk
    real, count = resume.save_file, []
    def save(tensors, path, *args):
        count.append(1)
        real(tensors, path, *args)
        if len(count) == 3:
            os.truncate(path, os.path.getsize(path) // 2)
            die()
    resume.save_file = save
    t.train(t.net(), folder)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes that were killed with SIGKILL, and the folders that they left."""
    script = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"))
    jobs = {}
    for when in ("mid-epoch", "writing"):
        folder = tmp_path_factory.mktemp(when)
        jobs[when] = folder, subprocess.Popen([sys.executable, "-c", script, str(folder), when], stderr=subprocess.PIPE)
    for _, job in jobs.values():
        errors = job.communicate(timeout=120)[1]
        assert job.returncode == -signal.SIGKILL, errors.decode()
    return {when: folder for when, (folder, _) in jobs.items()}


@pytest.fixture(scope="module")
def unbroken():
    torch.set_num_threads(1)  # as in the other process: the order of additions is the same
    model = net()
    return model, fit(model, data(), CONFIG, validation=data(9), augment=noise, progress=False)


@pytest.mark.parametrize("when", ["mid-epoch", "writing"])
def test_after_kill_9_training_goes_on_to_the_numbers_of_an_unbroken_run(killed, unbroken, when):
    folder = killed[when]
    drafts = ["epoch-00003.safetensors.draft"] if when == "writing" else []
    assert names(folder) == ["epoch-00001", "epoch-00002", *drafts]
    model, steps = net(), []
    with torch.no_grad():
        model[0][1].weight.zero_()  # the weights have to come from the checkpoint
    history = train(model, folder, after_step=steps.append)
    assert len(steps) == 2 * 4  # two epochs were left
    assert same(model, unbroken[0]) and numbers(history) == numbers(unbroken[1])
    assert names(folder) == ["epoch-00003", "epoch-00004"]


# ---- breaks without a kill


@pytest.mark.parametrize("config", [CONFIG, ADAM])
@pytest.mark.parametrize("step", [1, 5, 8, 16])
def test_a_run_that_broke_at_any_step_goes_on(tmp_path, config, step):
    model, broken = net(), net()
    expected = train(model, tmp_path / "unbroken", config)
    with pytest.raises(Stop):
        train(broken, tmp_path / "broken", config, after_step=stop_at(step))
    assert same(broken, net())  # a failed call leaves the model as it was
    assert numbers(train(broken, tmp_path / "broken", config)) == numbers(expected)
    assert same(broken, model)


def test_a_shuffling_loader_goes_on_too(tmp_path):
    def loader():
        return DataLoader(data(), batch_size=7, shuffle=True)

    model, broken = net(), net()
    expected = train(model, tmp_path / "unbroken", train=loader())
    with pytest.raises(Stop):
        train(broken, tmp_path / "broken", train=loader(), after_step=stop_at(12))
    torch.rand(5)
    assert numbers(train(broken, tmp_path / "broken", train=loader())) == numbers(expected) and same(broken, model)


def test_a_finished_run_is_read_not_trained_again(tmp_path):
    model, again, steps = net(), net(), []
    expected = train(model, tmp_path)
    assert train(again, tmp_path, after_step=steps.append) == expected
    assert steps == [] and same(again, model) and not again.training


def test_patience_is_not_forgotten(tmp_path):
    config = FitConfig(epochs=30, batch_size=8, learning_rate=0.1, patience=3)
    model, broken = net(), net()
    expected = train(model, tmp_path / "unbroken", config)
    stopped = len(expected.train_loss)
    assert stopped < 30 and expected.best_epoch == stopped - 4
    with pytest.raises(Stop):
        train(broken, tmp_path / "broken", config, after_step=stop_at(4 * stopped - 2))  # after the best epoch
    assert numbers(train(broken, tmp_path / "broken", config)) == numbers(expected)
    assert same(broken, model)
    again = net()
    assert numbers(train(again, tmp_path / "broken", config)) == numbers(expected) and same(again, model)


def test_a_checkpoint_is_weights_in_safetensors_and_two_are_kept(tmp_path):
    model = net()
    config = FitConfig(epochs=3, batch_size=8)
    train(model, tmp_path, config)
    assert names(tmp_path) == ["epoch-00002", "epoch-00003"]
    saved = load_file(tmp_path / "epoch-00003.safetensors")
    assert same(model, {name: saved[f"value/model/tensors/{name}"] for name in model.state_dict()})
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert settings["config"]["epochs"] == 3 and settings["augment"] == {"name": "noise"}


def test_tied_weights_and_other_memory_formats_are_kept(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(2, 2, 3, padding=1).to(memory_format=torch.channels_last)
            self.outer = nn.Conv2d(2, 2, 3, padding=1)
            self.outer.weight = self.inner.weight

        def forward(self, inputs):
            return self.outer(self.inner(inputs)).mean((2, 3))

    torch.manual_seed(0)
    images = TensorDataset(torch.randn(8, 2, 4, 4), torch.arange(8) % 2)
    kwargs = {"train": images, "validation": images, "augment": None}
    config = FitConfig(epochs=2, batch_size=4, patience=5)
    model, again = Tied(), Tied()
    train(model, tmp_path, config, **kwargs)
    train(again, tmp_path, config, **kwargs)
    assert same(again, model) and again.outer.weight is again.inner.weight


# ---- interrupted writing


@pytest.mark.parametrize("broken", ["save_file", "fsync", "replace"])
def test_an_interruption_while_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, broken):
    model, expected = net(), net()
    numbers_expected = numbers(train(expected, tmp_path / "unbroken"))
    count = [0]

    def failing(real, calls_an_epoch):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] > 2 * calls_an_epoch:  # in the third epoch
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    owner = {"fsync": os, "replace": Path}.get(broken, resume)
    if broken != "save_file":
        count[0] = -1  # one more, for the settings
    monkeypatch.setattr(owner, broken, failing(getattr(owner, broken), 1))
    with pytest.raises(OSError, match="No space left"):
        train(model, tmp_path / "broken")
    monkeypatch.undo()
    assert same(model, net())
    assert names(tmp_path / "broken") == ["epoch-00001", "epoch-00002"]
    assert numbers(train(model, tmp_path / "broken")) == numbers_expected and same(model, expected)
    assert names(tmp_path / "broken") == ["epoch-00003", "epoch-00004"]


# ---- what does not fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(net(), folder)
    return folder


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 9),
        ("batch_size", 4),
        ("seed", 1),
        ("optimizer", "adam"),
        ("clip_norm", None),
        ("learning_rate", 0.01),
    ],
)
def test_a_checkpoint_of_other_settings(finished, setting, value):
    model = net()
    config = FitConfig(**{**CONFIG.__dict__, setting: value})
    with pytest.raises(ValueError, match=f"made with config.{setting}=.*, not {value!r}.*another checkpoint_dir"):
        train(model, finished, config)
    assert same(model, net()) and model.training


def test_a_checkpoint_of_other_data(finished):
    model = net()
    with pytest.raises(ValueError, match="made with steps_per_epoch=4, not 5"):
        train(model, finished, train=data(40))
    assert same(model, net())


@pytest.mark.parametrize(
    "other", [lambda: mlp([6, 5, 3]), lambda: nn.Sequential(net(), nn.Linear(3, 3)), lambda: wide()]
)
def test_a_checkpoint_of_another_model(finished, other):
    model = other()
    before = copy_of(model)
    with pytest.raises(ValueError, match="(?s)cannot be used .* damaged or of another model"):
        train(model, finished)
    assert same(model, before)


def wide():
    """The same names as ``net`` in the first layer, another width in the last."""
    return nn.Sequential(mlp([6, 16, 8], dropout=0.5), nn.BatchNorm1d(8), mlp([8, 4], seed=1))


@pytest.mark.parametrize("name", ["epoch-00004.safetensors", "settings.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_a_damaged_checkpoint(finished, tmp_path, name, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    path = folder / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "garbage": b"?" * len(content)}[damage])
    model = net()
    with pytest.raises(ValueError, match="epoch-00004 .*cannot be used|settings.json cannot be read .* delete it"):
        train(model, folder)
    assert same(model, net()) and model.training
    path.unlink()  # as the message says
    assert len(train(model, folder).train_loss) == 4


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("no folder")
    steps = []
    with pytest.raises(ValueError, match="checkpoint_dir .*file.* cannot be written"):
        train(net(), tmp_path / "file" / "run", after_step=steps.append)
    assert steps == []


def test_an_empty_folder_is_a_fresh_start(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "epoch-1").mkdir()
    assert len(train(net(), tmp_path).train_loss) == 4
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "epoch-1").exists()
