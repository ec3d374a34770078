"""Wrong answers that learners really give to ps1_distillation, and the message meant for each."""

from tests.exercises.mutants import Mutant, family

MUTANTS: list[Mutant] = []


def _family(check: str, template: str, variants: dict[str, tuple[str, str]]) -> None:
    MUTANTS.extend(family(check, template, variants))


_family(
    "check-soften",
    """
def soften(logits, temperature):
    if temperature <= 0:
        raise ValueError("temperature must be positive")
    BODY
""",
    {
        "multiplied by T": ("return torch.softmax(logits * temperature, -1)", "multiplied by T; divide"),
        "T ignored": ("return torch.softmax(logits, -1)", "temperature is not used"),
        "probabilities divided by T": ("return torch.softmax(logits, -1) / temperature", "not the logits"),
        "softmax missing": ("return logits / temperature", "softmax is missing"),
        "log_softmax": ("return F.log_softmax(logits / temperature, -1)", "log-probabilities"),
        "first dimension": ("return torch.softmax(logits / temperature, 0)", "columns sum to 1"),
        "second dimension": (
            "return torch.softmax(logits / temperature, 1 if logits.dim() > 1 else 0)",
            "dimension 1; use the last one",
        ),
        "normalised over everything": (
            "e = torch.exp(logits / temperature); return e / e.sum()",
            "all numbers together sum to 1",
        ),
        "unstable exp": (
            "e = torch.exp(logits / temperature); return e / e.sum(-1, keepdim=True)",
            "Subtract the largest logit first",
        ),
        "sum without keepdim": (
            "e = torch.exp(logits / temperature); return e / e.sum(-1)",
            "",  # the shapes do not fit: PyTorch's own message
        ),
        "no return": ("torch.softmax(logits / temperature, -1)", "Is there a return"),
    },
)
MUTANTS.append(
    Mutant(
        "check-soften",
        "accepts T = 0",
        "def soften(logits, temperature):\n    return torch.softmax(logits / temperature, -1)",
        "a temperature of 0: was accepted",
    )
)
MUTANTS.append(
    Mutant(
        "check-soften",
        "refuses T = 0 only",
        "def soften(logits, temperature):\n    if temperature == 0:\n        raise ValueError\n"
        "    return torch.softmax(logits / temperature, -1)",
        "a temperature of -2: was accepted",
    )
)

_LOSS = """
def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):
    s, t, T = student_logits, teacher_logits.detach(), temperature
    log_q, p = F.log_softmax(s / T, -1), F.softmax(t / T, -1)
    soft, hard = F.kl_div(log_q, p, reduction="batchmean") * T**2, F.cross_entropy(s, labels)
    BODY
    return alpha * soft + (1 - alpha) * hard
"""
_family(
    "check-distillation-loss",
    _LOSS,
    {
        "missing T²": ("soft = soft / T**2", "not multiplied by T²: its gradient shrinks as T grows"),
        "sum over the batch": (
            'soft = F.kl_div(log_q, p, reduction="sum") * T**2',
            "summed over the batch; average over the examples",
        ),
        "mean over classes": (
            'soft = F.kl_div(log_q, p, reduction="mean") * T**2',
            "averaged over classes too",
        ),
        "log-probabilities as target": (
            'soft = F.kl_div(log_q, p.log(), reduction="batchmean") * T**2',
            "where kl_div expects a probability",
        ),
        "KL the wrong way round": (
            'soft = F.kl_div(p.log(), log_q.exp(), reduction="batchmean") * T**2',
            "wrong way round",
        ),
        "soft cross-entropy": ("soft = -(p * log_q).sum(-1).mean() * T**2", "cross-entropy with the soft targets"),
        "alpha swapped": ("return (1 - alpha) * soft + alpha * hard", "alpha is on the wrong term"),
        "hard term not weighed": ("return alpha * soft + hard", "hard term is not weighed"),
        "cross-entropy at T": ("hard = F.cross_entropy(s / T, labels)", "the labels see the student at T = 1"),
        "T² on both terms": ("hard = hard * T**2", "multiplied by T² too"),
        "softmax before cross_entropy": ("hard = F.cross_entropy(s.softmax(-1), labels)", "second softmax"),
        "sum of cross-entropies": (
            'hard = F.cross_entropy(s, labels, reduction="sum")',
            "hard term is summed over the batch",
        ),
        "student not softened": (
            'soft = F.kl_div(F.log_softmax(s, -1), p, reduction="batchmean") * T**2',
            "both taken at T",
        ),
        "teacher not softened": (
            'soft = F.kl_div(log_q, F.softmax(t, -1), reduction="batchmean") * T**2',
            "both taken at T",
        ),
        "log of softmax": (
            "q = F.softmax(s / T, -1); soft = (p * (p.log() - q.log())).sum(-1).mean() * T**2",
            "Use log_softmax",
        ),
        "no return": ("alpha * soft + (1 - alpha) * hard\n    return None", "Is there a return"),
    },
)
_family(
    "check-distillation-gradient",
    _LOSS,
    {
        "teacher learns": (
            'soft = F.kl_div(log_q, F.softmax(teacher_logits / T, -1), reduction="batchmean") * T**2',
            "a gradient flows into the teacher's logits",
        ),
        "returns a float": ("return (alpha * soft + (1 - alpha) * hard).item()", "gradients flow through"),
        "student detached in the soft term": (
            'soft = F.kl_div(log_q.detach(), p, reduction="batchmean") * T**2',
            "no gradient reaches the student",
        ),
        "T² as a number taken off the graph": (
            "soft = soft / T**2 + (soft * (1 - 1 / T**2)).detach()",
            "the gradient shrinks as T grows",
        ),
    },
)

