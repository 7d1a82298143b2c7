"""Extractive question answering: the answer is a span of the context, or in SQuAD 2.0 perhaps there is none."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from peft_lightning.errors import UserError
from peft_lightning.tasks.answer_metrics import Judged, PerQuestion, best_of, mean_of
from peft_lightning.tasks.answers import exact_match, f1
from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.spans import Span, best_spans, merged, with_probabilities

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class QuestionAnswering(Task):
    """Two logits a token, for the first and the last one of the answer; exact match and F1 in percent.

    A training batch has windows: pieces of a context behind its question. A batch of evaluation has whole questions,
    each with all windows of its context: `window_counts [questions]` says how many of the windows belong to each, and
    `starts` and `ends` `[windows, length]` where each token stands in the context. Position 0 stands for "no answer
    here". Logits of padding count nowhere.

    Metrics: `exact_match`, `f1`; with `no_answer` also those of questions that have an answer (`has_answer_f1`) and of
    the others (`no_answer_f1`), and `best_exact_match`, `best_f1` with the best of all thresholds and this threshold
    (`best_f1_threshold`): what evaluate-v2.0.py gives for the best spans and their null odds.

    Args:
        max_length: Number of tokens of a window.
        no_answer: Whether there are questions without answer, as in SQuAD 2.0, whose evaluator then counts.
        windows_at_once: The most windows that evaluation computes at once.
        n_best_size: The number of spans that are compared and shown.
        max_answer_length: The most tokens of an answer.
        null_score_diff_threshold: With `no_answer` the best span is given unless the score of "no answer" is higher by
            more than this.
        monitor: Metric that chooses the best checkpoint.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: There is no such metric to monitor.
    """

    auto_model = AutoModelForQuestionAnswering

    def __init__(
        self,
        max_length: int,
        no_answer: bool = False,
        windows_at_once: int = 32,
        n_best_size: int = 20,
        max_answer_length: int = 30,
        null_score_diff_threshold: float = 0.0,
        monitor: str = "f1",
        mode: str = "max",
        also: Sequence[str] = (),
    ):
        super().__init__(max_length, monitor, mode, also)
        self.no_answer = no_answer
        self.windows_at_once = windows_at_once
        self.n_best_size = n_best_size
        self.max_answer_length = max_answer_length
        self.null_score_diff_threshold = null_score_diff_threshold

    def model_options(self) -> dict[str, Any]:
        """Two logits a token."""
        return {"num_labels": 2}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Tokens, mask and segments."""
        return {name: batch[name] for name in INPUTS if name in batch}

    def size(self, batch: Batch) -> int:
        """The number of windows in training, of questions in evaluation."""
        return len(batch.get("window_counts", batch["input_ids"]))

    def parts(self, batch: Batch) -> list[Batch]:
        """So many windows at once, as a question may have many."""
        inputs, size = self.inputs(batch), self.windows_at_once
        return [
            {name: tensor[at : at + size] for name, tensor in inputs.items()}
            for at in range(0, len(batch["input_ids"]), size)
        ]

    def answer(self, method: Callable[[Batch], Any], batch: Batch) -> QuestionAnsweringModelOutput:
        """The logits of all windows, of which no more are computed at once than fit into memory."""
        parts = [method(part) for part in self.parts(batch)]
        start_logits, end_logits = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("start_logits", "end_logits")
        )
        return QuestionAnsweringModelOutput(start_logits=start_logits, end_logits=end_logits)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Half the cross entropy of the first plus that of the last token, in float32.

        The mean over the windows in training; in evaluation over the questions, each of which is the mean of its own.
        """
        each = sum(
            F.cross_entropy(_real(logits, batch), batch[positions], reduction="none") / 2
            for logits, positions in ((output.start_logits, "start_positions"), (output.end_logits, "end_positions"))
        )
        assert isinstance(each, Tensor)
        if "window_counts" in batch:
            each = torch.stack([part.mean() for part in each.split(batch["window_counts"].tolist())])
        return each.mean()

    def metrics(self) -> MetricCollection:
        """Exact match and F1, and with `no_answer` what the evaluator of version 2.0 reports beside them."""
        kinds = ("exact_match", "f1")
        metrics: dict[str, Any] = {kind: PerQuestion(mean_of(kind)) for kind in kinds}
        if self.no_answer:
            for kind in kinds:
                metrics[f"has_answer_{kind}"] = PerQuestion(mean_of(kind, has_answer=True))
                metrics[f"no_answer_{kind}"] = PerQuestion(mean_of(kind, has_answer=False))
                metrics[f"best_{kind}"] = PerQuestion(best_of(f"best_{kind}"))
                metrics[f"best_{kind}_threshold"] = PerQuestion(best_of(f"best_{kind}", threshold=True))
        # Lightning computes and resets each metric by itself.
        return MetricCollection(metrics, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Any, batch: Batch) -> None:
        """Counts the answer of each question against its gold answers."""
        judged = []
        for row, gold, found in zip(batch["row"].tolist(), batch["answers"], self._found(output, batch), strict=True):
            judged.append(
                Judged(
                    row=row,
                    has_answer=bool(gold),
                    exact_match=exact_match(found["answer"], gold, self.no_answer),
                    f1=f1(found["answer"], gold, self.no_answer),
                    best_exact_match=exact_match(found["best"], gold, self.no_answer),
                    best_f1=f1(found["best"], gold, self.no_answer),
                    no_answer=found["null_odds"],
                    empty=not found["best"],
                )
            )
        metrics.update(judged)

    def decode(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        """`id`, `answer`, `score` (its probability among the n best) and `nbest` of each question.

        With `no_answer` also `best`, the best span, which is not the answer if that is empty, and `null_odds`, the
        score of "no answer" minus that of the best span.
        """
        hidden = set() if self.no_answer else {"best", "null_odds"}
        return [
            {"id": name} | {key: value for key, value in found.items() if key not in hidden}
            for name, found in zip(batch["id"], self._found(output, batch), strict=True)
        ]

    def pipeline(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> NoReturn:
        """Refuses: transformers 5 has no pipeline for this task."""
        raise UserError(
            "transformers has no pipeline for question answering any more; "
            "put the questions into a file like SQuAD's own and give predict --data.source."
        )

    def _found(self, output: Any, batch: Batch) -> list[dict[str, Any]]:
        counts = batch["window_counts"].tolist()
        spans = best_spans(
            output.start_logits,
            output.end_logits,
            batch["starts"],
            batch["ends"],
            self.n_best_size,
            self.max_answer_length,
        )
        nothing = torch.stack([output.start_logits[:, 0], output.end_logits[:, 0]], 1).float().tolist()
        found, at = [], 0
        for count, context in zip(counts, batch["context"], strict=True):
            windows = slice(at, at + count)
            null = min((Span(-1, -1, *logits) for logits in nothing[windows]), key=lambda span: span.score)
            found.append(self._answered(merged(spans[windows], self.n_best_size), null, context))
            at += count
        return found

    def _answered(self, spans: list[Span], null: Span, context: str) -> dict[str, Any]:
        # A context whose characters all are none to the tokenizer has no spans.
        best = spans[0] if spans else Span(-1, -1, 0.0, 0.0)
        null_odds = null.score - best.score
        given = best
        if self.no_answer:
            spans = sorted([*spans, null], key=lambda span: -span.score)
            given = null if null_odds > self.null_score_diff_threshold else best
        nbest = with_probabilities(spans or [best], context)
        texts = {(span.start, span.end): entry for span, entry in zip(spans or [best], nbest, strict=True)}
        answer = texts[given.start, given.end]
        return {
            "answer": answer["text"],
            "score": answer["probability"],
            "best": texts[best.start, best.end]["text"],
            "null_odds": null_odds,
            "nbest": nbest,
        }


def _real(logits: Tensor, batch: Batch) -> Tensor:
    """The logits without those of padding, so that no loss depends on what else is in a batch."""
    return logits.float().masked_fill(batch["attention_mask"] == 0, float("-inf"))
