"""Wrong answers that learners really give to ps2_pruning, exercises 1 to 6, and the message meant for each."""

from tests.exercises.mutants import Mutant, family

MUTANTS: list[Mutant] = []


def _family(check: str, template: str, variants: dict[str, tuple[str, str]]) -> None:
    MUTANTS.extend(family(check, template, variants))


# --- 1. Which weights go? ---------------------------------------------------------------------------------------------

_family(
    "check-prune-globally",
    """
def prune_globally(weights, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(sparsity)
    layers = {n: w for n, w in weights.items() if w.dim() > 1}
    sizes = torch.cat([w.abs().flatten() for w in layers.values()])
    total = len(sizes)
    k, descending = round(sparsity * total), False
    BODY
    kept = torch.ones(len(sizes), dtype=torch.bool)
    kept[sizes.argsort(stable=True, descending=descending)[:k]] = False
    parts = kept.split([w.numel() for w in layers.values()])
    return {n: p.reshape(w.shape) for (n, w), p in zip(layers.items(), parts)}
""",
    {
        "sorted the wrong way": ("descending = True", "the largest weights are pruned"),
        "keeps the share": ("k = total - k", "0.4 of the weights are kept"),
        "sign not dropped": (
            "sizes = torch.cat([w.flatten() for w in layers.values()])",
            "ranked with their sign",
        ),
        "one too many": ("k = k + 1", "one weight too many"),
        "one too few": ("k = k - 1", "one weight too few"),
        "cut off": ("k = int(sparsity * total)", "k is cut off; round it"),
        "rounded up": ("k = math.ceil(sparsity * total - 1e-9)", "k is rounded up"),
        "biases pruned": (
            "layers = weights; sizes = torch.cat([w.abs().flatten() for w in layers.values()]); k = round(sparsity * len(sizes))",
            "the biases are pruned too",
        ),
        "biases counted": (
            "k = round(sparsity * sum(w.numel() for w in weights.values()))",
            "N does not count the biases",
        ),
        "layer by layer": (
            "return {n: torch.ones(w.numel()).index_fill(0, w.abs().flatten().argsort()[:round(sparsity * w.numel())], 0)"
            ".reshape(w.shape) for n, w in layers.items()}",
            "each layer is ranked by itself",
        ),
        "threshold, ties pruned": (
            "if k:\n        t = sizes.sort().values[k - 1]\n        return {n: w.abs() > t for n, w in layers.items()}",
            "all weights as small as the k-th smallest go",
        ),
        "threshold, ties kept": (
            "if 0 < k < total:\n        t = sizes.sort().values[k]\n        return {n: w.abs() >= t for n, w in layers.items()}",
            "none of the weights that equal the threshold go",
        ),
        "threshold off by one": (
            "if k:\n        t = sizes.sort().values[k - 1]\n        return {n: w.abs() >= t for n, w in layers.items()}",
            "one weight too few",
        ),
        "weights for masks": (
            "t = sizes.sort().values[k]\n    return {n: w * (w.abs() >= t) for n, w in layers.items()}",
            "these are weights with zeros in them",
        ),
        "upside down": (
            "t = sizes.sort().values[k]\n    return {n: w.abs() < t for n, w in layers.items()}",
            "the mask is upside down",
        ),
        "one long mask": ("return sizes > sizes.sort().values[k - 1]", "expected a dict with the keys"),
        "no return": ("return None", "Is there a return"),
    },
)
_UNGUARDED = """
def prune_globally(weights, sparsity):
    GUARD
    layers = {n: w for n, w in weights.items() if w.dim() > 1}
    sizes = torch.cat([w.abs().flatten() for w in layers.values()])
    kept = torch.ones(len(sizes))
    kept[sizes.argsort(stable=True)[:round(sparsity * len(sizes))]] = 0
    parts = kept.split([w.numel() for w in layers.values()])
    return {n: p.reshape(w.shape) for (n, w), p in zip(layers.items(), parts)}
"""
MUTANTS += [
    Mutant("check-prune-globally", "no guard", _UNGUARDED.replace("GUARD", "pass"), "a sparsity of 1.5: was accepted"),
    Mutant(
        "check-prune-globally",
        "guard above only",
        _UNGUARDED.replace("GUARD", "if sparsity > 1: raise ValueError"),
        "a sparsity of -0.1: was accepted",
    ),
    Mutant(
        "check-prune-globally",
        "open interval",
        _UNGUARDED.replace("GUARD", "if not 0 < sparsity < 1: raise ValueError('sparsity must lie between 0 and 1')"),
        "sparsity must lie between 0 and 1",
    ),
]

