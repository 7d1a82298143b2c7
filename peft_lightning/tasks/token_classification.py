"""A tag for every word of a sentence."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import (
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TokenClassificationPipeline,
)

from peft_lightning.errors import UserError
from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.chunks import OUTSIDE, ChunkScore, Score, chunks, is_tag

SCORES: tuple[Score, ...] = ("precision", "recall", "f1")
PADDING = -100


class TokenClassification(Task):
    """Cross entropy over C tags at the first token of each word; precision, recall and F1 of entities.

    A batch has, beside what the model gets, `words [batch, words]`: the position of the first token of each word, -1
    for words without one, because the sentence was cut or the tokenizer leaves them out, and -100 for padding; and
    where they are known `tags [batch, words]`, with the same padding. Words without a token are no part of the loss,
    and count as predicted O, so that the scores are those of all words.

    Args:
        labels: The tags, in the order of their numbers: O, and B-TYPE and I-TYPE for each type.
        max_length: Number of tokens after which inputs are cut.
        monitor: Metric that chooses the best checkpoint: f1, precision, recall or loss.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: The tags are not of this kind, or there is no such metric.
    """

    auto_model = AutoModelForTokenClassification

    def __init__(
        self,
        labels: Sequence[str],
        max_length: int,
        monitor: str = "f1",
        mode: str = "max",
        also: Sequence[str] = (),
    ):
        super().__init__(max_length, monitor, mode, also)
        if len(labels) < 2 or len(set(labels)) < len(labels) or OUTSIDE not in labels or not all(map(is_tag, labels)):
            raise UserError(f"labels are {list(labels)}; give O and tags of the form B-TYPE and I-TYPE, each once.")
        self.labels = list(labels)

    @property
    def label_names(self) -> Sequence[str]:
        """The tags, in the order of their numbers."""
        return self.labels

    def model_options(self) -> dict[str, Any]:
        """The number of tags and their names."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """All but the words and their tags."""
        return {name: tensor for name, tensor in batch.items() if name not in ("words", "tags")}

    def weight(self, batch: Batch) -> int:
        """The number of words that the loss is the mean of."""
        return int((batch["words"] >= 0).sum())

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross entropy of `output.logits [batch, length, tags]` at the first tokens of words, in float32."""
        kept = batch["words"] >= 0
        logits, tags = self._of_words(output, batch)[kept].float(), batch["tags"][kept]
        # Of a batch without a single word the mean is 0, not undefined.
        return F.cross_entropy(logits, tags, reduction="sum") / kept.sum().clamp(min=1)

    def metrics(self) -> MetricCollection:
        """Precision, recall and F1 of entities."""
        # Lightning computes and resets each metric by itself.
        return MetricCollection({score: ChunkScore(score) for score in SCORES}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Counts entities: right ones, predicted ones, true ones."""
        right = predicted = true = 0
        for found, tags in zip(self._predicted(output, batch), batch["tags"].tolist(), strict=True):
            ours, theirs = chunks(found), chunks([self.labels[tag] for tag in tags if tag != PADDING])
            right, predicted, true = right + len(ours & theirs), predicted + len(ours), true + len(theirs)
        metrics.update(right, predicted, true)

    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """`{"tags": [the tag of every word]}` a row."""
        return [{"tags": tags} for tags in self._predicted(output, batch)]

    def pipeline(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str
    ) -> TokenClassificationPipeline:
        """The pipeline `token-classification`: entities of a text, each word tagged by its first token."""
        tokenizer.model_max_length = self.max_length
        return TokenClassificationPipeline(
            model=model, tokenizer=tokenizer, device=device, aggregation_strategy="first"
        )

    def _of_words(self, output: Any, batch: Batch) -> Tensor:
        """The logits at the first token of each word, `[batch, words, tags]`."""
        positions = batch["words"].clamp(min=0)[..., None].expand(-1, -1, output.logits.shape[-1])
        return output.logits.gather(1, positions)

    def _predicted(self, output: Any, batch: Batch) -> list[list[str]]:
        outside = torch.full_like(batch["words"], self.labels.index(OUTSIDE))
        best = torch.where(batch["words"] >= 0, self._of_words(output, batch).argmax(-1), outside)
        rows = zip(best.tolist(), batch["words"].tolist(), strict=True)
        return [
            [self.labels[t] for t, word in zip(tags, words, strict=True) if word != PADDING] for tags, words in rows
        ]
