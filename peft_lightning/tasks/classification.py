"""Classification of a text or a pair of texts into one of C classes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
)
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
)

from peft_lightning.errors import UserError
from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.metrics import Matthews


class Classification(Task):
    """Cross entropy over C labels; accuracy, F1 and the Matthews correlation coefficient.

    F1 is that of the second label if there are two (as GLUE counts it), else the unweighted mean over the labels.

    Args:
        labels: The names of the labels, in the order of their numbers.
        max_length: Number of tokens after which inputs are cut.
        monitor: Metric that chooses the best checkpoint: accuracy, f1 or matthews.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: There are fewer than two labels, or two of one name.
    """

    auto_model = AutoModelForSequenceClassification

    def __init__(
        self,
        labels: Sequence[str],
        max_length: int,
        monitor: str = "accuracy",
        mode: str = "max",
        also: Sequence[str] = (),
    ):
        super().__init__(max_length, monitor, mode, also)
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise UserError(f"labels are {list(labels)}; give at least two, each once.")
        self.labels = list(labels)

    @property
    def label_names(self) -> Sequence[str]:
        """The names, in the order of their numbers."""
        return self.labels

    def model_options(self) -> dict[str, Any]:
        """The number of labels and their names."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "problem_type": "single_label_classification",
        }

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross entropy of `output.logits [batch, labels]`, in float32."""
        return F.cross_entropy(output.logits.float(), batch["labels"])

    def metrics(self) -> MetricCollection:
        """Accuracy, F1 and Matthews."""
        count = len(self.labels)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(count, average="micro"),
                "f1": BinaryF1Score() if count == 2 else MulticlassF1Score(count, average="macro"),
                "matthews": Matthews(count),
            },
            # Lightning computes and resets each metric by itself.
            compute_groups=False,
        )

    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Counts the most probable label against the true one."""
        metrics.update(output.logits.argmax(-1), batch["labels"])

    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """`{"label": ..., "scores": {label: probability, ...}}` a row."""
        probabilities = torch.softmax(output.logits.float(), -1).tolist()
        rows = [dict(zip(self.labels, row, strict=True)) for row in probabilities]
        return [{"label": max(scores, key=scores.__getitem__), "scores": scores} for scores in rows]

    def pipeline(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str
    ) -> TextClassificationPipeline:
        """The pipeline `text-classification`."""
        return TextClassificationPipeline(
            model=model, tokenizer=tokenizer, device=device, truncation=True, max_length=self.max_length
        )

    def read(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """`{"label": ..., "scores": {label: probability, ...}}`."""
        found = {entry["label"]: entry["score"] for entry in entries}
        scores = {label: found[label] for label in self.labels}
        return {"label": max(scores, key=scores.__getitem__), "scores": scores}
