"""Which singular values AdaLoRA keeps at which step (Zhang et al. 2023, sections 3.2 and 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_lightning.modules import SingularLowRank


@dataclass(frozen=True)
class Budget:
    """The number of triplets of all maps together, over the steps of a run.

    `b_0` for the first `first` steps, then `b_T + (b_0 - b_T) (1 - (t - first) / (T - first - last))^3`, and `b_T` in
    the `last` steps.

    Args:
        start: b_0.
        target: b_T.
        total: Number T of steps.
        first: Steps at the full budget.
        last: Steps at the final one.
    """

    start: int
    target: int
    total: int
    first: int
    last: int

    def at(self, step: int) -> int:
        """The budget after so many steps."""
        if step <= self.first:
            return self.start
        if step >= self.total - self.last:
            return self.target
        left = 1 - (step - self.first) / (self.total - self.first - self.last)
        return int(self.target + (self.start - self.target) * left**3)

    def is_final(self, step: int) -> bool:
        """Whether the choice of triplets is made for good."""
        return step >= self.total - self.last


class RankAllocator:
    """Smoothed importance of every triplet, and the mask that follows from it.

    The importance of a weight is `I = |w dL/dw|`; smoothed `mean <- b1 mean + (1 - b1) I` and
    `deviation <- b2 deviation + (1 - b2) |I - mean|`, their product s. A triplet counts s of its singular value, plus
    the mean s of its column of P, plus the mean s of its row of Q.

    Args:
        modules: The updates of all maps.
        budget: How many triplets stay.
        beta1: Smoothing of the importance.
        beta2: Smoothing of its deviation.
        interval: Steps between two choices while the budget falls.
    """

    def __init__(self, modules: Sequence[SingularLowRank], budget: Budget, beta1: float, beta2: float, interval: int):
        self.modules = modules
        self.budget = budget
        self.betas = (beta1, beta2)
        self.interval = interval
        self.means = [[torch.zeros_like(p) for p in _weights(module)] for module in modules]
        self.deviations = [[torch.zeros_like(p) for p in _weights(module)] for module in modules]
        self.final: list[Tensor] | None = None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Counts the gradients of optimizer step number `step`, from 1, and zeroes the least important triplets."""
        if self.final is None and self.budget.is_final(step):
            self.final = self._kept(self.budget.target)
        if self.final is not None:
            self._apply(self.final)
            return
        self._observe()
        if step > self.budget.first and step % self.interval == 0:
            self._apply(self._kept(self.budget.at(step)))

    def scores(self) -> list[Tensor]:
        """The importance of each triplet, one tensor `[r]` a map."""
        found = []
        for means, deviations in zip(self.means, self.deviations, strict=True):
            p, singular, q = (mean * deviation for mean, deviation in zip(means, deviations, strict=True))
            found.append(singular + p.mean(0) + q.mean(1))
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        return {"means": self.means, "deviations": self.deviations, "final": self.final}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.means, self.deviations = (
            [
                [tensor.to(p.device) for tensor, p in zip(tensors, _weights(module), strict=True)]
                for tensors, module in zip(state[name], self.modules, strict=True)
            ]
            for name in ("means", "deviations")
        )
        final = state["final"]
        self.final = final and [mask.to(m.singular.device) for mask, m in zip(final, self.modules, strict=True)]

    def _observe(self) -> None:
        beta1, beta2 = self.betas
        for module, means, deviations in zip(self.modules, self.means, self.deviations, strict=True):
            for weight, mean, deviation in zip(_weights(module), means, deviations, strict=True):
                if weight.grad is None:  # the step was left out
                    continue
                importance = (weight * weight.grad).abs()
                mean.mul_(beta1).add_(importance, alpha=1 - beta1)
                deviation.mul_(beta2).add_((importance - mean).abs(), alpha=1 - beta2)

    def _kept(self, budget: int) -> list[Tensor]:
        scores = self.scores()
        dropped = sum(len(score) for score in scores) - budget
        if dropped <= 0:
            return [torch.ones_like(score, dtype=torch.bool) for score in scores]
        threshold = torch.cat(scores).kthvalue(dropped).values
        return [score > threshold for score in scores]

    def _apply(self, kept: Sequence[Tensor]) -> None:
        for module, mask in zip(self.modules, kept, strict=True):
            module.singular.mul_(mask)


def _weights(module: SingularLowRank) -> tuple[Tensor, Tensor, Tensor]:
    return module.P, module.singular, module.Q