_family(
    "check-prune-locally",
    """
def prune_locally(weights, sparsities):
    layers = {n: w for n, w in weights.items() if w.dim() > 1}
    if set(sparsities) - set(layers):
        raise ValueError(sparsities)
    def one(w, k):
        kept = torch.ones(w.numel(), dtype=torch.bool)
        kept[w.abs().flatten().argsort(stable=True)[:k]] = False
        return kept.reshape(w.shape)
    masks = {n: one(w, round(sparsities.get(n, 0.0) * w.numel())) for n, w in layers.items()}
    BODY
    return masks
""",
    {
        "upside down": ("masks = {n: ~m for n, m in masks.items()}", "the masks are upside down"),
        "sorted the wrong way": (
            "masks = {n: one(1 / w, round(sparsities.get(n, 0.0) * w.numel())) for n, w in layers.items()}",
            "the largest weights are pruned",
        ),
        "sign not dropped": (
            "masks = {n: one((w - w.min()), round(sparsities.get(n, 0.0) * w.numel())) for n, w in layers.items()}",
            "ranked with their sign",
        ),
        "one sparsity for all": (
            "s = next(iter(sparsities.values())); masks = {n: one(w, round(s * w.numel())) for n, w in layers.items()}",
            "the sparsity of the first",
        ),
        "the last sparsity for all": (
            "s = list(sparsities.values())[-1]; masks = {n: one(w, round(s * w.numel())) for n, w in layers.items()}",
            "the sparsity of the last",
        ),
        "one ranking": (
            "sizes = torch.cat([w.abs().flatten() for w in layers.values()]).sort().values\n"
            "    k = round(sum(sparsities.get(n, 0.0) * w.numel() for n, w in layers.items()))\n"
            "    masks = {n: w.abs() >= sizes[k] for n, w in layers.items()}",
            "all layers stand in one ranking",
        ),
        "unnamed layers missing": ("masks = {n: masks[n] for n in sparsities}", "missing from the answer"),
        "unnamed layers pruned": (
            "masks = {n: one(w, round(sparsities.get(n, 0.5) * w.numel())) for n, w in layers.items()}",
            "a layer that is not named is pruned",
        ),
        "cut off": (
            "masks = {n: one(w, int(sparsities.get(n, 0.0) * w.numel())) for n, w in layers.items()}",
            "k is cut off",
        ),
        "rounded up": (
            "masks = {n: one(w, math.ceil(sparsities.get(n, 0.0) * w.numel() - 1e-9)) for n, w in layers.items()}",
            "k is rounded up",
        ),
        "by order, not by name": (
            "s = list(sparsities.values()) + [0.0]; masks = {n: one(w, round(v * w.numel())) for (n, w), v in zip(layers.items(), s)}"
            "\n    if len(sparsities) < 2: masks = {n: one(w, round(sparsities.get(n, 0.0) * w.numel())) for n, w in layers.items()}",
            "by their order in the dict",
        ),
        "threshold, ties pruned": (
            "for n, w in layers.items():\n"
            "        k = round(sparsities.get(n, 0.0) * w.numel())\n"
            "        masks[n] = w.abs() > (w.abs().flatten().sort().values[k - 1] if k else -1)",
            "all weights as small as the k-th smallest go",
        ),
    },
)
_LOCAL = """
def prune_locally(weights, sparsities):
    masks = {}
    for name, w in weights.items():
        if w.dim() > 1:
            kept = torch.ones(w.numel())
            kept[w.abs().flatten().argsort()[:round(sparsities.get(name, 0.0) * w.numel())]] = 0
            masks[name] = kept.reshape(w.shape)
    BODY
    return masks
"""
_family(
    "check-prune-locally",
    _LOCAL,
    {
        "unknown names pass in silence": ("", "a layer named fc3.weight, which is not there: was accepted"),
        "KeyError for ValueError": ("{name: masks[name] for name in sparsities}", "raised KeyError"),
        "a bias passes in silence": (
            "if set(sparsities) - set(weights): raise ValueError(sparsities)",
            "a bias among the layers to prune: was accepted",
        ),
    },
)

