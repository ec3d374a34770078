"""Further answers to ps2_pruning, as learners may type them, beside the mutants: written by an author of the checks."""

from tests.exercises.mutants import Answers

ANSWERS = Answers()
w, r = ANSWERS.wrong, ANSWERS.right

G = """def prune_globally(weights, sparsity):
    if not 0 <= sparsity <= 1: raise ValueError
    layers = {n: w for n, w in weights.items() if w.dim() > 1}
    sizes = torch.cat([w.abs().flatten() for w in layers.values()])
    kept = torch.ones(len(sizes), dtype=torch.bool)
    kept[sizes.argsort(stable=True)[:round(sparsity*len(sizes))]] = False
    masks = {n: p.reshape(w.shape) for (n, w), p in zip(layers.items(), kept.split([w.numel() for w in layers.values()]))}
    BODY
    return masks"""
w("pg masks weights in place", G.replace("BODY", "for n, m in masks.items(): weights[n] *= m"), "changes its argument")
w(
    "pg drops biases from dict",
    G.replace("BODY", "for n in list(weights):\n        if weights[n].dim() == 1: del weights[n]"),
    "changes its argument",
)
w(
    "pg abs in place",
    G.replace("w.abs().flatten()", "w.abs_().flatten()").replace("BODY", "pass"),
    "changes its argument",
)
w("pg names changed", G.replace("BODY", "masks = {n.replace('.weight',''): m for n,m in masks.items()}"))
w(
    "pg bias masks of ones",
    G.replace("BODY", "masks |= {n: torch.ones_like(w) for n,w in weights.items() if w.dim()==1}"),
)
w("pg masks -1/1", G.replace("BODY", "masks = {n: m.float()*2-1 for n,m in masks.items()}"))
w(
    "pg normalised by layer",
    G.replace(
        "torch.cat([w.abs().flatten() for w in layers.values()])",
        "torch.cat([(w.abs()/w.abs().max()).flatten() for w in layers.values()])",
    ).replace("BODY", "pass"),
)
w(
    "pg text masks",
    G.replace(
        "BODY",
        "masks = {n: [[str(int(v)) for v in row] for row in m.reshape(len(m),-1).tolist()] for n,m in masks.items()}",
    ),
    "the answer is text",
)
w("pg only dim 2", G.replace("w.dim() > 1", "w.dim() == 2").replace("BODY", "pass"))
w("pg refuses 1.0", G.replace("0 <= sparsity <= 1", "0 <= sparsity < 1").replace("BODY", "pass"))
L = """def prune_locally(weights, sparsities):
    layers = {n: w for n, w in weights.items() if w.dim() > 1}
    if set(sparsities) - set(layers): raise ValueError
    masks = {}
    for n, w in layers.items():
        m = torch.ones(w.numel(), dtype=torch.bool)
        m[w.abs().flatten().argsort(stable=True)[:round(sparsities.get(n, 0.0)*w.numel())]] = False
        masks[n] = m.reshape(w.shape)
    BODY
    return masks"""
w(
    "pl pops sparsities",
    L.replace("sparsities.get(n, 0.0)", "sparsities.pop(n, 0.0)").replace("BODY", "pass"),
    "changes its argument",
)
w(
    "pl setdefault in sparsities",
    L.replace("sparsities.get(n, 0.0)", "sparsities.setdefault(n, 0.0)").replace("BODY", "pass"),
    "changes its argument",
)
w("pl in place weights", L.replace("BODY", "for n,m in masks.items(): weights[n].mul_(m)"), "changes its argument")
w(
    "pl not sorted shape",
    L.replace("m.reshape(w.shape)", "m.reshape(w.shape[::-1]).T if w.dim()==2 else m.reshape(w.shape)").replace(
        "BODY", "pass"
    ),
)
N = """def n_m_mask(weight, n, m):
    o, i = weight.shape
    if i % m or n > m: raise ValueError
    g = weight.abs().reshape(o, i//m, m)
    k = torch.zeros_like(g).scatter(2, g.topk(n, 2).indices, 1.0)
    BODY
    return k.reshape(weight.shape)"""
