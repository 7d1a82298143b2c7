"""Learned vectors that rescale what a linear map takes or gives."""

import torch
from torch import Tensor, nn


class ScaleOutput(nn.Module):
    """`l * (W x + b)`, with l `[out]` starting at ones (Liu et al. 2022, section 3.3: keys and values).

    Args:
        size: Size of the output.
    """

    def __init__(self, size: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, size]`."""
        output = base(x)
        # Under autocast the vector is in single precision, and some models need what the map gave before.
        return output * self.scale.to(output.dtype)

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Multiplies the rows of the weight, and the bias."""
        base.weight.mul_(self.scale[:, None])
        if base.bias is not None:
            base.bias.mul_(self.scale)


class ScaleInput(nn.Module):
    """`W (l * x) + b`, with l `[in]` starting at ones (Liu et al. 2022, section 3.3: feed-forward, after f).

    Args:
        size: Size of the input.
    """

    def __init__(self, size: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, size]` to `[batch, length, outputs]`."""
        return base(x * self.scale)

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Multiplies the columns of the weight; the bias stays."""
        base.weight.mul_(self.scale)
