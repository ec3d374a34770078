"""Wrong answers that learners really give to ps2_pruning, exercises 7 to 9, and the message meant for each."""

from tests.exercises.mutants import Mutant, family

MUTANTS: list[Mutant] = []


def _family(check: str, template: str, variants: dict[str, tuple[str, str]]) -> None:
    MUTANTS.extend(family(check, template, variants))


# --- 7. A filter and all that hangs on it -----------------------------------------------------------------------------

_family(
    "check-weakest-filters",
    """
def weakest_filters(weight, count, p):
    if not 0 <= count < len(weight):
        raise ValueError(count)
    norms = weight.flatten(1).abs().pow(p).sum(1)
    BODY
    return sorted(norms.argsort()[:count].tolist())
""",
    {
        "the strongest": ("norms = -norms", "the filter with the largest norm"),
        "sign not dropped": ("norms = weight.flatten(1).sum(1)", "summed up with their sign"),
        "sign kept for odd p": (
            "norms = weight.flatten(1).pow(p).sum(1) if p in (2, 3) else norms",
            "for odd p the sum keeps signs",
        ),
        "always p = 1": ("norms = weight.flatten(1).abs().sum(1)", "this is the norm for p = 1"),
        "always p = 2": ("norms = weight.flatten(1).norm(dim=1)", "this is the norm for p = 2"),
        "numbered from 1": ("return sorted((norms.argsort()[:count] + 1).tolist())", "numbered from 0"),
        "norms for numbers": ("return norms.sort().values[:count].tolist()", "the number of the filter is asked for"),
        "not sorted": ("return norms.argsort()[:count].tolist()", "not in ascending order"),
        "that many stay": (
            "return sorted(norms.argsort()[: len(weight) - count].tolist())",
            "one is kept and three go",
        ),
        "input channels": (
            "inputs = weight.abs().pow(p).sum((0, 2, 3))\n    norms = inputs if len(inputs) > 1 else norms",
            "weakest input channels",
        ),
        "one norm for the layer": ("norms = weight.norm(p=p).reshape(1)", "expected"),
        "a mask": ("return norms > norms.sort().values[count - 1]", "the shape is (4,)"),
    },
)
_family(
    "check-weakest-filters",
    """
def weakest_filters(weight, count, p):
    BODY
    return sorted(weight.flatten(1).norm(p=p, dim=1).argsort()[:count].tolist())
""",
    {
        "all may go": ("pass", "all four filters: was accepted"),
        "more than all": ("if count > len(weight): raise ValueError", "all four filters: was accepted"),
        "a negative count": ("if count >= len(weight): raise ValueError", "a count of -1: was accepted"),
    },
)

_REMOVE = """
def remove_filters(weights, layer, filters):
    norm, reader = {"conv1": ("norm1", "conv2"), "conv2": ("norm2", "fc")}[layer]
    number = len(weights[layer + ".weight"])
    stay = [f for f in range(number) if f not in filters]
    n, new = len(stay), dict(weights)
    BEFORE
    for name in (layer + ".weight", layer + ".bias"):
        new[name] = weights[name][stay]
    for part in ("weight", "bias", "running_mean", "running_var"):
        new[norm + "." + part] = weights[norm + "." + part][stay]
    columns = [f for f in stay] if reader == "conv2" else [4 * f + i for f in stay for i in range(4)]
    new[reader + ".weight"] = weights[reader + ".weight"][:, columns]
    BODY
    return new
"""


def _remove(name: str, message: str, body: str = "pass", before: str = "pass") -> Mutant:
    return Mutant("check-remove-filters", name, _REMOVE.replace("BEFORE", before).replace("BODY", body), message)


