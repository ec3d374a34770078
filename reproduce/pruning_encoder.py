"""Claims F4.20 to F4.24 (-encoder), on pruning a small encoder (``models.encoder``) that fills in a masked verb.

Which share of which layer? Magnitudes over all blocks together (global), in each layer alike (local), and what is often
advised for BERT: local in the early layers, or less there. Then blocks and heads, one at a time and together (for heads
Michel, Levy and Neubig 2019, arXiv 1905.10650). Only weights of the blocks are pruned: no embeddings, no classifier.

Sentences come from a grammar; the seed of a case is that of the sentences and of the encoder. Settings were tried on
the seeds 100 to 104, and fixed before the runs.
"""

import copy
import random
from dataclasses import replace
from functools import cache

from torch import nn
from torch.utils.data import TensorDataset

from course_lib.data.text import AGREEMENT_FIT, TextData, load_agreement
from course_lib.evaluation import evaluate
from course_lib.models.encoder import Encoder
from course_lib.pruning.criteria import magnitude, random_scores
from course_lib.pruning.depth import remove_layers
from course_lib.pruning.held import apply_masks, hold_masks
from course_lib.pruning.masks import Masks, global_masks, local_masks, sparsity_of
from course_lib.training import fit
from reproduce.record import Case, Experiment, Numbers

LAYERS, HEADS = 4, 4
SEEDS, MORE_SEEDS = range(5), range(20)
TILT = {0.7: 0.1, 0.8: 0.1, 0.9: 0.05}  # sparsity -> how much less the first block has of it, and the last one more
AGAIN, AGAIN_SPARSITY = replace(AGREEMENT_FIT, epochs=1), 0.95
SETTING = {"fit": AGREEMENT_FIT, "layers": LAYERS, "heads": HEADS, "width": 64, "hidden": 128}
GONE = (8, 12)  # of 16 heads
DRAWS, MEASURED_ON = 5, 500  # validation sentences
Head = tuple[int, int]  # block and number


@cache
def sentences(seed: int) -> TextData:
    """To learn, to choose heads by, to test."""
    return load_agreement(seed=seed)


@cache
def encoder(seed: int) -> nn.Module:
    """Trained; not to be changed."""
    data = sentences(seed)
    model = Encoder(
        len(data.vocabulary), data.num_classes, layers=LAYERS, heads=HEADS, max_length=data.length, seed=seed
    )
    fit(model, data.train, replace(AGREEMENT_FIT, seed=seed), progress=False)
    return model


def masks_of(model: nn.Module, method: str, sparsity: float, seed: int) -> Masks:
    """Masks for the weights of all blocks; ``sparsity`` is that of all together, whatever the method."""
    scores = random_scores(model, "blocks.*", seed=seed) if method == "random" else magnitude(model, "blocks.*")
    if method in ("local", "random"):
        return local_masks(scores, sparsity)
    if method == "global":
        return global_masks(scores, sparsity)
    if method == "local in the first block":
        first = {name: score for name, score in scores.items() if name.startswith("blocks.0.")}
        others = {name: score for name, score in scores.items() if name not in first}
        return local_masks(first, sparsity) | global_masks(others, sparsity)
    slope = {"gentle first": 1, "gentle last": -1}[method]
    steps = {block: slope * (2 * block / (LAYERS - 1) - 1) for block in range(LAYERS)}  # from -1 to 1
    shares = {f"blocks.{block}.*": sparsity + step * TILT[sparsity] for block, step in steps.items()}
    return local_masks(scores, shares)


def scope() -> Experiment:
    """How the same number of zeros may be spread over the blocks."""

    def run(case: Case) -> Numbers:
        numbers: Numbers = {}
        for sparsity in TILT:
            model = copy.deepcopy(encoder(case["seed"]))
            masks = masks_of(model, case["method"], sparsity, case["seed"])
            apply_masks(model, masks)
            numbers |= _accuracies(model, case["seed"], f"_at_{sparsity:.0%}")
            numbers[f"sparsity_of_blocks_at_{sparsity:.0%}"] = [round(share, 4) for share in _blocks(masks)]
        return numbers

    return Experiment(
        "pruning_encoder_scope",
        "How should zeros be spread over the layers of an encoder? (without retraining)",
        SETTING | {"tilt": TILT},
        _cases("local", "global", "local in the first block", "gentle first", "gentle last", seeds=MORE_SEEDS),
        run,
        notes=(
            "All methods have the same number of zeros. Gentle first: shares rise by equal steps from the first block "
            "to the last, by 20 points in all (10 at 90%); gentle last: the other way round.",
            "Hard sentences have three nouns of the other number between subject and verb.",
        ),
    )


def retrained() -> Experiment:
    """The same after one more epoch."""

    def run(case: Case) -> Numbers:
        model = copy.deepcopy(encoder(case["seed"]))
        hold_masks(model, masks_of(model, case["method"], AGAIN_SPARSITY, case["seed"]))
        numbers = _accuracies(model, case["seed"], "_before")
        fit(model, sentences(case["seed"]).train, replace(AGAIN, seed=case["seed"]), progress=False)
        return numbers | _accuracies(model, case["seed"])

    return Experiment(
        "pruning_encoder_retrained",
        f"Does it matter after one more epoch, how {AGAIN_SPARSITY:.0%} of zeros were spread? (encoder)",
        SETTING | {"sparsity": AGAIN_SPARSITY, "again": AGAIN},
        _cases("local", "global", "local in the first block", "random"),
        run,
        notes=("Random: random weights, the same share in every layer.",),
    )


