"""Half of the units of torchvision's 80 classification models removed, beside Torch-Pruning.

Ours is right if what is left gives the numbers that the full network gives when everything that belongs to a removed
channel is zero, and if it comes back bit for bit from its structure and its state dict. Layer norms, which take their
mean over all channels, take it over those that are left in the full network too. Of Torch-Pruning it is only asked that
what is left runs and gives an output of the same shape.
"""

import gc
import json
import signal
import time
import warnings

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.interleave import Row
from course_lib.measure import count_parameters
from course_lib.pruning.criteria import unit_norm
from course_lib.pruning.graph import follow
from course_lib.pruning.structured import groups, lowest_units, rebuild, remove_units, structure_of

TITLE = "The zoo: torchvision's classification models pruned by half"
NOTE = (
    "Half of the units of every group of layers that may lose some, those with the smallest L1 norm, on pictures of 64 "
    "× 64 where the model takes them, with random weights. *Right*: against the full network with zeros, in "
    "float64, to 1e-6 of the largest output, and reloaded bit for bit; of Torch-Pruning: it is done "
    "within 60 s of processor time, and what is left runs. *Left* is the share of the parameters that are left."
)
SIZES = {"inception_v3": 96, "maxvit_t": 224, "alexnet": 96}  # others take 64
SMALLER = {"vit_b_16": 64, "vit_b_32": 64, "vit_l_16": 64, "vit_l_32": 64, "vit_h_14": 56}  # image_size
LIMIT = 60  # seconds of processor time for Torch-Pruning, which does not end on some models
QUICK = ("resnet18", "convnext_tiny", "maxvit_t")


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model with ten classes and pictures for it."""
    from torchvision.models import get_model

    options = {"image_size": SMALLER[name]} if name in SMALLER else {}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    torch.manual_seed(0)
    with torch.device("cpu"):
        model = get_model(name, weights=None, num_classes=10, **options).eval()
    size = SMALLER.get(name) or SIZES.get(name, 64)
    for module in model.modules():  # as after a training, so that a mistake shows in the outputs
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_var, 0.5)):
                nn.init.uniform_(tensor, low, 1.5 if low > 0 else 0.5)
    for parameter in model.parameters():  # ViT starts with a head of zeros
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model, torch.randn(2, 3, size, size)


class OverWhatIsLeft(TorchFunctionMode):
    """Layer norms take mean and variance over some of their channels: by the id of the weight."""

    def __init__(self, left: dict[int, Tensor]) -> None:
        super().__init__()
        self.left = left

    def __torch_function__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Change one function, and leave the others."""
        named = kwargs or {}
        if function is not nn.functional.layer_norm or id(named.get("weight")) not in self.left:
            return function(*args, **named)
        value, (weight, bias, eps) = args[0], (named[key] for key in ("weight", "bias", "eps"))
        kept = self.left[id(weight)]
        some = function(value[..., kept], (len(kept),), weight[kept], bias[kept], eps)
        return torch.zeros_like(value).index_copy_(-1, kept, some)


def expected(model: nn.Module, pictures: Tensor, units: dict) -> Tensor:
    """What ``model`` gives when everything that belongs to these units is zero; ``model`` is changed."""
    network = follow(model, pictures)
    removed = torch.zeros(len(network.verdict.decision), dtype=torch.bool)
    for name, numbers in units.items():
        removed[network.verdict.decision[network.units[name][numbers]]] = True
    gone, left = removed[network.verdict.decision], {}
    norms = {id(module.weight) for module in model.modules() if isinstance(module, nn.LayerNorm)}
    for tensor in (*model.parameters(), *model.buffers()):
        for axis, numbers in enumerate(network.tensors.get(id(tensor), ())):
            if numbers is not None and bool(gone[numbers].any()):
                tensor.data.index_fill_(axis, gone[numbers].nonzero().squeeze(1), 0)
                if id(tensor) in norms:
                    left[id(tensor)] = (~gone[numbers]).nonzero().squeeze(1)
    with torch.no_grad(), OverWhatIsLeft(left):
        return model(pictures)


def ours(name: str) -> dict[str, object]:
    """Whether what is left is right, and how much that is."""
    model, pictures = build(name)
    before = count_parameters(model)
    try:
        start = time.perf_counter()
        units = lowest_units(unit_norm(model), 0.5, tied=groups(model, pictures))
        remove_units(model, units, pictures)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            again = rebuild(build(name)[0], json.loads(json.dumps(structure_of(model))))
            again.load_state_dict(model.state_dict())
            same = torch.equal(again(pictures), model(pictures))
            del again
            found = model.double()(pictures.double())
        wanted = expected(build(name)[0].double(), pictures.double(), units)
        error = float((found - wanted).abs().max() / wanted.abs().max())
        left = count_parameters(model) / before
        return {"right": error < 1e-6 and same, "error": error, "left": left, "seconds": seconds, "why not": ""}
    except Exception as error:
        return {"right": False, "error": None, "left": None, "seconds": None, "why not": f"{error}"[:200]}


def theirs(name: str) -> dict[str, object]:
    """The same with Torch-Pruning, as its documentation does it."""
    import torch_pruning as peer

    model, pictures = build(name)
    before, shape = count_parameters(model), (2, 10)
    last = [m for m in model.modules() if 10 in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]
    try:
        signal.signal(signal.SIGVTALRM, _too_long)
        signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
        start = time.perf_counter()
        importance = peer.importance.MagnitudeImportance(p=1)
        heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
        options = {"pruning_ratio": 0.5, "ignored_layers": last, "num_heads": heads}
        peer.pruner.MagnitudePruner(model, pictures, importance=importance, **options).step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            runs = tuple(model(pictures).shape) == shape
        return {"runs": runs, "left": count_parameters(model) / before, "seconds": seconds}
    except Exception:
        return {"runs": False, "left": None, "seconds": None}
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {LIMIT} s")


def case(name: str) -> Row:
    """One model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, peer = ours(name), theirs(name)
    gc.collect()
    row = {"model": name, "course_lib right": mine["right"], "left": mine["left"], "error": mine["error"]}
    row |= {"Torch-Pruning runs": peer["runs"], "its left": peer["left"]}
    row |= {"s": mine["seconds"], "its s": peer["seconds"], "why not": mine["why not"]}
    return {key: "—" if value is None else value for key, value in row.items()}


def run(*, quick: bool = False) -> list[Row]:
    """All models, and how many of them were right."""
    try:
        import torch_pruning  # noqa: F401
        import torchvision.models as home
    except ImportError:
        return [{"what": "not measured: torchvision or Torch-Pruning is not installed"}]
    names = QUICK if quick else home.list_models(module=home)
    rows = []
    for name in names:
        rows.append(case(name))
    total = {"model": f"all {len(rows)}", "course_lib right": sum(row["course_lib right"] for row in rows)}
    total |= {"Torch-Pruning runs": sum(row["Torch-Pruning runs"] for row in rows)}
    return [total, *rows]
