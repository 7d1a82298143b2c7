"""Bottleneck adapters."""

from typing import Literal

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout

BottleneckInit = Literal["truncated_normal", "normal", "lora"]
Norm = Literal["none", "layer", "batch"]


class Bottleneck(nn.Module):
    """`h + A(h)` with `A(h) = W_up f(W_down h + b_down) + b_up` (Houlsby et al. 2019, section 2.1).

    Biases start at zero. The matrices start by `init`:

    - `truncated_normal` and `normal`: standard deviation `init_std`, cut at two deviations or not; with a small
      deviation the module is close to the identity (section 3.6),
    - `lora`: W_down Kaiming uniform with a = sqrt(5), W_up zero (He et al. 2022, section 4.6): exactly the identity.

    Args:
        width: Size d of the hidden state.
        size: Size m of the bottleneck.
        activation: Name of f, as transformers writes it: gelu, tanh, relu, silu, ...
        init_std: Standard deviation of the initial weights.
        init: How the weights start.
        depth: Number of layers inside, each followed by f; those after the first are `[m, m]`.
        norm: Normalisation of what enters the adapter, whose scale and shift are trained: `layer`, or `batch` over the
            tokens of the batch, padding included.
        dropout: Probability with which an entry of the last bottleneck is dropped.

    Raises:
        UserError: A size or depth is not positive, the deviation negative, the activation unknown, or the dropout no
            probability below 1.
    """

    cannot_merge = "a non-linear adapter is not a change of any weight matrix"

    def __init__(
        self,
        width: int,
        size: int,
        activation: str = "gelu",
        init_std: float = 1e-2,
        init: BottleneckInit = "truncated_normal",
        depth: int = 1,
        norm: Norm = "none",
        dropout: float = 0.0,
    ):
        super().__init__()
        if size < 1:
            raise UserError(f"bottleneck is {size}; give a size of at least 1.")
        if depth < 1:
            raise UserError(f"depth is {depth}; give a number of layers of at least 1.")
        if init_std < 0:
            raise UserError(f"init_std is {init_std}; give a standard deviation of at least 0.")
        self.norm = _make_norm(norm, width)
        self.down = nn.Linear(width, size)
        self.inner = nn.ModuleList(nn.Linear(size, size) for _ in range(depth - 1))
        self.up = nn.Linear(size, width)
        self.activation = make_activation(activation)
        self.dropout = make_dropout(dropout)
        for linear in (self.down, *self.inner, self.up):
            nn.init.zeros_(linear.bias)
            if init == "truncated_normal":
                _truncated_normal_(linear.weight, init_std)
            elif init == "normal":
                nn.init.normal_(linear.weight, std=init_std)
            else:
                nn.init.kaiming_uniform_(linear.weight, a=5**0.5)
        if init == "lora":
            nn.init.zeros_(self.up.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        return hidden + self.change(hidden)

    def scaled_parameters(self) -> list[nn.Parameter]:
        """The matrices, whose scale says how far from the identity the module starts."""
        return [linear.weight for linear in (self.down, *self.inner, self.up)]

    def change(self, hidden: Tensor) -> Tensor:
        """`A(h)` alone, without the residual connection."""
        hidden = self.activation(self.down(self.norm(hidden)))
        for linear in self.inner:
            hidden = self.activation(linear(hidden))
        return self.up(self.dropout(hidden))


class ParallelBottleneck(nn.Module):
    """`output + s A(input)`, or `output * (1 + s A(input))`, beside a sub-layer (He et al. 2022, section 4.6).

    A is that of `Bottleneck`, without its residual connection. The multiplicative form is the one that Houlsby et al.
    tried (2019, section 3.6) and did not write down; this is the one that starts at the identity.

    Args:
        bottleneck: A.
        scale: The factor s.
        learned_scale: Whether s is trained.
        multiplicative: Whether the output is multiplied rather than added to.
    """

    cannot_merge = Bottleneck.cannot_merge

    def __init__(
        self,
        bottleneck: Bottleneck,
        scale: float = 1.0,
        learned_scale: bool = False,
        multiplicative: bool = False,
    ):
        super().__init__()
        self.bottleneck = bottleneck
        self.scale = nn.Parameter(torch.tensor([float(scale)])) if learned_scale else scale
        self.multiplicative = multiplicative

    def forward(self, output: Tensor, entered: Tensor) -> Tensor:
        """Maps the output and the input of the sub-layer, both `[batch, length, width]`, to a new output."""
        change = (self.scale * self.bottleneck.change(entered)).to(output.dtype)
        return output * (1 + change) if self.multiplicative else output + change


class NormedBottleneck(nn.Module):
    """`LN(r + A(LN(r)))` in place of a LayerNorm `LN(r)` (Pfeiffer et al. 2020, appendix A).

    r is the sum of the sub-layer's output and its residual; the same LayerNorm is applied twice.

    Args:
        bottleneck: A.
    """

    cannot_merge = Bottleneck.cannot_merge

    def __init__(self, bottleneck: Bottleneck):
        super().__init__()
        self.bottleneck = bottleneck

    def forward(self, base: nn.Module, summed: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        return base(summed + self.bottleneck.change(base(summed)))


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all tokens `[batch, length, width]` of a batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        return super().forward(input.flatten(0, -2)).view_as(input)


def _make_norm(norm: Norm, width: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.LayerNorm(width) if norm == "layer" else TokenBatchNorm(width)


def make_activation(name: str) -> nn.Module:
    """The activation of that name.

    Raises:
        UserError: There is none.
    """
    if name not in ACT2FN:
        raise UserError(f"activation '{name}' is not known; give one of gelu, tanh, relu, silu, elu, selu.")
    return ACT2FN[name]


@torch.no_grad()
def _truncated_normal_(weight: Tensor, std: float) -> None:
    # Drawn at scale 1 and multiplied, because std = 0 (the exact identity) is a point of the init-scale study.
    nn.init.trunc_normal_(weight, std=1.0, a=-2.0, b=2.0).mul_(std)
