"""Stages: done once, whole or not at all, refused for other settings or other data; settings may grow."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from course_lib import resume
from course_lib.device import weights_of
from course_lib.distillation.hinton import soft_target_loss
from course_lib.models.vision import mlp
from course_lib.resume import Stages, check_folder, describe, differing, fingerprint, write_whole
from course_lib.training import FitConfig, fit, hard_label_loss

ROOT = Path(__file__).resolve().parents[1]


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def once(folder, name, value, settings=None, data=None):
    """Do a stage; also whether it was made now."""
    made = []
    stages = Stages(folder, settings or {"rate": 0.2}, data)
    return stages.once(name, lambda: made.append(1) or value), bool(made)


# ---- what a stage may hold


VALUES = {
    "nested": {"weights": {"0.weight": torch.randn(3, 4), "a/b": [torch.ones(2), {"c": torch.zeros(0)}]}, "a": None},
    "plain": [1, 0.1, float("inf"), True, None, "text", [], {}],
    "alone": torch.tensor(1.5),
    "tuple": {"pair": (1, torch.arange(3), ("x",))},
    "types": [torch.tensor([1, 200], dtype=kind) for kind in (torch.bool, torch.uint8, torch.int64, torch.bfloat16)],
    "views": [torch.arange(12.0).view(3, 4).t(), torch.arange(12.0)[::2], torch.ones(1).expand(5)],
    "same places": {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)},
}


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", VALUES)
def test_what_was_made_comes_back_and_is_made_once(tmp_path, name):
    first, made = once(tmp_path, "round-00", VALUES[name])
    again, made_again = once(tmp_path, "round-00", None)
    assert made and not made_again
    assert equal(first, VALUES[name]) and equal(again, VALUES[name])
    assert files(tmp_path) == ["round-00.safetensors", "settings.json"]


def test_two_names_of_one_tensor_and_a_parameter_that_requires_a_gradient(tmp_path):
    weight = torch.nn.Parameter(torch.randn(2, 2))
    value, _ = once(tmp_path, "x", {"inner": weight, "outer": weight, "row": weight[0]})
    assert torch.equal(value["inner"], weight) and torch.equal(value["outer"], weight)
    assert torch.equal(value["row"], weight[0]) and not value["inner"].requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"weights": [{1, 2}]}, "value/weights/0 is a set; expected tensors, numbers, text or None"),
        ({"a": {0: 1}}, "value/a is a dict with keys that are not plain text"),
        ({"$tensor": 1}, "keys that are not plain text"),
        (object(), "value is a object"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        once(tmp_path, "x", value)
    assert files(tmp_path) == []


def test_without_a_folder_nothing_is_stored():
    assert once(None, "x", {"a": 1}) == ({"a": 1}, True) and once(None, "x", 2) == (2, True)
    assert Stages(None, {}).unfinished("x") is None


# ---- interrupted


@pytest.mark.parametrize("broken", ["make", "save_file", "fsync", "replace"])
def test_a_stage_that_was_interrupted_is_not_there_and_the_ones_before_are(tmp_path, monkeypatch, broken):
    once(tmp_path, "round-00", torch.zeros(3))

    def stop(*args):
        raise KeyboardInterrupt

    if broken != "make":
        monkeypatch.setattr({"fsync": os, "replace": Path}.get(broken, resume), broken, stop)
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path, {"rate": 0.2}).once("round-01", stop if broken == "make" else lambda: torch.ones(3))
    monkeypatch.undo()
    assert files(tmp_path) == ["round-00.safetensors", "settings.json"]
    assert once(tmp_path, "round-01", torch.ones(3))[1] and not once(tmp_path, "round-00", None)[1]


def test_a_draft_that_a_kill_left_is_no_stage(tmp_path):
    once(tmp_path, "round-00", 0)
    (tmp_path / "round-01.safetensors.draft").write_bytes(b"half of it")
    assert Stages(tmp_path, {"rate": 0.2}).names() == ["round-00"]
    assert once(tmp_path, "round-01", 1) == (1, True)
    assert files(tmp_path) == ["round-00.safetensors", "round-01.safetensors", "settings.json"]


def test_write_whole_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")

    def half(draft):
        draft.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert path.read_text() == "old" and files(tmp_path) == ["record.json"]
    write_whole(path, lambda draft: draft.write_text("new"))
    assert path.read_text() == "new" and files(tmp_path) == ["record.json"]


def examples(count=24):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 6, generator=generator), torch.arange(count) % 3)


def rounds(folder, after_step=None):
    """A long work as it is to be written: dense training, start weights, two rounds with checkpoints of their own."""
    config = FitConfig(epochs=3, batch_size=8)  # 9 steps a round
    model, train = mlp([6, 8, 3]), examples()
    stages = Stages(folder, {"training": config, "rate": 0.5}, {"train": train, "weights": weights_of(model)})
    start, done = stages.once("start", lambda: weights_of(model)), []

    def trained(name, weights):
        model.load_state_dict(weights)
        options = {"checkpoint_dir": stages.unfinished(name), "after_step": after_step, "progress": False}
        history = fit(model, train, config, **options)
        return {"weights": weights_of(model), "losses": history.train_loss}

    for number in range(3):
        halved = {name: value / 2**number for name, value in start.items()}
        done.append(stages.once(name := f"round-{number:02d}", lambda name=name, w=halved: trained(name, w)))
    return done


@pytest.mark.parametrize("step", [1, 5, 9, 16, 27])
def test_a_work_of_several_rounds_goes_on_to_the_same_bits(tmp_path, step):
    calls, expected = [], rounds(None)

    def stop(model):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rounds(tmp_path, stop)
    steps = []
    assert equal(rounds(tmp_path, steps.append), expected)
    assert len(steps) == 27 - 3 * ((step - 1) // 3)  # whole epochs are not trained again
    assert files(tmp_path) == [*(f"round-0{n}.safetensors" for n in range(3)), "settings.json", "start.safetensors"]
    assert equal(rounds(tmp_path, lambda model: 1 / 0), expected)  # nothing is left to train


# ---- other settings, other data


@dataclass(frozen=True)
class Settings:
    rate: float = 0.2
    layers: tuple[int, ...] = (1, 2)


def test_other_settings_are_refused(tmp_path):
    once(tmp_path, "x", 1, {"pruning": Settings(), "steps": 3})
    for settings, message in [
        ({"pruning": Settings(rate=0.3), "steps": 3}, "made with pruning.rate=0.2, not 0.3; .* or another folder"),
        ({"pruning": Settings(layers=(1,)), "steps": 3}, r"made with pruning.layers=\[1, 2\], not \(1,\)"),
        ({"pruning": Settings(), "steps": 4}, "made with steps=3, not 4"),
        ({"pruning": Settings()}, "made with steps=3, not None"),
        ({"pruning": Settings(), "steps": 3, "more": 1}, "made with more=None, not 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Stages(tmp_path, settings)
    assert not once(tmp_path, "x", 2, {"steps": 3, "pruning": Settings()})[1]


def test_a_new_field_with_a_default_leaves_old_folders_valid(tmp_path):
    once(tmp_path, "x", 1, {"pruning": Settings(rate=0.4)})
    grown = make_dataclass(
        "Settings",
        [("scope", str, "local"), ("more", list, field(default_factory=list))],
        bases=(Settings,),
        frozen=True,
    )
    assert once(tmp_path, "x", 2, {"pruning": grown(rate=0.4)}) == (1, False)
    for other, message in [
        (grown(rate=0.4, scope="global"), "scope='local', not 'global'"),
        (grown(rate=0.4, more=[1]), r"more=\[\], not \[1\]"),
        (grown(), "rate=0.4, not 0.2"),
    ]:
        with pytest.raises(ValueError, match=message):
            Stages(tmp_path, {"pruning": other})


def test_a_default_that_changes_is_another_setting(tmp_path):
    once(tmp_path, "x", 1, {"pruning": Settings()})
    changed = make_dataclass("Settings", [("rate", float, 0.5)], bases=(Settings,), frozen=True)
    with pytest.raises(ValueError, match="rate=0.2, not 0.5"):
        Stages(tmp_path, {"pruning": changed()})


def test_checkpoints_of_fit_outlive_a_new_field(tmp_path):
    grown = make_dataclass("FitConfig", [("novelty", float, 0.0)], bases=(FitConfig,), frozen=True)
    model, calls = mlp([6, 8, 3]), []

    def stop(model):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    def trained(config, **options):
        return fit(mlp([6, 8, 3]), examples(), config, checkpoint_dir=tmp_path, progress=False, **options)

    with pytest.raises(KeyboardInterrupt):
        trained(FitConfig(epochs=3, batch_size=8), after_step=stop)
    steps = []
    history = trained(grown(epochs=3, batch_size=8), after_step=steps.append)
    assert len(steps) == 6
    assert history.train_loss == fit(model, examples(), FitConfig(epochs=3, batch_size=8), progress=False).train_loss
    with pytest.raises(ValueError, match="made with config.novelty=0.0, not 1.0"):
        trained(grown(epochs=3, batch_size=8, novelty=1.0))


def test_differing_by_hand():
    saved = {"config": {"rate": 0.2, "layers": [1, 2]}, "steps": 3, "shares": {"1": 0.1}}
    wanted = {"config": Settings(), "steps": 3, "shares": {1: 0.1}}
    assert list(differing(saved, wanted)) == []
    wanted = {"config": Settings(rate=0.3), "steps": 3, "shares": {1: 0.2, 2: 0.1}, "seed": None}
    expected = [("config.rate", 0.2, 0.3), ("shares.1", 0.1, 0.2), ("shares.2", None, 0.1)]
    assert list(differing(saved, wanted)) == expected
    assert list(differing({"a": [1, 2]}, {"a": [2, 1]})) == [("a", [1, 2], [2, 1])]


def test_other_data_are_refused(tmp_path):
    inputs, labels = examples().tensors
    once(tmp_path, "x", 1, data={"train": examples(), "validation": None})
    changed = inputs.clone()
    changed[7, 3] += 1e-6
    for other in (TensorDataset(changed, labels), TensorDataset(inputs, labels.flip(0)), TensorDataset(inputs)):
        with pytest.raises(ValueError, match="made with other data: train has changed; .* or another folder"):
            Stages(tmp_path, {"rate": 0.2}, {"train": other, "validation": None})
    with pytest.raises(ValueError, match="validation has changed"):
        Stages(tmp_path, {"rate": 0.2}, {"train": examples(), "validation": examples()})
    assert not once(tmp_path, "x", 2, data={"train": examples(), "validation": None})[1]


def test_a_fingerprint_is_the_same_in_every_process_and_changes_with_everything():
    data = {"a": torch.arange(3), "b": [torch.zeros(2, 2), "text", 1.5]}
    command = (
        "import torch; from course_lib.resume import fingerprint; "
        "print(fingerprint({'a': torch.arange(3), 'b': [torch.zeros(2, 2), 'text', 1.5]}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == fingerprint(data)
    others = [
        {"a": torch.arange(3).int(), "b": data["b"]},
        {"c": torch.arange(3), "b": data["b"]},
        {"a": torch.arange(3).view(3, 1), "b": data["b"]},
        {"a": torch.arange(3), "b": [torch.zeros(2, 2), "text", 1.25]},
        {"a": torch.arange(3), "b": [torch.zeros(4), "text", 1.5]},
    ]
    assert len({fingerprint(value) for value in (data, *others)}) == 6
    part = torch.arange(8.0).view(2, 4)
    assert fingerprint(part.t()) == fingerprint(part.t().contiguous()) != fingerprint(part)


def test_a_loader_is_known_by_its_data_its_batches_and_its_order():
    loaders = [
        DataLoader(examples(), batch_size=4),
        DataLoader(examples(), batch_size=5),
        DataLoader(examples(), batch_size=4, shuffle=True),
        DataLoader(examples(23), batch_size=4),
        DataLoader([{"input_ids": torch.tensor([1, 2])}], batch_size=4),
        DataLoader([{"input_ids": torch.tensor([1, 3])}], batch_size=4),
    ]
    assert len({fingerprint(loader) for loader in loaders}) == len(loaders)
    assert fingerprint(loaders[0]) == fingerprint(DataLoader(examples(), batch_size=4))


def test_a_loss_is_known_by_its_name_and_by_what_it_was_made_with(tmp_path):
    warm, hot = (soft_target_loss(temperature=t, alpha=1.0) for t in (2.0, 4.0))
    assert describe(warm) == {"name": "soft_target_loss.<locals>.loss", "temperature": 2.0, "alpha": 1.0}
    assert describe(hard_label_loss) == {"name": "hard_label_loss"} and describe(None) is None
    inputs, labels = examples().tensors
    data = TensorDataset(inputs, labels, torch.zeros(24, 3))
    kwargs = {"checkpoint_dir": tmp_path, "progress": False}
    fit(mlp([6, 3]), data, FitConfig(epochs=1), loss=warm, **kwargs)
    with pytest.raises(ValueError, match="made with loss.temperature=2.0, not 4.0"):
        fit(mlp([6, 3]), data, FitConfig(epochs=1), loss=hot, **kwargs)
    with pytest.raises(ValueError, match="made with loss.name="):
        fit(mlp([6, 3]), data, FitConfig(epochs=1), **kwargs)


# ---- damaged, not writable


@pytest.mark.parametrize("content", [b"", b"torn", b"\x08" + bytes(7) + b"{}      "])
def test_a_damaged_stage(tmp_path, content):
    once(tmp_path, "round-00", torch.ones(3))
    (tmp_path / "round-00.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"round-00.safetensors cannot be read .* delete it"):
        once(tmp_path, "round-00", None)
    (tmp_path / "round-00.safetensors").unlink()
    assert once(tmp_path, "round-00", torch.ones(3))[1]


def test_damaged_settings(tmp_path):
    once(tmp_path, "round-00", 1)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings.json cannot be read"):
        once(tmp_path, "round-00", 1)


def test_settings_of_another_kind_are_those_of_another_run(tmp_path):
    (tmp_path / "settings.json").write_text('{"rate": 0.2}')
    with pytest.raises(ValueError, match="holds a run made with settings=None, not"):
        once(tmp_path, "round-00", 1)


def test_the_settings_can_be_read_by_a_person(tmp_path):
    once(tmp_path, "x", 1, {"pruning": Settings()}, {"train": torch.arange(3)})
    found = json.loads((tmp_path / "settings.json").read_text())
    assert found["settings"] == {"pruning": {"rate": 0.2, "layers": [1, 2]}} and list(found["data"]) == ["train"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="results .*file.* cannot be written"):
        check_folder(tmp_path / "file" / "run", "results")
    with pytest.raises(ValueError, match="folder .*file.* cannot be written"):
        Stages(tmp_path / "file" / "run", {})


def test_frozen_settings_of_the_library_are_known_by_their_fields():
    config = FitConfig(parameter_groups={"*.bias": {"weight_decay": 0.0}})
    saved = json.loads(json.dumps({"config": vars(config)}))
    assert list(differing(saved, {"config": config})) == []
    changed = replace(config, parameter_groups={"*.bias": {"weight_decay": 0.1}})
    assert list(differing(saved, {"config": changed})) == [("config.parameter_groups.*.bias.weight_decay", 0.0, 0.1)]
