"""Checkpoints that survive a kill: written beside the last one, given their name only when whole.

A checkpoint is a folder ``epoch-00012`` with the weights (``model.safetensors``, and ``best.safetensors`` if a
best epoch is kept), the optimizer's state (``optimizer.pt``, read with ``weights_only=True``) and everything else
as JSON (``state.json``). The newest two are kept.
"""

import copy
import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

_NAME = re.compile(r"epoch-(\d{5})")


def check_folder(folder: str | Path) -> None:
    """Make ``folder`` if need be, and raise a ``ValueError`` if no checkpoint can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        problem = "permission denied"
    except OSError as error:
        writable, problem = False, str(error)
    if not writable:
        raise ValueError(f"checkpoint_dir {folder} cannot be written ({problem}); give a folder that can")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers on the CPU, each on its own and in plain order, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def save_checkpoint(
    folder: str | Path,
    epoch: int,
    model: nn.Module,
    optimizer: Optimizer,
    made_with: dict,
    history: dict,
    best: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of ``epoch`` under ``folder``; an interruption leaves the earlier ones as they were.

    Args:
        made_with: the settings of the run, as JSON can hold them; ``load_checkpoint`` compares them.
        history: what happened so far, as JSON can hold it.
        best: the weights of the best epoch so far, if they are kept.
    """
    final = Path(folder) / f"epoch-{epoch:05d}"
    draft = final.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file(weights_of(model), str(draft / "model.safetensors"))
    if best is not None:
        save_file(best, str(draft / "best.safetensors"))
    torch.save(optimizer.state_dict(), draft / "optimizer.pt")
    (draft / "state.json").write_text(json.dumps({"made_with": made_with, "history": history}))
    for path in draft.iterdir():  # on the disk before the name says so
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    for old in _checkpoints(folder)[:-2]:
        shutil.rmtree(old)
    return final


def load_checkpoint(
    folder: str | Path, model: nn.Module, optimizer: Optimizer, made_with: dict
) -> tuple[dict, dict[str, Tensor] | None] | None:
    """Read the newest checkpoint under ``folder`` into ``model`` and ``optimizer``, both changed in place.

    Returns:
        the history and the best weights as they were saved, or nothing if there is no checkpoint.

    Raises:
        ValueError: the checkpoint was made with other settings than ``made_with``, cannot be read, or is of another
            model, which is then left as it was.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    newest, before = found[-1], copy.deepcopy(model.state_dict())
    try:
        state = json.loads((newest / "state.json").read_text())
        _check_settings(newest, state["made_with"], made_with)
        best = load_file(newest / "best.safetensors") if (newest / "best.safetensors").exists() else None
        moments = torch.load(newest / "optimizer.pt", weights_only=True, map_location="cpu")
        model.load_state_dict(load_file(newest / "model.safetensors"))
        for saved, own in zip(moments["param_groups"], optimizer.param_groups, strict=True):
            saved["fused"] = own.get("fused")  # whether it fits depends on where the weights lie now
        optimizer.load_state_dict(moments)  # takes each tensor to the device of its parameter
    except _OtherSettings:
        raise
    except Exception as error:  # each of the four readers has errors of its own
        model.load_state_dict(before)
        raise ValueError(
            f"the checkpoint {newest} cannot be used ({error}); it is damaged or of another model: "
            "delete it, or give another checkpoint_dir"
        ) from error
    return state["history"], best


class _OtherSettings(ValueError):
    """The checkpoint is sound, but of another run."""


def _check_settings(checkpoint: Path, saved: dict, wanted: dict) -> None:
    for name in {**saved, **wanted}:
        if saved.get(name) != wanted.get(name):
            raise _OtherSettings(
                f"the checkpoint {checkpoint} was made with {name}={saved.get(name)!r}, not {wanted.get(name)!r}; "
                "use the same settings and data to go on, or another checkpoint_dir to start afresh"
            )


def _checkpoints(folder: str | Path) -> list[Path]:
    """The whole checkpoints under ``folder``, oldest first."""
    return sorted(path for path in Path(folder).glob("epoch-*") if _NAME.fullmatch(path.name))
