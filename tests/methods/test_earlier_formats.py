"""Checkpoints of every format that was ever released still load and compute what they did.

`python tests/methods/test_earlier_formats.py` writes the file of the present format, once, when it is new.
"""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from peft_lightning.methods import Houlsby, load_checkpoint
from peft_lightning.methods.trained_state import FORMAT
from peft_lightning.testing import Case, save_tiny_backbone
from peft_lightning.testing.probes import logits_of, save_checkpoint

DIRECTORY = Path(__file__).parents[1] / "golden" / "checkpoints"


def fill(parameters):
    """Numbers that are the same with any version of torch: multiples of 1/64, 97 different ones."""
    for number, parameter in enumerate(parameters):
        values = (torch.arange(parameter.numel()) * 61 + number * 17) % 97 - 48
        parameter.data = values.reshape(parameter.shape) / 64


def backbone_in(directory):
    save_tiny_backbone("bert", directory)
    model = AutoModel.from_pretrained(directory)
    fill(model.parameters())
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_checkpoint_of_that_format_loads_and_computes_what_it_did(tmp_path, number):
    backbone = backbone_in(tmp_path / "backbone")
    method = load_checkpoint(DIRECTORY / f"format_{number}.ckpt", backbone=str(backbone))
    wanted = json.loads((DIRECTORY / f"format_{number}.json").read_text())
    torch.testing.assert_close(
        logits_of(method, Case(Houlsby, backbone, tmp_path).batch()), torch.tensor(wanted), rtol=1e-4, atol=1e-4
    )


if __name__ == "__main__":
    DIRECTORY = DIRECTORY.resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # the file notes the backbone's path
        case = Case(Houlsby, backbone_in(Path("backbone")), Path(folder), {"bottleneck": 2})
        made = case.build()
        fill(parameter for parameter in made.parameters() if parameter.requires_grad)
        target = DIRECTORY / f"format_{FORMAT}.ckpt"
        target.write_bytes(save_checkpoint(made, case).read_bytes())
        target.with_suffix(".json").write_text(json.dumps(logits_of(made.eval(), case.batch()).tolist()) + "\n")
