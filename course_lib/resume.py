"""Long work in stages: each is done once, and a run that was interrupted goes on behind the last whole one.

    stages = Stages(folder, {"training": config, "pruning": pruning}, data={"train": train})
    for number in range(rounds):
        weights = stages.once(f"round-{number:02d}", lambda: prune_and_train(...))

A stage is one file, ``round-03.safetensors``: tensors as safetensors has them, everything else as JSON in the header.
It is written under another name, and renamed when it is on the disk: it is there whole or not at all.
``settings.json`` says what the folder was made with; a run with other settings or other data is refused.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class Stages:
    """The stages of one run under ``folder``. Without a folder nothing is stored, and ``once`` just makes.

    Args:
        settings: what the run is made with: numbers, text, lists, dicts, and dataclasses of settings. A dataclass may
            get new fields later: a field that an old folder does not know counts as its default.
        data: by name, what ``fingerprint`` takes: data sets, loaders, tensors.
        argument: what the caller calls ``folder``, for the messages.

    Raises:
        ValueError: the folder cannot be written, or holds a run with other settings or other data.
    """

    def __init__(
        self,
        folder: str | Path | None,
        settings: Mapping[str, Any],
        data: Mapping[str, Any] | None = None,
        *,
        argument: str = "folder",
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        check_folder(self.folder, argument)
        self._made_with = {
            "settings": settings,
            "data": {name: fingerprint(part) for name, part in (data or {}).items()},
        }
        path = self.folder / "settings.json"
        if path.exists():
            saved = _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))
            self._refuse_another_run(saved.get("settings"), saved.get("data"), argument)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make()`` gave when the stage ``name`` was done, now or in an earlier run.

        ``make`` gives tensors, numbers, text and None, in lists, tuples and dicts. Tensors come back on the CPU.
        """
        if self.folder is None:
            return make()
        if not self._path(name).exists():
            self.save(name, make())
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.load(name)

    def unfinished(self, name: str) -> Path | None:
        """A folder for what a stage keeps while it is made, such as checkpoints; ``once`` removes it afterwards."""
        return None if self.folder is None else self.folder / name

    def names(self, pattern: str = "*") -> list[str]:
        """The stages that are done and match the shell pattern, in the order of their names."""
        return sorted(path.stem for path in self.folder.glob(f"{pattern}.safetensors")) if self.folder else []

    def save(self, name: str, value: Any) -> None:
        """Store a stage, in place of one of that name.

        Raises:
            TypeError: ``value`` holds something that cannot be stored.
        """
        settings, (packed, tensors) = self.folder / "settings.json", pack(value)
        if not settings.exists():
            text = json.dumps(self._made_with, default=_as_dict, indent=1)
            write_whole(settings, lambda draft: draft.write_text(text, encoding="utf-8"))
        write_whole(self._path(name), lambda draft: save_file(tensors, draft, {"value": json.dumps(packed)}))

    def load(self, name: str) -> Any:
        """Read a stage.

        Raises:
            ValueError: it is damaged.
        """

        def read() -> Any:
            with safe_open(self._path(name), "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}
                return _unpack(json.loads(file.metadata()["value"]), tensors)

        return _read(self._path(name), read)

    def remove(self, name: str) -> None:
        """Delete a stage."""
        self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _refuse_another_run(self, settings: dict, data: dict, argument: str) -> None:
        then = f"use the same settings and data to go on, or another {argument} to start afresh"
        for name, old, new in differing(settings, self._made_with["settings"]):
            raise ValueError(
                f"{argument} {self.folder} holds a run made with {name or 'settings'}={old!r}, not {new!r}; {then}"
            )
        for name, _, _ in differing(data, self._made_with["data"]):
            raise ValueError(f"{argument} {self.folder} holds a run made with other data: {name} has changed; {then}")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file under another name, and give it the name ``path`` when it is whole on the disk."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        write(draft)
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def check_folder(folder: str | Path, argument: str = "folder") -> None:
    """Make ``folder`` if need be, and raise a ``ValueError`` that names the argument if it cannot be written."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        problem = "permission denied"
    except OSError as error:
        writable, problem = False, str(error)
    if not writable:
        raise ValueError(f"{argument} {folder} cannot be written ({problem}); give a folder that can")


def differing(saved: Any, wanted: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, saved value, wanted value) of each setting in which ``saved``, read from JSON, differs from ``wanted``.

    Where ``wanted`` is or holds a dataclass, a field that ``saved`` does not have counts as its default. Any other
    setting that one side does not have counts as None there.
    """
    if is_dataclass(wanted) and isinstance(saved, dict):
        saved, wanted = _defaults(wanted) | saved, _as_dict(wanted)
    if isinstance(saved, dict) and isinstance(wanted, Mapping):
        wanted = {str(key): value for key, value in wanted.items()}
        for key in {**saved, **wanted}:
            yield from differing(saved.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif as_json(saved) != as_json(wanted):
        yield name, saved, wanted


def as_json(value: Any) -> Any:
    """``value`` as it will be read back from JSON: dataclasses become dicts, tuples lists."""
    return json.loads(json.dumps(value, default=_as_dict))


def fingerprint(data: Any) -> str:
    """A short text that changes with every bit of ``data``: tensors, or lists, dicts and data sets of them.

    Of a data set that makes its examples when asked, only the kind and the length count.
    """
    digest = hashlib.blake2b(digest_size=8)

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        elif isinstance(part, DataLoader):
            add([part.batch_size, part.drop_last, type(part.sampler).__name__, part.dataset])
        elif isinstance(part, (TensorDataset, Mapping, list, tuple)):
            items = part.tensors if isinstance(part, TensorDataset) else part
            for item in items.items() if isinstance(items, Mapping) else items:
                add(item)
        else:
            made_when_asked = hasattr(part, "__getitem__") and not isinstance(part, str)
            digest.update(f"{type(part).__name__} {len(part) if made_when_asked else repr(part)};".encode())

    add(data)
    return digest.hexdigest()


def describe(function: Callable | None) -> dict[str, Any] | None:
    """A function in a record of settings: its name, and the numbers and texts that it was made with.

    So the losses of ``soft_target_loss(temperature=4, alpha=0.9)`` and of another temperature are told apart.
    """
    if function is None:
        return None
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    inside = {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}
    plain = {name: value for name, value in inside.items() if _is_plain(value)}
    return {"name": getattr(function, "__qualname__", type(function).__name__)} | plain


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) is tuple else isinstance(value, (bool, int, float, str))


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """``value`` as JSON can hold it, and a copy of its tensors by their places in it.

    A dict with one key that begins with $ stands for what JSON does not know: ``$tensor`` and ``$tuple``.

    Raises:
        TypeError: ``value`` holds something else.
    """
    tensors: dict[str, Tensor] = {}

    def packed(part: Any, place: str) -> Any:
        if part is None or isinstance(part, (bool, int, float, str)):
            return part
        if isinstance(part, Tensor):
            while place in tensors:  # a key may hold a slash
                place += "'"
            tensors[place] = part.detach().to("cpu", copy=True).contiguous()
            return {"$tensor": place}
        if isinstance(part, dict) and all(isinstance(key, str) and key[:1] != "$" for key in part):
            return {key: packed(item, f"{place}/{key}") for key, item in part.items()}
        if type(part) in (list, tuple):
            items = [packed(item, f"{place}/{index}") for index, item in enumerate(part)]
            return items if type(part) is list else {"$tuple": items}
        kind = f"a {type(part).__name__}" + (" with keys that are not plain text" if isinstance(part, dict) else "")
        raise TypeError(f"{place} is {kind}; expected tensors, numbers, text or None, in lists, tuples and dicts")

    return packed(value, "value"), tensors


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_unpack(value["$tuple"], tensors))
    return {key: _unpack(part, tensors) for key, part in value.items()}


def _read(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # safetensors and json have errors of their own
        raise ValueError(f"{path} cannot be read ({error}); delete it, and it is made again") from error


def _as_dict(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _defaults(settings: Any) -> dict[str, Any]:
    made = {field.name: field.default_factory() for field in fields(settings) if field.default_factory is not MISSING}
    return made | {field.name: field.default for field in fields(settings) if field.default is not MISSING}
