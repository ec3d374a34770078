"""How good is a model: one ``evaluate`` loop and one ``predict_logits`` for the whole course.

A batch is a sequence, (inputs, labels, ...), or a dict whose entries are the arguments of the model by name, but for
its ``labels``. A model gives a tensor of logits, an object that has ``logits`` (as models of Hugging Face do), or a
tuple whose first entry they are.

Logits (N, C) go with labels (N,), logits (N, L, V) with labels (N, L), where -100 is padding, which does not count.

- In a sequence, the labels stand beside the logits: ``labels[n, i]`` is what ``logits[n, i]`` should say.
- In a dict, they are as Hugging Face's models take them. For a language model, ``labels[n, i]`` is the token at place
  ``i``, which ``logits[n, i - 1]`` should say; for models that see the whole text (masked tokens, a class for each
  token, encoder and decoder) they stand beside the logits. A model that does not say what it is counts as a language
  model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import check_model, evaluating, pick_device, placed

Batch = Sequence[Tensor] | Mapping[str, Tensor]
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
PADDING_LABEL = -100  # as PyTorch and Hugging Face have it


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, share of right answers, wrong answers, and how many labels counted."""

    loss: float
    accuracy: float
    errors: int
    count: int

    @property
    def perplexity(self) -> float:
        """``exp`` of the loss: 10 means unsure as among 10 equal choices."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> Evaluation:
    """How well ``model`` answers on ``data``; the model is left as it was.

    Args:
        model: gives logits (N, C) or (N, L, V).
        data: inputs (N, ...), labels (N,) or (N, L) of an integer type; or a loader of such batches or of dicts.
        batch_size: examples at a time; a ``DataLoader`` brings its own.
        device: where to compute, ``pick_device`` if none.

    Raises:
        ValueError: the data are empty, hold no labels or nothing but padding, or a label is out of range.
        TypeError: the model, what it gives, the data or the labels are of another type.
    """
    total, right, count = 0.0, 0, 0
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        for logits, batch in predictions:
            labels = check_labels(labels_of(model, batch, "data"), logits).flatten()
            logits = logits.flatten(0, -2)  # (N, L, V) -> (N L, V)
            total += nn.functional.cross_entropy(logits.float(), labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
            count += int((labels != PADDING_LABEL).sum())
    if count == 0:
        raise ValueError(f"all labels of data are padding ({PADDING_LABEL}): there is nothing to evaluate")
    return Evaluation(loss=total / count, accuracy=right / count, errors=count - right, count=count)


def predict_logits(
    model: nn.Module,
    data: TensorDataset | DataLoader,
    *,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> Tensor:
    """The model's logits for every example of ``data`` in order, (N, C) or (N, L, V), on the CPU.

    The model is left as it was. The arguments and errors are those of ``evaluate``; labels are not needed.
    """
    with closing(_predictions(model, data, batch_size, device)) as predictions:
        return torch.cat([logits.cpu() for logits, _ in predictions])


def batches(data: TensorDataset | DataLoader, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """The batches of ``data`` in order, on ``device``; a ``DataLoader`` brings its own size.

    Raises:
        TypeError, ValueError: as ``check_data``, or ``batch_size`` is below 1.
    """
    check_data("data", data)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
    in_order = data
    if isinstance(data, TensorDataset):
        in_order = zip(*(tensor.split(batch_size) for tensor in data.tensors), strict=True)
    return (to_device(batch, device) for batch in in_order)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """``batch`` with its tensors on ``device``: a tuple or a dict.

    Raises:
        TypeError: it is neither a sequence nor a dict.
    """
    if isinstance(batch, (tuple, list)):
        return tuple([_moved(value, device) for value in batch])
    if not isinstance(batch, Mapping):
        raise TypeError(f"a batch is a {type(batch).__name__}; expected (inputs, labels, ...), or a dict of tensors")
    return {name: _moved(value, device) for name, value in batch.items()}


def _moved(value: object, device: torch.device) -> object:
    if not isinstance(value, Tensor) or value.device == device:
        return value
    return value.to(device, non_blocking=True)


def answer(model: nn.Module, batch: Batch) -> Tensor:
    """What ``model`` says to ``batch``: its logits.

    Raises:
        TypeError: the model gives something else.
    """
    return logits_of(output_of(model, batch))


def output_of(model: nn.Module, batch: Batch) -> object:
    """What ``model`` gives for ``batch``, whatever that is."""
    if isinstance(batch, (tuple, list)):
        return model(batch[0])
    left_out = () if _encodes_and_decodes(model) else ("labels",)  # the decoder reads the labels before each one
    return model(**{name: value for name, value in batch.items() if name not in left_out})


def logits_of(output: object) -> Tensor:
    """The logits in what a model gives: a tensor, something that has ``logits``, or a tuple that begins with them.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if found is None and isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        kind = type(output).__name__
        raise TypeError(
            f"the model gives a {kind}; expected a tensor of logits, something with logits, or a tuple of them"
        )
    return found


