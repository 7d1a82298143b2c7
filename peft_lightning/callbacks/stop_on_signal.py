"""Signals end training with a checkpoint of the moment, and with an exit status of their own."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from peft_lightning.callbacks.checkpoints import save_last
from peft_lightning.runs.directory import RunDirectory
from peft_lightning.slurm import requeue

# 128 and the number of the signal, as shells report it; "temporary failure, try again" of sysexits.h.
EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


class StoppedBySignal(SystemExit):
    """Ends the process.

    Args:
        number: The signal.
        step: The step of the checkpoint that was written; None if there is none of this moment.
    """

    def __init__(self, number: int, step: int | None = None):
        self.signal = signal.Signals(number)
        self.step = step
        super().__init__(EXIT_STATUS[self.signal])


class StopOnSignal(Callback):
    """After SIGTERM, SIGUSR1 or SIGINT finishes the optimizer step, writes `last.ckpt` and ends the process.

    A validation is left at its next batch. Before training there is nothing to save, and the process ends at once, as
    it does after a second SIGINT. Where only one of several processes is told, all of them end, after the same step.

    Lightning's own handlers are put aside: of SIGTERM they save nothing, of SIGUSR1 they save in the middle of whatever
    is being computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received: int | None = None
        self._training = False

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Within this context the signals are handled, where Python allows that: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in EXIT_STATUS}
        self._handle()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self) -> None:
        for number in EXIT_STATUS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None and not self._training:
            self.received = number
            raise StoppedBySignal(number)
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the end of the step; Lightning has registered its handlers by now."""
        self._training = True
        if threading.current_thread() is threading.main_thread():
            self._handle()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops between two steps.

        Raises:
            StoppedBySignal: A signal was received.
        """
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop_if_told(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Stops in a validation.

        Raises:
            StoppedBySignal: A signal was received.
        """
        if self._training and not trainer.sanity_checking:
            self._stop_if_told(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the processes that Lightning has started, which are not told if training has not begun."""
        if isinstance(exception, StoppedBySignal) and not self._training and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)

    def _stop_if_told(self, trainer: Trainer) -> None:
        number = self.received or 0
        if trainer.world_size > 1:
            # All processes take part, also those that are told: one that left this out would wait elsewhere for ever.
            told = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(told, reduce_op="max"))
        if number:
            raise StoppedBySignal(number, trainer.global_step if save_last(trainer) else None)


def tell(stop: SystemExit, run: RunDirectory) -> SystemExit:
    """Says what a signal has led to, and asks SLURM for another start if that is what it means.

    Args:
        stop: What ended training: `StoppedBySignal`, or what Lightning makes of a second SIGINT.
        run: The run.

    Returns:
        The end of the process, with its exit status.
    """
    stopped = stop if isinstance(stop, StoppedBySignal) else StoppedBySignal(signal.SIGINT)
    where = f" at step {stopped.step}" if stopped.step is not None else ""
    going_on = f"goes on from {run.path}" if run.last_checkpoint.is_file() else "begins anew: nothing was saved"
    print(f"Stopped by {stopped.signal.name}{where}; the same command {going_on}.", file=sys.stderr)
    if stopped.signal == signal.SIGUSR1 and (answer := requeue()):
        print(answer, file=sys.stderr)
    return SystemExit(stopped.code)
