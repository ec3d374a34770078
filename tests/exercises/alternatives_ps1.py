"""Right answers to ps1_distillation, written another way. Each must score full marks on every check it touches."""

ALTERNATIVES: dict[str, str] = {
    "soften with loops, in float64": """
def soften(logits, temperature):
    if not temperature > 0:
        raise ValueError("T must be positive")
    flat = logits.double().reshape(-1, logits.shape[-1])
    rows = []
    for row in flat:
        top = max(v.item() for v in row)
        e = [math.exp((v.item() - top) / temperature) for v in row]
        rows.append([v / sum(e) for v in e])
    return torch.tensor(rows, dtype=torch.float64).reshape(logits.shape)
""",
    "soften in NumPy": """
def soften(logits, temperature):
    if temperature <= 0:
        raise ValueError
    z = np.asarray(logits) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return torch.from_numpy(e / e.sum(axis=-1, keepdims=True))
""",
    "soften through log_softmax and a helper": """
from torch.nn import LogSoftmax
def _log(z): return LogSoftmax(dim=-1)(z)
def soften(logits, temperature):
    assert_positive(temperature)
    return _log(logits.div(temperature)).exp()
def assert_positive(t):
    if t <= 0: raise ValueError(t)
""",
    "distillation_loss with logsumexp, in float64": """
def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):
    s, t = student_logits.double() / temperature, teacher_logits.detach().double() / temperature
    log_q, log_p = s - s.logsumexp(1, keepdim=True), t - t.logsumexp(1, keepdim=True)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    z = student_logits.double()
    hard = (z.logsumexp(1) - z[torch.arange(len(z)), labels]).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * hard
""",
    "distillation_loss with a loop over the examples": """
def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):
    total = 0.0
    for s, t, y in zip(student_logits, teacher_logits.detach(), labels):
        log_q, log_p = F.log_softmax(s / temperature, 0), F.log_softmax(t / temperature, 0)
        kl = sum(log_p[i].exp() * (log_p[i] - log_q[i]) for i in range(len(s)))
        total = total + alpha * temperature**2 * kl - (1 - alpha) * F.log_softmax(s, 0)[y]
    return total / len(student_logits)
""",
    "distillation_loss with log_target and no_grad": """
def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):
    with torch.no_grad():
        target = torch.log_softmax(teacher_logits / temperature, 1)
    kl = torch.nn.KLDivLoss(reduction="sum", log_target=True)(torch.log_softmax(student_logits / temperature, 1), target)
    nll = torch.nn.NLLLoss()(torch.log_softmax(student_logits, 1), labels)
    return kl * alpha * temperature * temperature / student_logits.size(0) + nll * (1 - alpha)
""",
    "soft_gradient in NumPy": """
def soft_gradient(student_logits, teacher_logits, temperature):
    def softmax(z):
        e = np.exp(z / temperature - (z / temperature).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    s, t = student_logits.numpy().astype(np.float64), teacher_logits.numpy().astype(np.float64)
    return torch.from_numpy((softmax(s) - softmax(t)) / temperature / s.shape[0])
""",
    "shrink_power as a tensor, by autograd": """
def shrink_power(student_logits, teacher_logits, low, high):
    norms = []
    for t in (low, high):
        z = student_logits.clone().double().requires_grad_()
        p = F.softmax(teacher_logits.double() / t, 1)
        F.kl_div(F.log_softmax(z / t, 1), p, reduction="batchmean").backward()
        norms.append(z.grad.pow(2).sum().sqrt())
    return (norms[0].log() - norms[1].log()) / (np.log(high) - np.log(low))
""",
    "mix_teachers with loops": """
def mix_teachers(distributions, mean="arithmetic"):
    if mean not in {"arithmetic", "geometric"}:
        raise ValueError("unknown mean")
    M = len(distributions)
    for teacher in distributions:
        for row in teacher:
            if row.min() < 0 or not np.isclose(float(row.sum()), 1, atol=1e-3):
                raise ValueError("not a distribution")
    total = torch.zeros_like(distributions[0], dtype=torch.float64)
    for teacher in distributions:
        total += teacher.double() if mean == "arithmetic" else teacher.double().clamp_min(1e-300).log()
    return total / M if mean == "arithmetic" else torch.softmax(total / M, dim=-1)
""",
    "mix_teachers with roots before the product": """
def mix_teachers(distributions, mean="arithmetic"):
    if bool((distributions < 0).any()) or not torch.allclose(distributions.sum(2), torch.ones(()), atol=9e-4):
        raise ValueError("rows must sum to 1")
    match mean:
        case "arithmetic": return torch.einsum("mnc->nc", distributions) / distributions.shape[0]
        case "geometric":
            root = (distributions ** (1 / distributions.shape[0])).prod(0)
            return F.normalize(root, p=1, dim=1)
    raise ValueError(mean)
""",
    "soft_term with log_target": """
def soft_term(student_logits, teacher_logits, temperature):
    lq, lp = F.log_softmax(student_logits / temperature, 1), F.log_softmax(teacher_logits / temperature, 1)
    return temperature**2 * F.kl_div(lq, lp, reduction="batchmean", log_target=True)

z = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
soft_term_with_bug(z, z.detach().clone(), 2.0).backward()
pull_on_a_perfect_student = round(float(torch.linalg.vector_norm(z.grad)), 2)
""",
    "kd_loss with the default reduction, corrected": """
def kd_loss(student_logits, teacher_logits, labels, temperature, alpha):
    classes = student_logits.shape[-1]
    q, p = F.log_softmax(student_logits / temperature, 1), F.softmax(teacher_logits / temperature, 1)
    soft = F.kl_div(q, p, reduction="none").mean() * classes
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)

effective_alpha = {c: round(0.5 / c / (0.5 / c + 0.5), 6) for c in (2, 10, 1000)}
""",
    "hint_loss with loops": """
def hint_loss(student_features, teacher_features, weight):
    loss, grad = 0.0, torch.zeros_like(weight)
    for v, u in zip(student_features, teacher_features):
        d = weight @ v - u
        loss += 0.5 * float(d @ d)
        grad += torch.outer(d, v)
    n = len(student_features)
    return [loss / n, grad / n]
""",
    "hint_loss with autograd and mse_loss": """
def hint_loss(student_features, teacher_features, weight):
    W = weight.double().clone().requires_grad_()
    loss = F.mse_loss(F.linear(student_features.double(), W), teacher_features.double(), reduction="sum")
    loss = loss / 2 / student_features.shape[0]
    return loss, torch.autograd.grad(loss, W)[0]
""",
    "best_bias_shift for all shifts at once": """
def best_bias_shift(logits, labels, class_index, candidates):
    shifts = torch.tensor(sorted(candidates, key=abs), dtype=torch.float64)
    one = F.one_hot(torch.tensor(class_index), logits.shape[1]).double()
    moved = logits.double() + shifts[:, None, None] * one  # (K, N, C)
    right = (moved.argmax(-1) == labels).sum(-1)
    return shifts[int(right.argmax())].item()
""",
    "best_bias_shift by adding and taking away": """
def best_bias_shift(logits, labels, class_index, candidates):
    best = None
    for b in candidates:
        logits[:, class_index] += b
        errors = (logits.argmax(1) != labels).sum().item()
        logits[:, class_index] -= b
        if best is None or (errors, abs(b)) < best[:2]:
            best = (errors, abs(b), b)
    return torch.tensor(best[2])
""",
    "entropy with a where": """
def entropy(probabilities):
    p = probabilities.double()
    return torch.where(p > 0, -p * p.clamp_min(1e-300).log(), torch.zeros_like(p)).sum(-1)
""",
    "entropy from torch.distributions": """
def entropy(probabilities):
    return torch.special.entr(probabilities).sum(dim=-1)
""",
    "lowest_temperature in ascending order": """
predicted_temperature = 16
def lowest_temperature(logits, candidates, least_entropy):
    for t in sorted(candidates):
        p = torch.softmax(logits / t, dim=1)
        if (-(p * torch.log(p + 1e-12)).sum(1)).mean() >= least_entropy:
            return t
    raise ValueError("none is soft enough")
""",
}
