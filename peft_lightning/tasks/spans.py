"""From the logits of windows to the best spans of the context of each question."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A piece of a context that may be the answer.

    Args:
        start: Its first character in the context; -1 for "no answer".
        end: The character behind its last one; -1 for "no answer".
        start_logit: Of its first token.
        end_logit: Of its last token.
    """

    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """The sum of the logits."""
        return self.start_logit + self.end_logit


def best_spans(
    start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor, count: int, longest: int
) -> list[list[Span]]:
    """The spans with the highest sums of start and end logit in each window, from high to low.

    All spans are compared. SQuAD's scripts compare those of the `count` best start and end tokens, special and padding
    tokens among them.

    Args:
        start_logits: `[windows, length]`.
        end_logits: `[windows, length]`.
        starts: First character of each token in the context, -1 outside the context `[windows, length]`.
        ends: The character behind its last one.
        count: The most spans of a window.
        longest: The most tokens of a span.
    """
    outside = starts < 0
    first = start_logits.float().masked_fill(outside, -math.inf)
    last = F.pad(end_logits.float().masked_fill(outside, -math.inf), (0, longest - 1), value=-math.inf)
    # [windows, length, longest]: a span by its first token and the number of tokens that follow it
    scores = (first[:, :, None] + last.unfold(1, longest, 1)).flatten(1)
    best, places = scores.topk(min(count, scores.shape[1]), dim=1)
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    begin = places // longest
    # Where fewer spans exist, the rest has no score, and may lie behind the window.
    finish = (begin + places % longest).clamp(max=starts.shape[1] - 1)
    columns = (best, starts[rows, begin], ends[rows, finish], first[rows, begin], last[rows, finish])
    return [
        [Span(*span) for score, *span in zip(*window, strict=True) if score > -math.inf]
        for window in zip(*(column.tolist() for column in columns), strict=True)
    ]


def merged(windows: Sequence[Sequence[Span]], count: int) -> list[Span]:
    """The best spans of a context from those of its windows, from high to low.

    A span that several windows show counts with its best score in any of them, as in transformers' `run_qa`; BERT's own
    script takes the window in which it has the most context (`token_is_max_context`).
    """
    best: dict[tuple[int, int], Span] = {}
    for span in (span for window in windows for span in window):
        known = best.get((span.start, span.end))
        if known is None or span.score > known.score:
            best[span.start, span.end] = span
    return sorted(best.values(), key=lambda span: -span.score)[:count]


def with_probabilities(spans: Sequence[Span], context: str) -> list[dict[str, Any]]:
    """The spans as SQuAD's n-best files show them: `text`, `probability` among these spans, the logits, and `start`."""
    highest = max((span.score for span in spans), default=0.0)
    weights = [math.exp(span.score - highest) for span in spans]
    return [
        {
            "text": context[span.start : span.end].strip() if span.start >= 0 else "",
            "probability": weight / sum(weights),
            "start_logit": span.start_logit,
            "end_logit": span.end_logit,
            "start": span.start,
        }
        for span, weight in zip(spans, weights, strict=True)
    ]
