"""What test_processes.py runs, in one process and in two: ``python processes_job.py FOLDER [notebook PORT]``.

Each process writes what it ended with to FOLDER/RANK.pt: for each job the history and the weights.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.data.images import jitter
from course_lib.distillation.hinton import soft_target_loss, with_teacher_logits
from course_lib.distillation.hints import GuidedStudent, regressor_for, soft_and_hint_loss, with_features
from course_lib.models.vision import SmallConvNet, mlp
from course_lib.training import FitConfig, fit, hard_label_loss

TIGHT = {"epochs": 3, "optimizer": "sgd", "learning_rate": 0.1, "clip_norm": 0.5}


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3)


def net(seed=0):
    return mlp([64, 8, 3], seed=seed)


def plain(accelerator, folder):
    """29 examples in batches of 7: the last batch has one example, and the second process none."""
    model, config = net(), FitConfig(batch_size=7, **TIGHT)
    return model, fit(model, data(29), config, validation=data(9, 1), accelerator=accelerator, progress=False)


def single_steps(accelerator, folder):
    """A batch of one: the second process never has an example."""
    model, config = net(), FitConfig(batch_size=1, epochs=2, weight_decay=0.1)
    return model, fit(model, data(5), config, accelerator=accelerator, progress=False)


def shuffled(accelerator, folder):
    """A loader that shuffles: all processes have to see the same order."""
    loader = DataLoader(data(25), batch_size=6, shuffle=True)
    model = net()
    return model, fit(model, loader, FitConfig(**TIGHT), accelerator=accelerator, progress=False)


def augmented(accelerator, folder):
    model, config = net(), FitConfig(batch_size=7, **TIGHT)
    return model, fit(model, data(25), config, augment=jitter, accelerator=accelerator, progress=False)


def distilled_twice(accelerator, folder):
    """Two runs one after the other on the same model, the second from a teacher asked anew in each step."""
    model, config = net(), FitConfig(batch_size=7, **TIGHT)
    settings, kwargs = {"temperature": 4.0, "alpha": 0.7}, {"accelerator": accelerator, "progress": False}
    fit(model, with_teacher_logits(net(seed=5), data(25)), config, loss=soft_target_loss(**settings), **kwargs)
    asking = soft_target_loss(**settings, teacher=net(seed=6))
    return model, fit(model, data(25), config, loss=asking, augment=jitter, **kwargs)


def guided(accelerator, folder):
    """Hints and soft targets: a loss that captures a layer of each process's own model."""
    model, teacher, config = net(), mlp([64, 12, 3], seed=5), FitConfig(batch_size=7, **TIGHT)
    shown = with_features(teacher, with_teacher_logits(teacher, data(25)), ["2"], progress=False)
    learner = GuidedStudent(model, "2", regressor_for((1, 8), (1, 12)))
    loss = soft_and_hint_loss(temperature=4.0, alpha=0.7, beta=0.1)
    return learner, fit(learner, shown, config, loss=loss, accelerator=accelerator, progress=False)


def hooked(accelerator, folder):
    """A loss that looks into the model by name and runs a part of it."""
    model = net()
    model[3].requires_grad_(False)

    def loss(model, batch):
        hidden = model.get_submodule("1")(batch[0].flatten(1))
        return (hidden - 1).square().mean() + 0 * hard_label_loss(model, batch)

    config = FitConfig(batch_size=7, **TIGHT)
    return model, fit(model, data(25), config, loss=loss, accelerator=accelerator, progress=False)


def with_checkpoints(accelerator, folder):
    """Broken off in the third epoch, and taken up again."""
    config, steps = FitConfig(batch_size=7, **TIGHT), []

    def stop(model):
        steps.append(1)
        if len(steps) == 11:
            raise KeyError("stop")

    model = net()
    kwargs = {"checkpoint_dir": folder / "checkpoints", "accelerator": accelerator, "progress": False}
    try:
        fit(model, data(25), config, after_step=stop, **kwargs)
    except KeyError:
        pass
    return model, fit(model, data(25), config, **kwargs)


def different_starts(accelerator, folder):
    """The first process's weights are taken."""
    model = net(seed=accelerator.process_index if accelerator else 0)
    return model, fit(model, data(25), FitConfig(batch_size=7, **TIGHT), accelerator=accelerator, progress=False)


class Tagger(nn.Module):
    """A class for each token; its tokens may come by name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7))

    def forward(self, input_ids):
        return self.body(input_ids)


def sequences(count=19, length=6):
    """Of 0 to 6 tokens: the parts of a batch have different numbers of them, some none."""
    generator = torch.Generator().manual_seed(1)
    tokens, labels = torch.randint(7, (2, count, length), generator=generator)
    lengths = torch.randint(0, length + 1, (count, 1), generator=generator)
    return tokens, labels.masked_fill(torch.arange(length) >= lengths, -100)


def tokens_accumulated(accelerator, folder):
    """Sequences with padding, several batches a step, and a budget of tokens."""
    config = FitConfig(batch_size=3, accumulate=2, tokens=150, optimizer="sgd", learning_rate=0.1)
    data, model = TensorDataset(*sequences()), Tagger()
    return model, fit(model, data, config, validation=data, accelerator=accelerator, progress=False)


def dicts(accelerator, folder):
    """A loader of dicts for a language model."""
    items = [{"input_ids": own, "labels": labels} for own, labels in zip(*sequences(), strict=True)]
    loader, model = DataLoader(items, batch_size=4), Tagger()
    return model, fit(model, loader, FitConfig(**TIGHT), accelerator=accelerator, progress=False)


SAME_AS_ONE = (
    *(plain, single_steps, shuffled, augmented, distilled_twice, guided),
    *(hooked, with_checkpoints, different_starts),
    *(tokens_accumulated, dicts),
)


def normalised(accelerator, folder):
    """Batch norm with early stopping: not the numbers of one process, but the same ones in each process."""
    model = SmallConvNet((4,), num_classes=3)
    config = FitConfig(epochs=6, batch_size=7, learning_rate=0.05, patience=1)
    return model, fit(model, data(25), config, validation=data(9, 1), accelerator=accelerator, progress=False)


def dropped(accelerator, folder):
    """Which units dropout silenced in the first step, in each process."""
    masks = []

    class Recorded(nn.Dropout):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            masks.append((outputs != 0).float())
            return outputs

    model = nn.Sequential(nn.Flatten(), Recorded(), nn.Linear(64, 3))
    history = fit(model, data(8), FitConfig(epochs=1, batch_size=8), accelerator=accelerator, progress=False)
    model.register_buffer("mask", masks[1])  # the first is the look at the labels, in eval mode
    return model, history


def run(folder, accelerator=None):
    """All jobs; the result of this process is also written to ``folder``."""
    torch.set_num_threads(1)
    rank, result = accelerator.process_index if accelerator else 0, {}
    for job in (*SAME_AS_ONE, normalised, dropped):
        model, history = job(accelerator, Path(folder))
        numbers = {name: values for name, values in vars(history).items() if name != "seconds"}
        result[job.__name__] = {"history": numbers, "weights": model.state_dict()}
    torch.save(result, Path(folder) / f"{rank}.pt")
    return result


def launched(folder):
    """The body of a process that Accelerate starts."""
    from accelerate import Accelerator

    run(folder, Accelerator(cpu=True))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[2:3] == ["notebook"]:
        from accelerate import notebook_launcher

        notebook_launcher(launched, (sys.argv[1],), num_processes=2, use_port=sys.argv[3])
    else:
        launched(sys.argv[1])
