"""Several starts of `fit` on two devices, one after the other: `python stopped_on_two.py STARTS.json`.

Each start is an object with `fit`, the command; and, if the run is to be stopped or copied, with `stop`, the moment, or
`copies`, the directory, with `moments`. The first start brings up the second process, as it does for users; to do that
for each would take most of the time of a test.
"""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch.distributed
from stopped_fit import PowerFailure, acting, copy, stopping

from peft_lightning.cli import main

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def start(fit, stop=None, copies=None, moments=None):
    if stop:
        with stopping(*stop), pytest.raises(PowerFailure):
            main([*fit, *TWO])
    elif copies:
        moments = {name: tuple(moment) for name, moment in moments.items()}
        with acting(moments, partial(copy, Path(copies))):
            main([*fit, *TWO])
    else:
        main([*fit, *TWO])
    assert torch.distributed.get_world_size() == 2


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        start(**each)
