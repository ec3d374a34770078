"""The settings of pruning in rounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from course_lib.checking import check_choice, check_number, check_share
from course_lib.layers import Targets


@dataclass(frozen=True)
class PruningConfig:
    """How to prune in rounds.

    Attributes:
        rounds: how often the network is pruned; 0 trains it only. One-shot pruning to a sparsity s is
            ``rounds=1, rate=s``.
        rate: the share of the weights that are left which each round prunes.
        rates: other shares for some layers, by name or pattern of their weights; only with local scope.
        rewind_step: k, the step of the dense training whose weights, or schedule, each round goes back to.
        retrain: what a round begins with; see the table in ``lottery.py``.
        fine_tune_rate: the learning rate for "fine-tune", if not that of the last step of the schedule.
        scope: compare magnitudes within each layer, or over all layers.
        targets: the layers that are pruned, as for ``layers.find_layers``.
    """

    rounds: int
    rate: float = 0.2
    rates: Mapping[str, float] | None = None
    rewind_step: int = 0
    retrain: Literal["rewind", "learning-rate", "fine-tune"] = "rewind"
    fine_tune_rate: float | None = None
    scope: Literal["local", "global"] = "local"
    targets: Targets | None = None

    def __post_init__(self) -> None:
        check_number("rounds", self.rounds, whole=True, least=0)
        check_number("rewind_step", self.rewind_step, whole=True, least=0)
        check_choice("retrain", self.retrain, ("rewind", "learning-rate", "fine-tune"))
        check_choice("scope", self.scope, ("local", "global"))
        check_share("rate", self.rate)
        for name, share in (self.rates or {}).items():
            check_share(f"the rate of {name}", share)
        if self.rates and self.scope == "global":
            raise ValueError("rates are given for single layers, but scope is 'global'; expected scope 'local'")
        if self.fine_tune_rate is not None and (self.retrain != "fine-tune" or not 0 < self.fine_tune_rate < math.inf):
            raise ValueError(
                f"fine_tune_rate is {self.fine_tune_rate!r} and retrain {self.retrain!r}; "
                "expected a number above 0, with retrain 'fine-tune'"
            )
