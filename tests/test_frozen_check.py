"""`--trainer.callbacks+=FrozenCheck`: only what is declared changes."""

import pytest
import torch

from peft_lightning.backbone import Backbone
from peft_lightning.methods import Houlsby
from peft_lightning.runs import RunDirectory

QUICK = ("LoRA", "PTuningV2")
OTHERS = (
    "FullFineTuning TopLayers LinearProbe LayerNormTuning BitFit Houlsby Pfeiffer ParallelAdapter MAM Compacter VeRA "
    "AdaLoRA IA3 InA LoReFT PrefixTuning PromptTuning PTuning"
).split()
SMALL = {"Compacter": ["--model.bottleneck=8"], "PromptTuning": ["--model.prompt_length=5"]}


class MovesABuffer(Houlsby):
    """Changes a buffer that no file holds: position ids, which are the same for all texts."""

    def training_step(self, batch, batch_idx):
        self.backbone.model.bert.embeddings.position_ids += 0 if batch_idx else 1
        return super().training_step(batch, batch_idx)


class MovesTheBackbone(Houlsby):
    """Changes a pretrained weight that it does not declare."""

    def on_train_batch_end(self, *args):
        with torch.no_grad():
            next(iter(self.backbone.pretrained.values())).add_(1e-3)


class Idle(torch.nn.Module):
    cannot_merge = "it does nothing"

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, hidden):
        return hidden


class DeclaresTooMuch(Houlsby):
    """Declares a parameter that it does not use."""

    def adapt(self, backbone: Backbone) -> None:
        super().adapt(backbone)
        backbone.insert_after(backbone.sites("layer_output")[0], Idle())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("MovesABuffer", ["MovesABuffer changed tensors that it does not declare as trained (1)", "position_ids"]),
        (
            "MovesTheBackbone",
            ["MovesTheBackbone changed tensors that it does not declare as trained (1)", "embeddings"],
        ),
        ("DeclaresTooMuch", ["DeclaresTooMuch declares parameters as trained that never had a gradient (1)", "weight"]),
    ],
)
def test_it_finds_what_is_not_as_declared(refused_run, tmp_path, method, words):
    message = refused_run(tmp_path / "run", model=f"test_frozen_check.{method}")
    assert all(word in message for word in words), message
    run = RunDirectory(tmp_path / "run")
    assert run.read_result()["status"] == "failed"
    assert run.best_checkpoint.is_file()


@pytest.mark.parametrize("method", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_methods_change_what_they_declare_and_nothing_else(fit, tmp_path, method):
    run = RunDirectory(
        fit(tmp_path / "run", "--trainer.callbacks+=FrozenCheck", *SMALL.get(method, ()), model=method, epochs=1)
    )
    assert run.read_result()["status"] == "done"


@pytest.fixture
def refused_run(fit, capsys):
    """The sentence with which a run that is checked ends."""

    def command(run_dir, model):
        with pytest.raises(SystemExit) as stop:
            fit(run_dir, "--trainer.callbacks+=FrozenCheck", model=model, epochs=1)
        assert stop.value.code == 1
        return capsys.readouterr().err

    return command