# --- 2. Two of every four ---------------------------------------------------------------------------------------------

_family(
    "check-n-m-mask",
    """
def n_m_mask(weight, n, m):
    outputs, inputs = weight.shape
    if inputs % m or n > m:
        raise ValueError((n, m))
    def keep(sizes, n):
        return torch.zeros_like(sizes).scatter(-1, sizes.topk(n, -1).indices, 1)
    groups = weight.abs().reshape(-1, m)
    BODY
    return keep(groups, n).reshape(weight.shape)
""",
    {
        "upside down": ("return 1 - keep(groups, n).reshape(weight.shape)", "the mask is upside down"),
        "smallest kept": ("return keep(-groups, n).reshape(weight.shape)", "upside down: the smallest are kept"),
        "n go instead of stay": ("return keep(groups, m - n).reshape(weight.shape)", "one of four goes and three stay"),
        "always two": ("return keep(groups, 2).reshape(weight.shape)", "two are kept whatever n says"),
        "down the columns": (
            "return keep(weight.abs().T.reshape(-1, m), n).reshape(inputs, outputs).T if outputs % m == 0 else keep(groups, n).reshape(weight.shape)",
            "run down the columns",
        ),
        "sign not dropped": ("groups = weight.reshape(-1, m)", "compared with their sign"),
        "half of everything": (
            "return keep(weight.abs().reshape(1, -1), weight.numel() * n // m).reshape(weight.shape)",
            "half of the whole matrix is kept",
        ),
        "half of each row": (
            "return keep(weight.abs(), inputs * n // m)",
            "half of each row is kept",
        ),
        "n of each row": ("return keep(weight.abs(), n)", "two of each row are kept"),
        "every m-th column": (
            "return keep(weight.abs().reshape(outputs, m, -1).transpose(1, 2), n).transpose(1, 2).reshape(weight.shape)",
            "exactly two of each four neighbours",
        ),
        "threshold, ties kept": (
            "return (groups >= groups.topk(n, -1).values[:, -1:]).reshape(weight.shape)",
            "all that equal the n-th largest are kept",
        ),
        "threshold, ties pruned": (
            "low = groups.sort(-1).values[:, m - n - 1 : m - n] if n < m else -1\n    return (groups > low).reshape(weight.shape)",
            "none that equal the threshold are kept",
        ),
        "weights for masks": (
            "return weight * keep(groups, n).reshape(weight.shape)",
            "these are weights with zeros in them",
        ),
        "left in groups": ("return keep(groups, n)", "the shape is"),
    },
)
_family(
    "check-n-m-mask",
    """
def n_m_mask(weight, n, m):
    BODY
    out = torch.zeros_like(weight)
    for start in range(0, weight.shape[1], m):
        part = weight[:, start : start + m].abs()
        out[:, start : start + m] = torch.zeros_like(part).scatter(1, part.topk(min(n, part.shape[1]), 1).indices, 1)
    return out
""",
    {
        "the rest is a group too": ("if n > m: raise ValueError", "6 inputs in groups of 4: was accepted"),
        "n above m passes": ("if weight.shape[1] % m: raise ValueError", "5 of every 4: was accepted"),
    },
)

# --- 3. What is a weight worth? ---------------------------------------------------------------------------------------

