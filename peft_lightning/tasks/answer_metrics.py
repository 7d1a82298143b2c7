"""Scores of answers over a whole set, as SQuAD's evaluators report them: in percent."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


@dataclass(frozen=True)
class Judged:
    """What is known of one question once it is answered.

    Args:
        row: Its number, by which the questions of all devices come into the order of the file.
        has_answer: Whether there is a gold answer.
        exact_match: 1 or 0, of the answer.
        f1: Of the answer.
        best_exact_match: 1 or 0, of the best answer that is a span, whether it was given or not.
        best_f1: Of that answer.
        no_answer: Score of "no answer" minus that of the best span.
        empty: Whether the best span has no text.
    """

    row: float
    has_answer: float
    exact_match: float
    f1: float
    best_exact_match: float
    best_f1: float
    no_answer: float
    empty: float


class PerQuestion(Metric):
    """A number that is computed from all questions in the order of the file.

    What is kept is small, and gathered rather than summed: so the result has the evaluator's own last digit, whatever
    the order of the batches and the number of devices.

    Args:
        number: From the columns of `Judged` to the number.
    """

    full_state_update = False
    judged: list[Tensor]

    def __init__(self, number: Callable[[dict[str, np.ndarray]], float], **kwargs: Any):
        super().__init__(**kwargs)
        self.number = number
        self.add_state("judged", default=[], dist_reduce_fx="cat")

    def update(self, judged: Sequence[Judged]) -> None:
        """Adds some questions."""
        table = torch.tensor([astuple(one) for one in judged], dtype=torch.float64)
        # As integers the bits pass devices without float64, and a model that is cast to bfloat16.
        self.judged.append(table.view(torch.int64).to(self.device))

    def compute(self) -> Tensor:
        """The number, a float64 scalar on the CPU; NaN if there is no question that it is about."""
        table = dim_zero_cat(self.judged).cpu().view(torch.float64).numpy()
        table = table[np.argsort(table[:, 0], kind="stable")]
        names = [field.name for field in fields(Judged)]
        return torch.tensor(self.number(dict(zip(names, table.T, strict=True))), dtype=torch.float64)


def mean_of(name: str, has_answer: bool | None = None) -> Callable[[dict[str, np.ndarray]], float]:
    """The mean of a column in percent.

    Args:
        name: The column.
        has_answer: Counts only questions that have an answer, or only those that have none.
    """

    def number(table: dict[str, np.ndarray]) -> float:
        counted = [
            value
            for value, has in zip(table[name].tolist(), table["has_answer"], strict=True)
            if has_answer is None or bool(has) == has_answer
        ]
        return 100.0 * sum(counted) / len(counted) if counted else float("nan")

    return number


def best_of(name: str, threshold: bool = False) -> Callable[[dict[str, np.ndarray]], float]:
    """The best mean, in percent, that any threshold of `no_answer` gives, as `find_best_thresh` of evaluate-v2.0.py.

    Args:
        name: The column of the scores of the best spans.
        threshold: Whether to give the threshold rather than the mean: spans with `no_answer` up to it are given. It is
            0 where no span at all should be given.
    """

    def number(table: dict[str, np.ndarray]) -> float:
        has_answer, scores = table["has_answer"], table[name]
        score = best = float((has_answer == 0).sum())
        best_threshold = 0.0
        for at in np.argsort(table["no_answer"], kind="stable"):
            score += scores[at] if has_answer[at] else (0.0 if table["empty"][at] else -1.0)
            if score > best:
                best, best_threshold = score, table["no_answer"][at]
        return float(best_threshold) if threshold else 100.0 * best / len(scores)

    return number
