"""`--trainer.max_time`, which stops a run where it is."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from peft_lightning.callbacks.checkpoints import save_last


class TimeLimitReached(Exception):  # noqa: N818  it is no error
    """Ends training; a checkpoint of the moment is written."""


class TimeLimit(Timer):
    """Ends training before the first optimizer step that begins behind the limit.

    Lightning's own timer ends the epoch instead: it validates, and counts the epoch as trained, so that a run that
    goes on would never see the rest of it.

    Args:
        limit: The time, as `--trainer.max_time` takes it.
    """

    def __init__(self, limit: Any):
        super().__init__(limit)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops, on all devices at once.

        Raises:
            TimeLimitReached: The time is up.
        """
        if batch_idx % trainer.accumulate_grad_batches != 0:
            return
        remaining = self.time_remaining()
        if trainer.strategy.broadcast(remaining is not None and remaining <= 0):
            save_last(trainer)
            raise TimeLimitReached

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Does nothing, where Lightning's timer ends the epoch."""
