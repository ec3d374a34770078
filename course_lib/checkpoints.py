"""The checkpoints of ``training.fit``: a run that was killed goes on behind the last whole epoch.

A checkpoint is a stage (``resume.Stages``), ``epoch-00012.safetensors``: what training changes in the model, what the
optimizer remembers, the history, and the best weights where patience keeps them. The newest two are kept. Frozen
parameters are not in it; they are part of what the run is made with, by their fingerprint.
"""

from dataclasses import asdict
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from course_lib.device import put_back, trained_state
from course_lib.resume import Stages, pack
from course_lib.training_config import History


class Checkpoints:
    """The checkpoints under ``folder`` of one run that trains ``model`` with ``optimizer``.

    Raises:
        ValueError: as ``Stages``: ``settings`` or ``data`` are not those of the run in the folder.
        TypeError: a module has extra state that cannot be stored.
    """

    def __init__(self, folder: str | Path, model: nn.Module, optimizer: Optimizer, settings: dict, data: dict) -> None:
        self.model, self.optimizer = model, optimizer
        frozen = {name: value for name, value in model.named_parameters() if not value.requires_grad}
        self.stages = Stages(folder, settings, data | {"frozen parameters": frozen}, argument="checkpoint_dir")
        pack(trained_state(model)["extra"])  # what cannot be stored is found before the first step

    def write(self, epoch: int, history: History, best: dict | None) -> None:
        """Store the state after ``epoch`` epochs; an interruption leaves the earlier ones as they were."""
        names = {value: name for name, value in self.model.named_parameters()}
        remembered = {names[parameter]: state for parameter, state in self.optimizer.state.items()}
        state = {"model": trained_state(self.model), "optimizer": remembered, "history": asdict(history), "best": best}
        self.stages.save(f"epoch-{epoch:05d}", state)
        for old in self.stages.names("epoch-*")[:-2]:
            self.stages.remove(old)

    def read(self) -> tuple[History, dict | None]:
        """Take up the newest checkpoint, if there is one: the history, and the best weights if they are kept.

        Raises:
            ValueError: it is damaged or of another model; the model may have been changed by then.
        """
        newest = self.stages.names("epoch-*")[-1:]
        if not newest:
            return History(), None
        try:
            saved = self.stages.load(newest[0])
            own = trained_state(self.model)["tensors"]
            if other := own.keys() ^ saved["model"]["tensors"].keys():
                raise ValueError(f"{min(other)} is only in {'the model' if min(other) in own else 'the checkpoint'}")
            put_back(self.model, saved["model"])
            names = {value: name for name, value in self.model.named_parameters()}
            moments = self.optimizer.state_dict()  # by number, in the order of the groups
            order = [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
            moments["state"] = {number: saved["optimizer"].get(name, {}) for number, name in enumerate(order)}
            self.optimizer.load_state_dict(moments)  # takes each tensor to the device of its parameter
            return History(**saved["history"]), saved["best"]
        except Exception as error:  # whatever a damaged file, another model or another optimizer brings about
            raise ValueError(
                f"the checkpoint {newest[0]} in {self.stages.folder} cannot be used ({error}); it is damaged or of "
                "another model: delete it, or give another checkpoint_dir"
            ) from error
