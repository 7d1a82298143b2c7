"""The bottleneck adapter."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from peft_lightning.errors import UserError


class Bottleneck(nn.Module):
    """`h + W_up f(W_down h + b_down) + b_up` (Houlsby et al. 2019, section 2.1).

    Both matrices start from a normal distribution truncated at two standard deviations, both biases from zero: with a
    small deviation the module is close to the identity (section 3.6).

    Args:
        width: Size d of the hidden state.
        size: Size m of the bottleneck.
        activation: Name of f, as transformers writes it: gelu, tanh, relu, silu, ...
        init_std: Standard deviation of the initial weights.

    Raises:
        UserError: The bottleneck is not positive, the deviation negative, or the activation unknown.
    """

    cannot_merge = "a non-linear adapter is not a change of any weight matrix"

    def __init__(self, width: int, size: int, activation: str = "gelu", init_std: float = 1e-2):
        super().__init__()
        if size < 1:
            raise UserError(f"bottleneck is {size}; give a size of at least 1.")
        if init_std < 0:
            raise UserError(f"init_std is {init_std}; give a standard deviation of at least 0.")
        if activation not in ACT2FN:
            raise UserError(f"activation '{activation}' is not known; give one of gelu, tanh, relu, silu, elu, selu.")
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        self.activation = ACT2FN[activation]
        for linear in (self.down, self.up):
            nn.init.zeros_(linear.bias)
            _truncated_normal_(linear.weight, init_std)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        return hidden + self.up(self.activation(self.down(hidden)))


@torch.no_grad()
def _truncated_normal_(weight: Tensor, std: float) -> None:
    # Drawn at scale 1 and multiplied, because std = 0 (the exact identity) is a point of the init-scale study.
    nn.init.trunc_normal_(weight, std=1.0, a=-2.0, b=2.0).mul_(std)
