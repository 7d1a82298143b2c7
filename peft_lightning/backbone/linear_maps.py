"""Linear maps that are kept transposed, or fused with others, seen as if each were an `nn.Linear`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Part:
    """One of several maps of equal size that one module computes, side by side in its output.

    Args:
        path: Dotted path of the module.
        index: Which of them, counted from 0.
        count: How many there are.
    """

    path: str
    index: int
    count: int

    def of(self, tensor: Tensor) -> Tensor:
        """This part of `[..., count * out]`, as a view `[..., out]`."""
        return tensor.chunk(self.count, dim=-1)[self.index]

    def put(self, tensor: Tensor, piece: Tensor) -> Tensor:
        """A copy of `[..., count * out]` with `piece [..., out]` as this part."""
        pieces = list(tensor.chunk(self.count, dim=-1))
        pieces[self.index] = piece
        return torch.cat(pieces, dim=-1)


class LinearView:
    """`W x + b` of a module that keeps W as `[in, out]`, or in whose W it is one block.

    Weight and bias share the module's memory, so that what is changed in place is changed there.

    Args:
        module: A transformers `Conv1D`, which computes `x W + b` with W `[in, out]`, or an `nn.Linear`.
        part: Which part of its output; None means all of it.
        call: Computes `W x + b` for an input; by default the module itself.
    """

    def __init__(self, module: nn.Module, part: Part | None = None, call: Callable[[Tensor], Tensor] | None = None):
        self._module = module
        self._part = part
        self._call = call or (lambda x: self._own(module(x)))

    def __call__(self, x: Tensor) -> Tensor:
        """Maps `[..., in]` to `[..., out]`."""
        return self._call(x)

    @property
    def weight(self) -> Tensor:
        """W `[out, in]`."""
        kept: Any = self._module.weight
        return self._own(kept if isinstance(self._module, Conv1D) else kept.T).T

    @weight.setter
    def weight(self, value: Tensor) -> None:
        # Reached by `view.weight += update`, which has changed the memory already.
        self.weight.copy_(value)

    @property
    def bias(self) -> Tensor | None:
        """B `[out]`, or None."""
        bias: Any = self._module.bias
        return None if bias is None else self._own(bias)

    @bias.setter
    def bias(self, value: Tensor) -> None:
        own = self.bias
        assert own is not None, "a map without bias is given one"
        own.copy_(value)

    @property
    def out_features(self) -> int:
        """Size of the output."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """Size of the input."""
        return self.weight.shape[1]

    def _own(self, tensor: Tensor) -> Tensor:
        return tensor if self._part is None else self._part.of(tensor)


LinearMap = nn.Linear | LinearView


def as_seen(module: nn.Module, part: Part | None = None, call: Callable[[Tensor], Tensor] | None = None) -> Any:
    """The module as methods see it: a `LinearView` if it is transposed or only a part of it is meant, else itself."""
    if part is None and not isinstance(module, Conv1D):
        return module
    return LinearView(module, part, call)
