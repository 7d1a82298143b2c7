"""The low-rank update of a linear map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout


class LowRank(nn.Module):
    """`W x + b + s B A x` with `s = alpha / r`, beside a frozen `W x + b` (Hu et al. 2021, section 4.1).

    A starts from the Kaiming uniform distribution with a = sqrt(5), as in the official code (the paper says Gaussian),
    and B from zero, so that the first output is the frozen one.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rank: Rank r.
        alpha: Numerator of the scale s.
        dropout: Probability with which an entry of x is dropped before A.

    Raises:
        UserError: The rank is not positive or exceeds what the map can have; the dropout is no probability below 1.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        if not 1 <= rank <= min(inputs, outputs):
            raise UserError(f"rank is {rank}; give one between 1 and {min(inputs, outputs)}, the size of the weights.")
        if alpha <= 0:
            raise UserError(f"alpha is {alpha}; give a number above 0.")
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.scale = alpha / rank
        self.dropout = make_dropout(dropout)

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        return base(x) + F.linear(F.linear(self.dropout(x), self.A), self.B) * self.scale

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Adds `s B A` to the weight of `base`, which then computes alone what both computed together."""
        base.weight += self.scale * (self.B @ self.A)
