"""Choosing one of several texts."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoModelForMultipleChoice, Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from peft_lightning.errors import UserError
from peft_lightning.tasks.base import Batch, Task


class MultipleChoice(Task):
    """Cross entropy over C choices, each of which the head gives one score; accuracy.

    Inputs are `[batch, choices, length]`; transformers joins the first two before the model, so that methods see each
    choice as a text of its own.

    Args:
        choices: Number C of choices of every example.
        max_length: Number of tokens after which a choice with its context is cut.
        monitor: Metric that chooses the best checkpoint: accuracy or loss.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: There are fewer than two choices, or no such metric.
    """

    auto_model = AutoModelForMultipleChoice

    def __init__(
        self,
        choices: int,
        max_length: int,
        monitor: str = "accuracy",
        mode: str = "max",
        also: Sequence[str] = (),
    ):
        super().__init__(max_length, monitor, mode, also)
        if choices < 2:
            raise UserError(f"choices is {choices}; give at least 2.")
        self.choices = choices

    def model_options(self) -> dict[str, Any]:
        """None: the head has one output, whatever the number of choices."""
        return {}

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross entropy of `output.logits [batch, choices]`, in float32."""
        return F.cross_entropy(output.logits.float(), batch["labels"])

    def metrics(self) -> MetricCollection:
        """Accuracy."""
        # Lightning computes and resets each metric by itself.
        return MetricCollection({"accuracy": MulticlassAccuracy(self.choices, average="micro")}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Counts the most probable choice against the true one."""
        metrics.update(output.logits.argmax(-1), batch["labels"])

    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """`{"label": number of the choice from 0, "scores": [probability, ...]}` a row."""
        probabilities = torch.softmax(output.logits.float(), -1).tolist()
        return [{"label": max(range(self.choices), key=row.__getitem__), "scores": row} for row in probabilities]

    def pipeline(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> Pipeline:
        """There is none.

        Raises:
            UserError: Always: transformers has no pipeline of this kind.
        """
        raise UserError("transformers has no pipeline for multiple choice; use the verb predict on the benchmark.")
