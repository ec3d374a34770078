"""What has to be true before a part of a model is removed for real."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.pruning.held import held_masks


def check_numbers(numbers: Sequence[int], count: int, what: str) -> list[int]:
    """``numbers`` as a list, if each is there once and is one of 0 to ``count`` - 1.

    Raises:
        TypeError: something that is no integer, or no sequence.
        ValueError: one that is out of range or there twice.
    """
    if isinstance(numbers, (str, int)):
        raise TypeError(f"the {what} are {numbers!r}; expected a list of whole numbers")
    numbers = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
    if wrong := [each for each in numbers if type(each) is bool or not hasattr(each, "__index__")]:
        raise TypeError(f"the {what} hold {wrong[0]!r}; expected whole numbers")
    if numbers and not 0 <= min(numbers) <= max(numbers) < count:
        wrong = next(each for each in numbers if not 0 <= each < count)
        raise ValueError(f"the {what} hold {wrong}; expected numbers from 0 to {count - 1}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"the {what} hold {next(n for n in numbers if numbers.count(n) > 1)} twice; expected it once")
    return [int(each) for each in numbers]


def check_no_masks(model: nn.Module) -> None:
    """Raise a ``ValueError`` if ``model`` holds masks: theirs would be the old shapes."""
    if any(held_masks(module) for module in model.modules()):
        raise ValueError("the model holds masks; expected one without: call release_masks(model) first")


def first_line(error: Exception) -> str:
    """What went wrong, in one line for a message."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return line if len(line) < 160 else f"{line[:160]}..."


def run_quietly(model: nn.Module, example: object) -> object:
    """What ``model`` gives for ``example``: a tensor, a tuple of arguments, or a dict of named ones; no gradients."""
    with torch.no_grad():
        if isinstance(example, Mapping):
            return model(**example)
        return model(*example) if isinstance(example, tuple) else model(example)