w("nm weight in place", N.replace("BODY", "weight *= k.reshape(weight.shape)"), "changes its argument")
w("nm abs in place", N.replace("weight.abs()", "weight.abs_()").replace("BODY", "pass"), "changes its argument")
w(
    "nm pads",
    N.replace(
        "if i % m or n > m: raise ValueError",
        "if n > m: raise ValueError\n    if i % m: return torch.ones_like(weight)",
    ).replace("BODY", "pass"),
    "was accepted",
)
w("nm n equals m refused", N.replace("n > m", "n >= m").replace("BODY", "pass"))
w(
    "nm strided groups",
    N.replace("weight.abs().reshape(o, i//m, m)", "weight.abs().reshape(o, m, i//m).transpose(1,2)").replace(
        "BODY", "pass"
    ),
)
T = """def taylor_scores(weights, batches):
    c = {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
    N = sum(len(y) for _, y in batches)
    loss = sum(loss_of(c, x, y)*len(y) for x, y in batches)/N
    loss.backward()
    BODY
    return {n: (w.grad*w).abs().detach() for n, w in c.items() if w.dim() > 1}"""
w(
    "ts empties batches",
    T.replace("for x, y in batches)/N", "for x, y in [batches.pop() for _ in range(len(batches))])/N").replace(
        "BODY", "pass"
    ),
    "changes its argument",
)
w("ts step of descent", T.replace("BODY", "for n in weights: weights[n] -= c[n].grad"), "changes its argument")
w("ts half", T.replace("(w.grad*w).abs()", "(w.grad*w/2).abs()").replace("BODY", "pass"))
w(
    "ts normalised",
    T.replace("(w.grad*w).abs().detach()", "((w.grad*w).abs()/(w.grad*w).abs().sum()).detach()").replace(
        "BODY", "pass"
    ),
)
w(
    "ts first layer twice",
    T.replace(
        "BODY",
        "return {n: (c['hidden.weight'].grad*c['hidden.weight']).abs().detach() for n in ('hidden.weight','output.weight')}",
    ),
)
w("ts second order", T.replace("(w.grad*w).abs()", "(w.grad**2*w**2/2)").replace("BODY", "pass"))
LO = """predicted = {10: "taylor", 100: "magnitude"}
def leave_one_out(weights, x, y):
    base, out = loss_of(weights, x, y), {}
    for n in ("hidden.weight", "output.weight"):
        w = weights[n]; out[n] = torch.zeros_like(w)
        for p in np.ndindex(*w.shape):
            v = w.clone(); v[p] = 0
            out[n][p] = loss_of({**weights, n: v}, x, y) - base
    BODY
    return out
agreement = {10: {"magnitude": 0.663, "taylor": 0.772}, 100: {"magnitude": 0.902, "taylor": 0.830}}"""
w("loo last zeroed stays", LO.replace("BODY", "weights['output.weight'][-1,-1]=0"), "changes its argument")
w("loo square", LO.replace("- base", "- base").replace("BODY", "out={n:v**2 for n,v in out.items()}"))
w(
    "loo replaces dict entry",
    LO.replace("v = w.clone(); v[p] = 0", "v = w.clone(); v[p] = 0; weights[n] = v")
    .replace("loss_of({**weights, n: v}, x, y)", "loss_of(weights, x, y)")
    .replace("BODY", "pass"),
)
w("loo agreement text", LO.replace("BODY", "pass").replace("0.663", "'0.663'"))
w("loo agreement off", LO.replace("BODY", "pass").replace("0.902", "0.95"))
w(
    "loo predicted number",
    LO.replace("BODY", "pass").replace(
        'predicted = {10: "taylor", 100: "magnitude"}', "predicted = {10: 0.5, 100: 0.5}"
    ),
)
TP = """def train_pruned(weight, mask, velocity, x, y, steps):
    w = weight * mask; v = velocity
    for _ in range(steps):
        v = MOMENTUM * v + slope_of(w, x, y)
        w = (w - LEARNING_RATE * v) * mask
    BODY
    return w
sparsity_left = {"with the bug": 0.2, "gradient masked": 0.2}"""
w(
    "tp weight in place",
    TP.replace("w = weight * mask; v = velocity", "w = weight; w *= mask; v = velocity").replace("BODY", "pass"),
    "changes its argument",
)
w(
    "tp velocity in place",
    TP.replace("v = MOMENTUM * v + slope_of(w, x, y)", "v *= MOMENTUM; v += slope_of(w, x, y)").replace("BODY", "pass"),
    "changes its argument",
)
w("tp mask in place", TP.replace("BODY", "mask.zero_()"), "changes its argument")
w(
    "tp nesterov",
    TP.replace(
        "w = (w - LEARNING_RATE * v) * mask", "w = (w - LEARNING_RATE * (MOMENTUM*v + slope_of(w,x,y))) * mask"
    ).replace("BODY", "pass"),
)
w(
    "tp mask velocity only at start",
    "def train_pruned(weight, mask, velocity, x, y, steps):\n    w = weight*mask; v = velocity*mask\n    for _ in range(steps):\n        v = MOMENTUM*v + slope_of(w,x,y)\n        w = w - LEARNING_RATE*v\n    return w\nsparsity_left = {'with the bug': 0.2, 'gradient masked': 0.2}",
)
w("tp threshold", TP.replace("BODY", "w = torch.where(w.abs()<1e-2, 0*w, w)"))
w("tp percent", TP.replace("BODY", "pass").replace("0.2,", "20,"))
w("tp text", TP.replace("BODY", "pass").replace("0.2}", "'0.2'}"))
F = """def find_ticket(start, rounds, rate, rewind_step):
    rewound = train(start, {}, 0, rewind_step)
    masks = []
    for j in range(1, rounds+1):
        t = train(rewound, masks[-1] if masks else {}, rewind_step, LAST_STEP)
        masks.append(prune_globally(t, 1-(1-rate)**j))
    BODY
    return masks, {n: v*masks[-1][n] if n in masks[-1] else v for n, v in rewound.items()}"""
