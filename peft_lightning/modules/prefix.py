"""Trained keys and values, and the positions that make room for them."""

import torch
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout


class Prefix(nn.Module):
    """`K' = [P_k; K]`, `V' = [P_v; V]` (Li and Liang 2021; Liu et al. 2022) with directly trained `P_k, P_v [n, d]`.

    Args:
        length: Number n of virtual tokens.
        heads: Number of key/value heads.
        head_size: Size of a head.
        init_std: Standard deviation of the normal distribution that they start from.
        dropout: Probability with which an entry of the prefix is dropped in training.

    Raises:
        UserError: The length is not positive; the dropout is no probability below 1.
    """

    cannot_merge = "a prefix adds positions to attention, which no weight matrix does"

    def __init__(self, length: int, heads: int, head_size: int, init_std: float = 0.02, dropout: float = 0.0):
        super().__init__()
        if length < 1:
            raise UserError(f"prompt_length is {length}; give a length of at least 1.")
        if init_std < 0:
            raise UserError(f"init_std is {init_std}; give a standard deviation of at least 0.")
        self.key = nn.Parameter(torch.randn(length, heads, head_size) * init_std)
        self.value = nn.Parameter(torch.randn(length, heads, head_size) * init_std)
        self.dropout = make_dropout(dropout)

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Maps keys and values `[batch, heads, length, head size]` to `[batch, heads, n + length, head size]`."""
        return self._in_front_of(key, self.key), self._in_front_of(value, self.value)

    def _in_front_of(self, tokens: Tensor, virtual: Tensor) -> Tensor:
        virtual = virtual.transpose(0, 1).to(tokens.dtype).expand(tokens.shape[0], -1, -1, -1)
        return torch.cat([self.dropout(virtual), tokens], dim=2)


class ShiftedPositions(nn.Module):
    """Gives each token the position embedding of `position + shift`, as if `shift` tokens stood before it.

    Args:
        shift: Number of virtual tokens.
    """

    cannot_merge = "shifted positions go with a prefix, which cannot be merged"

    def __init__(self, shift: int):
        super().__init__()
        self.shift = shift

    def forward(self, base: nn.Embedding, position_ids: Tensor) -> Tensor:
        """Maps position ids `[batch or 1, length]` to embeddings `[batch or 1, length, hidden]`."""
        return base(position_ids + self.shift)