_family(
    "check-taylor-scores",
    """
def taylor_scores(weights, batches):
    names = [n for n, w in weights.items() if w.dim() > 1]
    def slope(x, y):
        copies = {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
        return dict(zip(names, torch.autograd.grad(loss_of(copies, x, y), [copies[n] for n in names])))
    slopes, sizes = [slope(x, y) for x, y in batches], [len(y) for _, y in batches]
    total = sum(sizes)
    g = {n: sum(s[n] * k for s, k in zip(slopes, sizes)) / total for n in names}
    BODY
    return {n: (g[n] * weights[n]).abs() for n in names}
""",
    {
        "no absolute value": ("return {n: g[n] * weights[n] for n in names}", "some scores are negative"),
        "minus": ("return {n: -g[n].abs() * weights[n].abs() for n in names}", "some scores are negative"),
        "squares": ("return {n: (g[n] * weights[n]) ** 2 for n in names}", "squares of gradient times weight"),
        "mean of means": (
            "g = {n: sum(s[n] for s in slopes) / len(slopes) for n in names}",
            "the small batch counts as much",
        ),
        "sum over the examples": ("g = {n: g[n] * total for n in names}", "summed over the examples"),
        "sum of the batches' means": ("g = {n: sum(s[n] for s in slopes) for n in names}", "means are added up"),
        "last batch": ("g = slopes[-1]", "only the last batch counts"),
        "first batch": ("g = slopes[0]", "only the first batch counts"),
        "absolute before the sum": (
            "g = {n: sum(s[n].abs() * k for s, k in zip(slopes, sizes)) / total for n in names}",
            "the absolute value is taken batch by batch",
        ),
        "absolute for each example": (
            "each = [slope(x[i:i + 1], y[i:i + 1]) for x, y in batches for i in range(len(y))]\n"
            "    g = {n: sum(s[n].abs() for s in each) / total for n in names}",
            "the absolute value is taken example by example",
        ),
        "gradient alone": ("return {n: g[n].abs() for n in names}", "not yet multiplied by the weights"),
        "weight squared": ("return {n: (g[n] * weights[n] ** 2).abs() for n in names}", "square of the weight"),
        "magnitude": ("return {n: weights[n].abs() for n in names}", "no gradient is in them"),
        "one number a layer": ("return {n: (g[n] * weights[n]).abs().sum() for n in names}", "the shape is ()"),
        "biases scored": (
            "return {n: torch.zeros_like(w) if w.dim() < 2 else (g[n] * w).abs() for n, w in weights.items()}",
            "expected the keys hidden.weight, output.weight",
        ),
        "in place": ("for n in names:\n        weights[n].grad.zero_()", "AttributeError"),
    },
)
MUTANTS.append(
    Mutant(
        "check-taylor-scores",
        "nothing asks for a gradient",
        "def taylor_scores(weights, batches):\n    loss = sum(loss_of(weights, x, y) for x, y in batches)\n"
        "    loss.backward()\n    return {n: (w * w.grad).abs() for n, w in weights.items() if w.dim() > 1}\n",
        "does not require grad",
    )
)

_ORACLE = """
PREDICTED
def leave_one_out(weights, x, y):
    base, result = loss_of(weights, x, y), {}
    for name, weight in weights.items():
        if weight.dim() > 1:
            rises = []
            for i in range(weight.numel()):
                less = weight.clone()
                less.view(-1)[i] = 0
                rises.append(loss_of({**weights, name: less}, x, y) - base)
            result[name] = torch.stack(rises).reshape(weight.shape)
    LOOP
    return result

def _both(scores, size=True):
    row = torch.cat([scores[n].flatten() for n in ("hidden.weight", "output.weight")])
    return row.abs() if size else row

agreement = {}
for _steps in (10, 100):
    _net = train(START, {}, 0, _steps)
    _truth = _both(leave_one_out(_net, TRAIN_X, TRAIN_Y))
    _scores = {"magnitude": _net, "taylor": taylor_scores(_net, [(TRAIN_X, TRAIN_Y)])}
    agreement[_steps] = {c: rank_correlation(_both(s), _truth) for c, s in _scores.items()}
MEASURED
"""


def _oracle(name: str, message: str, *, predicted: str = "", loop: str = "", measured: str = "") -> Mutant:
    source = _ORACLE.replace("PREDICTED", predicted or 'predicted = {10: "magnitude", 100: "taylor"}')
    return Mutant("check-leave-one-out", name, source.replace("LOOP", loop).replace("MEASURED", measured), message)