w("ft changes start", F.replace("BODY", "for n in masks[-1]: start[n] *= masks[-1][n]"), "changes its argument")
w(
    "ft locally",
    F.replace(
        "prune_globally(t, 1-(1-rate)**j)",
        "prune_locally(t, {n: 1-(1-rate)**j for n in ('hidden.weight','output.weight')})",
    ).replace("BODY", "pass"),
)
w("ft only last mask", F.replace("BODY", "masks = masks[-1:]"))
w("ft reversed", F.replace("BODY", "masks = masks[::-1]"))
w(
    "ft tuple order",
    F.replace("return masks, {", "return {")
    .replace("for n, v in rewound.items()}", "for n, v in rewound.items()}, masks")
    .replace("BODY", "pass"),
)
w("ft train to LAST-1", F.replace("rewind_step, LAST_STEP", "rewind_step, LAST_STEP-1").replace("BODY", "pass"))
w(
    "ft full length after rewind",
    F.replace("rewind_step, LAST_STEP", "rewind_step, LAST_STEP+rewind_step").replace("BODY", "pass"),
)
w("ft biases zero", F.replace("if n in masks[-1] else v", "if n in masks[-1] else 0*v").replace("BODY", "pass"))
w(
    "rw in place",
    "def rewind(start, masks):\n    for n, m in masks.items():\n        start[n] *= m\n    return start",
    "changes its argument",
)
w(
    "rw dict entry",
    "def rewind(start, masks):\n    for n, m in masks.items():\n        start[n] = start[n]*m\n    return start",
    "changes its argument",
)
w(
    "rw only masked nan",
    "def rewind(start, masks):\n    return {n: torch.where(masks[n].bool(), v, torch.nan) if n in masks else v for n, v in start.items()}",
)
w(
    "rw inverse",
    "def rewind(start, masks):\n    return {n: v*(1-masks[n].to(v.dtype)) if n in masks else v for n, v in start.items()}",
)
RM = """predicted_order = ["rewound", "with the bug", "random mask"]
def random_masks(masks, seed):
    g = torch.Generator().manual_seed(seed)
    out = {}
    for n, m in masks.items():
        out[n] = m.flatten()[torch.randperm(m.numel(), generator=g)].reshape(m.shape)
    BODY
    return out
losses = {"rewound": 0.3689, "with the bug": 0.6116, "random mask": 0.95}"""
w(
    "rm bernoulli",
    RM.replace(
        "out[n] = m.flatten()[torch.randperm(m.numel(), generator=g)].reshape(m.shape)",
        "out[n] = torch.rand(m.shape, generator=g) < m.double().mean()",
    ).replace("BODY", "pass"),
)
w(
    "rm global count",
    RM.replace(
        "BODY",
        "if len(out) == 2 and 'a.weight' in out:\n        f = torch.cat([v.flatten() for v in out.values()])[torch.randperm(44, generator=g)]\n        out = {'a.weight': f[:24].reshape(4,6), 'b.weight': f[24:].reshape(5,4)}",
    ),
)
w("rm shuffles in place", RM.replace("BODY", "for n in masks: masks[n].copy_(out[n])"), "changes its argument")
w(
    "rm roll",
    RM.replace(
        "m.flatten()[torch.randperm(m.numel(), generator=g)].reshape(m.shape)",
        "m.flatten().roll(seed+1).reshape(m.shape)",
    ).replace("BODY", "pass"),
)
w("rm ignores seed", RM.replace("manual_seed(seed)", "manual_seed(0)").replace("BODY", "pass"))
w(
    "rm columns shuffled",
    RM.replace(
        "m.flatten()[torch.randperm(m.numel(), generator=g)].reshape(m.shape)",
        "m[:, torch.randperm(m.shape[1], generator=g)]",
    ).replace("BODY", "pass"),
)
w(
    "rm global rng",
    RM.replace("torch.randperm(m.numel(), generator=g)", "torch.randperm(m.numel())").replace("BODY", "pass"),
)
w("rm losses text", RM.replace("BODY", "pass").replace("0.3689", "'0.3689'"))
w("rm losses complex", RM.replace("BODY", "pass").replace("0.3689", "0.3689+0.1j"))
W = """def weakest_filters(weight, count, p):
    if not 0 <= count < len(weight): raise ValueError
    n = weight.flatten(1).abs().pow(p).sum(1)
    BODY
    return sorted(n.argsort(stable=True)[:count].tolist())"""