def labels_of(model: nn.Module, batch: Batch, name: str = "the batch") -> Tensor:
    """The labels of ``batch`` as they stand beside the logits of ``model``; see the top of this file.

    Raises:
        ValueError: it has none; ``name`` is what the message calls the data.
    """
    if isinstance(batch, (tuple, list)):
        if len(batch) < 2:
            raise ValueError(f"{name} holds no labels; expected batches of (inputs, labels)")
        return batch[1]
    if batch.get("labels") is None:
        raise ValueError(f"{name} holds no labels; expected 'labels' beside {', '.join(map(repr, batch))}")
    labels = batch["labels"]
    if labels.dim() != 2 or labels.dtype not in INTEGERS or _sees_the_whole_text(model):
        return labels
    return nn.functional.pad(labels.long()[:, 1:], (0, 1), value=PADDING_LABEL)  # the last logits have no next token


def count_labels(model: nn.Module, batch: Batch) -> int:
    """How many labels of ``batch`` count in a mean over it: padding does not. Without labels, its examples."""
    first = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    labels = batch.get("labels") if isinstance(batch, Mapping) else (*batch[1:2], None)[0]
    if not isinstance(labels, Tensor) or labels.dim() != 2 or labels.dtype not in INTEGERS:
        return len(first)
    return int((labels_of(model, batch).long() != PADDING_LABEL).sum())


def _sees_the_whole_text(model: nn.Module) -> bool:
    """Whether a model of Hugging Face takes labels that stand beside its logits, not those of a language model."""
    return _encodes_and_decodes(model) or getattr(model, "loss_type", None) in ("ForMaskedLM", "ForTokenClassification")


def _encodes_and_decodes(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def check_data(name: str, data: TensorDataset | DataLoader) -> None:
    """Raise a ``TypeError`` or ``ValueError`` that names the argument unless ``data`` can be iterated over."""
    if not isinstance(data, (TensorDataset, DataLoader)):
        raise TypeError(f"{name} is a {type(data).__name__}; expected a TensorDataset or a DataLoader")
    try:
        count = len(data)
    except TypeError as error:  # an IterableDataset without a length
        raise TypeError(f"{name} has no length ({error}); give it a __len__: its steps have to be counted") from error
    if count == 0:
        raise ValueError(f"{name} is empty: there is nothing to learn from or to evaluate")


def check_labels(labels: Tensor, logits: Tensor, name: str = "labels") -> Tensor:
    """``labels`` as int64, if each is a class for which ``logits`` have a column, or padding in a sequence.

    Shapes: (N,) for logits (N, C), or (N, L) for (N, L, V). ``name`` is what a message calls them.

    Raises:
        TypeError: they are not integers.
        ValueError: another shape, or a label below 0 or above C - 1 that is no padding.
    """
    if labels.dtype not in INTEGERS:
        raise TypeError(f"{name} are {labels.dtype}; expected class numbers, torch.int64")
    if logits.dim() not in (2, 3) or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"{name} are {tuple(labels.shape)} and the logits {tuple(logits.shape)}; "
            "expected (N,) and (N, C), or (N, L) and (N, L, V)"
        )
    labels = labels.long()  # before -100 is looked for: in uint8 it would be 156
    wrong = (labels < 0) | (labels >= logits.shape[-1])
    if labels.dim() == 2:
        wrong &= labels != PADDING_LABEL
    if wrong.any():
        expected = f"0 to {logits.shape[-1] - 1}, a class for each of the model's logits"
        padding = f", or {PADDING_LABEL} for padding" if labels.dim() == 2 else ""
        raise ValueError(f"{name} hold {labels[wrong][0].item()}; expected {expected}{padding}")
    return labels


def check_answers(model: nn.Module, data: TensorDataset | DataLoader, device: torch.device, name: str) -> None:
    """Raise if labels of ``data`` do not fit what ``model``, which is on ``device``, answers to the first examples.

    All labels of a ``TensorDataset`` are looked at, and those of the first batch of a loader.
    """
    tensors = data.tensors if isinstance(data, TensorDataset) else None
    batch = tuple(tensor[:1] for tensor in tensors) if tensors else next(iter(data))
    with evaluating(model), torch.no_grad():
        logits = answer(model, to_device(batch, device))
    labels = labels_of(model, tensors or batch, name)
    check_labels(labels, logits.expand(len(labels), *logits.shape[1:]), f"{name} labels")


def _predictions(
    model: nn.Module, data: TensorDataset | DataLoader, batch_size: int, device: str | torch.device | None
) -> Iterator[tuple[Tensor, Batch]]:
    """The logits of each batch and the batch, in order, on the device that computes."""
    check_model(model)
    device = pick_device(device)
    in_order = batches(data, batch_size, device)
    with placed(model, device), evaluating(model), torch.no_grad():
        for batch in in_order:
            yield answer(model, batch), batch
