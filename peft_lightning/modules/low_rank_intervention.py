"""Low-rank edits of hidden states."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout
from peft_lightning.modules.text_ends import TextEnds


class LowRankIntervention(nn.Module):
    """`h + R^T (W h + b - R h)` at some positions (LoReFT, Wu et al. 2024, arXiv:2404.03592, section 3.2).

    R `[r, d]` has orthonormal rows: it is the orthogonal factor of the trained `basis`, which starts orthonormal. W and
    b start as those of a linear layer, so that this is not the identity at the start.

    Args:
        width: Size d of the hidden state.
        rank: Rank r.
        positions: How many positions are edited.
        dropout: Probability with which an entry of the edited states is dropped, as in the official code.
        side: Whether they are counted from the `first` token or from the `last` one.
        ends: Where texts end; only first tokens can do without, and may then be padding in a short text.

    Raises:
        UserError: The rank is not between 1 and d, the positions not positive, the dropout no probability below 1.
    """

    cannot_merge = "it edits hidden states at some positions, which no weight matrix does"

    def __init__(
        self,
        width: int,
        rank: int,
        positions: int = 1,
        dropout: float = 0.0,
        side: Literal["first", "last"] = "first",
        ends: TextEnds | None = None,
    ):
        super().__init__()
        if not 1 <= rank <= width:
            raise UserError(f"rank is {rank}; give one between 1 and {width}, the size of the hidden state.")
        if positions < 1:
            raise UserError(f"positions is {positions}; give a number of at least 1.")
        self.basis = nn.Parameter(torch.empty(rank, width))
        nn.init.orthogonal_(self.basis)
        self.linear = nn.Linear(width, rank)
        self.positions = positions
        self.side = side
        self.ends = ends
        self.dropout = make_dropout(dropout)

    def rotation(self) -> Tensor:
        """R: the orthonormal rows that span what the rows of `basis` span, nearest to them in sign."""
        q, upper = torch.linalg.qr(self.basis.T)
        return (q * upper.diagonal().sign()).T

    def edited(self, hidden: Tensor) -> Tensor:
        """The edit of all states `[..., width]` that are given."""
        rotation = self.rotation()
        return self.dropout(hidden + F.linear(self.linear(hidden) - F.linear(hidden, rotation), rotation.T))

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps `[batch, length, width]` to the same shape."""
        if self.ends is None:
            return torch.cat([self.edited(hidden[:, : self.positions]), hidden[:, self.positions :]], dim=1)
        places = self.ends.first if self.side == "first" else self.ends.last
        return torch.where(places(self.positions, hidden.shape[1])[..., None], self.edited(hidden), hidden)
