"""Adapters whose matrices are sums of Kronecker products."""

import torch
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.bottleneck import Bottleneck, make_activation


class KroneckerRule(nn.Module):
    """The matrices `A_1 ... A_n [n, n]` that all adapters share, from a normal distribution (deviation 1e-4).

    Args:
        n: Number and size of the matrices.

    Raises:
        UserError: n is not positive.
    """

    def __init__(self, n: int):
        super().__init__()
        if n < 1:
            raise UserError(f"n is {n}; give a number of Kronecker products of at least 1.")
        self.A = nn.Parameter(torch.randn(n, n, n) * 1e-4)

    def scaled_parameters(self) -> list[nn.Parameter]:
        """The matrices, to which H is proportional; s and t stay Glorot uniform."""
        return [self.A]


class KroneckerLinear(nn.Module):
    """`x H + b` with `H = sum_i A_i (x) (s_i t_i)` (Karimi Mahabadi et al. 2021, section 3.2), (x) being Kronecker's.

    `s_i [in / n, 1]` and `t_i [1, out / n]` start Glorot uniform, b at zero.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rule: The shared A.

    Raises:
        UserError: A size is not a multiple of n.
    """

    def __init__(self, inputs: int, outputs: int, rule: KroneckerRule):
        super().__init__()
        n = rule.A.shape[0]
        for size in (inputs, outputs):
            if size % n:
                raise UserError(f"n is {n}, which does not divide {size}; width and bottleneck have to be multiples.")
        self.rule = rule
        self.s = nn.Parameter(torch.empty(n, inputs // n, 1))
        self.t = nn.Parameter(torch.empty(n, 1, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for factors in (self.s, self.t):
            for factor in factors:
                nn.init.xavier_uniform_(factor)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[..., inputs]` to `[..., outputs]`."""
        return torch.addmm(self.bias, x.flatten(0, -2), self.matrix()).unflatten(0, x.shape[:-1])

    def matrix(self) -> Tensor:
        """H `[inputs, outputs]`."""
        products = torch.einsum("nab,ncd->acbd", self.rule.A, self.s @ self.t)
        return products.reshape(self.s.shape[0] * self.s.shape[1], -1)


class KroneckerBottleneck(nn.Module):
    """`h + W_up f(W_down h)`, with both maps `KroneckerLinear`.

    Args:
        width: Size d of the hidden state.
        size: Size m of the bottleneck.
        rule: The A of both maps.
        activation: Name of f.

    Raises:
        UserError: A size is not a multiple of n, or the activation unknown.
    """

    cannot_merge = Bottleneck.cannot_merge

    def __init__(self, width: int, size: int, rule: KroneckerRule, activation: str = "gelu_new"):
        super().__init__()
        self.down = KroneckerLinear(width, size, rule)
        self.up = KroneckerLinear(size, width, rule)
        self.activation = make_activation(activation)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        return hidden + self.up(self.activation(self.down(hidden)))