def blocks() -> Experiment:
    """One block at a time."""

    def run(case: Case) -> Numbers:
        seed, block = case["seed"], int(case["method"].removeprefix("block "))
        pruned, removed = copy.deepcopy(encoder(seed)), copy.deepcopy(encoder(seed))
        before = evaluate(pruned, sentences(seed).test).loss
        apply_masks(pruned, local_masks(magnitude(pruned, f"blocks.{block}.*"), 0.9))
        remove_layers(removed, "blocks", [block], sentences(seed).test.tensors[0][:2])
        rise = evaluate(pruned, sentences(seed).test).loss - before
        parts = _accuracies(pruned, seed, "_at_90%"), _accuracies(removed, seed, "_removed")
        return {"loss_rise_at_90%": round(rise, 4)} | parts[0] | parts[1]

    return Experiment(
        "pruning_encoder_blocks",
        "Which block of an encoder suffers most from being pruned alone, which can be removed?",
        SETTING,
        _cases(*(f"block {block}" for block in range(LAYERS)), seeds=MORE_SEEDS),
        run,
        notes=("Block 0 is the first.",),
    )


def heads() -> Experiment:
    """Half of the heads, and three quarters."""

    def run(case: Case) -> Numbers:
        seed, method = case["seed"], case["method"]
        orders = _orders(seed, method)
        numbers: Numbers = {"importance": [round(value, 5) for value in importance(seed).values()]}
        for count in GONE:
            found = [_accuracies(without_heads(encoder(seed), order[:count]), seed) for order in orders]
            for key in found[0]:
                numbers[f"{key}_without_{count}"] = round(sum(entry[key] for entry in found) / len(found), 2)
        return numbers

    return Experiment(
        "pruning_encoder_heads",
        "How many of the 16 heads of an encoder can go? (without retraining)",
        SETTING | {"gone": GONE, "draws": DRAWS, "measured_on": MEASURED_ON},
        _cases("least important", "in rounds", "random", "most important", seeds=MORE_SEEDS),
        run,
        notes=(
            f"Importance: how far the loss on {MEASURED_ON} validation sentences rises without the head. In rounds: "
            f"the least important goes, then the others are measured again. Random: the mean of {DRAWS} draws.",
        ),
    )


@cache
def importance(seed: int) -> dict[Head, float]:
    """How far the validation loss rises without each head alone."""
    before = _loss(seed, ())
    every = [(block, head) for block in range(LAYERS) for head in range(HEADS)]
    return {head: _loss(seed, (head,)) - before for head in every}


def without_heads(model: nn.Module, gone: list[Head] | tuple[Head, ...]) -> nn.Module:
    """A copy in which these heads say nothing: what ``remove_heads`` takes out, and all heads of a block may go."""
    model = copy.deepcopy(model)
    for block, head in gone:
        attention = model.blocks[block].attention
        start = head * attention.head_dim
        attention.output.weight.data[:, start : start + attention.head_dim] = 0
    return model


def _orders(seed: int, method: str) -> list[list[Head]]:
    """In which order the heads go; several orders if it is random."""
    known = importance(seed)
    ordered = sorted(known, key=known.get)
    if method == "random":
        generator = random.Random(seed)
        return [generator.sample(ordered, len(ordered)) for _ in range(DRAWS)]
    if method != "in rounds":
        return [ordered if method == "least important" else ordered[::-1]]
    gone: list[Head] = []
    while len(gone) < max(GONE):
        left = [head for head in ordered if head not in gone]
        gone.append(min(left, key=lambda head: _loss(seed, (*gone, head))))
    return [gone]


def _loss(seed: int, gone: tuple[Head, ...]) -> float:
    some = TensorDataset(*(tensor[:MEASURED_ON] for tensor in sentences(seed).validation.tensors))
    return evaluate(without_heads(encoder(seed), gone), some).loss


def _accuracies(model: nn.Module, seed: int, suffix: str = "") -> Numbers:
    return {
        f"{name}_accuracy{suffix}": _percent(model, data)
        for name, data in (("test", sentences(seed).test), ("hard", sentences(seed).hard))
    }


def _percent(model: nn.Module, data: TensorDataset) -> float:
    return round(100 * evaluate(model, data).accuracy, 2)


def _blocks(masks: Masks) -> list[float]:
    """The sparsity of each block."""
    return [
        sparsity_of({name: mask for name, mask in masks.items() if name.startswith(f"blocks.{block}.")})
        for block in range(LAYERS)
    ]


def _cases(*methods: str, seeds: range = SEEDS) -> list[Case]:
    return [{"seed": seed, "method": method} for seed in seeds for method in methods]


EXPERIMENTS = (scope, retrained, blocks, heads)