_family(
    "check-soft-gradient",
    """
def soft_gradient(student_logits, teacher_logits, temperature):
    T, n = temperature, len(student_logits)
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return BODY
""",
    {
        "sign": ("(p - q) / (T * n)", "sign is wrong"),
        "1/T missing": ("(q - p) / n", "1/T is missing"),
        "1/N missing": ("(q - p) / T", "1/N is missing"),
        "both missing": ("q - p", "1/N"),
        "T² multiplied in": ("T * (q - p) / n", "T² is multiplied in"),
        "divided by all entries": ("(q - p) / (T * q.numel())", "number of classes too"),
        "not softened": (
            "(student_logits.softmax(-1) - teacher_logits.softmax(-1)) / (T * n)",
            "not softened",
        ),
        "logit matching": (
            "(student_logits - teacher_logits) / (T**2 * n * q.shape[1])",
            "limit for a high temperature",
        ),
    },
)

_family(
    "check-shrink-power",
    """
def shrink_power(student_logits, teacher_logits, low, high):
    a = soft_gradient(student_logits, teacher_logits, low).norm().item()
    b = soft_gradient(student_logits, teacher_logits, high).norm().item()
    return BODY
""",
    {
        "upside down": ("math.log(b / a) / math.log(high / low)", "upside down"),
        "no logarithm": ("a / b", "ratio of the norms. Take its logarithm"),
        "only one logarithm": ("math.log(a / b)", "divide it by ln(high / low)"),
        "squared norms": ("math.log(a**2 / b**2) / math.log(high / low)", "squared norm"),
        "with T²": ("math.log(a * low**2 / (b * high**2)) / math.log(high / low)", "still carries the factor T²"),
        "without 1/T": ("math.log(a * low / (b * high)) / math.log(high / low)", "1/T is missing from the gradient"),
        "log2 for every ratio": ("math.log2(a / b)", "whatever they are"),
    },
)

