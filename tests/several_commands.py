"""Runs several command lines on two devices, one after the other: `python several_commands.py STARTS.json`.

The first one starts the second process, as it does for users, and the others find both: to start them for each command
would take most of the time of a test.

Each start is an object with `command`; and, where a fit is to be stopped, terminated or copied, with `stop` or
`terminate`, a moment each, or `copies`, a directory, with `moments`. SIGTERM goes to the second process alone.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch.distributed
from stopped_fit import PowerFailure, acting, copy, stopping

from peft_lightning.cli import main

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def terminate_the_second(trainer, name):
    if trainer.global_rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def start(command, stop=None, terminate=None, copies=None, moments=None):
    run = partial(main, [*command, *TWO])
    if stop:
        with stopping(*stop), pytest.raises(PowerFailure):
            run()
    elif terminate:
        with acting({"terminate": tuple(terminate)}, terminate_the_second), pytest.raises(SystemExit):
            run()
    elif copies:
        with acting({name: tuple(moment) for name, moment in moments.items()}, partial(copy, Path(copies))):
            run()
    else:
        run()
    assert torch.distributed.get_world_size() == 2


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        start(**each)
