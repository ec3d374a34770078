"""What the sparsity widget shows, in numbers: masks, accuracy and bytes for every position of its controls.

A model is cut once, without any training afterwards ("one shot"). The accuracies of all positions are measured when
the widget is made, so that a move only has to draw.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.device import check_model
from course_lib.evaluation import evaluate
from course_lib.pruning.masks import Masks, Scores, global_masks, local_masks, n_m_masks, sparsity_of
from course_lib.storage.sparse import LAYOUTS, layout_bytes, storage_bytes

GLOBAL, LOCAL, TWO_OF_FOUR = SCOPES = ("global", "local", "2:4")
# Finer where the accuracy falls: a step from 98 to 99% halves the network, one from 0 to 5% takes a twentieth.
SPARSITIES = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.82, 0.84, 0.86, 0.88),
    *(0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1.0),
)


@dataclass(frozen=True)
class Outcome:
    """One position of the controls and what comes of it.

    ``sparsity`` is the share that is really pruned. ``bytes`` is the size of the masked weights, all layers together,
    by layout; 2:4 is missing where the masks do not have that pattern.
    """

    criterion: str
    scope: str
    sparsity: float
    masks: Masks
    accuracy: float
    full_accuracy: float
    bytes: dict[str, int]


class Trials:
    """Prune a copy of ``model`` in every way; the model itself is never changed, nor are the scores.

    Args:
        model: gives logits (N, C).
        data: what the accuracy is measured on, (inputs, labels).
        scores: name of a criterion -> the score of each weight, by parameter name; all of the same weights.
        sparsities: the positions of the slider, rising, each from 0 to 1.

    Raises:
        TypeError: the model or the data are of another type.
        ValueError: no criterion, scores that are not those of weights of the model or differ in their names, scores
            with nan; sparsities that do not rise or leave [0, 1]; data that ``evaluate`` refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TensorDataset | DataLoader,
        scores: Mapping[str, Scores],
        sparsities: Sequence[float] = SPARSITIES,
    ) -> None:
        check_model(model)
        self.scores = _checked_scores(model, scores)
        self.sparsities = _checked_sparsities(sparsities)
        self.data = data
        self.copy = copy.deepcopy(model).cpu()
        parameters = dict(self.copy.named_parameters())
        self.weights = {name: parameters[name] for name in self.names}
        self.values = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.full_accuracy = evaluate(self.copy, data, device="cpu").accuracy
        self._accuracies: dict[tuple[str, str, float], float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that may be pruned."""
        return tuple(next(iter(self.scores.values())))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of them."""
        return {name: tuple(value.shape) for name, value in self.values.items()}

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that these layers allow: 2:4 needs inputs in groups of four."""
        fours = all(shape[1] % 4 == 0 for shape in self.shapes.values())
        return SCOPES if fours else SCOPES[:2]

    @property
    def bytes_before(self) -> dict[str, int]:
        """Bytes by layout with every weight kept; for 2:4 those after half of them are gone, if it is possible."""
        sizes = {}
        for layout in LAYOUTS if TWO_OF_FOUR in self.scopes else LAYOUTS[:3]:
            share = 2 if layout == TWO_OF_FOUR else 1
            counts = [(shape, math.prod(shape) // share) for shape in self.shapes.values()]
            sizes[layout] = sum(layout_bytes(shape, count, layout) for shape, count in counts)
        return sizes

    def check(self, criterion: str, scope: str) -> None:
        """Raise ValueError if the controls have no such position."""
        for name, value, known in (("criterion", criterion, tuple(self.scores)), ("scope", scope, self.scopes)):
            if value not in known:
                more = "; 2:4 needs layers whose inputs are a multiple of 4" if value == TWO_OF_FOUR else ""
                raise ValueError(f"{name} is {value!r}; expected one of {list(known)}{more}")

    def masks(self, criterion: str, scope: str, sparsity: float) -> Masks:
        """The masks of one position; with scope 2:4 half is pruned, whatever ``sparsity`` says."""
        self.check(criterion, scope)
        if scope == TWO_OF_FOUR:
            return n_m_masks(self.scores[criterion], 2, 4)
        cut = global_masks if scope == GLOBAL else local_masks
        return cut(self.scores[criterion], sparsity)

    def accuracy(self, criterion: str, scope: str, sparsity: float) -> float:
        """The share of right answers with these masks, measured at the first call."""
        key = criterion, scope, 0.5 if scope == TWO_OF_FOUR else sparsity
        if key not in self._accuracies:
            masks = self.masks(criterion, scope, sparsity)
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(self.values[name] * masks[name])
            self._accuracies[key] = evaluate(self.copy, self.data, device="cpu").accuracy
        return self._accuracies[key]

    def curve(self, criterion: str, scope: str) -> tuple[list[float], list[float]]:
        """Sparsities and accuracies of all positions of the slider; for 2:4 the one point that there is."""
        sparsities = [0.5] if scope == TWO_OF_FOUR else list(self.sparsities)
        return sparsities, [self.accuracy(criterion, scope, sparsity) for sparsity in sparsities]

    def outcome(self, criterion: str, scope: str, sparsity: float) -> Outcome:
        """All that there is to show at one position."""
        masks = self.masks(criterion, scope, sparsity)
        return Outcome(
            criterion=criterion,
            scope=scope,
            sparsity=sparsity_of(masks),
            masks=masks,
            accuracy=self.accuracy(criterion, scope, sparsity),
            full_accuracy=self.full_accuracy,
            bytes=masked_bytes(masks),
        )


def masked_bytes(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes of the weights under ``masks`` (R, C) or (R, ...), all layers together, for each layout that they fit."""
    fits = all(is_two_of_four(mask) for mask in masks.values())
    layouts = [layout for layout in LAYOUTS if fits or layout != TWO_OF_FOUR]
    return {layout: sum(storage_bytes(mask, layout) for mask in masks.values()) for layout in layouts}


def is_two_of_four(mask: Tensor) -> bool:
    """Whether at most 2 of every 4 neighbours along the inputs, dimension 1 of ``mask``, are kept."""
    if mask.shape[1] % 4:
        return False
    return int(mask.transpose(1, -1).unflatten(-1, (-1, 4)).sum(dim=-1).max()) <= 2


def _checked_scores(model: nn.Module, scores: Mapping[str, Scores]) -> dict[str, dict[str, Tensor]]:
    """A copy of ``scores`` on the CPU, if each criterion scores the same weights of ``model``."""
    if not isinstance(scores, Mapping) or not scores or not all(isinstance(s, Mapping) for s in scores.values()):
        raise ValueError("scores are not understood; expected {'magnitude': magnitude(model), ...}, one or more")
    parameters = {name: parameter.shape for name, parameter in model.named_parameters()}
    names = tuple(next(iter(scores.values())))
    for criterion, given in scores.items():
        if not given or set(given) != set(names):
            raise ValueError(f"scores {criterion!r} are of {list(given)}; expected one or more, and the same for all")
        for name, score in given.items():
            if name not in parameters:
                raise ValueError(f"scores {criterion!r} are of {name!r}; expected weights among {list(parameters)}")
            if score.shape != parameters[name] or score.dim() < 2:
                shape, expected = tuple(score.shape), tuple(parameters[name])
                more = "" if score.dim() > 1 else ", of two or more dimensions"
                raise ValueError(f"scores {criterion!r} of {name!r} have shape {shape}; expected {expected}{more}")
    return {key: {name: given[name].detach().cpu() for name in names} for key, given in scores.items()}


def _checked_sparsities(sparsities: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(value) for value in sparsities)
    inside = all(0 <= value <= 1 for value in values)  # not so for nan
    if not values or not inside or list(values) != sorted(set(values)):
        raise ValueError(f"sparsities are {list(values)}; expected rising shares of the weights, from 0 to 1")
    return values