w("wf in place", W.replace(".abs()", ".abs_()").replace("BODY", "pass"), "changes its argument")
w(
    "wf mean over channels first",
    W.replace("weight.flatten(1).abs().pow(p).sum(1)", "weight.mean(1).flatten(1).abs().pow(p).sum(1)").replace(
        "BODY", "pass"
    ),
)
w(
    "wf inf norm",
    W.replace("weight.flatten(1).abs().pow(p).sum(1)", "weight.flatten(1).abs().max(1).values").replace("BODY", "pass"),
)
w(
    "wf names",
    W.replace(
        "sorted(n.argsort(stable=True)[:count].tolist())",
        "[str(i) for i in sorted(n.argsort(stable=True)[:count].tolist())]",
    ).replace("BODY", "pass"),
    "the answer is text",
)
w(
    "wf imaginary",
    W.replace("BODY", "return [complex(i, 1) for i in sorted(n.argsort(stable=True)[:count].tolist())]"),
    "imaginary part",
)
w("wf p rounded", W.replace(".pow(p)", ".pow(max(1, round(p)))").replace("BODY", "pass"))
R = """def remove_filters(weights, layer, filters):
    norm, reader = {"conv1": ("norm1", "conv2"), "conv2": ("norm2", "fc")}[layer]
    k = [f for f in range(len(weights[layer + ".weight"])) if f not in filters]
    new = dict(weights)
    for part in (layer + ".weight", layer + ".bias", norm + ".weight", norm + ".bias", norm + ".running_mean", norm + ".running_var"):
        new[part] = weights[part][k]
    cols = k if reader == "conv2" else [4*f + i for f in k for i in range(4)]
    new[reader + ".weight"] = weights[reader + ".weight"][:, cols]
    BODY
    return new"""
w("rf in place dict", R.replace("new = dict(weights)", "new = weights").replace("BODY", "pass"), "changes its argument")
w("rf zeroes old", R.replace("BODY", "weights[layer + '.weight'][filters] = 0"), "changes its argument")
w("rf sorts filters", R.replace("BODY", "filters.sort()"), "changes its argument")
w("rf statistics reset", R.replace("BODY", "new[norm+'.running_mean'] = torch.zeros(len(k), dtype=torch.float64)"))
w("rf bias absorbed", R.replace("BODY", "new['fc.bias'] = weights['fc.bias'] + 1e-2"))
w(
    "rf fc transposed blocks",
    R.replace(
        "[4*f + i for f in k for i in range(4)]", "[f + len(weights['conv2.weight'])*i for i in range(4) for f in k]"
    ).replace("BODY", "pass"),
)
C = """def to_csr(matrix):
    r, c = matrix.nonzero(as_tuple=True)
    p = torch.cat([torch.zeros(1, dtype=torch.int64), (matrix != 0).sum(1).cumsum(0)])
    v = matrix[r, c]
    BODY
    return p, c, v"""