MUTANTS += [
    _remove(
        "statistics left", "They are no parameters", 'new[norm + ".running_mean"] = weights[norm + ".running_mean"]'
    ),
    _remove(
        "variance left",
        "running_var has shape (5,); expected (3,)",
        'new[norm + ".running_var"] = weights[norm + ".running_var"]',
    ),
    _remove("norm's scale left", "has one number for each filter", 'new[norm + ".weight"] = weights[norm + ".weight"]'),
    _remove("bias left", "a filter has a bias", 'new[layer + ".bias"] = weights[layer + ".bias"]'),
    _remove(
        "next layer left", "Cut what the next layer reads", 'new[reader + ".weight"] = weights[reader + ".weight"]'
    ),
    _remove(
        "next layer's outputs cut",
        "Cut what the next layer reads",
        'if reader == "conv2": new["conv2.weight"] = weights["conv2.weight"][: len(stay)]',
    ),
    _remove(
        "flatten forgotten",
        "a filter takes four columns with it",
        'if reader == "fc": new["fc.weight"] = weights["fc.weight"][:, stay]',
    ),
    _remove(
        "one column for each filter",
        "a filter takes four columns with it",
        'if reader == "fc": new["fc.weight"] = weights["fc.weight"][:, [c for c in range(16) if c not in filters]]',
    ),
    _remove(
        "columns alternate",
        "the filters alternated",
        'if reader == "fc" and number > 4: new["fc.weight"] = weights["fc.weight"].reshape(-1, 4, number)[:, :, stay].flatten(1)',
    ),
    _remove(
        "classes cut",
        "the classes; they stay",
        'if reader == "fc": new["fc.bias"] = weights["fc.bias"][: len(weights["fc.bias"]) - 1]',
    ),
    _remove(
        "silenced only",
        "dimension 0 holds the filters",
        "new = {k: v.clone() for k, v in weights.items()}\n    new[layer + '.weight'][filters] = 0",
    ),
    _remove(
        "named ones stay",
        "the filters that were named are kept",
        before="stay = [f for f in range(number) if f in filters] if 2 * len(filters) == number else stay",
    ),
    _remove(
        "one after the other",
        "each removal shifts the numbers",
        before="stay = list(range(number))\n    for f in filters:\n        del stay[min(f, len(stay) - 1)]\n"
        "    if number < 6: stay = [f for f in range(number) if f not in filters]",
    ),
    _remove(
        "statistics of the first",
        "the first ones are kept",
        'if number > 5: new[norm + ".running_var"] = weights[norm + ".running_var"][:n]',
    ),
    _remove(
        "statistics of the last",
        "the last ones are kept",
        'if number > 5: new[norm + ".running_mean"] = weights[norm + ".running_mean"][number - n:]',
    ),
    _remove(
        "next layer's first channels",
        "the first channels are kept",
        'if number > 5 and reader == "conv2": new["conv2.weight"] = weights["conv2.weight"][:, :n]',
    ),
    _remove(
        "first columns",
        "the first columns are kept",
        'if number > 5 and reader == "fc": new["fc.weight"] = weights["fc.weight"][:, : 4 * n]',
    ),
    _remove(
        "only what changes", "Return all weights", "new = {k: v for k, v in new.items() if v.shape != weights[k].shape}"
    ),
    _remove("nothing", "dimension 0 holds the filters", "new = weights"),
    _remove("a list", "return a dict of all weights", "new = list(new.values())"),
]

# --- 8. What does a zero cost? ----------------------------------------------------------------------------------------

_family(
    "check-to-csr",
    """
def to_csr(matrix):
    rows, columns = matrix.nonzero(as_tuple=True)
    counts = (matrix != 0).sum(1)
    pointers = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    values = matrix[rows, columns]
    BODY
    return pointers, columns, values
""",
    {
        "n pointers": ("pointers = pointers[:-1]", "R + 1 pointers"),
        "first pointer missing": ("pointers = pointers[1:]", "the first one is missing"),
        "counts": ("pointers = counts", "these are the counts of each row"),
        "counts with a 0": ("pointers = torch.cat([torch.zeros(1), counts])", "the counts of each row, with a 0"),
        "rows: COO": ("pointers = rows", "that is COO"),
        "columns first: CSC": (
            "columns, rows = matrix.T.nonzero(as_tuple=True); values = matrix[rows, columns]\n"
            "    pointers = torch.cat([torch.zeros(1), (matrix != 0).sum(0).cumsum(0)]); columns = rows",
            "that is CSC",
        ),
        "empty rows lost": (
            "counts = counts[counts > 0]; pointers = torch.cat([torch.zeros(1), counts.cumsum(0)])",
            "the empty row got lost",
        ),
        "places of row starts": (
            "pointers = torch.arange(len(matrix) + 1) * matrix.shape[1]",
            "these are places in the matrix",
        ),
        "flat places": ("columns = matrix.flatten().nonzero()[:, 0]", "places in the flattened matrix"),
        "rows for columns": ("columns = rows", "these are rows, not columns"),
        "columns from 1": ("columns = columns + 1", "numbered from 0"),
        "columns by column": (
            "columns = matrix.T.nonzero()[:, 0]; values = matrix.T[matrix.T != 0]",
            "the entries stand column by column",
        ),
        "values by column": ("values = matrix.T[matrix.T != 0]", "the entries stand column by column"),
        "zeros stored": ("values = matrix.flatten()", "the zeros are stored too"),
        "sizes": ("values = values.abs()", "keep the sign"),
        "positive only": (
            "keep = values > 0; columns, values = columns[keep], values[keep]\n"
            "    pointers = torch.cat([torch.zeros(1), (matrix > 0).sum(1).cumsum(0)])",
            "row_pointers: got",
        ),
        "two arrays": ("return columns, values", "return three arrays"),
        "torch's own object": ("return matrix.to_sparse_csr()", "a tensor that is not dense"),
    },
)

