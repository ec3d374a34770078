"""Checkpoints that survive a kill: written beside the last one, given their name only when whole.

A checkpoint is a folder ``epoch-00012`` with the weights (``model.safetensors``, and ``best.safetensors`` if a
best epoch is kept), the optimizer's state (``optimizer.pt``, read with ``weights_only=True``) and everything else
as JSON (``state.json``). The newest two are kept.
"""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.optim import Optimizer

_NAME = re.compile(r"epoch-(\d{5})")


def save_checkpoint(
    folder: str | Path, epoch: int, model: nn.Module, optimizer: Optimizer, state: dict, best: dict[str, Tensor] | None
) -> Path:
    """Write the checkpoint of ``epoch`` under ``folder``; an interruption leaves the earlier ones as they were.

    Args:
        state: what else to keep, as JSON can hold it.
        best: the weights of the best epoch so far, if they are kept.
    """
    final = Path(folder) / f"epoch-{epoch:05d}"
    draft = final.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_model(model, str(draft / "model.safetensors"))
    if best is not None:
        save_file(best, str(draft / "best.safetensors"))
    torch.save(optimizer.state_dict(), draft / "optimizer.pt")
    (draft / "state.json").write_text(json.dumps(state))
    for path in draft.iterdir():  # on the disk before the name says so
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    for old in _checkpoints(folder)[:-2]:
        shutil.rmtree(old)
    return final


def load_checkpoint(
    folder: str | Path, model: nn.Module, optimizer: Optimizer
) -> tuple[dict, dict[str, Tensor] | None] | None:
    """Read the newest checkpoint under ``folder`` into ``model`` and ``optimizer``, both changed in place.

    Returns:
        the state and the best weights as they were saved, or nothing if there is no checkpoint.

    Raises:
        ValueError: the checkpoint cannot be read, or is of another model.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        state = json.loads((newest / "state.json").read_text())
        load_model(model, str(newest / "model.safetensors"))
        optimizer.load_state_dict(torch.load(newest / "optimizer.pt", weights_only=True))
        best = load_file(newest / "best.safetensors") if (newest / "best.safetensors").exists() else None
    except Exception as error:  # each of the four readers has errors of its own
        raise ValueError(
            f"the checkpoint {newest} cannot be used ({error}); it is damaged or of another model: "
            "delete it, or give another checkpoint_dir"
        ) from error
    return state, best


def _checkpoints(folder: str | Path) -> list[Path]:
    """The whole checkpoints under ``folder``, oldest first."""
    return sorted(path for path in Path(folder).glob("epoch-*") if _NAME.fullmatch(path.name))
