"""Lets no infinite or undefined number into the weights."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from peft_lightning.callbacks.nonfinite_step import NonFiniteStep, find_cause
from peft_lightning.errors import NonFiniteError, UserError
from peft_lightning.methods import AdaptationMethod

log = logging.getLogger(__name__)

Policy = Literal["stop", "skip", "reduce"]


class NonFiniteGuard(Callback):
    """Looks at loss and gradients before every optimizer step, and takes no step with one that is not finite.

    Every `fit` has one. Another policy is chosen with
    `--trainer.callbacks+=NonFiniteGuard --trainer.callbacks.policy=skip`.

    What is tested is the norm of all gradients together, before they are clipped (clipping by an infinite norm gives
    zeros, which look like no error), and the loss of each batch since the last step: one number, for which the device
    is waited for once a step. All devices decide alike. Weights are looked at before each validation and in each
    checkpoint, so that none that are not finite are ever saved.

    With `precision: 16-mixed` gradients overflow now and then until the loss scale has settled, and the scaler skips
    such a step itself. That is normal, and left to it while the loss is finite and the scale is at least 1.

    Args:
        policy: `stop` ends training, with the weights of the step before. `skip` leaves the step out: weights and the
            optimizer's moments stay as they are, while steps and the learning rate schedule count on. `reduce` does the
            same and multiplies the learning rate, at this and all later steps, by `factor`.
        factor: What `reduce` multiplies by, each time.
        most_in_a_row: `skip` and `reduce` end training, too, after so many such steps one after the other.

    Raises:
        UserError: An option is impossible.
    """

    def __init__(self, policy: Policy = "stop", factor: float = 0.5, most_in_a_row: int = 10):
        super().__init__()
        if policy not in ("stop", "skip", "reduce"):
            raise UserError(f"policy of NonFiniteGuard is '{policy}'; give stop, skip or reduce.")
        if not 0 < factor < 1:
            raise UserError(f"factor of NonFiniteGuard is {factor}; give a number between 0 and 1.")
        if most_in_a_row < 1:
            raise UserError(f"most_in_a_row of NonFiniteGuard is {most_in_a_row}; give at least 1.")
        self.policy = policy
        self.factor = factor
        self.most_in_a_row = most_in_a_row
        self.steps: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self._in_a_row = 0
        self._batch = 0
        self._losses: dict[int, Tensor] = {}

    @property
    def outcome(self) -> dict[str, Any]:
        """What `result.json` tells: the steps that were not finite, and the validations that gave no number."""
        found = {"nonfinite_steps": self.steps, "nonfinite_validations": self.validations}
        return {name: entries for name, entries in found.items() if entries}

    # Before a step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remembers which batch begins."""
        self._batch = batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remembers the loss, on its device."""
        self._losses[self._batch] = loss.detach().float()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Looks at what the step is about to use.

        Raises:
            NonFiniteError: It is not finite, and the policy is to stop, or there were too many such steps.
        """
        losses, self._losses = self._losses, {}
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = _whole(nn.utils.get_total_norm(gradients)).float()
        if not _any_is_nonfinite([norm, *losses.values()], trainer):
            self._in_a_row = 0
            return
        # A parameter without a gradient is left alone by the optimizer, its moments and decay included.
        step = find_cause(trainer, pl_module, optimizer, losses)
        optimizer.zero_grad(set_to_none=True)
        if not _is_up_to_the_scaler(trainer, step):
            self._act(trainer, step)

    def _act(self, trainer: Trainer, step: NonFiniteStep) -> None:
        self.steps.append(step.as_dict())
        self._in_a_row += 1
        if self.policy == "stop":
            raise NonFiniteError(f"{step} No such step was taken. {_advice(step)}", self.outcome)
        if self._in_a_row >= self.most_in_a_row:
            raise NonFiniteError(
                f"{step} This is number {self._in_a_row} in a row, and none of them was taken. {_advice(step)}",
                self.outcome,
            )
        if self.policy == "reduce":
            _multiply_learning_rate(trainer, self.factor)
        changed = f"and the learning rate multiplied by {self.factor}" if self.policy == "reduce" else "only"
        _warn(f"{step} The step is left out, {changed}.")

    # Before what is kept

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights, before the validation chooses them as the best.

        Raises:
            NonFiniteError: One is not finite.
        """
        if _is_training(trainer):
            self._check_weights(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports a monitored metric that is not finite; the best checkpoint is then not of this validation."""
        assert isinstance(pl_module, AdaptationMethod)
        if not _is_training(trainer):
            return
        for name in dict.fromkeys((f"val/{pl_module.task.monitor}", "val/loss")):
            value = trainer.callback_metrics.get(name)
            if value is not None and not torch.isfinite(value):
                self.validations.append({"step": trainer.global_step, "metric": name, "value": str(float(value))})
                _warn(f"The validation after {trainer.global_step} steps gave {float(value)} as {name}.")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks at the weights, before they are saved.

        Raises:
            NonFiniteError: One is not finite; the earlier file stays.
        """
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights, before those of the end are saved.

        Raises:
            NonFiniteError: One is not finite.
        """
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trained = [p.detach() for p in pl_module.parameters() if p.requires_grad]
        if _any_is_nonfinite([_whole(nn.utils.get_total_norm(trained)).float()], trainer):
            names = [name for name, p in pl_module.named_parameters() if p.requires_grad and not p.isfinite().all()]
            found = f" {names[0]} (one of {len(names)} such tensors)" if names else ""
            raise NonFiniteError(
                f"After {trainer.global_step} steps the trained weights{found} are not finite, although all gradients "
                "were; they are not saved, and the checkpoints are those from before. Give a smaller --model.lr.",
                self.outcome,
            )

    # In checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What was found so far; reduced learning rates are in the states of optimizer and schedule."""
        return {"steps": self.steps, "validations": self.validations, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.steps, self.validations = list(state_dict["steps"]), list(state_dict["validations"])
        self._in_a_row = state_dict["in_a_row"]


def _any_is_nonfinite(numbers: Iterable[Tensor], trainer: Trainer) -> bool:
    """Whether one of them, on any device, is not finite."""
    found = (~torch.stack(list(numbers)).isfinite()).any().float()
    if trainer.world_size > 1:
        found = trainer.strategy.reduce(found, reduce_op="max")
    return bool(found.item())


def _is_up_to_the_scaler(trainer: Trainer, step: NonFiniteStep) -> bool:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and step.loss_is_finite and scaler.get_scale() >= 1


def _multiply_learning_rate(trainer: Trainer, factor: float) -> None:
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for name in group.keys() & {"lr", "initial_lr"}:
                group[name] *= factor
    for config in trainer.lr_scheduler_configs:
        # What schedules multiply by the fraction of the moment; it is in their state.
        if hasattr(config.scheduler, "base_lrs"):
            config.scheduler.base_lrs = [factor * lr for lr in config.scheduler.base_lrs]


def _whole(norm: Tensor) -> Tensor:
    """The norm over all devices, where each has a part of every tensor."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _is_training(trainer: Trainer) -> bool:
    return bool(trainer.state.fn == "fit" and not trainer.sanity_checking)


def _advice(step: NonFiniteStep) -> str:
    if step.broken_weight:
        return "Replace the backbone or checkpoint that these weights come from."
    return (
        "Look at these rows, give a smaller --model.lr, or --trainer.precision 32-true; or leave such steps out with "
        "--trainer.callbacks+=NonFiniteGuard --trainer.callbacks.policy=skip, in another --run_dir that goes on from "
        "this one's checkpoints/last.ckpt with --ckpt_path."
    )


@rank_zero_only
def _warn(message: str) -> None:
    log.warning(message)