_MIX = """
def mix_teachers(distributions, mean="arithmetic"):
    d = distributions
    if (d < 0).any() or ((d.sum(-1) - 1).abs() > 1e-3).any() or mean not in ("arithmetic", "geometric"):
        raise ValueError("not distributions")
    arithmetic, geometric = d.mean(0), torch.softmax(d.log().mean(0), -1)
    BODY
    return arithmetic if mean == "arithmetic" else geometric
"""
_family(
    "check-mix-teachers",
    _MIX,
    {
        "sum": ("arithmetic = d.sum(0)", "divide by the number of teachers"),
        "geometric for arithmetic": ("arithmetic = geometric", "that is the geometric mean"),
        "logits averaged as arithmetic": (
            "arithmetic = torch.softmax(d.log().mean(0), -1)",
            "geometric mean",
        ),
        "arithmetic for geometric": ("geometric = arithmetic", "this is the arithmetic mean"),
        "another softmax": ("arithmetic = torch.softmax(d.mean(0), -1)", "another softmax"),
        "geometric not renormalised": ("geometric = d.log().mean(0).exp()", "does not sum to 1"),
        "product without the root": ("geometric = d.prod(0)", "the power 1/M is missing"),
        "product scaled, without the root": (
            "geometric = d.prod(0) / d.prod(0).sum(-1, keepdim=True)",
            "scaled to sum 1; the power 1/M is missing",
        ),
        "square root for any M": (
            "geometric = d.prod(0).sqrt(); geometric = geometric / geometric.sum(-1, keepdim=True)",
            "with M teachers it is the power 1/M",
        ),
        "half for any M": ("arithmetic = d.sum(0) / 2", "divided by 2"),
        "scaled over all rows": (
            "geometric = d.log().mean(0).exp(); geometric = geometric / geometric.sum()",
            "scale each row",
        ),
        "product of 400 numbers": (
            "geometric = d.prod(0) ** (1 / len(d)); geometric = geometric / geometric.sum(-1, keepdim=True)",
            "Average the logarithms",
        ),
        "mean over the examples": ("arithmetic = d.mean(1)", "expected"),
    },
)
_family(
    "check-mix-teachers",
    """
def mix_teachers(distributions, mean="arithmetic"):
    d = distributions
    BODY
    if mean not in ("arithmetic", "geometric"):
        raise ValueError(mean)
    return d.mean(0) if mean == "arithmetic" else torch.softmax(d.log().mean(0), -1)
""",
    {
        "accepts anything": ("pass", "rows that sum to 0.9 and 1.1: was accepted"),
        "looks at the result only": (
            "assert_sum = (d.mean(0).sum(-1) - 1).abs().max()\n    if assert_sum > 1e-3: raise ValueError",
            "rows that sum to 0.9 and 1.1: was accepted",
        ),
        "exact equality": (
            "if (d < 0).any() or (d.sum(-1) != 1).any(): raise ValueError",
            "up to rounding",
        ),
        "negatives accepted": ("if ((d.sum(-1) - 1).abs() > 1e-3).any(): raise ValueError", "a negative entry"),
        "first row only": (
            "if (d < 0).any() or abs(d[0, 0].sum() - 1) > 1e-3: raise ValueError",
            "only the last row is bad",
        ),
        "assert instead of ValueError": (
            "assert ((d.sum(-1) - 1).abs() < 1e-3).all()",
            "raised AssertionError",
        ),
    },
)

_family(
    "check-soft-term",
    """
def soft_term(student_logits, teacher_logits, temperature):
    T = temperature
    log_q, log_p = F.log_softmax(student_logits / T, -1), F.log_softmax(teacher_logits / T, -1)
    BODY

_row = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
pull_on_a_perfect_student = gradient(soft_term_with_bug, _row, _row, 2.0).norm().item()
""",
    {
        "bug left in": ('return F.kl_div(log_q, log_p, reduction="batchmean") * T**2', "sign of a log-probability"),
        "nan swept away": (
            'return torch.nan_to_num(F.kl_div(log_q, log_p, reduction="batchmean")) * T**2',
            "nan was replaced, not its cause",
        ),
        "both as probabilities": (
            'return F.kl_div(log_q.exp(), log_p.exp(), reduction="batchmean") * T**2',
            "student must go in as log-probabilities",
        ),
        "log_target with a probability": (
            'return F.kl_div(log_q, log_p.exp(), reduction="batchmean", log_target=True) * T**2',
            "log_target=True goes with a log-probability",
        ),
        "arguments swapped": (
            'return F.kl_div(log_p, log_q.exp(), reduction="batchmean") * T**2',
            "arguments are swapped",
        ),
        "T² lost": ('return F.kl_div(log_q, log_p.exp(), reduction="batchmean")', "T² got lost"),
    },
)
_family(
    "check-soft-term",
    """
def soft_term(student_logits, teacher_logits, temperature):
    T = temperature
    log_q, log_p = F.log_softmax(student_logits / T, -1), F.log_softmax(teacher_logits / T, -1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * T**2

_row = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
pull_on_a_perfect_student = BODY
""",
    {
        "not measured": ("None", "measure it, and store a float"),
        "mended one measured": ("0.0", "Measure the one with the bug"),
        "largest entry": ("gradient(soft_term_with_bug, _row, _row, 2.0).abs().max().item()", "largest entry"),
        "measured at T = 1": ("gradient(soft_term_with_bug, _row, _row, 1.0).norm().item()", "measured at T = 1"),
    },
)

