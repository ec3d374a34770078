"""The layers that a method works on: found by name, by pattern, or by type, in any ``nn.Module``, and replaced.

Names are those of ``model.named_modules()``: "0", "layer2.1.conv1", "encoder.layer.3". A pattern is one for a shell,
"layer3.*.conv?", and is matched against the whole name. Whatever is asked for has to be there: a misspelt name that is
silently ignored leaves a layer dense that its owner believes pruned.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from course_lib.checking import check_type, near_names
from course_lib.device import check_model

Targets = str | type[nn.Module] | Sequence[str | type[nn.Module]]
# The layers that hold a network's weights. An attention layer of PyTorch keeps three of its matrices in itself.
WEIGHTED = (nn.Linear, _ConvNd, nn.MultiheadAttention)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)  # tables that are looked up: left alone unless they are named


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: no such name; the message lists names near it.
    """
    check_model(model)
    layers = dict(model.named_modules(remove_duplicate=False))  # a layer may stand under several names
    if name not in layers or name == "":
        names = [known for known in layers if known]
        raise ValueError(f"no layer named {name!r} in {type(model).__name__}; {near_names(name, names)}")
    return layers[name]


def find_layers(
    model: nn.Module, targets: Targets | None = None, *, kinds: tuple[type[nn.Module], ...] = WEIGHTED
) -> dict[str, nn.Module]:
    """The layers that ``targets`` mean, by name, in the order of the model.

    Args:
        targets: names, patterns or types, one or several; None: all layers of ``kinds``. A name or a type may mean a
            layer of any kind, a pattern only one of ``kinds``.
        kinds: the types that a method works on by itself.

    Raises:
        TypeError: ``model`` is not a module, or a target neither text nor a type of modules.
        ValueError: the model has no layer of ``kinds``, there are no targets in a list of them, or one matches
            nothing; near names are listed.
    """
    check_model(model)
    layers = dict(model.named_modules())
    candidates = [name for name, layer in layers.items() if isinstance(layer, kinds)]
    if targets is None:
        if not candidates:
            wanted = ", ".join(kind.__name__.strip("_") for kind in kinds)
            raise ValueError(f"{type(model).__name__} has no layer of the types {wanted}: there is nothing to work on")
        return {name: layers[name] for name in candidates}
    wanted = [targets] if isinstance(targets, (str, type)) or not isinstance(targets, Iterable) else list(targets)
    if not wanted:
        raise ValueError("targets are empty; expected at least one, or None for all layers")
    found: set[str] = set()
    for target in wanted:
        matches = _matches(layers, candidates, target)
        if not matches:
            shown = repr(target) if isinstance(target, str) else target.__name__
            near = near_names(str(target), candidates)
            raise ValueError(f"target {shown} matches no layer of {type(model).__name__}; {near}")
        found.update(matches)
    return {name: layer for name, layer in layers.items() if name in found}