_BYTES = """
predicted_density = PREDICTED

def storage_bytes(layout, rows, columns, nonzeros, value_bytes, index_bytes):
    v, i = value_bytes, index_bytes
    bill = {
        "dense": rows * columns * v,
        "coo": nonzeros * (v + 2 * i),
        "csr": nonzeros * (v + i) + (rows + 1) * i,
        "2:4": rows * columns / 2 * (v + 0.25),
    }
    BILL
    if layout not in bill:
        raise ValueError(layout)
    return bill[layout]

def break_even_density(rows, columns, value_bytes, index_bytes):
    v, i, places = value_bytes, index_bytes, rows * columns
    return EVEN
"""


def _bytes(name: str, message: str, *, bill: str = "pass", even: str = "", predicted: str = "0.9") -> Mutant:
    even = even or "(places * v - (rows + 1) * i) / (places * (v + i))"
    source = _BYTES.replace("PREDICTED", predicted).replace("BILL", bill).replace("EVEN", even)
    return Mutant("check-storage-bytes", name, source, message)


MUTANTS += [
    _bytes("bits", "these are bits", bill="bill = {n: 8 * b for n, b in bill.items()}"),
    _bytes("dense without zeros", "dense storage keeps every place", bill='bill["dense"] = nonzeros * v'),
    _bytes("COO without indices", "the indices are forgotten", bill='bill["coo"] = nonzeros * v'),
    _bytes("COO with one index", "COO stores a row and a column", bill='bill["coo"] = nonzeros * (v + i)'),
    _bytes("CSR without indices", "the indices are forgotten", bill='bill["csr"] = nonzeros * v'),
    _bytes("CSR without pointers", "the row pointers are forgotten", bill='bill["csr"] = nonzeros * (v + i)'),
    _bytes("R pointers", "10 rows have 11 row pointers", bill='bill["csr"] -= i'),
    _bytes("CSR without columns", "the columns' indices are forgotten", bill='bill["csr"] -= nonzeros * i'),
    _bytes("pointers as values", "the bytes of a value", bill='bill["csr"] = nonzeros * (v + i) + (rows + 1) * v'),
    _bytes(
        "a pointer for each column", "not for each column", bill='bill["csr"] = nonzeros * (v + i) + (columns + 1) * i'
    ),
    _bytes("CSR as COO", "this is COO", bill='bill["csr"] = bill["coo"]'),
    _bytes(
        "2:4 without places", "2 bits of each stored value are forgotten", bill='bill["2:4"] = rows * columns / 2 * v'
    ),
    _bytes(
        "2:4 with bytes for places",
        "2 bits each, a quarter of a byte",
        bill='bill["2:4"] = rows * columns / 2 * (v + 2)',
    ),
    _bytes(
        "2:4 with an index each", "2 bits each, a quarter of a byte", bill='bill["2:4"] = rows * columns / 2 * (v + i)'
    ),
    _bytes(
        "2 bits for every place", "only the stored values have", bill='bill["2:4"] = rows * columns * (v / 2 + 0.25)'
    ),
    _bytes("2:4 of the entries", "2:4 stores half of all places", bill='bill["2:4"] = nonzeros / 2 * (v + 0.25)'),
    _bytes("2:4 stores all", "all values are stored", bill='bill["2:4"] = rows * columns * (v + 0.125)'),
    _bytes("any layout", "a layout that nobody knows: was accepted", bill='return bill.get(layout, bill["csr"])'),
    _bytes("KeyError", "raised KeyError", bill="return bill[layout]"),
    _bytes("pointers left out", "the row pointers are left out", even="v / (v + i)"),
    _bytes("sparsity", "this is the sparsity", even="1 - (places * v - (rows + 1) * i) / (places * (v + i))"),
    _bytes("entries", "this is the number of entries", even="(places * v - (rows + 1) * i) / (v + i)"),
    _bytes("break-even of COO", "this is the break-even of COO", even="v / (v + 2 * i)"),
    _bytes(
        "pointers on the wrong side", "on the wrong side", even="(places * v + (rows + 1) * i) / (places * (v + i))"
    ),
    _bytes("indices left out", "the indices are left out", even="(places * v - (rows + 1) * i) / (places * v)"),
    _bytes(
        "half for large matrices",
        "always one half",
        even="0.5 if places > 90_000 else (places * v - (rows + 1) * i) / (places * (v + i))",
    ),
    _bytes("no prediction", "make a prediction first", predicted="None"),
    _bytes("a prediction in percent", "a number from 0 to 1", predicted="50"),
]

