"""Runs several command lines on two devices, one after the other: `python several_commands.py COMMANDS.json`.

The first one starts the second process, as it does for users, and the others find both: to start them for each command
would take most of the time of a test.
"""

import json
import sys
from pathlib import Path

import torch.distributed

from peft_lightning.cli import main

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]

if __name__ == "__main__":
    for command in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        main([*command, *TWO])
        assert torch.distributed.get_world_size() == 2