def replace_layers(model: nn.Module, new: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Put other layers in the place of those of these names, in place; returns the old ones, by name.

    Called again with what it returned, it gives the old ones back. A layer that stands at several places is replaced at
    all of them. A new layer may hold the old one, as a wrapper does. It is put into the mode, training or eval, of the
    old one.

    Args:
        new: by the names of the old layers.

    Raises:
        TypeError: ``model`` or a new layer is not a module.
        ValueError: no name, an unknown one, or "", the model itself; a layer that is named twice or lies inside another
            that is replaced; a new layer that is given twice or is in the model already. The model is then as it was.
    """
    if not new:
        raise ValueError("new is empty; expected at least one layer")
    if "" in new:
        raise ValueError(f"model is a {type(model).__name__}, the layer itself, and cannot be replaced in place")
    old = {name: find_layer(model, name) for name in new}
    for name, layer in new.items():
        check_type(f"the new layer {name!r}", layer, nn.Module, "a torch.nn.Module")
    swap = dict(zip(old.values(), new.values(), strict=True))
    staying = [module for _, module in model.named_modules(memo=set(swap))]
    places = [(parent, key, child) for parent in staying for key, child in parent._modules.items() if child in swap]
    if len(swap) < len(old) or {child for _, _, child in places} != set(swap):
        raise ValueError(f"layers {', '.join(old)} are not apart; expected each once, and none inside another of them")
    if len(set(swap.values())) < len(swap) or not set(swap.values()).isdisjoint(staying):
        raise ValueError(f"a new layer for {', '.join(new)} is given twice or in the model already; expected one each")
    for parent, key, layer in places:
        parent._modules[key] = swap[layer]
    for before, after in swap.items():
        if after.training != before.training:
            after.train(before.training)
    return old


def prunable_weights(model: nn.Module, targets: Targets | None = None) -> dict[str, nn.Parameter]:
    """The weights of the layers that ``targets`` mean, by parameter name ("0.weight"), in the order of the model.

    A weight is a parameter of the layer itself with two or more dimensions: biases and the scales of normalisation
    layers are few, and are left alone. A weight that several layers share is there once, under its first name; without
    targets the weights of embeddings are left alone, also where an output layer shares them. Frozen weights are
    weights like others. Changes nothing.

    Args:
        targets: as for ``find_layers``.

    Raises:
        TypeError, ValueError: as ``find_layers``; a layer that is named but has no weights, or that computes its weight
            from others (weight norm, a parametrization, PyTorch's own pruning); a lazy layer before its first input;
            without targets, a model that has most of its weights in layers of other types, or all in embeddings.
    """
    check_model(model)
    found: dict[str, nn.Parameter] = {}
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    tables = [layer.weight for layer in model.modules() if isinstance(layer, EMBEDDINGS)]
    left_alone = {id(table) for table in tables} if targets is None else ()
    for name, layer in find_layers(model, targets).items():
        _check_weight_is_plain(name, layer)
        weights = {f"{name}.{key}".lstrip("."): value for key, value in _matrices(layer).items()}
        if lazy := [key for key, value in weights.items() if isinstance(value, UninitializedParameter)]:
            raise ValueError(f"{lazy[0]} has no shape yet; call the model once with an input first")
        if not weights and not isinstance(layer, WEIGHTED):
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}: it has no weights of its own")
        found |= {first_names[id(value)]: value for value in weights.values() if id(value) not in left_alone}
    if targets is None:
        _check_most_are_found(model, found)
        if not found:
            raise ValueError(f"{type(model).__name__} has no weights but those of embeddings; name them in targets")
    return found


def _matrices(layer: nn.Module) -> dict[str, nn.Parameter]:
    """A layer's own weights, by their names in it: parameters of two or more dimensions, and those without a shape."""
    own = layer.named_parameters(recurse=False)
    return {key: p for key, p in own if isinstance(p, UninitializedParameter) or (p.dim() >= 2 and "bias" not in key)}


def _check_weight_is_plain(name: str, layer: nn.Module) -> None:
    """Raise unless the layer's weight is a parameter: zeros put into those that it is computed from do not stay."""
    computed = list(getattr(layer, "parametrizations", ()))
    computed += [key for key in ("weight",) if isinstance(layer.__dict__.get(key), Tensor)]  # the older way: hooks
    if computed:
        raise ValueError(
            f"the {computed[0]} of layer {name!r} is computed from other parameters; make it a plain one first "
            "(remove_parametrizations, remove_weight_norm, prune.remove), or leave the layer out of targets"
        )


def _check_most_are_found(model: nn.Module, found: Mapping[str, nn.Parameter]) -> None:
    """Raise if more weights lie in layers of unknown types than in those that were found."""
    known, others = sum(weight.numel() for weight in found.values()), Counter()
    for layer in model.modules():
        if not isinstance(layer, (*WEIGHTED, *EMBEDDINGS)):
            others[type(layer)] += sum(weight.numel() for weight in _matrices(layer).values())
    if others.total() > known:
        kind, count = others.most_common(1)[0]
        raise ValueError(
            f"{type(model).__name__} has {others.total():,} of its weights in layers of types that are not known here "
            f"({count:,} of them in {kind.__name__}), and {known:,} in others; name in targets what is to be pruned, "
            f"by names, patterns or types"
        )


def match_names(names: Iterable[str], pattern: str, *, argument: str) -> list[str]:
    """The ``names`` that equal ``pattern`` or match it as a shell pattern; ``argument`` is what an error calls it.

    Raises:
        ValueError: not one does; near names are listed.
    """
    names = list(names)
    matches = [name for name in names if name == pattern] or [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        raise ValueError(f"{argument} {pattern!r} matches none of the names; {near_names(pattern, names)}")
    return matches


def _matches(layers: Mapping[str, nn.Module], candidates: Sequence[str], target: object) -> list[str]:
    if isinstance(target, type) and issubclass(target, nn.Module):
        return [name for name, layer in layers.items() if isinstance(layer, target)]
    if not isinstance(target, str):
        raise TypeError(f"a target is {target!r}; expected the name of a layer, a pattern, or a type such as nn.Linear")
    if target in layers and target in (*candidates, *_with_weights(layers)):
        return [target]
    return [name for name in candidates if fnmatchcase(name, target)]


def _with_weights(layers: Mapping[str, nn.Module]) -> list[str]:
    """The layers that hold parameters themselves: no containers, no activations."""
    return [name for name, layer in layers.items() if next(layer.parameters(recurse=False), None) is not None]
