"""Right answers to ps2_pruning, written another way. Each must score full marks on every check that it touches."""

ALTERNATIVES: dict[str, str] = {
    "prune_globally in NumPy, with masks of 0 and 1": """
def prune_globally(weights, sparsity):
    if sparsity < 0 or sparsity > 1:
        raise ValueError("not a share")
    names = [n for n in weights if len(weights[n].shape) >= 2]
    sizes = np.concatenate([np.abs(weights[n].detach().numpy()).ravel() for n in names])
    order = np.argsort(sizes)
    keep = np.ones(sizes.size)
    keep[order[:int(np.rint(sparsity * sizes.size))]] = 0
    result, at = {}, 0
    for n in names:
        result[n] = torch.from_numpy(keep[at:at + weights[n].numel()]).view_as(weights[n])
        at += weights[n].numel()
    return result
""",
    "prune_globally keeps the largest, ties from the end": """
def prune_globally(weights, sparsity):
    if not (0.0 <= sparsity <= 1.0):
        raise ValueError(f"{sparsity}")
    entries = [(abs(v), n, i) for n, w in weights.items() if w.ndim > 1 for i, v in enumerate(w.flatten().tolist())]
    keep = len(entries) - round(len(entries) * sparsity)
    kept = {(n, i) for _, n, i in sorted(entries, reverse=True)[:keep]}
    return {
        n: torch.tensor([(n, i) in kept for i in range(w.numel())]).reshape(w.shape)
        for n, w in weights.items() if w.ndim > 1
    }
""",
    "prune_globally with kthvalue and the ties by hand": """
def prune_globally(weights, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(sparsity)
    two = {n: w.abs() for n, w in weights.items() if w.dim() >= 2}
    row = torch.cat([w.reshape(-1) for w in two.values()])
    k = round(sparsity * row.numel())
    if k == 0:
        return {n: torch.ones_like(w, dtype=torch.bool) for n, w in two.items()}
    edge = row.kthvalue(k).values
    keep = row > edge
    ties = (row == edge).nonzero()[:, 0]
    keep[ties[k - int((row < edge).sum()):]] = True
    return {n: m.reshape(two[n].shape) for n, m in zip(two, keep.split([w.numel() for w in two.values()]))}
""",
    "prune_locally through topk of what is kept": """
def prune_locally(weights, sparsities):
    for name in sparsities:
        if name not in weights or weights[name].dim() < 2:
            raise ValueError(name)
    out = {}
    for name, w in weights.items():
        if w.dim() < 2:
            continue
        stay = w.numel() - round(sparsities.get(name, 0) * w.numel())
        mask = torch.zeros(w.numel())
        mask[torch.topk(w.flatten().abs(), stay).indices] = 1
        out[name] = mask.view(w.shape)
    return out
""",
    "n_m_mask with loops and lists": """
def n_m_mask(weight, n, m):
    rows, columns = weight.shape
    if columns % m != 0 or n > m:
        raise ValueError("does not fit")
    mask = [[False] * columns for _ in range(rows)]
    for r in range(rows):
        for start in range(0, columns, m):
            best = sorted(range(start, start + m), key=lambda c: abs(weight[r, c].item()), reverse=True)[:n]
            for c in best:
                mask[r][c] = True
    return mask
""",
    "n_m_mask by ranks": """
def n_m_mask(weight, n, m):
    if weight.size(1) % m or n > m:
        raise ValueError
    ranks = (-weight.abs()).unflatten(1, (-1, m)).argsort(-1).argsort(-1)
    return (ranks < n).flatten(1).to(torch.uint8)
""",
    "taylor_scores with .grad and an accumulated backward": """
def taylor_scores(weights, batches):
    total = sum(x.shape[0] for x, _ in batches)
    params = {n: torch.nn.Parameter(w.clone()) for n, w in weights.items()}
    for x, y in batches:
        (loss_of(params, x, y) * (x.shape[0] / total)).backward()
    return {n: torch.abs(p.data * p.grad) for n, p in params.items() if p.ndim == 2}
""",
    "taylor_scores from one large batch, in NumPy at the end": """
def taylor_scores(weights, batches):
    x, y = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    names = list(weights)
    loss = lambda *values: loss_of(dict(zip(names, values)), x, y)
    slopes = torch.autograd.functional.jacobian(loss, tuple(weights.values()))
    return {n: torch.from_numpy(np.abs(s.numpy() * weights[n].numpy())) for n, s in zip(names, slopes) if n.endswith(".weight")}
""",
    "leave_one_out in place, each put back": """
predicted = {10: "magnitude", 100: "magnitude"}

@torch.no_grad()
def leave_one_out(weights, x, y):
    base, out = loss_of(weights, x, y).item(), {}
    for n, w in weights.items():
        if w.dim() == 1:
            continue
        flat, rises = w.view(-1), []
        for i in range(len(flat)):
            old = flat[i].item()
            flat[i] = 0
            rises.append(loss_of(weights, x, y).item() - base)
            flat[i] = old
        out[n] = torch.tensor(rises, dtype=torch.float64).view(w.shape)
    return out

def _row(d):
    return torch.hstack([d["hidden.weight"].flatten(), d["output.weight"].flatten()]).abs()

def _measure(steps):
    net = train(START, {}, 0, steps)
    truth, guess = _row(leave_one_out(net, TRAIN_X, TRAIN_Y)), _row(taylor_scores(net, [(TRAIN_X[:60], TRAIN_Y[:60]), (TRAIN_X[60:], TRAIN_Y[60:])]))
    return dict(magnitude=round(rank_correlation(_row(net), truth), 2), taylor=round(rank_correlation(guess, truth), 2))

agreement = {steps: _measure(steps) for steps in (10, 100)}
""",
    "leave_one_out with vmap": """
predicted = {10: "taylor", 100: "magnitude"}

def leave_one_out(weights, x, y):
    out = {}
    for n in ("hidden.weight", "output.weight"):
        w = weights[n]
        keep = 1 - torch.eye(w.numel(), dtype=w.dtype).view(-1, *w.shape)
        losses = torch.func.vmap(lambda k: loss_of({**weights, n: w * k}, x, y))(keep)
        out[n] = (losses - loss_of(weights, x, y)).view(w.shape)
    return out

agreement = {10: {"magnitude": 0.663, "taylor": 0.772}, 100: {"magnitude": 0.902, "taylor": 0.830}}
""",
    "train_pruned that masks every way in": """
def train_pruned(weight, mask, velocity, x, y, steps):
    mask = mask.to(weight)
    w, v = weight.clone().mul_(mask), velocity * mask
    for _ in range(steps):
        v = MOMENTUM * v + mask * slope_of(w, x, y)
        w = w - LEARNING_RATE * v
    return w

sparsity_left = {"with the bug": 8 / 40, "gradient masked": 8 / 40}
""",
    "train_pruned with torch.where, in NumPy": """
def train_pruned(weight, mask, velocity, x, y, steps):
    w, v, x, y, m = (np.asarray(t, dtype=np.float64) for t in (weight, velocity, x, y, mask))
    w = np.where(m > 0, w, 0)
    for _ in range(int(steps)):
        v = MOMENTUM * v + (x @ w.T - y).T @ x / x.shape[0]
        w = np.where(m > 0, w - LEARNING_RATE * v, 0)
    return w

_after = train_with_bug(LAYER, LAYER_MASK, LAYER_VELOCITY, LAYER_X, LAYER_Y, 3)
sparsity_left = dict.fromkeys(["with the bug", "gradient masked"], int((_after == 0).sum()) / _after.numel())
""",
    "find_ticket that prunes a share of the survivors": """
def find_ticket(start, rounds, rate, rewind_step):
    kept = {"hidden.weight": torch.ones(12, 8), "output.weight": torch.ones(3, 12)}
    back_to, masks = train(start, kept, 0, rewind_step), []
    while len(masks) < rounds:
        trained = train({n: v * kept.get(n, 1) for n, v in back_to.items()}, kept, rewind_step, LAST_STEP)
        alive = [(abs(float(trained[n][i])), n, i) for n in kept for i in np.ndindex(*kept[n].shape) if kept[n][i]]
        kept = {n: m.clone() for n, m in kept.items()}
        for _, n, i in sorted(alive)[:round(rate * len(alive))]:
            kept[n][i] = 0
        masks.append(kept)
    return [masks, {n: v * kept.get(n, 1) for n, v in back_to.items()}]
""",
    "rewind in place on copies": """
def rewind(start, masks):
    out = {name: value.clone() for name, value in start.items()}
    for name, mask in masks.items():
        out[name][~mask.bool()] = 0
    return out
""",
    "random_masks in NumPy": """
predicted_order = ("with the bug", "rewound", "random mask")

def random_masks(masks, seed):
    rng = np.random.default_rng(seed)
    return {n: torch.from_numpy(rng.permutation(np.asarray(m).ravel()).reshape(tuple(m.shape))) for n, m in masks.items()}

def _test(net, masks):
    return loss_of(train(net, masks, 0, LAST_STEP), TEST_X, TEST_Y).item()

losses = {
    "rewound": round(_test(START, TICKET_MASKS), 4),
    "with the bug": float(np.mean([_test(rewind_with_bug(TICKET_MASKS, s), TICKET_MASKS) for s in (1, 2, 3, 4, 5)])),
    "random mask": float(np.mean([_test(START, random_masks(TICKET_MASKS, s)) for s in (1, 2, 3, 4, 5)])),
}
""",
    "random_masks by choice of places": """
import random
predicted_order = ["random mask", "rewound", "with the bug"]

def random_masks(masks, seed):
    dice, out = random.Random(seed), {}
    for name in masks:
        places = dice.sample(range(masks[name].numel()), int(masks[name].sum()))
        out[name] = torch.zeros(masks[name].numel()).index_fill(0, torch.tensor(places, dtype=torch.int64), 1).view(masks[name].shape)
    return out

losses = {"rewound": 0.3689, "with the bug": 0.6116, "random mask": 0.95}
""",
    "weakest_filters with vector_norm and a partial sort": """
def weakest_filters(weight, count, p):
    if count < 0 or count >= weight.shape[0]:
        raise ValueError("a filter must be left")
    norms = torch.linalg.vector_norm(weight, ord=p, dim=(1, 2, 3))
    return torch.topk(norms, count, largest=False).indices.sort().values
""",
    "weakest_filters with loops": """
def weakest_filters(weight, count, p):
    F_, scores = weight.shape[0], []
    if not count in range(F_):
        raise ValueError(count)
    for j in range(F_):
        scores.append((sum(abs(v) ** p for v in weight[j].flatten().tolist()) ** (1 / p), j))
    scores.sort()
    return sorted(j for _, j in scores[:count])
""",
    "remove_filters with index_select and reshape": """
def remove_filters(weights, layer, filters):
    stay = torch.tensor(sorted(set(range(weights[layer + ".bias"].shape[0])) - set(filters)), dtype=torch.long)
    n = layer[-1]
    out = {k: v.clone() for k, v in weights.items()}
    for k in out:
        if k.startswith((layer, "norm" + n)):
            out[k] = out[k].index_select(0, stay)
    if n == "1":
        out["conv2.weight"] = out["conv2.weight"].index_select(1, stay)
    else:
        classes = out["fc.weight"].shape[0]
        out["fc.weight"] = out["fc.weight"].reshape(classes, -1, 2, 2).index_select(1, stay).reshape(classes, -1)
    return out
""",
    "remove_filters from the highest number down": """
def remove_filters(weights, layer, filters):
    out = dict(weights)
    def drop(name, at, dim):
        w = out[name]
        out[name] = torch.cat([w.narrow(dim, 0, at.start), w.narrow(dim, at.stop, w.shape[dim] - at.stop)], dim)
    for f in sorted(filters, reverse=True):
        for name in [k for k in out if k.split(".")[0] in (layer, layer.replace("conv", "norm"))]:
            drop(name, range(f, f + 1), 0)
        if layer == "conv1":
            drop("conv2.weight", range(f, f + 1), 1)
        else:
            drop("fc.weight", range(4 * f, 4 * f + 4), 1)
    return out
""",
    "to_csr through torch": """
def to_csr(matrix):
    sparse = matrix.to_sparse_csr()
    return sparse.crow_indices(), sparse.col_indices(), sparse.values()
""",
    "to_csr with lists": """
def to_csr(matrix):
    pointers, columns, values = [0], [], []
    for row in matrix.tolist():
        for c, v in enumerate(row):
            if v:
                columns.append(c)
                values.append(v)
        pointers.append(len(values))
    return [pointers, columns, values]
""",
    "storage_bytes with bits and match": """
predicted_density = 1 / 3

def storage_bytes(layout, rows, columns, nonzeros, value_bytes, index_bytes):
    match layout:
        case "dense": bits = 8 * value_bytes * rows * columns
        case "coo": bits = 8 * nonzeros * (index_bytes + index_bytes + value_bytes)
        case "csr": bits = 8 * (nonzeros * value_bytes + index_bytes * (nonzeros + rows + 1))
        case "2:4": bits = rows * (columns // 2) * (8 * value_bytes + 2)
        case _: raise ValueError(layout)
    return bits // 8

def break_even_density(rows, columns, value_bytes, index_bytes):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        csr = middle * rows * columns * (value_bytes + index_bytes) + (rows + 1) * index_bytes
        low, high = (middle, high) if csr < rows * columns * value_bytes else (low, middle)
    return low
""",
    "best_sparsities by recursion": """
def best_sparsities(options, budget):
    names = list(options)
    def best(i, left):
        if i == len(names):
            return (0.0, ())
        found = None
        for sparsity, size, rise in options[names[i]]:
            if size <= left:
                rest = best(i + 1, left - size)
                if rest is not None and (found is None or rise + rest[0] < found[0]):
                    found = (rise + rest[0], (sparsity, *rest[1]))
        return found
    answer = best(0, budget)
    if answer is None:
        raise ValueError("nothing fits")
    return dict(zip(names, answer[1]))
""",
    "best_sparsities by dynamic programming over bytes": """
def best_sparsities(options, budget):
    table = {0: (0.0, {})}
    for name, rows in options.items():
        new = {}
        for used, (cost, picks) in table.items():
            for s, b, r in rows:
                if used + b <= budget and (used + b not in new or cost + r < new[used + b][0]):
                    new[used + b] = (cost + r, {**picks, name: s})
        table = new
    if not table:
        raise ValueError(budget)
    return min(table.values(), key=lambda entry: entry[0])[1]
""",
    "chosen by hand": 'chosen = {"fc3": 0, "fc2": 0.8, "fc1": 0.8}',
}