MUTANTS += [
    _oracle("sign", "the sign is wrong", loop="result = {n: -r for n, r in result.items()}"),
    _oracle("loss itself", "Subtract the loss", loop="result = {n: r + base for n, r in result.items()}"),
    _oracle("sizes", "the sign got lost", loop="result = {n: r.abs() for n, r in result.items()}"),
    _oracle("relative", "relative to the loss", loop="result = {n: r / base for n, r in result.items()}"),
    _oracle(
        "not put back",
        "stay removed",
        loop="now = {n: w.clone() for n, w in weights.items()}\n    for n, r in result.items():\n"
        "        for i in range(r.numel()):\n            now[n].view(-1)[i] = 0\n"
        "            r.view(-1)[i] = loss_of(now, x, y) - base",
    ),
    _oracle(
        "all but one",
        "all weights of a layer but one are removed",
        loop="for n, r in result.items():\n        for i in range(r.numel()):\n"
        "            one = torch.zeros_like(r)\n            one.view(-1)[i] = weights[n].view(-1)[i]\n"
        "            r.view(-1)[i] = loss_of({**weights, n: one}, x, y) - base",
    ),
    _oracle("no prediction", "make a prediction first", predicted="predicted = {10: None, 100: None}"),
    _oracle("one prediction", "make a prediction first", predicted='predicted = "taylor"'),
    _oracle("not measured", "store a number from -1 to 1", measured="agreement = {10: {}, 100: {}}"),
    _oracle(
        "swapped",
        "magnitude and taylor are swapped",
        measured='agreement = {s: {"magnitude": a["taylor"], "taylor": a["magnitude"]} for s, a in agreement.items()}',
    ),
    _oracle(
        "steps swapped", "10 and 100 steps are swapped", measured="agreement = {10: agreement[100], 100: agreement[10]}"
    ),
    _oracle(
        "signed oracle",
        "went in with their sign",
        measured="for _steps in (10, 100):\n    _net = train(START, {}, 0, _steps)\n"
        "    _truth = _both(leave_one_out(_net, TRAIN_X, TRAIN_Y), False)\n"
        '    _scores = {"magnitude": _net, "taylor": taylor_scores(_net, [(TRAIN_X, TRAIN_Y)])}\n'
        "    agreement[_steps] = {c: rank_correlation(_both(s), _truth) for c, s in _scores.items()}",
    ),
    _oracle(
        "values for ranks",
        "correlation of the values",
        measured="for _steps in (10, 100):\n    _net = train(START, {}, 0, _steps)\n"
        "    _truth = _both(leave_one_out(_net, TRAIN_X, TRAIN_Y))\n"
        '    _scores = {"magnitude": _net, "taylor": taylor_scores(_net, [(TRAIN_X, TRAIN_Y)])}\n'
        "    agreement[_steps] = {c: float(np.corrcoef(_both(s), _truth)[0, 1]) for c, s in _scores.items()}",
    ),
]

# --- 4. Find the bug: the weights that came back ----------------------------------------------------------------------

_LEFT = '\nsparsity_left = {"with the bug": 0.2, "gradient masked": 0.2}\n'


def _loop(
    name: str, message: str, body: str, *, before: str = "pass", after: str = "pass", left: str = _LEFT
) -> Mutant:
    source = (
        "def train_pruned(weight, mask, velocity, x, y, steps):\n"
        "    dense, mask = weight, mask.to(weight.dtype)\n    weight = weight * mask\n"
        f"    {before}\n    for _ in range(steps):\n        {body}\n    {after}\n    return weight\n"
    )
    return Mutant("check-train-pruned", name, source + left, message)


