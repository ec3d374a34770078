"""The structure of a pruned model, to be saved beside its weights.

A state dict holds tensors, and no sizes of layers: it does not load into a model that still has its full size. The
structure says how large each layer is, how many heads each attention has, and which layers of each list are left, as
plain data for JSON. ``rebuild`` gives a freshly made model that structure::

    save_file(model.state_dict(), "model.safetensors")
    Path("structure.json").write_text(json.dumps(structure_of(model)))
    ...
    model = rebuild(resnet18(), json.loads(Path("structure.json").read_text()))
    model.load_state_dict(load_file("model.safetensors"))
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from torch import nn

from course_lib.checking import near_names
from course_lib.device import check_model
from course_lib.pruning.checks import check_no_masks
from course_lib.pruning.heads import head_attributes
from course_lib.pruning.resizing import KINDS, Cut, own_tensors, shapes_for, size_names

Model = TypeVar("Model", bound=nn.Module)
LISTS = (nn.ModuleList, nn.Sequential)
_KEPT = "kept_layers"  # the attribute in which a shortened list remembers which of its first layers are left


def structure_of(model: nn.Module) -> dict[str, dict]:
    """The sizes of the layers of ``model`` as plain data: ``{"layers": ..., "sizes": ...}``.

    ``layers`` has the lists that ``remove_layers`` shortened: name -> the first numbers of the layers that are left.
    ``sizes`` has the layers that can lose channels or heads: name -> attribute -> number.

    Raises:
        TypeError: ``model`` is not a module.
    """
    check_model(model)
    modules = dict(model.named_modules())
    shortened = {name: list(getattr(module, _KEPT)) for name, module in modules.items() if hasattr(module, _KEPT)}
    return {"layers": shortened, "sizes": {name: sizes for name, m in modules.items() if (sizes := _sizes(m))}}


def rebuild(model: Model, structure: Mapping[str, Mapping]) -> Model:
    """Give a freshly made ``model`` a structure, in place; returns the model, ready for ``load_state_dict``.

    Each weight is the first part of the fresh one. To train the small network from scratch instead of loading it,
    reset its layers (``reset_parameters``) first: the scale of an initialisation depends on the size of the layer.

    Args:
        model: made as the pruned one was before it was pruned.
        structure: what ``structure_of`` gave for the pruned one.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: a layer that only one of the two has, or one that is smaller in ``model``. It is then as it was.
    """
    check_model(model)
    check_no_masks(model)
    if not isinstance(structure, Mapping) or set(structure) != {"layers", "sizes"}:
        raise ValueError(f"structure is {structure!r:.80}; expected a dict of 'layers' and 'sizes', from structure_of")
    left = dict(_left(model, "", structure["layers"]))
    lists = {name: left.get(name) for name in structure["layers"]}
    sized = {name: module for name, module in left.items() if _sizes(module)}
    for name in [*(n for n, m in lists.items() if m is None), *(structure["sizes"].keys() ^ sized.keys())]:
        here = "only in the model" if name in sized else "only in the structure"
        raise ValueError(f"layer {name!r} is {here}; {near_names(name, list(left)[1:])}")
    plans = [_plan(name, module, structure["sizes"][name]) for name, module in sized.items()]
    for name, module in lists.items():
        shorten(module, structure["layers"][name])
    for plan in plans:
        plan.make()
    return model


def shorten(layers: nn.Module, kept: Sequence[int]) -> None:
    """Leave only some layers of a list, in place, numbered anew; ``kept`` are their first numbers."""
    found = _children(layers, kept, "")
    for key in list(layers._modules):
        delattr(layers, key)
    for index, layer in enumerate(found):
        layers.add_module(str(index), layer)
    setattr(layers, _KEPT, list(kept))


def first_numbers(layers: nn.Module) -> list[int]:
    """For each layer of a list the number that it had before the list was shortened."""
    return list(getattr(layers, _KEPT, range(len(layers))))


def _left(module: nn.Module, name: str, layers: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, nn.Module]]:
    """What is left of a module after its lists are shortened, by the names that it then has."""
    yield name, module
    children = {key: child for key, child in module._modules.items() if child is not None}
    if name in layers and isinstance(module, LISTS):
        children = {str(index): child for index, child in enumerate(_children(module, layers[name], name))}
    for key, child in children.items():
        yield from _left(child, f"{name}.{key}" if name else key, layers)


def _children(layers: nn.Module, kept: Sequence[int], name: str) -> list[nn.Module]:
    there = dict(zip(first_numbers(layers), layers.children(), strict=True))
    if missing := [number for number in kept if number not in there]:
        raise ValueError(f"layer {missing[0]} of {name!r} is not there; expected some of {list(there)}")
    return [there[number] for number in kept]


def _sizes(module: nn.Module) -> dict[str, int | list[int]]:
    """The attributes of one layer that pruning changes."""
    if not isinstance(module, KINDS):
        return head_attributes(module)
    sizes = {name: getattr(module, name) for name in size_names(module).values()}
    return {name: size if isinstance(size, int) else list(size) for name, size in sizes.items()}


def _plan(name: str, module: nn.Module, sizes: Mapping[str, object]) -> Cut:
    """The layer with the first of its channels."""
    if set(sizes) != set(_sizes(module)):
        raise ValueError(f"layer {name!r} has the sizes {list(_sizes(module))}; the structure has {list(sizes)}")
    sizes = {key: tuple(size) if isinstance(size, list) else size for key, size in sizes.items()}
    if not isinstance(module, KINDS):
        return Cut(module, {}, dict(sizes))
    tensors = {}
    for key, shape in shapes_for(module, sizes).items():
        tensor = own_tensors(module)[key]
        if len(shape) != tensor.dim() or any(new > old for new, old in zip(shape, tensor.shape, strict=True)):
            raise ValueError(
                f"the {key} of layer {name!r} has shape {tuple(tensor.shape)}; expected at least {shape}: "
                "a model as large as the one that was pruned"
            )
        tensors[key] = tensor[tuple(slice(size) for size in shape)].clone()
    return Cut(module, tensors, dict(sizes))
