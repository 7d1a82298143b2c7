"""`fit` that is stopped at a chosen moment: in this process by an exception, or as a script by SIGKILL.

As a script: `python stopped_fit.py HOOK NUMBER SAVING fit --model ...`
"""

import os
import shutil
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from lightning.pytorch.callbacks import Checkpoint
from torchmetrics import MeanMetric

from peft_lightning import cli
from peft_lightning.methods import Houlsby


class EpochLogging(Houlsby):
    """Logs what is counted over an epoch, in three ways, as methods of users may."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.counted = MeanMetric()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.counted.update(loss.detach())
        size = len(batch["labels"])
        self.log("train/mean", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.log("train/max", loss, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True, batch_size=size)
        self.log("train/counted", self.counted, on_step=False, on_epoch=True, batch_size=size)
        return loss


class PowerFailure(Exception):
    """What ends a run that is stopped."""


def _fail():
    raise PowerFailure


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def save(trainer):
    """Writes `last.ckpt` there and then."""
    _, last, *_ = trainer.checkpoint_callbacks
    last._save_checkpoint(trainer, last.path)


def copy(place, trainer, name):
    """Writes `last.ckpt`, and keeps a copy of the run directory as it is then under `place/name`."""
    save(trainer)
    if trainer.is_global_zero:
        for file in ("config.yaml", "environment.json", "metrics.csv", "result.json", "checkpoints"):
            source, target = Path(trainer.default_root_dir) / file, place / name / file
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.is_file():
                shutil.copy2(source, target)


class Acts(Checkpoint):
    """Does something at chosen moments, each given as a hook and which of its calls.

    As a checkpoint callback it comes behind all others, as those that write files do.
    """

    def __init__(self, moments, act):
        self.moments, self.act, self.calls = moments, act, Counter()
        for hook, _ in moments.values():
            setattr(self, hook, partial(self._called, hook))

    def _called(self, hook, trainer, *args):
        # Hooks of the sanity check at the start are not those of the run.
        if not trainer.sanity_checking:
            self.calls[hook] += 1
            for name, moment in self.moments.items():
                if moment == (hook, self.calls[hook]):
                    self.act(trainer, name)


@contextmanager
def acting(moments, act):
    """Within this context `act(trainer, name)` is called at the moments of every `fit`."""
    original = cli.CLI._checkpoints
    with mock.patch.object(cli.CLI, "_checkpoints", lambda self: [*original(self), Acts(moments, act)]):
        yield


@contextmanager
def stopping(hook, number=1, saving=True, end=_fail):
    """Within this context every `fit` is stopped at the call `number`, counted from 1, of `hook`."""

    def stop(trainer, name):
        if saving:
            save(trainer)
        end()

    with acting({"stop": (hook, number)}, stop):
        yield


if __name__ == "__main__":
    with stopping(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "saving", _kill):
        cli.main(sys.argv[4:])
