"""How well a model does on one evaluated set."""

from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric, Metric

from peft_lightning.tasks import Batch, Task


class Scores(nn.Module):
    """The task's metrics and the mean loss over the examples of one set.

    Args:
        task: Whose metrics.
        name: What stands before the names of the metrics: nothing for the main set of a benchmark.
    """

    def __init__(self, task: Task, name: str):
        super().__init__()
        self.task = task
        self.name = name
        self.metrics, self.loss = task.metrics(), MeanMetric()

    def start(self) -> None:
        """Counts anew."""
        # Lightning resets metrics after `trainer.validate` in inference mode, whose tensors `fit` cannot change.
        self.metrics.reset()
        # A model in bfloat16 casts the sums of its metrics, and a sum in bfloat16 stops growing.
        self.loss.set_dtype(torch.float32)
        self.loss.reset()

    def count(self, output: Any, batch: Batch) -> None:
        """Adds one batch."""
        self.task.update(self.metrics, output, batch)
        self.loss.update(self.task.loss(output, batch), weight=self.task.weight(batch))

    @property
    def named(self) -> dict[str, Metric]:
        """The metrics by name."""
        before = f"{self.name}_" if self.name else ""
        return {f"{before}{name}": metric for name, metric in {"loss": self.loss, **dict(self.metrics.items())}.items()}
