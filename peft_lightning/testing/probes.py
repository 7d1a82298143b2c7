"""What the checks of the conformance suite look at methods with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod
from peft_lightning.tasks import Batch, build_task
from peft_lightning.testing.case import TASK, Case


def make_trainer(case: Case, steps: int = 1, **options: Any) -> Trainer:
    """A quiet trainer for a few steps."""
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=case.directory,
        **options,
    )


def make_loader(case: Case, batches: int) -> DataLoader:
    """The batch of the case, several times."""
    examples: Any = [case.batch()] * batches
    return DataLoader(examples, batch_size=None)


def save_checkpoint(method: AdaptationMethod, case: Case) -> Path:
    """The file that Lightning writes of a method."""
    path = case.directory / "method.ckpt"
    trainer = make_trainer(case)
    trainer.strategy.connect(method)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def logits_of(method: AdaptationMethod, batch: Batch) -> Tensor:
    """Without gradients."""
    with torch.no_grad():
        return method(batch).logits


def hidden_states(model: PreTrainedModel, batch: Batch) -> list[Tensor]:
    """All hidden states as transformers gives them: those of the encoder, of the decoder, or of both."""
    with torch.no_grad():
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        output = model(**inputs, output_hidden_states=True)
    kinds = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
    return [state for kind in kinds for state in output.get(kind) or ()]


def layer_states(method: AdaptationMethod, batch: Batch) -> list[Tensor]:
    """What enters the first layer and what leaves each, whatever was put around it."""
    states: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not states:
            states.append(inputs[0])
        states.append(output[0] if isinstance(output, tuple) else output)

    model = method.backbone.model
    handles = [model.get_submodule(layer.path).register_forward_hook(note) for layer in method.backbone.layers]
    try:
        logits_of(method, batch)
    finally:
        for handle in handles:
            handle.remove()
    return states


def equal(found: list[Tensor], wanted: list[Tensor]) -> bool:
    """Bit for bit, as many of them, and any at all."""
    return bool(wanted) and len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def load_plain(case: Case) -> PreTrainedModel:
    """The transformers model as it is loaded, in evaluation mode."""
    return Backbone(str(case.backbone), build_task(TASK)).model.eval()


def count_fresh(case: Case, method: AdaptationMethod) -> int:
    """Parameters of the base model that its file lacks, which count as head."""
    prefix = f"{method.backbone.model.base_model_prefix}."
    return sum(p.numel() for name, p in method.backbone.head.items() if name.startswith(prefix))


def refusal_of(action: Callable[[], Any]) -> str:
    """What a user is told, or that nothing is refused."""
    try:
        action()
    except UserError as error:
        return str(error)
    return "it is accepted"


def require(condition: bool, message: str) -> None:
    """Raises an AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def require_close(found: Tensor, wanted: Tensor, tolerance: float, message: str) -> None:
    """Requires that no entry is further from the wanted one than the tolerance."""
    distance = float((found - wanted).abs().max())
    require(distance <= tolerance, f"{message}: they differ by {distance:.1e}")
