"""Trained keys and values, and the positions that make room for them."""

import torch
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.dropout import make_dropout
from peft_lightning.modules.prompt_length import check_prompt_length


class KeyValuePrefix(nn.Module):
    """`K' = [P_k; K]`, `V' = [P_v; V]` (Li and Liang 2021; Liu et al. 2022); where P comes from is the subclass's.

    Args:
        dropout: Probability with which an entry of the prefix is dropped in training.

    Raises:
        UserError: The dropout is no probability below 1.
    """

    cannot_merge = "a prefix adds positions to attention, which no weight matrix does"

    def __init__(self, dropout: float):
        super().__init__()
        self.dropout = make_dropout(dropout)

    def virtual(self) -> tuple[Tensor, Tensor]:
        """P_k and P_v, both `[n, heads, head size]`."""
        raise NotImplementedError

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Maps keys and values `[batch, heads, length, head size]` to `[batch, heads, n + length, head size]`."""
        virtual_key, virtual_value = self.virtual()
        return self._in_front_of(key, virtual_key), self._in_front_of(value, virtual_value)

    def _in_front_of(self, tokens: Tensor, virtual: Tensor) -> Tensor:
        virtual = virtual.transpose(0, 1).to(tokens.dtype).expand(tokens.shape[0], -1, -1, -1)
        return torch.cat([self.dropout(virtual), tokens], dim=2)


class Prefix(KeyValuePrefix):
    """A prefix whose `P_k, P_v [n, d]` are trained directly.

    Args:
        length: Number n of virtual tokens.
        heads: Number of key/value heads.
        head_size: Size of a head.
        init_std: Standard deviation of the normal distribution that they start from.
        dropout: Probability with which an entry of the prefix is dropped in training.

    Raises:
        UserError: The length is not positive, or the deviation negative; the dropout is no probability below 1.
    """

    def __init__(self, length: int, heads: int, head_size: int, init_std: float = 0.02, dropout: float = 0.0):
        super().__init__(dropout)
        check_prompt_length(length)
        if init_std < 0:
            raise UserError(f"init_std is {init_std}; give a standard deviation of at least 0.")
        self.key = nn.Parameter(torch.randn(length, heads, head_size) * init_std)
        self.value = nn.Parameter(torch.randn(length, heads, head_size) * init_std)

    def scaled_parameters(self) -> list[nn.Parameter]:
        """Keys and values."""
        return [self.key, self.value]

    def virtual(self) -> tuple[Tensor, Tensor]:
        """The two parameters."""
        return self.key, self.value


class PrefixTrunk(nn.Module):
    """`tanh(W_1 E + b_1)`: what the reparametrised prefixes of all layers have in common.

    Args:
        length: Number n of virtual tokens.
        width: Size d of their embeddings E `[n, d]`.
        size: Size of the hidden layer.

    Raises:
        UserError: The length or the size is not positive.
    """

    def __init__(self, length: int, width: int, size: int):
        super().__init__()
        check_prompt_length(length)
        if size < 1:
            raise UserError(f"projection_size is {size}; give a size of at least 1.")
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.linear = nn.Linear(width, size)

    def forward(self) -> Tensor:
        """The hidden layer `[n, size]`."""
        return torch.tanh(self.linear(self.embedding))


class ReparametrizedPrefix(KeyValuePrefix):
    """A prefix `[P_k; P_v] = W_2 trunk + b_2` (Li and Liang 2021, section 4.3).

    W_2 `[2 d, size]` is one layer's part of the paper's one matrix `[2 L d, size]`, so that all layers together are
    that network. Once trained, only P is needed: `export` gives the parameters of a plain `Prefix`.

    Args:
        trunk: Shared with the prefixes of the other layers.
        heads: Number of key/value heads.
        head_size: Size of a head.
        dropout: Probability with which an entry of the prefix is dropped in training.
    """

    def __init__(self, trunk: PrefixTrunk, heads: int, head_size: int, dropout: float = 0.0):
        super().__init__(dropout)
        self.trunk = trunk
        self.linear = nn.Linear(trunk.linear.out_features, 2 * heads * head_size)
        self.shape = (2, heads, head_size)

    def scaled_parameters(self) -> list[nn.Parameter]:
        """W_2 and b_2, to which P is proportional."""
        return list(self.linear.parameters())

    def virtual(self) -> tuple[Tensor, Tensor]:
        """Computed from the trunk."""
        key, value = self.linear(self.trunk()).unflatten(-1, self.shape).unbind(1)
        return key, value

    @torch.no_grad()
    def export(self) -> dict[str, Tensor]:
        """The parameters of the `Prefix` that computes the same."""
        key, value = self.virtual()
        return {"key": key, "value": value}


class ShiftedPositions(nn.Module):
    """Gives each token the position embedding of `position + shift`, as if `shift` tokens stood before it.

    Args:
        shift: Number of virtual tokens.
    """

    cannot_merge = "shifted positions go with a prefix, which cannot be merged"

    def __init__(self, shift: int):
        super().__init__()
        self.shift = shift

    def forward(self, base: nn.Embedding, ids: Tensor, past: int = 0, position_ids: Tensor | None = None) -> Tensor:
        """Maps position ids `[batch or 1, length]` to embeddings `[batch or 1, length, hidden]`.

        Args:
            base: The table.
            ids: The position ids; for the tables of BART and OPT, which have an offset, other ids of that shape.
            past: BART's and OPT's number of positions before these.
            position_ids: BART's and OPT's position ids; None means those that follow `past`.
        """
        if position_ids is not None:
            return base(ids, past, position_ids=position_ids + self.shift)
        if hasattr(base, "offset"):
            return base(ids, past + self.shift)
        return base(ids + self.shift)
