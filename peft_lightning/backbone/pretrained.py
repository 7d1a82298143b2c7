"""The values that pretrained parameters were loaded with: kept in the backbone's own files, not in memory."""

import hashlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peft_lightning.backbone.loading import load_pretrained
from peft_lightning.errors import UserError

if TYPE_CHECKING:
    from peft_lightning.tasks import Task


class PretrainedValues:
    """Reads pretrained tensors again, when they are first asked for, and keeps those that were.

    Args:
        name: The backbone's name.
        task: Its task.
        revision: Its revision.
        parameters: Its pretrained parameters by name, as they were loaded.

    Attributes:
        fingerprint: Tells pretrained weights apart, whatever the name they were loaded by.
    """

    def __init__(self, name: str, task: "Task", revision: str | None, parameters: Mapping[str, nn.Parameter]):
        self._name = name
        self._task = task
        self._revision = revision
        self._known = frozenset(parameters)
        self._read: dict[str, Tensor] = {}
        self.fingerprint = _fingerprint(parameters)

    def of(self, names: Collection[str]) -> dict[str, Tensor]:
        """The values of the parameters of these names.

        Raises:
            UserError: The files are gone, or hold other weights than those that were loaded.
        """
        if not self._read.keys() >= set(names):
            # Read during an evaluation, the values serve later passes that compute gradients too.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                model, _ = load_pretrained(self._name, self._task, self._revision)
            loaded = {name: p for name, p in model.named_parameters() if name in self._known}
            if _fingerprint(loaded) != self.fingerprint:
                raise UserError(
                    f"The files of backbone '{self._name}' have changed since it was loaded, so that its pretrained "
                    "weights cannot be put back; load it again."
                )
            self._read |= {name: loaded[name].detach() for name in names}
        return {name: self._read[name] for name in names}


def put(parameter: nn.Parameter, value: Tensor) -> None:
    """Gives a parameter other values, where and in the precision in which it now is."""
    parameter.data = value.to(parameter.device, parameter.dtype)
    # Autocast keeps the parameters that it has cast, and would go on with the earlier values.
    torch.clear_autocast_cache()


def _fingerprint(parameters: Mapping[str, nn.Parameter]) -> str:
    """Sixteen hexadecimal digits of the names, the shapes and the first 64 values of all tensors."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().flatten()[:64].numpy().tobytes())
    return digest.hexdigest()[:16]
