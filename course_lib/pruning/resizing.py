"""The layers that can lose channels: what each of them ties together, and how it is cut.

==============================  =================================  ====================================================
layer                           weight                             what it ties
==============================  =================================  ====================================================
linear                          (out, in)                          nothing: its units are new channels
convolution                     (out, in / groups, kernel)         nothing; in groups: the same ones of each group
depthwise convolution           (out, 1, kernel)                   each filter to the one channel that it reads
transposed convolution          (in, out / groups, kernel)         nothing, or the same ones of each group
embedding                       (words, out)                       nothing
batch, instance norm; PReLU     (channels,)                        nothing: one number for each channel
layer norm, RMS norm            (channels,)                        nothing, though all channels share mean and variance
group norm                      (channels,)                        the same ones of each group
==============================  =================================  ====================================================
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from course_lib.pruning.graph.channels import Channels
Labels=object

PRODUCERS = (nn.Linear, _ConvNd, nn.Embedding)  # their units are new channels
PER_CHANNEL = (_BatchNorm, _InstanceNorm, nn.PReLU, nn.GroupNorm)
OVER_CHANNELS = (nn.LayerNorm, nn.RMSNorm)
KINDS = (*PRODUCERS, *PER_CHANNEL, *OVER_CHANNELS)


@dataclass(frozen=True)
class Ends:
    """The labels of the channels that a layer reads (in,) and of those that it makes (out,); none if nobody may cut."""

    inputs: Tensor | None
    outputs: Tensor | None


def tie_layer(channels: Channels, module: nn.Module, where: str, labels: Labels, dims: int) -> tuple[Ends, Labels]:
    """The ends of a layer that reads a tensor of ``dims`` axes with these labels, and the labels of what it gives."""
    if isinstance(module, PRODUCERS):
        ends = _producer(channels, module, where, labels, dims)
        shape = [1] * (dims + isinstance(module, nn.Embedding))
        shape[-1 if isinstance(module, nn.Embedding) else _axis(module, dims)] = len(ends.outputs)
        return ends, ends.outputs.view(shape)
    if labels is None or _leaves(module, labels):
        return Ends(None, None), labels
    found = along(labels, _axis(module, dims), _sizes(module)["outputs"])
    if found is None:
        channels.fix(labels, f"{where} needs all of them")
        return Ends(None, None), None
    if isinstance(module, nn.GroupNorm) and module.num_groups < module.num_channels:
        channels.tie_rows(found, module.num_groups)
    return Ends(found, found), labels


def _leaves(module: nn.Module, labels: Tensor) -> bool:
    """Whether a normalisation does the same to every channel, so that it need not know how many there are."""
    if isinstance(module, OVER_CHANNELS):
        return all(axis < labels.dim() - len(module.normalized_shape) for axis in varying(labels))
    return isinstance(module, nn.PReLU) and module.num_parameters == 1


def _producer(channels: Channels, module: nn.Module, where: str, labels: Labels, dims: int) -> Ends:
    sizes = _sizes(module)
    reads = None if isinstance(module, nn.Embedding) else along(labels, _axis(module, dims), sizes["inputs"])
    if reads is None:
        channels.fix(labels, f"{where} cannot tell them apart in what it reads")
    makes = channels.fresh(sizes["outputs"])
    groups = getattr(module, "groups", 1)
    if _is_depthwise(module):  # filter k · m + j reads channel k, with m filters a channel
        if reads is None:
            channels.fix(makes, f"{where} reads one fixed channel with each of them")
        else:
            channels.tie(makes.view(groups, -1), reads[:, None])
    elif groups > 1:
        channels.tie_rows(makes, groups)
        if reads is not None:
            channels.tie_rows(reads, groups)
    return Ends(reads, makes)


def _axis(module: nn.Module, dims: int) -> int:
    """The axis of the channels in what ``module`` reads and gives."""
    if isinstance(module, (nn.Linear, *OVER_CHANNELS)):
        return dims - 1
    if isinstance(module, _ConvNd):
        return dims - 1 - len(module.kernel_size)
    return 1


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels


def size_names(module: nn.Module) -> dict[str, str]:
    """The attributes in which a layer keeps its sizes: of ``inputs``, of ``outputs``, and of ``groups``."""
    if isinstance(module, nn.Linear):
        return {"inputs": "in_features", "outputs": "out_features"}
    if isinstance(module, _ConvNd):
        return {"inputs": "in_channels", "outputs": "out_channels", "groups": "groups"}
    if isinstance(module, nn.Embedding):
        return {"outputs": "embedding_dim"}
    if isinstance(module, nn.PReLU):
        return {"outputs": "num_parameters"}
    if isinstance(module, nn.GroupNorm):
        return {"outputs": "num_channels", "groups": "num_groups"}
    return {"outputs": "normalized_shape" if isinstance(module, OVER_CHANNELS) else "num_features"}


def _sizes(module: nn.Module) -> dict[str, int]:
    sizes = {end: getattr(module, name) for end, name in size_names(module).items()}
    return {end: size if isinstance(size, int) else math.prod(size) for end, size in sizes.items()}


@dataclass(frozen=True)
class Cut:
    """What a layer is to become: new tensors and new sizes, ready to be put in."""

    module: nn.Module
    tensors: dict[str, Tensor]
    sizes: dict[str, object]

    def make(self) -> None:
        """Put them in. Parameters are new objects, trainable if the old ones were; gradients are gone."""
        for key, tensor in self.tensors.items():
            old = getattr(self.module, key)
            if isinstance(old, nn.Parameter):
                tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
            setattr(self.module, key, tensor)
        for name, size in self.sizes.items():
            setattr(self.module, name, size)


def cut(module: nn.Module, inputs: Tensor | None, outputs: Tensor | None) -> Cut:
    """``module`` with only some of its channels; nothing happens to it before ``make``.

    Args:
        inputs: true for each channel that it goes on reading (in,), or none for all.
        outputs: true for each unit, or channel of a normalisation, that it keeps (out,), or none for all.
    """
    names = size_names(module)
    sizes: dict[str, object] = {}
    for end, kept in (("inputs", inputs), ("outputs", outputs)):
        if kept is not None and end in names:
            sizes[names[end]] = int(kept.sum())
    if _is_depthwise(module) and inputs is not None:
        sizes["groups"] = int(inputs.sum())
    if isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels:
        sizes["num_groups"] = sizes["num_channels"]
    if isinstance(module, OVER_CHANNELS):
        sizes["normalized_shape"] = (sizes["normalized_shape"],)
    return Cut(module, _cut_tensors(module, inputs, outputs), sizes)


def _cut_tensors(module: nn.Module, inputs: Tensor | None, outputs: Tensor | None) -> dict[str, Tensor]:
    """The tensors of ``module`` that lose something."""
    if not isinstance(module, PRODUCERS):
        kept = _numbers(outputs)
        return {key: _take(value, 0, kept) for key, value in own_tensors(module).items() if value.dim() == 1}
    weight, bias = module.weight.detach(), getattr(module, "bias", None)
    groups, kept = getattr(module, "groups", 1), _numbers(outputs)
    if _is_depthwise(module):  # every channel has its own filters, along axis 0
        weight = _take(weight, 0, _numbers(inputs) if isinstance(module, _ConvTransposeNd) else kept)
    elif isinstance(module, _ConvTransposeNd):  # (in, out / groups, kernel): all groups lose the same
        weight = _take(_take(weight, 0, _numbers(inputs)), 1, _numbers(outputs, groups))
    elif isinstance(module, nn.Embedding):
        weight = _take(weight, 1, kept)
    else:  # (out, in / groups, ...)
        weight = _take(_take(weight, 0, kept), 1, _numbers(inputs, groups))
    return {"weight": weight} if bias is None or kept is None else {"weight": weight, "bias": _take(bias, 0, kept)}


def _numbers(kept: Tensor | None, groups: int = 1) -> Tensor | None:
    """Which are true, in the first of the groups."""
    return None if kept is None else kept.view(groups, -1)[0].nonzero().squeeze(1)


def _take(tensor: Tensor, axis: int, numbers: Tensor | None) -> Tensor:
    return tensor if numbers is None else tensor.detach().index_select(axis, numbers.to(tensor.device))


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a layer itself, by name, without gradients."""
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {key: value.detach() for key, value in tensors}


def shapes_for(module: nn.Module, sizes: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """The shapes of the own tensors of a layer of these sizes, by name; ``sizes`` as the layer's attributes."""
    ends = {end: sizes[name] for end, name in size_names(module).items()}
    makes = math.prod(ends["outputs"]) if isinstance(ends["outputs"], (tuple, list)) else ends["outputs"]
    groups = ends.get("groups", 1)
    if isinstance(module, _ConvTransposeNd):
        weight = (ends["inputs"], makes // groups, *module.kernel_size)
    elif isinstance(module, _ConvNd):
        weight = (makes, ends["inputs"] // groups, *module.kernel_size)
    elif isinstance(module, nn.Linear):
        weight = (makes, ends["inputs"])
    elif isinstance(module, nn.Embedding):
        weight = (module.num_embeddings, makes)
    else:
        return {key: (makes,) if value.dim() == 1 else tuple(value.shape) for key, value in own_tensors(module).items()}
    return {key: weight if key == "weight" else (makes,) for key in own_tensors(module)}
