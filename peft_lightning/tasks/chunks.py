"""Entities in sequences of tags, and how many of them are found, counted as conlleval and seqeval count them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

OUTSIDE = "O"
Score = Literal["precision", "recall", "f1"]
# Type, first word, last word.
Chunk = tuple[str, int, int]


def is_tag(tag: str) -> bool:
    """Whether it is O, or B- or I- with a type."""
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def starts_chunk(before: str, tag: str) -> bool:
    """Whether a chunk begins at `tag`: a B-, or an I- that goes on with no chunk of its type."""
    return tag != OUTSIDE and (tag[0] == "B" or before[1:] != tag[1:])


def as_bio(tags: Sequence[str]) -> list[str]:
    """The same chunks, each beginning with B-; CoNLL-2003 has B- only where two chunks of a type touch (IOB1)."""
    pairs = zip([OUTSIDE, *tags], tags, strict=False)
    return ["B" + tag[1:] if starts_chunk(before, tag) else tag for before, tag in pairs]


def chunks(tags: Sequence[str]) -> set[Chunk]:
    """The chunks of one sentence, in BIO or IOB1; as in conlleval an I- that goes on with none begins one."""
    found: list[Chunk] = []
    for position, (before, tag) in enumerate(zip([OUTSIDE, *tags], tags, strict=False)):
        if starts_chunk(before, tag):
            found.append((tag[2:], position, position))
        elif tag != OUTSIDE:
            kind, first, _ = found[-1]
            found[-1] = (kind, first, position)
    return set(found)


class ChunkScore(Metric):
    """Precision, recall or F1 of chunks over all sentences; a chunk is right if its type and both ends are.

    `P = right / predicted`, `R = right / true`, `F1 = 2 P R / (P + R) = 2 right / (predicted + true)`; 0 where that is
    undefined. What is kept are the three counts, so that several devices together give what one gives.

    Args:
        score: Which of the three.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    right: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, score: Score):
        super().__init__()
        self.score = score
        for count in ("right", "predicted", "true"):
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, right: int, predicted: int, true: int) -> None:
        """Adds counts of chunks."""
        self.right += right
        self.predicted += predicted
        self.true += true

    def compute(self) -> Tensor:
        """The score, a scalar."""
        right, predicted, true = self.right.double(), self.predicted, self.true
        numerator, denominator = {
            "precision": (right, predicted),
            "recall": (right, true),
            "f1": (2 * right, predicted + true),
        }[self.score]
        return torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0).float()
