"""The tables that GLUE's server takes, one a task or set of it (gluebenchmark.com/faq)."""

from collections.abc import Iterable, Mapping
from typing import Any

from peft_lightning.data.glue_tasks import GLUE_TASKS, GlueTask

# Task -> name of a set of predictions -> file in the submission.
SUBMISSION_FILES: Mapping[str, Mapping[str, str]] = {
    **{task: {"": f"{facts.folder}.tsv"} for task, facts in GLUE_TASKS.items()},
    "mnli": {"": "MNLI-m.tsv", "mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"},
}


def submission_table(predictions: Iterable[Mapping[str, Any]], facts: GlueTask) -> str:
    """`index` and `prediction`, a line a row.

    Labels are named or numbered as the server wants them for each task; scores of STS-B are cut to 0 to 5.

    Args:
        predictions: Lines of `predictions.jsonl`; `index`, the publisher's number, is there unless their file has none.
        facts: The task.
    """
    lines = [f"{row.get('index', row['row'] - 1)}\t{_value(row, facts)}" for row in predictions]
    return "\n".join(["index\tprediction", *lines]) + "\n"


def _value(row: Mapping[str, Any], facts: GlueTask) -> str:
    if facts.labels is None:
        return f"{min(max(row['score'], 0.0), 5.0):.3f}"
    return str(row["label"]) if facts.by_name else str(list(facts.labels).index(row["label"]))
