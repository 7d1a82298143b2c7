"""The tasks of GLUE: where each lies, which columns it has, and what its labels are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENTAILMENT = ("entailment", "not_entailment")


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Args:
        folder: Its directory in GLUE's download.
        texts: Columns of the text, or of both, in GLUE's files.
        hub_texts: The same in the Hub's copy.
        label: Column of the label in GLUE's files; `label` on the Hub.
        labels: The labels in the order of their numbers; None for scores from 0 to 5.
        monitor: The metric that the benchmark reports first, and that chooses the best checkpoint.
        by_name: Whether submissions name the labels; else they number them.
        columns: Columns of the training and development file, where these have no header.
        may_be_empty: Whether there are rows with an empty text, on which GLUE's scripts train all the same.
    """

    folder: str
    texts: Sequence[str]
    hub_texts: Sequence[str]
    label: str
    labels: Sequence[str] | None
    monitor: str = "accuracy"
    by_name: bool = False
    columns: Sequence[str] | None = None
    may_be_empty: bool = False


_SENTENCES = ("sentence1", "sentence2")

GLUE_TASKS: Mapping[str, GlueTask] = {
    "cola": GlueTask(
        folder="CoLA",
        texts=("sentence",),
        hub_texts=("sentence",),
        label="label",
        labels=("unacceptable", "acceptable"),
        monitor="matthews",
        columns=("source", "label", "mark", "sentence"),
    ),
    "sst2": GlueTask("SST-2", ("sentence",), ("sentence",), "label", ("negative", "positive")),
    "mrpc": GlueTask(
        folder="MRPC",
        texts=("#1 String", "#2 String"),
        hub_texts=_SENTENCES,
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        monitor="f1",
    ),
    "stsb": GlueTask("STS-B", _SENTENCES, _SENTENCES, "score", None, monitor="spearman"),
    "qqp": GlueTask(
        folder="QQP",
        texts=("question1", "question2"),
        hub_texts=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        monitor="f1",
        # Two training rows on the Hub, idx 310137 and 362246 (huggingface/datasets, issue 277).
        may_be_empty=True,
    ),
    "mnli": GlueTask(
        folder="MNLI",
        texts=_SENTENCES,
        hub_texts=("premise", "hypothesis"),
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        by_name=True,
    ),
    "qnli": GlueTask("QNLI", ("question", "sentence"), ("question", "sentence"), "label", ENTAILMENT, by_name=True),
    "rte": GlueTask("RTE", _SENTENCES, _SENTENCES, "label", ENTAILMENT, by_name=True),
    "wnli": GlueTask("WNLI", _SENTENCES, _SENTENCES, "label", tuple(reversed(ENTAILMENT))),
}
