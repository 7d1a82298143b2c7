"""Where the texts of a padded batch end."""

from typing import Any

import torch
from torch import Tensor, nn


class TextEnds:
    """The number of tokens of each text in the batch at hand, and the first and last of them.

    Of a text too short for both, its first half counts as first tokens and its second half as last ones, as in the
    official code of LoReFT, so that no token is both.

    Attributes:
        lengths: `[batch]`.
    """

    def __init__(self) -> None:
        self.lengths = torch.empty(0, dtype=torch.long)

    def note(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> None:
        """A pre-hook of the model: counts the tokens, behind which all is padding."""
        ids, mask = args[0] if args else inputs["input_ids"], inputs.get("attention_mask")
        self.lengths = (torch.ones_like(ids) if mask is None else mask).long().sum(1)

    def first(self, count: int, length: int) -> Tensor:
        """True at the first tokens.

        Args:
            count: How many of a text, half of them all at the most.
            length: Length of the padded batch.

        Returns:
            `[batch, length]`.
        """
        return self._positions(length) < self._half(count)

    def last(self, count: int, length: int) -> Tensor:
        """True at the last tokens that are not padding; as for `first`."""
        lengths, positions = self.lengths[:, None], self._positions(length)
        return (positions >= lengths - self._half(count)) & (positions < lengths)

    def _half(self, count: int) -> Tensor:
        return (self.lengths // 2).clamp(max=count)[:, None]

    def _positions(self, length: int) -> Tensor:
        return torch.arange(length, device=self.lengths.device)
