"""AdapterDrop while it trains, against adapters whose weights are zero."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from plain_models import layer_of
from torch import nn
from torch.utils.data import DataLoader

from peft_lightning.methods import Houlsby
from peft_lightning.testing import Case


@pytest.mark.parametrize("form", ["serial", "parallel"])
def test_without_the_adapters_of_the_lowest_layers(tiny, tmp_path, form):
    """A step of AdapterDrop's robust mode has the loss and the gradients of adapters whose W_up and b_up are zero.

    Those of the adapters that it left out are zero themselves; every number from 0 to `drop_layers` is drawn.
    """
    options = {"bottleneck": 8, "drop": "random", "drop_layers": 2, "form": form, "lr": 1e-30}
    case = Case(Houlsby, tiny(), tmp_path, options)
    method, batch = case.trained(), case.batch()
    steps = []

    class Watch(Callback):
        def on_train_start(self, trainer, module):
            for dropout in module.modules():
                if isinstance(dropout, nn.Dropout):
                    dropout.p = 0.0

        def on_before_backward(self, trainer, module, loss):
            steps.append([float(loss.detach())])

        def on_after_backward(self, trainer, module):
            steps[-1].append({name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad})

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch()],
    )
    trainer.fit(method, DataLoader([batch] * 12, batch_size=None))

    wanted = []
    for left_out in range(3):
        oracle = case.trained()
        oracle.load_state_dict(method.trained_state())
        with torch.no_grad():
            for name, parameter in oracle.named_parameters():
                if ".up." in name and layer_of(name) < left_out:
                    parameter.zero_()
        loss = oracle.task.loss(oracle(batch), batch)
        loss.backward()
        gradients = {name: p.grad for name, p in oracle.named_parameters() if p.requires_grad}
        wanted.append((loss.item(), gradients))

    seen = set()
    for loss, gradients in steps:
        used = {layer_of(name) for name, gradient in gradients.items() if ".inserted." in name and gradient.any()}
        left_out = 3 - len(used)
        their_loss, theirs = wanted[left_out]
        assert loss == pytest.approx(their_loss, abs=1e-6)
        for name, gradient in theirs.items():
            if ".inserted." in name and layer_of(name) < left_out:
                assert not gradients[name].any(), name
            else:
                torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
        seen.add(left_out)
    assert seen == {0, 1, 2}