w("csr zero in place", C.replace("BODY", "matrix.zero_()"), "changes its argument")
w(
    "csr threshold",
    C.replace("(matrix != 0)", "(matrix.abs() > 0.5)")
    .replace("matrix.nonzero", "(matrix*(matrix.abs()>0.5)).nonzero")
    .replace("BODY", "pass"),
)
w("csr order", C.replace("return p, c, v", "return v, c, p").replace("BODY", "pass"))
w("csr sorted values", C.replace("BODY", "v = v.sort().values"))
w("csr relative columns", C.replace("BODY", "c = c.diff(prepend=c.new_zeros(1))"))
S = """predicted_density = 0.5
def storage_bytes(layout, rows, columns, nonzeros, value_bytes, index_bytes):
    v, i = value_bytes, index_bytes
    bill = {"dense": rows*columns*v, "coo": nonzeros*(v+2*i), "csr": nonzeros*(v+i)+(rows+1)*i, "2:4": rows*columns/2*(v+0.25)}
    if layout not in bill: raise ValueError
    BODY
    return bill[layout]
def break_even_density(rows, columns, value_bytes, index_bytes):
    n = rows*columns
    return (n*value_bytes-(rows+1)*index_bytes)/(n*(value_bytes+index_bytes))"""
w("sb int 2:4", S.replace("rows*columns/2*(v+0.25)", "int(rows*columns/2*v)+rows*columns//16").replace("BODY", "pass"))
w("sb text", S.replace("BODY", "return str(bill[layout])"), "the answer is text")
w("sb nonzeros density", S.replace("nonzeros*(v+i)", "nonzeros/(rows*columns)*(v+i)").replace("BODY", "pass"))
w(
    "sb accepts upper",
    S.replace("BODY", "pass").replace(
        "if layout not in bill: raise ValueError", 'if layout == "zip": layout = "dense"'
    ),
    "was accepted",
)
w("sb 2:4 5% wrong", S.replace("(v+0.25)", "(v+0.5)").replace("BODY", "pass"))
BS = """def best_sparsities(options, budget):
    import itertools
    f = [c for c in itertools.product(*options.values()) if sum(o[1] for o in c) <= budget]
    if not f: raise ValueError
    b = min(f, key=lambda c: sum(o[2] for o in c))
    BODY
    return {n: o[0] for n, o in zip(options, b)}"""