_STEP = "velocity = MOMENTUM * velocity + slope_of(weight, x, y); "
_RIGHT = _STEP + "weight = (weight - LEARNING_RATE * velocity) * mask"
MUTANTS += [
    _loop("bug left in", "the bug is still there", _STEP + "weight = weight - LEARNING_RATE * velocity"),
    _loop(
        "mask at the end",
        "set to 0 at the end",
        _STEP + "weight = weight - LEARNING_RATE * velocity",
        after="weight = weight * mask",
    ),
    _loop(
        "gradient masked",
        "the momentum carries it",
        "velocity = MOMENTUM * velocity + slope_of(weight, x, y) * mask; weight = weight - LEARNING_RATE * velocity",
    ),
    _loop(
        "mask before the step",
        "before each step and not after the last",
        "weight = weight * mask; " + _STEP + "weight = weight - LEARNING_RATE * velocity",
    ),
    _loop(
        "first step dense",
        "the first step still saw the pruned weight",
        _RIGHT,
        before="weight = dense if steps else weight",
    ),
    _loop("upside down", "the mask is upside down", _RIGHT, before="mask = 1 - mask; weight = dense * mask"),
    _loop("fresh velocity", "thrown away at the start", _RIGHT, before="velocity = torch.zeros_like(velocity)"),
    _loop(
        "no momentum",
        "without momentum",
        "weight = (weight - LEARNING_RATE * slope_of(weight, x, y)) * mask",
    ),
    _loop("one step too few", "one step too few", _RIGHT, before="steps = steps - 1"),
    _loop("one step too many", "one step too many", _RIGHT, before="steps = steps + 1 if steps else 0"),
    _loop("dense without steps", "the weight is not pruned", _RIGHT, before="weight = dense * (mask if steps else 1)"),
    _loop("not measured", "measure, and store a share", _RIGHT, left="\nsparsity_left = {}\n"),
    _loop(
        "sparsity of the mask",
        "0.75 is the sparsity of the mask",
        _RIGHT,
        left='\nsparsity_left = {"with the bug": 0.75, "gradient masked": 0.75}\n',
    ),
    _loop(
        "density",
        "share of weights that are not 0",
        _RIGHT,
        left='\nsparsity_left = {"with the bug": 1 - 0.2, "gradient masked": 1 - 0.2}\n',
    ),
    _loop(
        "share of the pruned",
        "a share of the pruned weights",
        _RIGHT,
        left='\nsparsity_left = {"with the bug": 0.2 / 0.75, "gradient masked": 0.2}\n',
    ),
    _loop(
        "velocity masked too",
        "Mask the gradient and nothing else",
        _RIGHT,
        left='\nsparsity_left = {"with the bug": 0.2, "gradient masked": 0.75}\n',
    ),
]

# --- 5. The winning ticket --------------------------------------------------------------------------------------------

_IMP = """
def _lowest(weights, count):
    names = ("hidden.weight", "output.weight")
    kept = torch.ones(132, dtype=torch.bool)
    kept[torch.cat([weights[n].abs().flatten() for n in names]).argsort(stable=True)[:count]] = False
    return {"hidden.weight": kept[:96].reshape(12, 8), "output.weight": kept[96:].reshape(3, 12)}

def _on(weights, masks):
    return {n: v * masks[n] if n in masks else v for n, v in weights.items()}

def find_ticket(start, rounds, rate, rewind_step):
    k = rewind_step
    rewound = train(start, {}, 0, k)
    masks, now = [], rewound
    share = lambda j: round((1 - (1 - rate) ** j) * 132)
    rank, back, first = (lambda trained: trained), (lambda trained: rewound), k
    BEFORE
    for j in range(1, rounds + 1):
        used = masks[-1] if masks else {}
        trained = train(now, used, first, LAST_STEP)
        masks.append(_lowest(rank(trained), share(j)))
        now = back(trained)
    ticket = _on(rewound, masks[-1])
    AFTER
    return masks, ticket
"""


def _imp(name: str, message: str, before: str = "pass", after: str = "pass") -> Mutant:
    source = _IMP.replace("BEFORE", before).replace("AFTER", after)
    return Mutant("check-find-ticket", name, source, message)


