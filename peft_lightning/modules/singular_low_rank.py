"""Low-rank updates in the form of a singular value decomposition."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.modules.dropout import make_dropout
from peft_lightning.modules.low_rank import check_alpha, check_rank


class SingularLowRank(nn.Module):
    """`W x + b + (alpha / r) P (lambda * (Q x))` (AdaLoRA, Zhang et al. 2023, arXiv:2303.10512, section 3.1).

    `P [out, r]` and `Q [r, in]` start from N(0, 0.02), `lambda [r]` from zero, so that the first output is the frozen
    one. Setting an entry of lambda to zero takes its triplet (column of P, entry, row of Q) out.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rank: Rank r at the start.
        alpha: Numerator of the scale.
        dropout: Probability with which an entry of x is dropped before Q.

    Raises:
        UserError: The rank is not positive or exceeds what the map can have; alpha is not positive; the dropout is no
            probability below 1.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        check_rank("init_rank", rank, inputs, outputs)
        check_alpha(alpha)
        self.P = nn.Parameter(torch.randn(outputs, rank) * 0.02)
        self.singular = nn.Parameter(torch.zeros(rank))
        self.Q = nn.Parameter(torch.randn(rank, inputs) * 0.02)
        self.scale = alpha / rank
        self.dropout = make_dropout(dropout)

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        return base(x) + F.linear(self.singular * F.linear(self.dropout(x), self.Q), self.P) * self.scale

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Adds `(alpha / r) P diag(lambda) Q` to the weight of `base`."""
        base.weight += self.scale * (self.P * self.singular) @ self.Q

    def scaled_parameters(self) -> list[nn.Parameter]:
        """P, lambda and Q: with lambda at zero the scale of the others would not move the first output."""
        return [self.P, self.singular, self.Q]

    def obliqueness(self) -> Tensor:
        """How far P and Q are from orthogonal: the mean of `||P^T P - I||` and `||Q Q^T - I||` (Frobenius)."""
        one = torch.eye(len(self.singular), device=self.P.device)
        return (torch.linalg.norm(self.P.T @ self.P - one) + torch.linalg.norm(self.Q @ self.Q.T - one)) / 2
