"""AdamW on what is trained, with warm-up and decay."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from peft_lightning.errors import UserError

if TYPE_CHECKING:
    from peft_lightning.methods.base import AdaptationMethod

Schedule = Literal["linear", "cosine", "constant"]
_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def check_options(
    lr: float, weight_decay: float, betas: Sequence[float], eps: float, warmup: float, schedule: str
) -> None:
    """Checks the options of the optimizer before anything is loaded.

    Raises:
        UserError: One of them is impossible.
    """
    if lr <= 0:
        raise UserError(f"lr is {lr}; give a learning rate above 0.")
    if weight_decay < 0:
        raise UserError(f"weight_decay is {weight_decay}; give a value of at least 0.")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"betas is {list(betas)}; give two numbers of at least 0 and below 1.")
    if eps <= 0:
        raise UserError(f"eps is {eps}; give a number above 0.")
    if not 0 <= warmup <= 1:
        raise UserError(f"warmup is {warmup}; give a fraction of all steps, from 0 to 1.")
    if schedule not in _SCHEDULERS:
        raise UserError(f"schedule is '{schedule}'; give one of {', '.join(_SCHEDULERS)}.")


def parameter_groups(
    method: "AdaptationMethod", weight_decay: float, lr: float, ratios: Mapping[nn.Parameter, float]
) -> list[dict]:
    """The trained parameters of a method by what the optimizer does with them.

    Biases and norms have no weight decay; parameters in `ratios` learn so many times as fast as the others.
    """
    # The backbone knows its own, which need not be nn.LayerNorm; the others are in adapters.
    inserted = [part for part in method.modules() if isinstance(part, (nn.LayerNorm, nn.BatchNorm1d))]
    norms = {id(p) for part in (*method.backbone.layer_norms, *inserted) for p in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            exempt = id(parameter) in norms or name.rpartition(".")[2] == "bias"
            key = (0.0 if exempt else weight_decay, ratios.get(parameter, 1.0))
            groups.setdefault(key, []).append(parameter)
    return [{"params": p, "weight_decay": decay, "lr": ratio * lr} for (decay, ratio), p in groups.items()]


def warmup_and_decay(
    optimizer: torch.optim.Optimizer, schedule: Schedule, warmup: float, total_steps: float
) -> LRScheduler:
    """The learning rate rises linearly from 0 for `warmup * total_steps` steps, then falls to 0 or stays.

    Args:
        optimizer: Its learning rates are the peaks.
        schedule: `linear` or `cosine` fall to 0 at the last step; `constant` stays.
        warmup: Fraction of all steps.
        total_steps: Number of optimizer steps of the whole run.

    Raises:
        UserError: The run has no end, so that warm-up and decay cannot be fractions of it.
    """
    if total_steps == float("inf") and schedule == "constant" and warmup == 0:
        total_steps = 0
    if total_steps == float("inf"):
        raise UserError("The learning rate schedule needs an end: give --trainer.max_epochs or --trainer.max_steps.")
    return get_scheduler(
        _SCHEDULERS[schedule],
        optimizer,
        num_warmup_steps=round(warmup * total_steps),
        num_training_steps=int(total_steps),
    )
