"""Further answers to ps1_distillation, as learners may type them, beside the mutants: written by an author of the checks."""

from tests.exercises.mutants import Answers

ANSWERS = Answers()
w, r = ANSWERS.wrong, ANSWERS.right

# ---- soften
w(
    "soften in place",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    logits /= temperature\n    return torch.softmax(logits, -1)",
    "changes its argument",
)
w(
    "soften subtracts max in place",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    z = logits / temperature\n    logits -= logits.max()\n    return torch.softmax(z, -1)",
    "changes its argument",
)
w(
    "soften clamps temperature",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return torch.softmax(logits / max(temperature, 1.0), -1)",
)
w(
    "soften integer division",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return torch.softmax(logits // temperature, -1)",
)
w(
    "soften raises TypeError",
    "def soften(logits, temperature):\n    if temperature <= 0: raise TypeError('T')\n    return torch.softmax(logits / temperature, -1)",
)
w(
    "soften returns text",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return [[str(v) for v in row] for row in torch.softmax(logits / temperature, -1).tolist()] if logits.dim() > 1 else [str(v) for v in torch.softmax(logits / temperature, -1).tolist()]",
    "the answer is text",
)
w(
    "soften complex",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return torch.softmax(logits / temperature, -1) + 0.1j",
    "imaginary part",
)
w(
    "soften max over all",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    e = torch.exp((logits - logits.max()) / temperature)\n    return e / e.sum(-1, keepdim=True)",
)
w(
    "soften flattens 3d",
    "def soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return torch.softmax(logits.reshape(-1, logits.shape[-1]) / temperature, -1)",
)
# ---- distillation_loss
w(
    "KD labels as one hot smoothing",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    soft = F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t.detach()/temperature,-1), reduction='batchmean')*temperature**2\n    return alpha*soft + (1-alpha)*F.cross_entropy(s, labels, label_smoothing=0.1)",
)
w(
    "KD abs",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    p, q = F.softmax(t.detach()/temperature,-1), F.softmax(s/temperature,-1)\n    return alpha*temperature**2*(p-q).abs().sum(-1).mean() + (1-alpha)*F.cross_entropy(s, labels)",
)
w(
    "KD JS",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    p, q = F.softmax(t.detach()/temperature,-1), F.softmax(s/temperature,-1)\n    m=(p+q)/2\n    js=0.5*(p*(p/m).log()).sum(-1).mean()+0.5*(q*(q/m).log()).sum(-1).mean()\n    return alpha*temperature**2*js + (1-alpha)*F.cross_entropy(s, labels)",
)
w(
    "KD hard gets T2 when alpha>0",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    soft = F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t.detach()/temperature,-1), reduction='batchmean')\n    return temperature**2*(alpha*soft + (1-alpha)*F.cross_entropy(s, labels))",
)
w(
    "KD teacher argmax",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    return alpha*temperature**2*F.cross_entropy(s/temperature, t.argmax(-1)) + (1-alpha)*F.cross_entropy(s, labels)",
)
w(
    "KD student detached wholly",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    s = s.detach().requires_grad_()\n    soft = F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t.detach()/temperature,-1), reduction='batchmean')*temperature**2\n    return alpha*soft + (1-alpha)*F.cross_entropy(s, labels)",
)
w(
    "KD in place",
    "def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):\n    hard = F.cross_entropy(student_logits, labels)\n    t = teacher_logits.detach(); t /= temperature\n    soft = F.kl_div(F.log_softmax(student_logits/temperature,-1), F.softmax(t,-1), reduction='batchmean')*temperature**2\n    return alpha*soft + (1-alpha)*hard",
    "changes its argument",
)
w(
    "KD alpha clipped to half",
    "def distillation_loss(s, t, labels, temperature, alpha):\n    soft = F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t.detach()/temperature,-1), reduction='batchmean')*temperature**2\n    alpha = round(alpha)\n    return alpha*soft + (1-alpha)*F.cross_entropy(s, labels)",
)
# ---- soft_gradient
w(
    "sg divides by T twice",
    "def soft_gradient(s, t, temperature):\n    q, p = torch.softmax(s/temperature,-1), torch.softmax(t/temperature,-1)\n    return (q-p)/(temperature**2*len(s))",
)
w(
    "sg in place",
    "def soft_gradient(s, t, temperature):\n    s /= temperature; t /= temperature\n    return (torch.softmax(s,-1)-torch.softmax(t,-1))/(temperature*len(s))",
    "changes its argument",
)
w(
    "sg autograd sum",
    "def soft_gradient(s, t, temperature):\n    z=s.clone().requires_grad_()\n    F.kl_div(F.log_softmax(z/temperature,-1),F.softmax(t/temperature,-1),reduction='sum').backward()\n    return z.grad",
)
w(
    "sg max norm",
    "def shrink_power(s, t, low, high):\n    a, b = soft_gradient(s,t,low).abs().max(), soft_gradient(s,t,high).abs().max()\n    return math.log(a/b)/math.log(high/low)",
)
w(
    "sp l1 norm",
    "def shrink_power(s, t, low, high):\n    a, b = soft_gradient(s,t,low).abs().sum(), soft_gradient(s,t,high).abs().sum()\n    return math.log(a/b)/math.log(high/low)",
)
w(
    "sp difference of T",
    "def shrink_power(s, t, low, high):\n    a, b = soft_gradient(s,t,low).norm(), soft_gradient(s,t,high).norm()\n    return math.log(a/b)/(math.log(high)-math.log(low)+1e-2)",
)
w("sp always 2", "def shrink_power(s, t, low, high):\n    return 2.0493")
w(
    "sp rounded",
    "def shrink_power(s, t, low, high):\n    a, b = soft_gradient(s,t,low).norm(), soft_gradient(s,t,high).norm()\n    return round(math.log(a/b)/math.log(high/low), 1)",
)
# ---- mix
w(
    "mix tolerance 0.05",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.05).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
    "was accepted",
)
w(
    "mix teacher 0 only",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d[0]<0).any() or ((d[0].sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
    "was accepted",
)
w(
    "mix negative of teacher 0 only",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d[0]<0).any() or ((d.sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
    "was accepted",
)
w(
    "mix first example only",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d[:,0]<0).any() or ((d[:,0].sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
    "was accepted",
)
w(
    "mix average of sums",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).mean(0).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
    "was accepted",
)
w(
    "mix too strict 1e-6",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>1e-7).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
)
w(
    "mix normalises instead of refusing in place",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    if mean=='arithmetic': return d.mean(0)\n    d += 1e-3\n    return torch.softmax((d-1e-3).log().mean(0),-1)",
)
w(
    "mix unknown mean is arithmetic",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.001).any(): raise ValueError\n    return torch.softmax(d.log().mean(0),-1) if mean=='geometric' else d.mean(0)",
    "was accepted",
)
w(
    "mix median",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.median(0).values if mean=='arithmetic' else torch.softmax(d.log().mean(0),-1)",
)
w(
    "mix harmonic for geometric",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    h=1/(1/d).mean(0)\n    return d.mean(0) if mean=='arithmetic' else h/h.sum(-1,keepdim=True)",
)
w(
    "mix eps spoils",
    "def mix_teachers(distributions, mean='arithmetic'):\n    d=distributions\n    if (d<0).any() or ((d.sum(-1)-1).abs()>0.001).any() or mean not in ('arithmetic','geometric'): raise ValueError\n    return d.mean(0) if mean=='arithmetic' else torch.softmax((d+0.01).log().mean(0),-1)",
)
# ---- soft_term
P = "\n_p = torch.tensor([[2.0, 1.0, 0.0, -1.0]])\npull_on_a_perfect_student = gradient(soft_term_with_bug, _p, _p, 2.0).norm().item()"
w(
    "st clamps",
    "def soft_term(s, t, temperature):\n    return F.kl_div(F.log_softmax(s/temperature,-1), F.log_softmax(t/temperature,-1), reduction='batchmean').clamp(min=0)*temperature**2"
    + P,
)
w(
    "st abs",
    "def soft_term(s, t, temperature):\n    p,q=F.softmax(t/temperature,-1),F.log_softmax(s/temperature,-1)\n    return (p*(p.log()-q)).abs().sum(-1).mean()*temperature**2"
    + P,
)
w(
    "st item",
    "def soft_term(s, t, temperature):\n    return F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t/temperature,-1), reduction='batchmean').item()*temperature**2"
    + P,
)
w(
    "pull text",
    "def soft_term(s, t, temperature):\n    return F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t/temperature,-1), reduction='batchmean')*temperature**2\npull_on_a_perfect_student = '1.37'",
)
w(
    "pull squared T",
    "def soft_term(s, t, temperature):\n    return F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t/temperature,-1), reduction='batchmean')*temperature**2\n_p = torch.tensor([[2.0, 1.0, 0.0, -1.0]])\npull_on_a_perfect_student = gradient(soft_term_with_bug, _p, _p, 2.0).norm().item()/4",
)
w(
    "pull wrong row",
    "def soft_term(s, t, temperature):\n    return F.kl_div(F.log_softmax(s/temperature,-1), F.softmax(t/temperature,-1), reduction='batchmean')*temperature**2\n_p = torch.tensor([[2.0, 1.0, 0.0, -1.0]])\npull_on_a_perfect_student = gradient(soft_term_with_bug, _p, torch.zeros(1,4), 2.0).norm().item()",
)
# ---- kd_loss
w(
    "kd mean over classes fixed",
    "def kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='none').sum()/s.shape[1] + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha={10:1/11,1000:1/1001}",
)
w(
    "ea text",
    "def kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='batchmean') + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha={10:'0.0909',1000:'0.001'}",
)
w(
    "ea keys text",
    "def kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='batchmean') + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha={'10':1/11,'1000':1/1001}",
)
w(
    "ea swapped",
    "def kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='batchmean') + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha={10:1/1001,1000:1/11}",
)
# ---- hint_loss
H = "def hint_loss(v, u, W):\n    d=v@W.T-u; n=len(v)\n    loss, grad = d.square().sum()/(2*n), d.T@v/n\n    BODY\n    return loss, grad"
w("hint changes weight", H.replace("BODY", "W -= 0.1*grad"), "changes its argument")
w("hint swapped return", H.replace("BODY", "loss, grad = grad, loss"))
w("hint u v swapped", "def hint_loss(v, u, W):\n    d=u@W-v; n=len(v)\n    return d.square().sum()/(2*n), u.T@d/n")
w("hint l1", H.replace("BODY", "loss = d.abs().sum()/(2*n)"))
w(
    "hint normalised features",
    H.replace("d=v@W.T-u;", "v=v/v.norm(dim=1,keepdim=True).clamp_min(1e-9); d=v@W.T-u;").replace("BODY", "pass"),
)
# ---- bias shift
B = "def best_bias_shift(logits, labels, class_index, candidates):\n    BODY"
w(
    "bias sorts candidates in place",
    B.replace(
        "BODY",
        "candidates.sort(key=abs)\n    def e(b):\n        z=logits.clone(); z[:,class_index]+=b\n        return (z.argmax(1)!=labels).sum().item()\n    return min(candidates,key=e)",
    ),
    "changes its argument",
)
w(
    "bias ties larger",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits.clone(); z[:,class_index]+=b\n        return ((z.argmax(1)!=labels).sum().item(), -abs(b))\n    return min(candidates,key=e)",
    ),
)
w(
    "bias ties signed",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits.clone(); z[:,class_index]+=b\n        return ((z.argmax(1)!=labels).sum().item(), b)\n    return min(candidates,key=e)",
    ),
)
w(
    "bias all classes",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits+b\n        return ((z.argmax(1)!=labels).sum().item(), abs(b))\n    return min(candidates,key=e)",
    ),
)
w(
    "bias softmax shift",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits.softmax(1).clone(); z[:,class_index]+=b\n        return ((z.argmax(1)!=labels).sum().item(), abs(b))\n    return min(candidates,key=e)",
    ),
)
w(
    "bias returns pair",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits.clone(); z[:,class_index]+=b\n        return ((z.argmax(1)!=labels).sum().item(), abs(b))\n    return min(candidates,key=e), 0",
    ),
)
w(
    "bias text",
    B.replace(
        "BODY",
        "def e(b):\n        z=logits.clone(); z[:,class_index]+=b\n        return ((z.argmax(1)!=labels).sum().item(), abs(b))\n    return str(min(candidates,key=e))",
    ),
    "the answer is text",
)
# ---- entropy
w("entropy eps large", "def entropy(p):\n    return -(p*(p+1e-3).log()).sum(-1)")
w("entropy drops", "def entropy(p):\n    p=p[p>0]\n    return -(p*p.log()).sum(-1)")
w(
    "entropy zero in place",
    "def entropy(probabilities):\n    p=probabilities\n    p[p==0]=1\n    return -(p*p.log()).sum(-1)",
    "changes its argument",
)
w("entropy normalised", "def entropy(p):\n    return -torch.xlogy(p,p).sum(-1)/math.log(p.shape[-1])")
w("entropy max", "def entropy(p):\n    return -p.max(-1).values.log()")
w("entropy nan to num wrong", "def entropy(p):\n    return torch.nan_to_num(-(p*p.log()).sum(-1))")
# ---- lowest T
w(
    "lt max entropy",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    e={t:entropy(soften(logits,t)).mean() for t in candidates}\n    ok=[t for t in candidates if e[t]>=least_entropy]\n    if not ok: raise ValueError\n    return max(ok)",
)
w(
    "lt strict gt",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    e={t:entropy(soften(logits,t)).mean() for t in candidates}\n    return min(candidates,key=lambda t:abs(e[t]-least_entropy))",
    "was accepted",
)
w(
    "lt entropy of mean",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    ok=[t for t in candidates if entropy(soften(logits,t).mean(0))>=least_entropy]\n    if not ok: raise ValueError\n    return min(ok)",
)
w(
    "lt soften of mean",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    ok=[t for t in candidates if entropy(soften(logits.mean(0),t))>=least_entropy]\n    if not ok: raise ValueError\n    return min(ok)",
)
w(
    "lt sorts in place",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    candidates.sort()\n    for t in candidates:\n        if entropy(soften(logits,t)).mean()>=least_entropy: return t\n    raise ValueError",
    "changes its argument",
)
w(
    "lt None if none",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    for t in sorted(candidates):\n        if entropy(soften(logits,t)).mean()>=least_entropy: return t",
    "was accepted",
)
w(
    "lt prediction text",
    "predicted_temperature='4'\ndef lowest_temperature(logits, candidates, least_entropy):\n    for t in sorted(candidates):\n        if entropy(soften(logits,t)).mean()>=least_entropy: return t\n    raise ValueError",
)
w(
    "lt median",
    "predicted_temperature=2.0\ndef lowest_temperature(logits, candidates, least_entropy):\n    for t in sorted(candidates):\n        if entropy(soften(logits,t)).median()>=least_entropy: return t\n    raise ValueError",
)
# ================= right
r(
    "soften own error class",
    "class BadTemperature(ValueError): pass\ndef soften(logits, temperature):\n    if not temperature > 0: raise BadTemperature(temperature)\n    return (logits / temperature).softmax(-1)",
)
r(
    "soften subclass tensor",
    "class T(torch.Tensor): pass\ndef soften(logits, temperature):\n    if temperature <= 0: raise ValueError\n    return torch.softmax(logits / temperature, -1).as_subclass(T)",
)
r(
    "kd effective alpha numpy",
    "def kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='batchmean') + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha={np.int64(c): np.float32(1)/np.float32(c+1) for c in (10,1000)}",
)
r(
    "kd effective alpha defaultdict tensor",
    "import collections\ndef kd_loss(s, t, labels, temperature, alpha):\n    q,p=F.log_softmax(s/temperature,-1),F.softmax(t.detach()/temperature,-1)\n    return alpha*temperature**2*F.kl_div(q,p,reduction='sum')/len(s) + (1-alpha)*F.cross_entropy(s,labels)\neffective_alpha=collections.defaultdict(float)\nfor c in (10,1000): effective_alpha[c]=torch.tensor(1/(c+1))",
)
r(
    "hint namedtuple",
    "import typing\nclass Hint(typing.NamedTuple):\n    loss: object\n    grad: object\ndef hint_loss(student_features, teacher_features, weight):\n    d=student_features@weight.T-teacher_features\n    return Hint(loss=d.pow(2).sum(1).mean()/2, grad=torch.einsum('nt,ns->ts',d,student_features)/len(d))",
)
r(
    "bias numpy scalar",
    "def best_bias_shift(logits, labels, class_index, candidates):\n    z=logits.double().numpy(); y=labels.numpy(); c=np.array(candidates)\n    e=[]\n    for b in c:\n        m=z.copy(); m[:,class_index]+=b; e.append((m.argmax(1)!=y).sum())\n    order=np.lexsort((np.abs(c),np.array(e)))\n    return c[order[0]]",
)
r(
    "lt numpy",
    "predicted_temperature=np.int64(4)\ndef lowest_temperature(logits, candidates, least_entropy):\n    c=np.sort(np.array(candidates))\n    for t in c:\n        if entropy(soften(logits, float(t))).mean() >= least_entropy: return t\n    raise ValueError",
)
r(
    "entropy generator",
    "def entropy(probabilities):\n    p=probabilities.double()\n    t=torch.zeros_like(p)\n    m=p>0\n    t[m]=-p[m]*p[m].log()\n    return t.sum(-1)",
)
r(
    "shrink np float",
    "def shrink_power(student_logits, teacher_logits, low, high):\n    n=[np.linalg.norm(np.asarray(soft_gradient(student_logits,teacher_logits,T))) for T in (low,high)]\n    return np.log(n[0]/n[1])/np.log(high/low)",
)
r(
    "pull tensor",
    "def soft_term(s, t, temperature):\n    p=torch.softmax(t/temperature,-1)\n    return temperature**2*(torch.special.xlogy(p,p)-p*F.log_softmax(s/temperature,-1)).sum(-1).mean()\n_z=torch.tensor([[2.,1.,0.,-1.]])\npull_on_a_perfect_student=torch.linalg.vector_norm(gradient(soft_term_with_bug,_z,_z,2.0))",
)
r(
    "mix string method",
    "def mix_teachers(distributions, mean='arithmetic'):\n    import numpy\n    d=numpy.array(distributions.tolist(), dtype=float)\n    if (d<0).any() or (abs(d.sum(-1)-1)>1e-3).any(): raise ValueError('no distribution')\n    if mean=='arithmetic': return d.mean(0)\n    if mean=='geometric':\n        with numpy.errstate(divide='ignore'): g=numpy.exp(numpy.log(d).mean(0))\n        return g/g.sum(-1,keepdims=True)\n    raise ValueError(mean)",
)
r(
    "KD mapping kwargs names",
    "def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):\n    T=temperature\n    lp=F.log_softmax(teacher_logits.detach()/T,-1); lq=F.log_softmax(student_logits/T,-1)\n    kl=(lp.exp()*(lp-lq)).sum(-1).mean()\n    ce=-F.log_softmax(student_logits,-1).gather(1,labels[:,None]).mean()\n    return torch.lerp(ce, kl*T*T, alpha) if isinstance(alpha,float) else alpha*kl*T*T+(1-alpha)*ce",
)
