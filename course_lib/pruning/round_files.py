"""The rounds of iterative pruning on the disk: a run that was interrupted goes on from the last whole round.

``start.safetensors`` holds the weights that are rewound to, ``round-03.safetensors`` the masks and the weights of a
round with its history; each is written under another name and renamed when whole. While a round is trained, the
checkpoints of ``training.fit`` lie in ``training-03``.
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_lib.resume import check_folder
from course_lib.training_config import History


class RoundFiles:
    """The files of one run under ``folder``.

    Args:
        settings: what the run was made with, as JSON can hold it.
        weights: the model's weights before the run; they are part of the settings, by their hash.

    Raises:
        ValueError: the folder cannot be written, or holds a run with other settings or from other weights.
    """

    def __init__(self, folder: str | Path, settings: dict, weights: dict[str, Tensor]) -> None:
        check_folder(folder)
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings | {"initial weights": _fingerprint(weights)}))
        path = self.folder / "settings.json"
        if path.exists():
            self._compare(path)
        else:
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
            draft.replace(path)

    def training(self, number: int) -> Path:
        """Where the checkpoints of a round are kept until it is whole."""
        return self.folder / f"training-{number:02d}"

    def save_start(self, weights: dict[str, Tensor]) -> None:
        """Write the weights that are rewound to."""
        self._write("start", weights, {})

    def load_start(self) -> dict[str, Tensor] | None:
        """The weights that are rewound to, none if there are none yet.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "start.safetensors"
        try:
            return load_file(path) if path.exists() else None
        except Exception as error:  # safetensors has its own
            raise ValueError(f"{path} cannot be read ({error}); delete it: round 0 is then trained again") from error

    def save_round(self, number: int, masks: dict[str, Tensor], weights: dict[str, Tensor], history: History) -> None:
        """Write a whole round; its checkpoints are no longer needed."""
        tensors = {f"mask:{name}": mask.cpu() for name, mask in masks.items()}
        tensors |= {f"weight:{name}": value for name, value in weights.items()}
        self._write(f"round-{number:02d}", tensors, {"history": json.dumps(asdict(history))})
        shutil.rmtree(self.training(number), ignore_errors=True)

    def load_round(self, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor], History] | None:
        """Masks, weights and history of a round, none if it is not whole yet.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / f"round-{number:02d}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                history = History(**json.loads(file.metadata()["history"]))
        except Exception as error:  # safetensors and json each have their own
            raise ValueError(f"{path} cannot be read ({error}); delete it: its round is then trained again") from error
        parts = {
            kind: {name.split(":", 1)[1]: value for name, value in tensors.items() if name.startswith(f"{kind}:")}
            for kind in ("mask", "weight")
        }
        return parts["mask"], parts["weight"], history

    def _write(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        draft = self.folder / f"{name}.draft"
        save_file(tensors, str(draft), metadata=metadata)
        draft.replace(self.folder / f"{name}.safetensors")

    def _compare(self, path: Path) -> None:
        saved = json.loads(path.read_text(encoding="utf-8"))
        for name in {**saved, **self.settings}:
            if saved.get(name) != self.settings.get(name):
                raise ValueError(
                    f"folder {self.folder} holds a run with {name}={saved.get(name)!r}, not "
                    f"{self.settings.get(name)!r}; use the same settings to go on, or another folder to start afresh"
                )


def _fingerprint(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