_family(
    "check-kd-loss",
    """
def kd_loss(student_logits, teacher_logits, labels, temperature, alpha):
    s, t, T, a = student_logits, teacher_logits, temperature, alpha
    log_q, p, hard = F.log_softmax(s / T, -1), F.softmax(t / T, -1), F.cross_entropy(s, labels)
    return BODY

effective_alpha = {10: 1 / 11, 1000: 1 / 1001}
""",
    {
        "bug left in": ("a * T**2 * F.kl_div(log_q, p) + (1 - a) * hard", "still divided by the number of classes"),
        "sum": ('a * T**2 * F.kl_div(log_q, p, reduction="sum") + (1 - a) * hard', "sum over the whole batch"),
        "T² lost": ('a * F.kl_div(log_q, p, reduction="batchmean") + (1 - a) * hard', "T² got lost"),
        "hard term summed": (
            'a * T**2 * F.kl_div(log_q, p, reduction="batchmean") + (1 - a) * F.cross_entropy(s, labels, reduction="sum")',
            "hard term changed too",
        ),
        "times 3 for three classes": (
            "a * T**2 * 3 * F.kl_div(log_q, p) + (1 - a) * hard",
            "a fixed factor fits one number of classes only",
        ),
        "times the batch size": (
            "a * T**2 * len(s) * F.kl_div(log_q, p) + (1 - a) * hard",
            "multiplied by the wrong count",
        ),
    },
)
_family(
    "check-kd-loss",
    """
def kd_loss(student_logits, teacher_logits, labels, temperature, alpha):
    log_q, p = F.log_softmax(student_logits / temperature, -1), F.softmax(teacher_logits / temperature, -1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)

effective_alpha = BODY
""",
    {
        "not said": ("{10: None, 1000: None}", "store a number"),
        "factor alone": ("{10: 0.1, 1000: 0.001}", "follow the formula above to the end"),
        "alpha over f": ("{10: 0.05, 1000: 0.0005}", "divides it by the sum of both weights"),
        "unchanged": ("{10: 0.5, 1000: 0.5}", "less than 0.5"),
    },
)

_family(
    "check-hint-loss",
    """
def hint_loss(student_features, teacher_features, weight):
    v, u, W, n = student_features, teacher_features, weight, len(student_features)
    d = v @ W.T - u
    loss, grad = d.square().sum() / (2 * n), d.T @ v / n
    BODY
    return loss, grad
""",
    {
        "half missing": ("loss = 2 * loss", "factor 1/2 is missing"),
        "sum over the examples": ("loss = n * loss", "summed over the examples"),
        "sum of squares": ("loss = d.square().sum()", "1/2 and the average"),
        "mse_loss": ("loss = F.mse_loss(v @ W.T, u)", "as mse_loss does"),
        "half of mse_loss": ("loss = F.mse_loss(v @ W.T, u) / 2", "as mse_loss does"),
        "norm not squared": ("loss = d.norm(dim=1).mean() / 2", "square them"),
        "gradient transposed": ("grad = grad.T", "transposed"),
        "gradient sign": ("grad = -grad", "prediction minus target"),
        "gradient summed": ("grad = n * grad", "average over them"),
        "gradient doubled": ("grad = 2 * grad", "factor 2 too many"),
        "gradient halved": ("grad = grad / 2", "factor 1/2 too many"),
        "gradient over all entries": ("grad = grad / u.shape[1]", "averaged over the features too"),
        "loss alone": ("return loss", "return two things"),
    },
)