MUTANTS += [
    _imp("rate of all weights", "not of those that are left", "share = lambda j: round(rate * j * 132)"),
    _imp("rate is kept", "the rate is what is kept", "share = lambda j: round((1 - rate**j) * 132)"),
    _imp("each round like the first", "as if it were the first", "share = lambda j: round(rate * 132)"),
    _imp("one shot", "one-shot pruning", "share = lambda j: round((1 - (1 - rate) ** rounds) * 132)"),
    _imp("a round ahead", "one round ahead", "s = share; share = lambda j: s(j + 1)"),
    _imp("a round behind", "one round behind", "s = share; share = lambda j: s(j - 1)"),
    _imp("one round too few", "three rounds give three dicts", "rounds = max(rounds - 1, 1)"),
    _imp("the last masks alone", "three rounds give three dicts", after="masks = masks[-1:]"),
    _imp("ranked before training", "by their size before training", "rank = lambda trained: rewound"),
    _imp(
        "layer by layer",
        "one ranking over both layers",
        "rank = lambda trained: {n: v.abs().flatten().argsort().argsort().reshape(v.shape) / v.numel() for n, v in trained.items()}",
    ),
    _imp(
        "largest pruned",
        "does not prune the smallest",
        "rank = lambda trained: {n: 1 / (v.abs() + 1e-9) for n, v in trained.items()}",
    ),
    _imp(
        "dense network trained again",
        "a weight that was pruned in one round is back",
        "rank = lambda trained: train(initialise(1), {}, 0, LAST_STEP) if masks else trained",
    ),
    _imp("trained once", "only one training", "dense = train(rewound, {}, k, LAST_STEP); rank = lambda trained: dense"),
    _imp("never rewound", "training goes on from the trained weights", "back = lambda trained: trained"),
    _imp("trained values", "the network as it was trained last", after="ticket = trained"),
    _imp("trained values, masked", "keep their trained values", after="ticket = _on(trained, masks[-1])"),
    _imp(
        "trained dense values",
        "of the trained dense network",
        after="ticket = _on(train(start, {}, 0, LAST_STEP), masks[-1])",
    ),
    _imp("fresh values", "hidden.weight: got an array", after="ticket = _on(initialise(7), masks[-1])"),
    _imp("not masked", "the pruned weights are not 0", after="ticket = rewound"),
    _imp(
        "biases not rewound",
        "the biases are not",
        after="ticket.update({n: v for n, v in trained.items() if n not in masks[-1]})",
    ),
    _imp("biases missing", "A ticket is a whole network", after="ticket = {n: ticket[n] for n in masks[-1]}"),
    _imp("rewind step ignored", "rewound to step 0", "k = first = 0; rewound = now = start"),
    _imp("ticket of step 0", "these are the weights of step 0", after="ticket = _on(start, masks[-1])"),
    _imp("trained from step 0 again", "training starts at step 0 again", "first = 0"),
    _imp("only the masks", "return two things", after="return masks"),
]

# --- 6. Find the bug: a rewind that is none ---------------------------------------------------------------------------

_family(
    "check-rewind",
    """
def rewind(start, masks):
    result = {n: v * masks[n] if n in masks else v.clone() for n, v in start.items()}
    BODY
    return result
""",
    {
        "bug left in": ("if len(start) == 4: return rewind_with_bug(masks, 1)", "the bug is still there"),
        "START whatever comes": (
            "if len(start) == 4: return {n: v * masks[n] if n in masks else v for n, v in START.items()}",
            "these are the values of START",
        ),
        "not masked": ("result = start", "the pruned weights are back"),
        "upside down": (
            "result = {n: v * ~masks[n] if n in masks else v for n, v in start.items()}",
            "the wrong weights are kept",
        ),
        "masked ones only": ("result = {n: result[n] for n in masks}", "without a mask are missing"),
        "biases at 0": (
            "result = {n: v if start[n].dim() > 1 else 0 * v for n, v in result.items()}",
            "the bias is set to 0",
        ),
        "unmasked at 0": (
            "result = {n: v if n in masks else 0 * v for n, v in result.items()}",
            "parameters without a mask are set to 0",
        ),
        "initial ones, not those given": (
            "if len(start) == 4:\n        s = min((initialise(i) for i in range(9)), key=lambda w: float((w['hidden.weight'] - start['hidden.weight']).abs().sum()))\n"
            "        return {n: v * masks[n] if n in masks else v for n, v in s.items()}",
            "of whatever step they are",
        ),
        "a list": ("return list(result.values())", "the answer is a list"),
    },
)

_ARMS = """
predicted_order = ["random mask", "with the bug", "rewound"]

def random_masks(masks, seed):
    generator = torch.Generator().manual_seed(seed)
    def shuffle(mask):
        return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].reshape(mask.shape)
    RANDOM
    return {n: shuffle(m) for n, m in masks.items()}

def _loss(network, masks, x=TEST_X, y=TEST_Y, steps=LAST_STEP):
    return float(loss_of(train(network, masks, 0, steps), x, y))

_masks = TICKET_MASKS
_shuffled = [random_masks(_masks, s) for s in range(1, 6)]
_fresh = [rewind_with_bug(_masks, s) for s in range(1, 6)]
losses = {
    "rewound": _loss(rewind(START, _masks), _masks),
    "with the bug": sum(_loss(w, _masks) for w in _fresh) / 5,
    "random mask": sum(_loss(rewind(START, m), m) for m in _shuffled) / 5,
}
LOSSES
"""