w(
    "bs sorts rows in place",
    BS.replace(
        "import itertools", "import itertools\n    for rows in options.values(): rows.sort(reverse=True)"
    ).replace("BODY", "pass"),
    "changes its argument",
)
w(
    "bs prunes options in place",
    BS.replace("BODY", "for n in list(options): options[n] = [o for o in options[n] if o[1] <= budget][:3]"),
    "changes its argument",
)
w(
    "bs pops",
    BS.replace("BODY", "names = list(options); options.clear()\n    return {n: o[0] for n, o in zip(names, b)}"),
    "changes its argument",
)
w(
    "bs mean of rises weighted by bytes",
    BS.replace("sum(o[2] for o in c)", "sum(o[2]*o[1] for o in c)").replace("BODY", "pass"),
)
w("bs text", BS.replace("BODY", "return {n: str(o[0]) for n, o in zip(options, b)}"), "the answer is text")
w("bs missing one", BS.replace("BODY", "return {n: o[0] for n, o in list(zip(options, b))[:-1]}"))
# ============== right
r("pg OrderedDict", "import collections\n" + G.replace("BODY", "masks = collections.OrderedDict(masks)"))
r("pg uint8", G.replace("BODY", "masks = {n: m.to(torch.uint8) for n, m in masks.items()}"))
r(
    "pg error subclass",
    "class Share(ValueError):\n    def __init__(self, s): super().__init__(f'share {s}')\n"
    + G.replace("raise ValueError", "raise Share(sparsity)").replace("BODY", "pass"),
)
r(
    "pl defaultdict numpy bool",
    "import collections\n"
    + L.replace("masks = {}", "masks = collections.defaultdict(list)").replace(
        "BODY", "masks.update({n: m.numpy() for n, m in masks.items()})"
    ),
)
r(
    "pl reads through copies",
    L.replace("layers = {", "weights, sparsities = dict(weights), dict(sparsities)\n    layers = {")
    .replace("sparsities.get(n, 0.0)", "sparsities.pop(n, 0.0)")
    .replace("BODY", "pass"),
)
r("nm lists of bools", N.replace("BODY", "return k.reshape(weight.shape).bool().tolist()"))
r(
    "nm put back",
    N.replace("BODY", "pass").replace(
        "g = weight.abs().reshape(o, i//m, m)", "weight += 1.5; weight -= 1.5\n    g = weight.abs().reshape(o, i//m, m)"
    ),
)
r(
    "ts autograd.grad subclass dict",
    "class D(dict): pass\n"
    + T.replace("BODY", "return D({n: (w.grad*w).abs().detach() for n, w in c.items() if w.dim() > 1})"),
)
r(
    "loo agreement numpy",
    LO.replace("BODY", "pass").replace(
        'agreement = {10: {"magnitude": 0.663', 'agreement = {np.int64(10): {"magnitude": np.float32(0.663)'
    ),
)
r(
    "loo predicted OrderedDict",
    "import collections\n"
    + LO.replace("BODY", "pass").replace(
        'predicted = {10: "taylor", 100: "magnitude"}',
        'predicted = collections.OrderedDict([(np.int64(10), np.str_("taylor")), (100, "magnitude")])',
    ),
)
r(
    "tp sparsity tensors",
    TP.replace("BODY", "pass").replace("0.2,", "torch.tensor(0.2),").replace("0.2}", "np.float16(0.2)}"),
)
r(
    "ft namedtuple",
    "import collections\nTicket = collections.namedtuple('Ticket','masks network')\n"
    + F.replace("return masks, {", "return Ticket(masks, {")
    .replace("for n, v in rewound.items()}", "for n, v in rewound.items()})")
    .replace("BODY", "pass"),
)
r("ft tuple of masks", F.replace("return masks, {", "return tuple(masks), {").replace("BODY", "pass"))
r(
    "rw ordered",
    "import collections\ndef rewind(start, masks):\n    return collections.OrderedDict((n, torch.where(torch.as_tensor(masks[n]).bool(), v, torch.zeros_like(v)) if n in masks else v.clone()) for n, v in start.items())",
)
r(
    "rm numpy losses",
    RM.replace("BODY", "pass")
    .replace("0.3689", "np.float64(0.3689)")
    .replace("0.6116", "np.float32(0.6116)")
    .replace("0.95", "torch.tensor(0.95)"),
)
r(
    "rm order namedtuple",
    "import collections\n"
    + RM.replace("BODY", "pass").replace(
        'predicted_order = ["rewound", "with the bug", "random mask"]',
        'predicted_order = collections.namedtuple("O","a b c")("rewound", "with the bug", "random mask")',
    ),
)
r(
    "wf numpy ints",
    W.replace("sorted(n.argsort(stable=True)[:count].tolist())", "sorted(np.argsort(n.numpy())[:count])").replace(
        "BODY", "pass"
    ),
)
r(
    "wf tuple",
    W.replace(
        "sorted(n.argsort(stable=True)[:count].tolist())", "tuple(sorted(n.argsort(stable=True)[:count].tolist()))"
    ).replace("BODY", "pass"),
)
r(
    "rf odict deepcopy",
    "import collections, copy\n"
    + R.replace("new = dict(weights)", "new = collections.OrderedDict(copy.deepcopy(weights))").replace("BODY", "pass"),
)
r(
    "csr namedtuple scipy",
    "import typing\nclass CSR(typing.NamedTuple):\n    p: object\n    c: object\n    v: object\n"
    + C.replace("return p, c, v", "return CSR(p.int(), c.numpy(), v.tolist())").replace("BODY", "pass"),
)
r(
    "sb numpy",
    S.replace("BODY", "return np.float32(bill[layout])").replace(
        "predicted_density = 0.5", "predicted_density = np.float32(0.5)"
    ),
)
r(
    "bs sorted copy",
    BS.replace(
        "import itertools", "import itertools\n    options = {n: sorted(rows) for n, rows in options.items()}"
    ).replace("BODY", "return {n: np.float64(o[0]) for n, o in zip(options, b)}"),
)
r("chosen numpy keys", "chosen = {np.str_('fc1'): np.float64(0.8), 'fc2': np.float64(0.8), 'fc3': np.int64(0)}")
r(
    "chosen mapping subclass",
    "import collections\nclass Choice(collections.UserDict): pass\nchosen = dict(Choice(fc1=0.8, fc2=0.8, fc3=0.0))",
)
