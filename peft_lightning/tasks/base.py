"""What every task answers: which model, which loss, which metrics, how to read the output."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torchmetrics import MetricCollection
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from peft_lightning.errors import UserError

Batch = dict[str, Tensor]


class Task(ABC):
    """What a benchmark asks of a model.

    A DataModule describes its task as a plain dict, `build_task` makes the task of it, and the dict travels with every
    checkpoint.

    Args:
        max_length: Number of tokens after which inputs are cut.
        monitor: Name of the metric that chooses the best checkpoint, for example `accuracy`.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that the benchmark evaluates beside its main one.

    Attributes:
        auto_model: The transformers class whose `from_pretrained` builds the model.
        pretrained_head: Whether the backbone was pretrained with the head, which then stays frozen like the rest.
    """

    auto_model: ClassVar[Any]
    pretrained_head: ClassVar[bool] = False

    def __init__(self, max_length: int, monitor: str, mode: str, also: Sequence[str] = ()):
        self.max_length = max_length
        self.monitor = monitor
        self.mode = mode
        self.also = list(also)

    def check_monitor(self) -> None:
        """Checks that what chooses the best checkpoint is a metric of the task.

        Raises:
            UserError: It is not.
        """
        known = ["loss", *self.metrics()]
        if self.monitor not in known or self.mode not in ("max", "min"):
            raise UserError(
                f"monitor is '{self.monitor}' and mode '{self.mode}'; give one of {', '.join(known)}, and max or min."
            )

    @property
    def label_names(self) -> Sequence[str]:
        """The names of the labels, if the task has any."""
        return []

    @property
    def recipes(self) -> dict[str, str]:
        """How metrics are computed that are computed differently elsewhere: name -> recipe or signature."""
        return {}

    @property
    def longest(self) -> dict[str, int]:
        """The most tokens that the backbone reads at once, by the option of the data that says so."""
        return {"max_length": self.max_length}

    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`, for example the number of labels."""

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What of a batch the model is given."""
        return {name: tensor for name, tensor in batch.items() if name != "labels"}

    def size(self, batch: Batch) -> int:
        """The number of examples in a batch."""
        return len(batch["input_ids"])

    def weight(self, batch: Batch) -> int:
        """What the loss of a batch counts in the mean loss over an evaluated set: by default its examples."""
        return self.size(batch)

    def parts(self, batch: Batch) -> list[Batch]:
        """The batch in parts, each of which fits into memory."""
        return [batch]

    def answer(self, method: Any, batch: Batch) -> Any:
        """What evaluation counts and predictions are read from: the output of the method.

        Args:
            method: The method; `method(batch)` is the output of its model, `method.backbone` the backbone.
            batch: The batch.
        """
        return method(batch)

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """The training loss, a scalar: the mean over the examples of the batch."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics; a method keeps one set a stage."""

    @abstractmethod
    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Adds one batch to the metrics."""

    @abstractmethod
    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """One plain dict a row of the batch: what the model predicts."""

    @abstractmethod
    def pipeline(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> Pipeline:
        """A transformers pipeline that cuts inputs where training cut them."""

    def read(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """One plain dict of what the pipeline gives for one text, all its entries included.

        Raises:
            UserError: Single texts are not what this task is asked about.
        """
        raise UserError(
            f"A file of texts is no input of the task {type(self).__name__}; give the benchmark's own format: "
            "predict RUN --data.source DIRECTORY."
        )
