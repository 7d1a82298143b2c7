"""Regression: a number for a text or a pair of texts."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
)

from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.metrics import Pearson, Spearman


class Regression(Task):
    """Squared error of one output; the correlations of Pearson and Spearman.

    Args:
        max_length: Number of tokens after which inputs are cut.
        monitor: Metric that chooses the best checkpoint: pearson, spearman or loss.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: There is no such metric or mode.
    """

    auto_model = AutoModelForSequenceClassification

    def __init__(self, max_length: int, monitor: str = "spearman", mode: str = "max", also: Sequence[str] = ()):
        super().__init__(max_length, monitor, mode, also)

    def model_options(self) -> dict[str, Any]:
        """One output."""
        return {"num_labels": 1, "problem_type": "regression"}

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean squared error of `output.logits [batch, 1]`, in float32."""
        return F.mse_loss(_scores(output), batch["labels"].float())

    def metrics(self) -> MetricCollection:
        """Pearson and Spearman."""
        return MetricCollection({"pearson": Pearson(), "spearman": Spearman()}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Adds the scores of a batch."""
        metrics.update(_scores(output), batch["labels"].float())

    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """`{"score": ...}` a row."""
        return [{"score": score} for score in _scores(output).tolist()]

    def pipeline(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str
    ) -> TextClassificationPipeline:
        """The pipeline `text-classification`, whose scores are the outputs themselves."""
        return TextClassificationPipeline(
            model=model,
            tokenizer=tokenizer,
            device=device,
            truncation=True,
            max_length=self.max_length,
            function_to_apply="none",
        )

    def read(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """`{"score": ...}`."""
        return {"score": entries[0]["score"]}


def _scores(output: Any) -> Tensor:
    return output.logits.float().squeeze(-1)
