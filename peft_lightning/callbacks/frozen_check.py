"""A debugging aid: only what a method declares changes in training."""

import hashlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod


class FrozenCheck(Callback):
    """Compares every tensor of the model, buffers included, before and after training.

    Add it with `--trainer.callbacks+=FrozenCheck`. It reads the whole model twice; training itself is not slowed down.
    Tensors are compared by their SHA-256, as they are on the first device.

    Raises:
        UserError: At the end, when all files are written: a tensor has changed that the method does not declare as
            trained, or a declared parameter never had a gradient. The message names the first of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, str] = {}
        self._idle: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at all that is to stay as it is."""
        assert isinstance(pl_module, AdaptationMethod)
        self._before = _digests(pl_module)
        self._idle = {name for name, parameter in pl_module.named_parameters() if parameter.requires_grad}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Looks which parameters have a gradient, until all had one."""
        if self._idle:
            self._idle -= {name for name, p in pl_module.named_parameters() if p.grad is not None}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares."""
        assert isinstance(pl_module, AdaptationMethod)
        method, after = type(pl_module).__name__, _digests(pl_module)
        changed = sorted(
            name for name in self._before.keys() | after.keys() if self._before.get(name) != after.get(name)
        )
        if changed:
            raise UserError(
                f"{method} changed tensors that it does not declare as trained ({len(changed)}), among them "
                f"{changed[0]}; declare them in adapt(backbone), or keep them as they are."
            )
        if self._idle:
            raise UserError(
                f"{method} declares parameters as trained that never had a gradient ({len(self._idle)}), among them "
                f"{min(self._idle)}; use them in the forward pass, or do not declare them."
            )


def _digests(method: AdaptationMethod) -> dict[str, str]:
    """The hash of every tensor that no file of the method holds, by name; one that is not persistent is among them."""
    trained = method.trained_state().keys()
    tensors = [*method.named_parameters(remove_duplicate=False), *method.named_buffers(remove_duplicate=False)]
    return {name: _digest(tensor) for name, tensor in tensors if name not in trained}


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode() + raw.numpy().tobytes()).hexdigest()
