"""The low-rank update with inhibition."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from peft_lightning.errors import UserError
from peft_lightning.modules.low_rank import LowRankPair

ACTIVATIONS = ("gelu", "leaky_relu", "relu", "elu", "selu")


class InhibitedLowRank(LowRankPair):
    """`W x + b + s B f(z - p max(z))` with `z = A x` and the maximum over the r units of each token.

    The largest unit keeps its sign, as p is below 1. Where all units are negative the maximum is, too, and subtracting
    it raises them: all stay negative, so that ReLU passes nothing there and GELU its small tail. With r = 1 there is
    nothing to compete and the update is `B f((1 - p) z)`.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rank: Rank r.
        alpha: Numerator of the scale s = alpha / r.
        dropout: Probability with which an entry of x is dropped before A.
        inhibition: Share p of the maximum that is subtracted.
        activation: Name of f: gelu, leaky_relu (slope 0.01), relu, elu or selu.
        detach_threshold: Whether the maximum is held constant in the backward pass.

    Raises:
        UserError: As for `LowRankPair`; the inhibition is not in [0, 1); the activation is not one of the five.
    """

    cannot_merge = "its threshold and its activation depend on the input, so that no weight matrix equals its update"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        inhibition: float = 0.3,
        activation: str = "gelu",
        detach_threshold: bool = False,
    ):
        super().__init__(inputs, outputs, rank, alpha, dropout)
        if not 0 <= inhibition < 1:
            raise UserError(f"inhibition is {inhibition}; give a share of at least 0 and below 1.")
        if activation not in ACTIVATIONS:
            raise UserError(f"activation '{activation}' is not known; give one of {', '.join(ACTIVATIONS)}.")
        self.inhibition = inhibition
        self.activation = ACT2FN[activation]
        self.detach_threshold = detach_threshold

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        units = F.linear(self.dropout(x), self.A)
        threshold = self.inhibition * units.max(dim=-1, keepdim=True).values
        if self.detach_threshold:
            threshold = threshold.detach()
        return base(x) + F.linear(self.activation(units - threshold), self.B) * self.scale

    @torch.no_grad()
    def inhibited(self, x: Tensor, levels: Sequence[float]) -> Tensor:
        """Share of the r units with `z < p max(z)`, which the threshold leaves below 0, at other p than its own too.

        Args:
            x: `[..., inputs]`.
            levels: Values of p.

        Returns:
            `[..., levels]`, without dropout.
        """
        units = F.linear(x, self.A)[..., None, :]
        thresholds = torch.tensor(levels, device=units.device, dtype=units.dtype)[:, None]
        return (units < thresholds * units.max(dim=-1, keepdim=True).values).float().mean(-1)
