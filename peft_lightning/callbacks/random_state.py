"""The random states of one process, as values that a checkpoint which executes nothing can hold."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """Where the streams of Python, NumPy and torch (CPU and GPU) stand; taken at every step, so as they come."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def take(cls, device: torch.device) -> "RandomState":
        """That of this process, which computes on `device`."""
        numpy: Any = np.random.get_state(legacy=False)
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def plain(self) -> dict[str, Any]:
        """As plain values: an array would keep `torch.load(..., weights_only=True)` from reading the file."""
        inner = self.numpy["state"]
        numpy = self.numpy | {"state": inner | {"key": inner["key"].tolist()}}
        return {"python": self.python, "numpy": numpy, "cpu": self.cpu, "cuda": self.cuda}


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Puts the streams of this process where `RandomState.plain` says they were."""
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    np.random.set_state(state["numpy"] | {"state": inner | {"key": np.array(inner["key"], dtype=np.uint32)}})
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
