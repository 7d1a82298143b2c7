"""A method on a tiny backbone, as tests need it: fresh, with weights that are not small, and with a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything

from peft_lightning.backbone import Backbone, load_tokenizer
from peft_lightning.methods import AdaptationMethod
from peft_lightning.tasks import Batch

TASK = {"type": "classification", "labels": ["bad", "good", "dull"], "max_length": 16}
TEXTS = ("a good film", "the worst plot ever", "it is not a bad story but it is too like the movie", "dull")


@dataclass(frozen=True)
class Case:
    """A method on a backbone.

    Args:
        method: The class.
        backbone: Directory of a tiny backbone.
        directory: Where checks may write.
        options: Arguments of the method.
        count: The formula for the number of trained parameters that are neither the head's nor those of LayerNorms
            beside the method; None leaves that check out.
        merges: Whether `merge` works; None leaves it to the method to merge or to say why not.
    """

    method: type[AdaptationMethod]
    backbone: Path
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    count: Callable[[Backbone], int] | None = None
    merges: bool | None = None

    def build(self, seed: int = 0, **options: Any) -> AdaptationMethod:
        """The method in evaluation mode; the seed draws head and inserted modules."""
        seed_everything(seed, verbose=False)
        training = {"lr": 1e-2, "warmup": 0.0, "weight_decay": 0.0}
        return self.method(backbone=str(self.backbone), task=TASK, **training | dict(self.options) | options).eval()

    def trained(self, **options: Any) -> AdaptationMethod:
        """The method with all that it trains drawn at random, far from where it starts."""
        method = self.build(**options)
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.requires_grad:
                    # Around 1 where it was around 1, as LayerNorm weights are: around 0 they would blot out the input.
                    parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.mean() > 0.5))
        return method

    def batch(self) -> Batch:
        """Four texts of different lengths, padded, with labels."""
        tokenizer = load_tokenizer(str(self.backbone))
        return {**tokenizer(list(TEXTS), padding=True, return_tensors="pt"), "labels": torch.tensor([1, 0, 0, 2])}