_family(
    "check-bias-shift",
    """
def best_bias_shift(logits, labels, class_index, candidates):
    def errors(b, z=logits, y=labels):
        z = z.clone()
        z[:, class_index] += b
        return int((z.argmax(1) != y).sum())
    mine = labels == class_index
    BODY
""",
    {
        "sign": ("return min(candidates, key=lambda b: (errors(-b), abs(b)))", "sign is wrong"),
        "errors of the class only": (
            "return min(candidates, key=lambda b: (errors(b, logits[mine], labels[mine]), abs(b)))",
            "only the examples of class c",
        ),
        "position instead of shift": (
            "return candidates.index(min(candidates, key=errors))",
            "position of the shift",
        ),
        "first of equals": ("return min(candidates, key=errors)", "nearest to 0"),
        "lowest of equals": ("return min(sorted(candidates), key=errors)", "nearest to 0"),
        "logits changed": (
            "def pile(b):\n        logits[:, class_index] += b\n        return int((logits.argmax(1) != labels).sum())\n"
            "    return min(candidates, key=pile)",
            "pile up",
        ),
        "row instead of column": (
            "def row(b):\n        z = logits.clone()\n        z[class_index] += b\n        return int((z.argmax(1) != labels).sum())\n"
            "    return min(candidates, key=lambda b: (row(b), abs(b)))",
            "added to one column",
        ),
        "most right in the class, whatever it costs": ("return max(candidates)", "wins them all, and loses the others"),
    },
)

_family(
    "check-entropy",
    "\ndef entropy(probabilities):\n    p = probabilities\n    return BODY\n",
    {
        "0 ln 0": ("-(p * p.log()).sum(-1)", "0 · ln 0 is nan"),
        "bits": ("-torch.xlogy(p, p).sum(-1) / math.log(2)", "in bits"),
        "sign": ("torch.xlogy(p, p).sum(-1)", "sign is wrong"),
        "all rows": ("-torch.xlogy(p, p).sum()", "all rows are summed up"),
        "mean over the classes": ("-torch.xlogy(p, p).mean(-1)", "averaged over the classes"),
        "mean over the rows": ("-torch.xlogy(p, p).sum(-1).mean()", "rows are averaged"),
        "second dimension": ("-torch.xlogy(p, p).sum(1 if p.dim() > 1 else 0)", "expected"),
    },
)

_family(
    "check-lowest-temperature",
    """
predicted_temperature = 4.0
def lowest_temperature(logits, candidates, least_entropy):
    h = {t: entropy(soften(logits, t)) for t in candidates}
    BODY
""",
    {
        "first in the list": (
            "for t in candidates:\n        if h[t].mean() >= least_entropy: return t\n    raise ValueError",
            "the lowest is asked for",
        ),
        "one below": (
            "c = sorted(candidates); k = [h[t].mean() >= least_entropy for t in c]\n"
            "    if True not in k: raise ValueError\n    return c[max(k.index(True) - 1, 0)]",
            "less entropy than asked for",
        ),
        "every example": (
            "c = [t for t in candidates if h[t].min() >= least_entropy]\n    if not c: raise ValueError\n    return min(c)",
            "asked to reach the entropy; the mean over them is",
        ),
        "any example": (
            "c = [t for t in candidates if h[t].max() >= least_entropy]\n    if not c: raise ValueError\n    return min(c)",
            "the mean over them must reach it",
        ),
        "highest when none is enough": (
            "c = [t for t in candidates if h[t].mean() >= least_entropy]\n    return min(c) if c else max(candidates)",
            "was accepted",
        ),
    },
)
MUTANTS.append(
    Mutant(
        "check-lowest-temperature",
        "no prediction",
        "predicted_temperature = None\ndef lowest_temperature(logits, candidates, least_entropy):\n    return 4.0\n",
        "make a prediction first",
    )
)