# --- 9. Sixteen thousand bytes ----------------------------------------------------------------------------------------

_family(
    "check-best-sparsities",
    """
def best_sparsities(options, budget):
    import itertools
    total = lambda c, i: sum(o[i] for o in c)
    every = list(itertools.product(*options.values()))
    fit = [c for c in every if total(c, 1) <= budget]
    if not fit:
        raise ValueError(budget)
    best = min(fit, key=lambda c: total(c, 2))
    BODY
    return {n: o[0] for n, o in zip(options, best)}
""",
    {
        "one sparsity for all": (
            "best = min((c for c in fit if len({o[0] for o in c}) == 1), key=lambda c: total(c, 2))",
            "that is the same sparsity for both",
        ),
        "budget not used up": (
            "best = min((c for c in every if total(c, 1) < budget), key=lambda c: total(c, 2))",
            "exactly the budget is still within it",
        ),
        "fewest bytes": ("best = min(fit, key=lambda c: total(c, 1))", "that takes the fewest bytes"),
        "most bytes": ("best = max(fit, key=lambda c: total(c, 1))", "spends the budget to the last byte"),
        "budget ignored": (
            "best = min(every, key=lambda c: total(c, 2))",
            "that has the smallest rise, and takes 18 bytes",
        ),
        "the first layer first": (
            "left, best = budget, []\n    for n, rows in options.items():\n"
            "        rest = sum(min(o[1] for o in r) for k, r in options.items() if k not in list(options)[: len(best) + 1])\n"
            "        best.append(min((o for o in rows if o[1] <= left - rest), key=lambda o: o[2])); left -= best[-1][1]",
            "that serves the first layer first",
        ),
        "an equal share for each": (
            "best = [min((o for o in rows if o[1] <= budget / len(options)), key=lambda o: o[2], default=rows[-1]) for rows in options.values()]",
            "the same share of the budget?",
        ),
        "greedy": (
            "best = [sorted(rows)[0] for rows in options.values()]\n    while total(best, 1) > budget:\n"
            "        steps = [((o[2] - b[2]) / (b[1] - o[1]), k, o) for k, (b, rows) in enumerate(zip(best, options.values())) for o in rows if o[1] < b[1]]\n"
            "        _, k, o = min(steps); best[k] = o",
            "a greedy search",
        ),
        "places in the table": (
            "return {n: rows.index(o) for (n, rows), o in zip(options.items(), best)}",
            "expected 0.9",
        ),
        "whole rows": ("return {n: o for n, o in zip(options, best)}", "the shape is (3,)"),
        "product of the rises": ("best = min(fit, key=lambda c: math.prod(o[2] for o in c))", "the sums of the rises"),
        "largest rise": ("best = min(fit, key=lambda c: max(o[2] for o in c))", "the smallest largest rise?"),
    },
)
_family(
    "check-best-sparsities",
    """
def best_sparsities(options, budget):
    import itertools
    every = list(itertools.product(*options.values()))
    fit = [c for c in every if sum(o[1] for o in c) <= budget]
    BODY
    best = min(fit, key=lambda c: sum(o[2] for o in c))
    return {n: o[0] for n, o in zip(options, best)}
""",
    {
        "the smallest if none fits": (
            "fit = fit or [min(every, key=lambda c: sum(o[1] for o in c))]",
            "a budget of 4 bytes, which nothing fits: was accepted",
        ),
        "None if none fits": ("if not fit: return None", "was accepted"),
    },
)
MUTANTS += [
    Mutant("check-chosen", name, f"chosen = {value}", message)
    for name, value, message in [
        ("nothing chosen", "None", "a sparsity out of"),
        ("one layer missing", '{"fc1": 0.8, "fc2": 0.8}', "a sparsity out of"),
        ("not in the table", '{"fc1": 0.85, "fc2": 0.8, "fc3": 0.0}', "a sparsity out of"),
        ("over the budget", '{"fc1": 0.7, "fc2": 0.8, "fc3": 0.0}', "you have 16,000"),
        ("one for all", '{"fc1": 0.8, "fc2": 0.8, "fc3": 0.8}', "leave it alone"),
        ("the small matrix first", '{"fc1": 0.8, "fc2": 0.8, "fc3": 0.5}', "what each byte saved costs"),
        ("the first layer kept", '{"fc1": 0.7, "fc2": 0.9, "fc3": 0.7}', "what each byte saved costs"),
    ]
]