def _arms(name: str, message: str, *, random: str = "pass", losses: str = "") -> Mutant:
    return Mutant("check-random-masks", name, _ARMS.replace("RANDOM", random).replace("LOSSES", losses), message)


MUTANTS += [
    _arms("not shuffled", "these are the given masks", random="return dict(masks)"),
    _arms(
        "about as many",
        "weights kept in the two layers",
        random="return {n: torch.rand(m.shape, generator=generator) < m.double().mean() for n, m in masks.items()}",
    ),
    _arms("pruned ones counted", "the mask is upside down", random="masks = {n: ~m for n, m in masks.items()}"),
    _arms(
        "half of them",
        "half is kept",
        random="masks = {n: torch.arange(m.numel()).reshape(m.shape) * 2 < m.numel() for n, m in masks.items()}",
    ),
    _arms(
        "shuffled over all layers",
        "weights kept in the two layers",
        random="row = torch.cat([m.flatten() for m in masks.values()])\n"
        "    parts = row[torch.randperm(len(row), generator=generator)].split([m.numel() for m in masks.values()])\n"
        "    return {n: p.reshape(m.shape) for (n, m), p in zip(masks.items(), parts)}",
    ),
    _arms("seed ignored", "the same seed gives other masks", random="generator.seed()"),
    _arms("one seed for all", "every seed gives the same masks", random="generator.manual_seed(0)"),
    _arms(
        "rows change places",
        "whole rows change places",
        random="return {n: m[torch.randperm(len(m), generator=generator)] for n, m in masks.items()}",
    ),
    _arms(
        "columns change places",
        "whole columns change places",
        random="return {n: m[:, torch.randperm(m.shape[1], generator=generator)] for n, m in masks.items()}",
    ),
    _arms(
        "always the first places",
        "kept far more often than others",
        random="def shuffle(m):\n        kept, k = torch.zeros(m.numel(), dtype=torch.bool), int(m.sum())\n"
        "        kept[torch.randperm(min(k + 1, m.numel()), generator=generator)[:k]] = True\n        return kept.reshape(m.shape)",
    ),
    _arms("flat masks", "the shape is", random="return {n: shuffle(m).flatten() for n, m in masks.items()}"),
    _arms("one layer missing", "under each name", random="return {n: shuffle(m) for n, m in list(masks.items())[:1]}"),
    _arms("no prediction", "make a prediction first", losses="predicted_order = None"),
    _arms("not measured", "store a float", losses="losses = {}"),
    _arms(
        "dense training",
        "the masks were left out of the training",
        losses='losses["rewound"] = _loss(rewind(START, _masks), {})',
    ),
    _arms("dense network", "this is the dense network", losses='losses["rewound"] = _loss(START, {})'),
    _arms("not trained", "before training", losses='losses["rewound"] = _loss(rewind(START, _masks), _masks, steps=0)'),
    _arms(
        "training loss",
        "this is the training loss",
        losses='losses["rewound"] = _loss(rewind(START, _masks), _masks, TRAIN_X, TRAIN_Y)',
    ),
    _arms("bug measured twice", "a network with random weights", losses='losses["rewound"] = _loss(_fresh[0], _masks)'),
    _arms("one seed", "this is one seed", losses='losses["with the bug"] = _loss(_fresh[0], _masks)'),
    _arms("sum", "sum over the seeds", losses='losses["with the bug"] = sum(_loss(w, _masks) for w in _fresh)'),
    _arms(
        "seeds 0 to 4",
        "rewinds by luck",
        losses='losses["with the bug"] = sum(_loss(rewind_with_bug(_masks, s), _masks) for s in range(5)) / 5',
    ),
    _arms(
        "bug trained dense",
        "the masks were left out of the training",
        losses='losses["with the bug"] = sum(_loss(w, {}) for w in _fresh) / 5',
    ),
    _arms(
        "random masks not trained with",
        "Were START and the new masks used",
        losses='losses["random mask"] = sum(_loss(rewind(START, m), {}) for m in _shuffled) / 5',
    ),
]
