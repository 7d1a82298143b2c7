"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512; code: QingruZhang/AdaLoRA).

`W x + b + (alpha / r) P (lambda * (Q x))` beside frozen linear maps. The run starts with `init_rank` triplets a map;
while it trains, the least important ones of all maps together are set to zero, until `rank` a map are left on average.
A penalty keeps P and Q near orthogonal. Trained with them: the head. The update merges.

Parameters: `r (in + out + 1)` a map with r = `init_rank`; all six maps of a layer `r L (18 d + 6)`.

The penalty is that of the official code, `orthogonality` times the mean over all P and Q of `||P^T P - I||_F`, as its
scripts' values belong to it; the paper writes the sum of the squares. The scale stays alpha / init_rank, as in the
official code, which counts the rank of a matrix once. Its steps of warm-up are fractions of the run here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.rank_allocation import Budget, RankAllocator
from peft_lightning.methods.targets import linear_targets
from peft_lightning.modules import SingularLowRank
from peft_lightning.tasks import Batch

STATE = "adalora"


class AdaLoRA(AdaptationMethod):
    """Low-rank updates whose ranks are shared out while they are trained.

    Args:
        rank: Mean rank of the maps in the end.
        init_rank: Rank of every map at the start.
        alpha: Numerator of the scale alpha / init_rank.
        dropout: Probability with which an entry of the input is dropped before Q.
        targets: Sites of linear maps.
        orthogonality: Weight of the penalty; the official scripts have 0.1 to 0.3.
        beta1: Smoothing of the importance.
        beta2: Smoothing of its deviation.
        first_phase: Fraction of all steps at the full rank, before the budget falls.
        last_phase: Fraction of all steps at the final ranks.
        mask_interval: Optimizer steps between two choices while the budget falls.
        lr: Peak learning rate; the official scripts have 5e-4 to 2.2e-3.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(
        self,
        rank: int = 8,
        init_rank: int = 12,
        alpha: float = 32.0,
        dropout: float = 0.0,
        targets: Sequence[str] = ("query", "key", "value", "attention_dense", "ffn_in", "ffn_out"),
        orthogonality: float = 0.1,
        beta1: float = 0.85,
        beta2: float = 0.85,
        first_phase: float = 0.1,
        last_phase: float = 0.3,
        mask_interval: int = 10,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)
        self._allocator: RankAllocator | None = None
        self._allocator_state: dict[str, Any] | None = None

    def adapt(self, backbone: Backbone) -> None:
        """Puts an update beside each target map."""
        options = self.hparams
        self._check_options()
        for site, linear in linear_targets(backbone, options.targets):
            sizes = (linear.in_features, linear.out_features)
            backbone.replace(site, SingularLowRank(*sizes, options.init_rank, options.alpha, options.dropout))

    @property
    def updates(self) -> list[SingularLowRank]:
        """The updates of all maps."""
        found = [insertion.module for insertion in self.backbone.insertions]
        return [module for module in found if isinstance(module, SingularLowRank)]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch with the penalty."""
        penalty = torch.stack([update.obliqueness() for update in self.updates]).mean()
        return super().training_step(batch, batch_idx) + self.hparams.orthogonality * penalty

    def on_fit_start(self) -> None:
        """Plans the budget."""
        super().on_fit_start()
        options = self.hparams
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("AdaLoRA's budget needs an end: give --trainer.max_epochs or --trainer.max_steps.")
        count, total = len(self.updates), int(steps)
        budget = Budget(
            start=count * options.init_rank,
            target=count * options.rank,
            total=total,
            first=round(options.first_phase * total),
            last=round(options.last_phase * total),
        )
        self._allocator = RankAllocator(self.updates, budget, options.beta1, options.beta2, options.mask_interval)
        if self._allocator_state is not None:
            self._allocator.load_state_dict(self._allocator_state)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Takes a step, and then takes out what has become unimportant."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        assert self._allocator is not None
        self._allocator.after_step(self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the allocation needs to go on."""
        super().on_save_checkpoint(checkpoint)
        if self._allocator is not None:
            checkpoint[STATE] = self._allocator.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the state of the allocation for `fit`."""
        super().on_load_checkpoint(checkpoint)
        self._allocator_state = checkpoint.get(STATE)

    def _check_options(self) -> None:
        options = self.hparams
        if not 1 <= options.rank <= options.init_rank:
            raise UserError(f"rank is {options.rank}; give one between 1 and init_rank, which is {options.init_rank}.")
        for name in ("beta1", "beta2"):
            if not 0 <= options[name] < 1:
                raise UserError(f"{name} is {options[name]}; give a number of at least 0 and below 1.")
        if min(options.first_phase, options.last_phase) < 0 or options.first_phase + options.last_phase >= 1:
            raise UserError(
                f"first_phase is {options.first_phase} and last_phase {options.last_phase}; give fractions of the run "
                "that leave some of it between them."
            )
        if options.mask_interval < 1:
            raise UserError(f"mask_interval is {options.mask_interval}; give a number of steps of at least 1.")
        if options.orthogonality < 0:
            raise UserError(f"orthogonality is {options.orthogonality}; give a weight of at least 0.")
