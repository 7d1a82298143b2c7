"""Low-rank updates of a linear map: LoRA, and what PiSSA and DoRA make of it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout

LowRankInit = Literal["kaiming", "gaussian", "pissa"]


def check_rank(option: str, rank: int, inputs: int, outputs: int) -> None:
    """Checks that a map `[outputs, inputs]` can have an update of this rank.

    Raises:
        UserError: It cannot; the message names the option.
    """
    most = min(inputs, outputs)
    if not 1 <= rank <= most:
        raise UserError(f"{option} is {rank}; give one between 1 and {most}, the size of the weights.")


def check_alpha(alpha: float) -> None:
    """Checks the numerator of a scale.

    Raises:
        UserError: It is not above 0.
    """
    if alpha <= 0:
        raise UserError(f"alpha is {alpha}; give a number above 0.")


class LowRankPair(nn.Module):
    """The matrices A `[r, in]` and B `[out, r]`, and the scale s of their product.

    A starts from the Kaiming uniform distribution with a = sqrt(5), as in LoRA's official code, or from a normal one
    with standard deviation 1 / r, as its paper says; B from zero, so that the first output is the frozen one.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rank: Rank r.
        alpha: Numerator of the scale s = alpha / r.
        dropout: Probability with which an entry of x is dropped before A.
        init: `kaiming` or `gaussian`.
        rank_stabilized: s = alpha / sqrt(r) instead (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732).

    Raises:
        UserError: The rank is not positive or exceeds what the map can have; alpha is not positive; the dropout is no
            probability below 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        init: LowRankInit = "kaiming",
        rank_stabilized: bool = False,
    ):
        super().__init__()
        check_rank("rank", rank, inputs, outputs)
        check_alpha(alpha)
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))
        if init == "gaussian":
            nn.init.normal_(self.A, std=1 / rank)
        else:
            nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.scale = alpha / (rank**0.5 if rank_stabilized else rank)
        self.dropout = make_dropout(dropout)

    def scaled_parameters(self) -> list[nn.Parameter]:
        """A and B: with B at zero the scale of A alone would not move the first output."""
        return [self.A, self.B]


class LowRank(LowRankPair):
    """`W x + b + s B A x`, beside a frozen `W x + b` (LoRA, Hu et al. 2021, section 4.1)."""

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        return base(x) + F.linear(F.linear(self.dropout(x), self.A), self.B) * self.scale

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Adds `s B A` to the weight of `base`, which then computes alone what both computed together."""
        base.weight += self.scale * (self.B @ self.A)


class PrincipalLowRank(LowRankPair):
    """`W x + b + s (B A - B_0 A_0) x`: LoRA on the principal part of W (PiSSA, Meng et al. 2024, arXiv:2404.02948).

    With `W = U S V^T`, `B_0 = U_r sqrt(S_r / s)` and `A_0 = sqrt(S_r / s) V_r^T` are where B and A start. That equals
    the paper's `(W - s B_0 A_0) x + s B A x`, and leaves W as it is: switched off, the module gives back the
    pretrained map. The start is kept as buffers, because a decomposition is not the same on every machine.

    Args:
        weight: The frozen W `[out, in]`.
        rank: Rank r.
        alpha: Numerator of the scale s.
        dropout: Probability with which an entry of x is dropped before A.
        rank_stabilized: s = alpha / sqrt(r) instead of alpha / r.

    Raises:
        UserError: As for `LowRankPair`.
    """

    start_a: Tensor
    start_b: Tensor

    def __init__(self, weight: Tensor, rank: int, alpha: float, dropout: float = 0.0, rank_stabilized: bool = False):
        super().__init__(weight.shape[1], weight.shape[0], rank, alpha, dropout, "kaiming", rank_stabilized)
        u, s, vh = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        root = (s[:rank] / self.scale).sqrt()
        with torch.no_grad():
            self.A.copy_(root[:, None] * vh[:rank])
            self.B.copy_(u[:, :rank] * root)
        self.register_buffer("start_a", self.A.detach().clone())
        self.register_buffer("start_b", self.B.detach().clone())

    def scaled_parameters(self) -> list[nn.Parameter]:
        """None: where A and B start follows from W."""
        return []

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        now = F.linear(F.linear(self.dropout(x), self.A), self.B)
        start = F.linear(F.linear(x, self.start_a), self.start_b)
        return base(x) + (now - start) * self.scale

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Adds `s (B A - B_0 A_0)` to the weight of `base`."""
        base.weight += self.scale * (self.B @ self.A - self.start_b @ self.start_a)


class WeightDecomposedLowRank(LowRankPair):
    """`m (W + s B A) x / ||W + s B A|| + b` (DoRA, Liu et al. 2024, arXiv:2402.09353, section 4).

    The norm is that of each output's row and is held constant in the backward pass (section 4.3); the magnitude m
    `[out]` starts at `||W||`, so that the first output is the frozen one.

    Args:
        weight: The frozen W `[out, in]`.
        rank: Rank r.
        alpha: Numerator of the scale s.
        dropout: Probability with which an entry of x is dropped before A.
        init: As for `LowRankPair`.
        rank_stabilized: s = alpha / sqrt(r) instead of alpha / r.

    Raises:
        UserError: As for `LowRankPair`.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        init: LowRankInit = "kaiming",
        rank_stabilized: bool = False,
    ):
        super().__init__(weight.shape[1], weight.shape[0], rank, alpha, dropout, init, rank_stabilized)
        self.magnitude = nn.Parameter(self._norm(weight.detach()))

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        ratio = self.magnitude / self._norm(base.weight).detach()
        update = F.linear(F.linear(self.dropout(x), self.A), self.B) * self.scale
        # Written as a change of the frozen output, so that a ratio of 1 leaves that as it is, bit for bit.
        change = (ratio - 1) * F.linear(x, base.weight) + ratio * update
        return base(x) + change.to(update.dtype)

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Replaces the weight of `base` by `m (W + s B A) / ||W + s B A||`."""
        ratio = self.magnitude / self._norm(base.weight)
        base.weight.copy_(ratio[:, None] * (base.weight + self.scale * (self.B @ self.A)))

    def _norm(self, weight: Tensor) -> Tensor:
        return torch.linalg.vector_norm(weight + self.scale * (self.B @ self.A), dim=1)
