"""The data and the large net of Hinton et al. 2015, section 3, with its limit on the norms of the weights."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils.data import TensorDataset

from course_lib.data.images import ImageData, jitter, load_images
from course_lib.device import scale
from course_lib.distillation.hinton import with_teacher_logits
from course_lib.models.vision import hinton_big
from course_lib.resume import differing
from course_lib.training import FitConfig, fit

# COURSE_SCALE=full trains longer, and keeps its weights and results apart (the folder "full")
FULL = scale() == "full"
CACHE = Path(__file__).parent / "cache" / ("full" if FULL else "")
BIG_WEIGHTS = CACHE / "hinton_big.safetensors"
BIG = FitConfig(
    epochs=220 if FULL else 90,
    batch_size=500,
    learning_rate=1.5e-3,
    schedule="cosine",
    warmup=0.03,
    precision="bf16",
    seed=0,
)
LARGEST_NORM = 2.0


@cache
def mnist() -> ImageData:
    """The pictures, from ``COURSE_DATA`` or downloaded."""
    return load_images("mnist")


@cache
def all_training_cases() -> TensorDataset:
    """All 60,000, as in the paper: the course's training and validation pictures joined."""
    parts = zip(mnist().train.tensors, mnist().validation.tensors, strict=True)
    return TensorDataset(*(torch.cat(pair) for pair in parts))


def limit_norms(model: nn.Module, largest: float = LARGEST_NORM) -> None:
    """Scale down, in place, the incoming weights of every hidden unit whose norm is above ``largest``.

    The constraint of Hinton et al. 2012 (arXiv 1207.0580). The output layer, the last linear one, is left alone.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer in linear[:-1]:
            norms = layer.weight.norm(dim=1, keepdim=True)  # (outputs, inputs) -> (outputs, 1)
            layer.weight.mul_((largest / norms).clamp(max=1.0))


@cache
def big_net() -> nn.Sequential:
    """The large net, trained; from the cache where it lies there, and from its last epoch on if it was interrupted."""
    model = hinton_big(seed=BIG.seed)
    if BIG_WEIGHTS.exists() and not any(differing(json.loads(_note(BIG_WEIGHTS)["setting"]), BIG)):
        load_model(model, str(BIG_WEIGHTS))
        return model.eval()
    folder = CACHE / "hinton_big"
    history = fit(model, all_training_cases(), BIG, augment=jitter, after_step=limit_norms, checkpoint_dir=folder)
    note = {"setting": json.dumps(asdict(BIG)), "minutes": f"{sum(history.seconds) / 60:.1f}"}
    save_model(model, str(BIG_WEIGHTS), metadata=note)
    return model


def big_net_minutes() -> float:
    """How long the large net was trained."""
    big_net()
    return float(_note(BIG_WEIGHTS)["minutes"])


def _note(path: Path) -> dict[str, str]:
    """What was written beside the weights in a safetensors file."""
    with safe_open(path, "pt") as weights:
        return weights.metadata()


@cache
def soft_targets() -> TensorDataset:
    """All 60,000 cases with the large net's logits, computed once for all students; without jitter, as in the paper.

    The first 55,000 rows are the course's training pictures, the last 5,000 its validation pictures.
    """
    return with_teacher_logits(big_net(), all_training_cases())


@cache
def soft_targets_without_validation() -> TensorDataset:
    """The first 55,000 of them, for experiments that choose something on the validation pictures."""
    count = len(mnist().train)
    return TensorDataset(*(tensor[:count] for tensor in soft_targets().tensors))
